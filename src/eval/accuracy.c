/* accuracy.c - see accuracy.h. */
#include "eval/accuracy.h"

enum { TOP = 5, KINDS = 3 };

/* Tested, right, among the five: per class, and one more for labels beyond. */
int64_t accuracy_cells(int64_t classes)
{
    return KINDS * (classes + 1);
}

/* Classes that come before `label` when sorted by score, then by number. */
static int64_t place_of(const float *scores, int64_t classes, int64_t label)
{
    int64_t before = 0;
    for (int64_t c = 0; c < classes; c++)
        before += scores[c] > scores[label] || (scores[c] == scores[label] && c < label);
    return before;
}

void accuracy_add(int64_t *counts, const float *scores, const int64_t *labels, int64_t n, int64_t classes,
                  float floor)
{
    int64_t cells = classes + 1;
    for (int64_t q = 0; q < n; q++) {
        bool known = labels[q] >= 0 && labels[q] < classes;
        int64_t cell = known ? labels[q] : classes;
        counts[cell]++;
        if (!known || !(scores[q * classes + cell] > floor)) continue;
        int64_t place = place_of(scores + q * classes, classes, cell);
        counts[cells + cell] += place == 0;
        counts[2 * cells + cell] += place < TOP;
    }
}

void accuracy_reduce(Accuracy *out, Comm *comm, int64_t *counts, int64_t classes)
{
    int64_t cells = classes + 1;
    comm_all_reduce(comm, counts, accuracy_cells(classes), DTYPE_I64, COMM_SUM, NULL);
    *out = (Accuracy){0};
    int64_t right = 0, among = 0, present = 0;
    for (int64_t c = 0; c < cells; c++) {
        out->queries += counts[c];
        right += counts[cells + c];
        among += counts[2 * cells + c];
        if (counts[c] == 0) continue;
        present++;
        out->top1_per_class += (double)counts[cells + c] / (double)counts[c];
    }
    if (out->queries == 0) return;
    out->top1 = (double)right / (double)out->queries;
    out->top5 = (double)among / (double)out->queries;
    out->top1_per_class /= (double)present;
}

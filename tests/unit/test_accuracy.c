/* test_accuracy.c - counts by hand: ties, five highest, unknown labels, scores that are no numbers. */
#include "eval/accuracy.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { CLASSES = 7 };

static Accuracy measure(const float scores[][CLASSES], const int64_t *labels, int64_t n, float floor)
{
    int64_t counts[64] = {0};
    cr_assert(accuracy_cells(CLASSES) <= 64);
    /* in two batches */
    accuracy_add(counts, scores[0], labels, 1, CLASSES, floor);
    accuracy_add(counts, scores[1], labels + 1, n - 1, CLASSES, floor);
    Comm *comm = comm_self_create();
    Accuracy accuracy;
    accuracy_reduce(&accuracy, comm, counts, CLASSES);
    comm_destroy(comm);
    return accuracy;
}

Test(accuracy, counts_by_hand)
{
    static const float scores[][CLASSES] = {
        {-1, -2, -3, -4, -5, -6, -7}, /* label 0: first */
        {-1, -2, -3, -4, -5, -6, -7}, /* label 4: fifth */
        {-1, -2, -3, -4, -5, -6, -7}, /* label 5: sixth */
        {2, 2, 0, 0, 0, 0, 0},        /* label 1: a tie, the lower class is first */
        {2, 2, 0, 0, 0, 0, 0},        /* label 9: beyond */
        {2, 2, 0, 0, 0, 0, 0},        /* label 0: first */
    };
    static const int64_t labels[] = {0, 4, 5, 1, 9, 0};
    Accuracy accuracy = measure(scores, labels, 6, -INFINITY);
    cr_expect_eq(accuracy.queries, 6);
    cr_expect_float_eq(accuracy.top1, 2.0 / 6.0, 1e-12);
    cr_expect_float_eq(accuracy.top5, 4.0 / 6.0, 1e-12);
    cr_expect_float_eq(accuracy.top1_per_class, 1.0 / 5.0, 1e-12, "classes 0, 1, 4, 5 and beyond");
    accuracy = measure(scores, labels, 6, 0.0f);
    cr_expect_float_eq(accuracy.top1, 1.0 / 6.0, 1e-12, "of scores above 0 alone");
}

Test(accuracy, a_diverged_classifier_is_never_right)
{
    float scores[2][CLASSES];
    for (int i = 0; i < 2 * CLASSES; i++)
        scores[i / CLASSES][i % CLASSES] = NAN;
    static const int64_t labels[] = {0, 3};
    Accuracy accuracy = measure((const float(*)[CLASSES])scores, labels, 2, -INFINITY);
    cr_expect(accuracy.queries == 2 && accuracy.top1 == 0.0 && accuracy.top5 == 0.0);
}

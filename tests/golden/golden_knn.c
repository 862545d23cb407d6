/* golden_knn.c - the weighted k-NN vote: similarities, votes, classes and accuracies.
 *
 * The bank lies on one rank here; that ranks agree is tests/mpi's business. Neighbours whose similarities are
 * equal to rounding may stand in another order, so their labels are compared as sets of such neighbours.
 */
#include "../support/ops_support.h"
#include "golden.h"

#include "eval/knn.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_result(const char *path)
{
    return strcmp(path, "neighbor_labels") == 0 || strstr(path, "/top1") != NULL;
}

typedef struct {
    KnnRows rows;
    float *values; /* owned */
} Side;

static Side load(Golden *golden, const Ops *ops, const char *which)
{
    GoldenShape shape;
    const float *raw = golden_f32(golden, &shape, "%s_features", which);
    Side side = {.values = malloc((size_t)shape.count * sizeof(float))};
    memcpy(side.values, raw, (size_t)shape.count * sizeof(float));
    Error error = {0};
    cr_assert(knn_normalize(ops, side.values, shape.dim[0], shape.dim[1], &error) == STATUS_OK, "%s",
              error.text);
    golden_compare(golden, side.values, shape.count, "%s_normalized", which);
    side.rows = (KnnRows){.count = shape.dim[0],
                          .d = shape.dim[1],
                          .values = side.values,
                          .labels = golden_i64(golden, NULL, "%s_labels", which)};
    return side;
}

/* Labels of one query agree if each label occurs as often in every run of equal similarities; a run that the
 * end of the list cuts may lack some. */
static bool labels_agree(const KnnNeighbour *mine, const int64_t *stored, const float *sims, int64_t k,
                         double limit)
{
    for (int64_t start = 0, end; start < k; start = end) {
        for (end = start + 1; end < k && fabs((double)sims[end] - (double)sims[end - 1]) <= limit; end++)
            ;
        for (int64_t i = start; i < end && end < k; i++) {
            int64_t balance = 0;
            for (int64_t j = start; j < end; j++)
                balance += (mine[j].label == stored[i]) - (stored[j] == stored[i]);
            if (balance != 0) return false;
        }
    }
    return true;
}

static void compare_neighbours(Golden *golden, const KnnNeighbour *neighbours, int64_t n, int64_t k)
{
    const float *sims = golden_f32(golden, NULL, "%s", "sims");
    const int64_t *stored = golden_i64(golden, NULL, "%s", "neighbor_labels");
    double limit = golden_attr(golden, "tol_abs", "%s", "sims");
    float *mine = malloc((size_t)(n * k) * sizeof *mine);
    int64_t wrong = 0;
    for (int64_t q = 0; q < n; q++) {
        for (int64_t i = 0; i < k; i++)
            mine[q * k + i] = neighbours[q * k + i].similarity;
        wrong += !labels_agree(neighbours + q * k, stored + q * k, sims + q * k, k, limit);
    }
    golden_compare(golden, mine, n * k, "%s", "sims");
    golden_judge(golden, wrong ? INFINITY : 0.0, "%s", "neighbor_labels");
    free(mine);
}

static void compare_k(Golden *golden, Comm *comm, const KnnNeighbour *neighbours, const KnnRows *queries,
                      int64_t max_k, int k)
{
    int64_t n = queries->count, classes = (int64_t)golden_attr(golden, "num_classes", "%s", "");
    float *votes = malloc((size_t)(n * classes) * sizeof *votes);
    int64_t *top1 = malloc((size_t)n * sizeof *top1);
    knn_votes(votes, neighbours, n, max_k, k, classes, golden_attr(golden, "temperature", "%s", ""));
    for (int64_t q = 0; q < n; q++)
        top1[q] = knn_predict(votes + q * classes, classes);
    KnnScore score;
    knn_score(&score, comm, votes, queries->labels, n, classes);
    golden_compare(golden, votes, n * classes, "k%d/probas", k);
    golden_compare_i64(golden, top1, n, "k%d/top1", k);
    golden_compare_f64(golden, &score.top1, 1, "k%d/acc_top1", k);
    golden_compare_f64(golden, &score.top1_per_class, 1, "k%d/acc_top1_per_class_mean", k);
    if (golden_has(golden, "k%d/acc_top5", k)) golden_compare_f64(golden, &score.top5, 1, "k%d/acc_top5", k);
    free(top1);
    free(votes);
}

void golden_knn(Golden *golden)
{
    golden_require(golden, is_result);
    int64_t k_count;
    const double *k = golden_attr_array(golden, "k", &k_count, "%s", "");
    GoldenShape shape;
    golden_f32(golden, &shape, "%s", "train_features");
    OpsLimits limits = knn_limits(shape.dim[1]);
    Ops *ops = ops_support_open(&limits, 2);
    Comm *comm = comm_self_create();
    Side train = load(golden, ops, "train"), test = load(golden, ops, "test");

    int64_t max_k = 0;
    for (int64_t i = 0; i < k_count; i++)
        max_k = (int64_t)k[i] > max_k ? (int64_t)k[i] : max_k;
    KnnNeighbour *neighbours = malloc((size_t)(test.rows.count * max_k) * sizeof *neighbours);
    Error error = {0};
    cr_assert(knn_search(neighbours, ops, comm, &train.rows, &test.rows, max_k, &error) == STATUS_OK, "%s",
              error.text);
    compare_neighbours(golden, neighbours, test.rows.count, max_k);
    for (int64_t i = 0; i < k_count; i++)
        compare_k(golden, comm, neighbours, &test.rows, max_k, (int)k[i]);

    free(neighbours);
    free(train.values);
    free(test.values);
    comm_destroy(comm);
    ops_support_close(ops);
}

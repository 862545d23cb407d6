/* knn.h - weighted k-nearest-neighbour vote by cosine, the bank of labelled rows sharded over ranks.
 *
 * Source: dinov2/eval/knn.py (KnnModule), golden README trap 38: softmax over the similarities / temperature
 * of the K = max(k) nearest rows, then the votes of the first k are summed per class, for each k. Search is
 * exact: products of row blocks (ops), the K best of each query kept, the ranks' lists merged. Equal
 * similarities go to the row with the lower number, so the outcome does not depend on how rows are dealt to
 * ranks.
 *
 *     TRY(knn_normalize(ops, bank_values, n, d, error));              // both sets
 *     TRY(knn_search(neighbours, ops, comm, &bank, &queries, K, error));
 *     knn_votes(votes, neighbours, count, K, k, classes, temperature);
 *     knn_score(&score, comm, votes, labels, count, classes);
 *
 * It knows nothing of images, models or files, and it is no approximate index.
 */
#ifndef DINOBATCH_EVAL_KNN_H
#define DINOBATCH_EVAL_KNN_H

#include "eval/accuracy.h"
#include "ops/ops.h"

/* Labelled rows as the ranks hold them: each a run of consecutive rows of one set, in rank order. Borrowed.
 */
typedef struct {
    int64_t count;         /* rows of this rank, may be 0 */
    int64_t first;         /* rows of the lower ranks */
    int64_t d;             /* columns */
    const float *values;   /* [count, d] of unit length */
    const int64_t *labels; /* [count], 0 .. classes - 1 */
} KnnRows;

typedef struct {
    float similarity;
    int32_t label;
    int64_t index; /* of the bank's row over all ranks */
} KnnNeighbour;

typedef Accuracy KnnScore;

/* What ops must be made for: knn_normalize and knn_search on rows of d columns. */
OpsLimits knn_limits(int64_t d);

/* values[n, d] = each row divided by max(its length, 1e-12), in place. STATUS_FAILED when a number is not
 * finite, naming the row. Not collective. */
Status knn_normalize(const Ops *ops, float *values, int64_t n, int64_t d, Error *error);

/* neighbours[queries->count, k]: for each of this rank's queries the k nearest bank rows of all ranks,
 * nearest first. STATUS_INPUT on all ranks when the bank has fewer than k rows. Allocates its work space.
 * Collective over COMM. */
Status knn_search(KnnNeighbour *neighbours, const Ops *ops, Comm *comm, const KnnRows *bank,
                  const KnnRows *queries, int64_t k, Error *error);

/* votes[n, classes] of the first k of neighbours[n, max_k]; they add up to 1 where k = max_k. temperature >
 * 0; INFINITY gives every neighbour the same weight (majority vote). Not collective. */
void knn_votes(float *votes, const KnnNeighbour *neighbours, int64_t n, int64_t max_k, int64_t k,
               int64_t classes, double temperature);

/* The class with the most votes, the lower one of equals. */
int64_t knn_predict(const float *votes, int64_t classes);

/* Accuracy of votes[n, classes] against labels[n] over the rows of all ranks; a label beyond the classes is
 * never right. A class without any vote is not among the five: which zeros the reference counts there is left
 * to its sort. Zero queries give zeros. Collective over COMM. */
void knn_score(KnnScore *score, Comm *comm, const float *votes, const int64_t *labels, int64_t n,
               int64_t classes);

#endif

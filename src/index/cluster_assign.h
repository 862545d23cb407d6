/* cluster_assign.h - the nearest of many centroids for each row of a block, by matrix products.
 *
 * |x - c|^2 = |x|^2 - 2 (x . c - |c|^2 / 2): the largest x . c - |c|^2 / 2 wins, the lower centroid of
 * equals. A product is one sum over the columns in their order, so what comes out for a row depends on that
 * row and the centroids alone, not on blocks, threads or ranks.
 *
 * Centroids are laid out anew for the products, some at a time, which all rows of a block then meet: the
 * larger the block, the less that costs (a matrix library's call would lay them out for each tile of rows).
 */
#ifndef DINOBATCH_INDEX_CLUSTER_ASSIGN_H
#define DINOBATCH_INDEX_CLUSTER_ASSIGN_H

#include "ops/ops.h"

typedef struct {
    const float *centroids; /* [k, d] borrowed */
    int64_t k, d;
    int threads;
    int64_t laid_out;        /* the first of the centroids in `panels`; -1: none yet */
    float *minus_half_norms; /* [k, padded] -|c|^2 / 2; owned */
    float *panels;           /* centroids under way; owned */
    float *scores;           /* of the tile that each thread works on; owned */
} ClusterAssign;

/* For centroids[k, d], borrowed and not to be changed meanwhile, and ops->threads threads. Allocates 4 k +
 * 4096 d bytes, and 32 kB for each thread. Released by cluster_assign_fini. Not collective. */
void cluster_assign_init(ClusterAssign *assign, const float *centroids, int64_t k, int64_t d, const Ops *ops);
void cluster_assign_fini(ClusterAssign *assign);

/* assignment[n] and distances[n] (squared, not below 0) of rows[n, d]. Not collective. */
void cluster_assign_block(ClusterAssign *assign, int32_t *assignment, float *distances, const float *rows,
                          int64_t n);

#endif

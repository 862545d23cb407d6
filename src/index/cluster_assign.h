/* cluster_assign.h - the nearest of many centroids for each row of a block, by matrix products.
 *
 * |x - c|^2 = |x|^2 - 2 (x . c - |c|^2 / 2): the largest x . c - |c|^2 / 2 wins, the lower centroid of
 * equals. Each thread takes some rows at a time and goes through all centroids, so the products of a row do
 * not depend on how many threads there are.
 */
#ifndef DINOBATCH_INDEX_CLUSTER_ASSIGN_H
#define DINOBATCH_INDEX_CLUSTER_ASSIGN_H

#include "ops/ops.h"

enum { CLUSTER_ASSIGN_TILE = 128, CLUSTER_ASSIGN_CENTROIDS = 512 }; /* rows and centroids of one product */

/* assignment[n] and distances[n] (squared, not below 0) of rows[n, d] among centroids[k, d] with
 * minus_half_norms[k] = -|c|^2 / 2. Work space: scores [ops->threads, CLUSTER_ASSIGN_TILE,
 * CLUSTER_ASSIGN_CENTROIDS]. Not collective. */
void cluster_assign_block(int32_t *assignment, float *distances, const float *rows, int64_t n, int64_t d,
                          const float *centroids, const float *minus_half_norms, int64_t k, float *scores,
                          const Ops *ops);

/* minus_half_norms[k] of centroids[k, d]. */
void cluster_assign_norms(float *minus_half_norms, const float *centroids, int64_t k, int64_t d);

#endif

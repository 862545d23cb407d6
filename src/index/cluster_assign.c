/* cluster_assign.c - see cluster_assign.h. */
#include "index/cluster_assign.h"

#include "base/check.h"
#include "index/index_rows.h"
#include "ops/cpu/sgemm.h"

#include <math.h>
#include <omp.h>

void cluster_assign_norms(float *minus_half_norms, const float *centroids, int64_t k, int64_t d)
{
    for (int64_t c = 0; c < k; c++)
        minus_half_norms[c] = (float)(-0.5 * index_rows_dot(centroids + c * d, centroids + c * d, d));
}

/* The best of n centroids that begin at `first`, against the best so far. */
static void take_best(const float *products, const float *minus_half_norms, int64_t n, int64_t first,
                      float *best, int32_t *assignment)
{
    float score = *best;
    int32_t at = *assignment;
    for (int64_t c = 0; c < n; c++) {
        float candidate = products[c] + minus_half_norms[c];
        if (candidate <= score) continue;
        score = candidate;
        at = (int32_t)(first + c);
    }
    *best = score;
    *assignment = at;
}

/* One tile of rows against all centroids. */
static void assign_tile(int32_t *assignment, float *distances, const float *rows, int64_t n, int64_t d,
                        const float *centroids, const float *minus_half_norms, int64_t k, float *scores)
{
    float best[CLUSTER_ASSIGN_TILE];
    for (int64_t i = 0; i < n; i++) {
        best[i] = -INFINITY;
        assignment[i] = 0;
    }
    for (int64_t first = 0; first < k; first += CLUSTER_ASSIGN_CENTROIDS) {
        int64_t m = k - first < CLUSTER_ASSIGN_CENTROIDS ? k - first : CLUSTER_ASSIGN_CENTROIDS;
        sgemm_run(n, m, d, (SgemmOperand){rows, d, false}, (SgemmOperand){centroids + first * d, d, true},
                  false, scores, m);
        for (int64_t i = 0; i < n; i++)
            take_best(scores + i * m, minus_half_norms + first, m, first, &best[i], &assignment[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        double distance = index_rows_dot(rows + i * d, rows + i * d, d) - 2.0 * (double)best[i];
        distances[i] = distance > 0.0 ? (float)distance : 0.0f;
    }
}

void cluster_assign_block(int32_t *assignment, float *distances, const float *rows, int64_t n, int64_t d,
                          const float *centroids, const float *minus_half_norms, int64_t k, float *scores,
                          const Ops *ops)
{
    CHECK(k >= 1 && k <= INT32_MAX);
#pragma omp parallel for schedule(dynamic) num_threads(ops->threads)
    for (int64_t i = 0; i < n; i += CLUSTER_ASSIGN_TILE)
        assign_tile(assignment + i, distances + i, rows + i * d,
                    n - i < CLUSTER_ASSIGN_TILE ? n - i : CLUSTER_ASSIGN_TILE, d, centroids, minus_half_norms,
                    k, scores + omp_get_thread_num() * CLUSTER_ASSIGN_TILE * CLUSTER_ASSIGN_CENTROIDS);
}

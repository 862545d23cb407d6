/* cluster_assign.c - see cluster_assign.h. */
#include "index/cluster_assign.h"

#include "base/check.h"
#include "base/memory.h"
#include "index/index_rows.h"
#include "ops/cpu/tile_product.h"

#include <math.h>
#include <omp.h>

enum {
    TILE = 128,     /* rows that a thread takes at a time: they stay in its cache */
    PANEL = 64,     /* centroids of one product */
    LAID_OUT = 1024 /* centroids at a time */
};

/* --- life --- */

void cluster_assign_init(ClusterAssign *assign, const float *centroids, int64_t k, int64_t d, const Ops *ops)
{
    CHECK(k >= 1 && k <= INT32_MAX);
    int64_t padded = (k + PANEL - 1) / PANEL * PANEL, most = padded < LAID_OUT ? padded : LAID_OUT;
    *assign = (ClusterAssign){
        .centroids = centroids,
        .k = k,
        .d = d,
        .threads = ops->threads,
        .laid_out = -1,
        .minus_half_norms = memory_alloc_array((size_t)padded, sizeof *assign->minus_half_norms),
        .panels = memory_alloc_array((size_t)(most * d), sizeof *assign->panels),
        .scores = memory_alloc_array((size_t)ops->threads * TILE * PANEL, sizeof *assign->scores)};
#pragma omp parallel for schedule(static) num_threads(assign->threads)
    for (int64_t c = 0; c < padded; c++)
        assign->minus_half_norms[c] =
            c < k ? (float)(-0.5 * index_rows_dot(centroids + c * d, centroids + c * d, d)) : -INFINITY;
}

void cluster_assign_fini(ClusterAssign *assign)
{
    memory_free(assign->minus_half_norms);
    memory_free(assign->panels);
    memory_free(assign->scores);
    *assign = (ClusterAssign){0};
}

/* --- layout --- */

/* panel[d, PANEL] = the transpose of centroids[n, d], zeros beyond. */
static void lay_out_panel(float *panel, const float *centroids, int64_t n, int64_t d)
{
    int64_t squares = n == PANEL ? d / TILE_PRODUCT_PAD * TILE_PRODUCT_PAD : 0;
    tile_product_transpose(panel, PANEL, centroids, d, PANEL, squares);
    for (int64_t j = squares; j < d; j++)
        for (int64_t c = 0; c < PANEL; c++)
            panel[j * PANEL + c] = c < n ? centroids[c * d + j] : 0.0f;
}

/* The centroids [first, first + n). */
static void lay_out(ClusterAssign *assign, int64_t first, int64_t n)
{
    if (assign->laid_out == first) return;
    int64_t d = assign->d;
#pragma omp parallel for schedule(static) num_threads(assign->threads)
    for (int64_t c = 0; c < n; c += PANEL)
        lay_out_panel(assign->panels + c * d, assign->centroids + (first + c) * d,
                      n - c < PANEL ? n - c : PANEL, d);
    assign->laid_out = first;
}

/* --- products --- */

/* The best of the PANEL centroids that begin at `first`, against the best so far. */
static void take_best(const float *products, const float *minus_half_norms, int64_t first, float *best,
                      int32_t *assignment)
{
    float scores[PANEL], largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int c = 0; c < PANEL; c++) {
        scores[c] = products[c] + minus_half_norms[c];
        largest = scores[c] > largest ? scores[c] : largest;
    }
    if (!(largest > *best)) return;
    int c = 0;
    while (scores[c] != largest)
        c++;
    *best = largest;
    *assignment = (int32_t)(first + c);
}

/* One tile of rows against the centroids [first, first + n); `best` of each so far. */
static void assign_tile(const ClusterAssign *assign, int32_t *assignment, float *best, const float *rows,
                        int64_t m, int64_t first, int64_t n, float *scores)
{
    int64_t d = assign->d;
    for (int64_t c = 0; c < n; c += PANEL) {
        tile_product_run(m, PANEL, d, (TileProductLeft){rows, d, 1}, assign->panels + c * d, PANEL, false,
                         scores, PANEL);
        for (int64_t i = 0; i < m; i++)
            take_best(scores + i * PANEL, assign->minus_half_norms + first + c, first + c, &best[i],
                      &assignment[i]);
    }
}

void cluster_assign_block(ClusterAssign *assign, int32_t *assignment, float *distances, const float *rows,
                          int64_t n)
{
    int64_t d = assign->d;
    for (int64_t i = 0; i < n; i++) {
        distances[i] = -INFINITY; /* the best score, until all centroids have been met */
        assignment[i] = 0;
    }
    for (int64_t first = 0; first < assign->k; first += LAID_OUT) {
        int64_t m = assign->k - first < LAID_OUT ? assign->k - first : LAID_OUT;
        lay_out(assign, first, m);
#pragma omp parallel for schedule(dynamic) num_threads(assign->threads)
        for (int64_t i = 0; i < n; i += TILE)
            assign_tile(assign, assignment + i, distances + i, rows + i * d, n - i < TILE ? n - i : TILE,
                        first, m, assign->scores + omp_get_thread_num() * TILE * PANEL);
    }
#pragma omp parallel for schedule(static) num_threads(assign->threads)
    for (int64_t i = 0; i < n; i++) {
        double distance = index_rows_dot(rows + i * d, rows + i * d, d) - 2.0 * (double)distances[i];
        distances[i] = distance > 0.0 ? (float)distance : 0.0f;
    }
}

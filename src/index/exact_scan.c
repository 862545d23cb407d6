/* exact_scan.c - see exact_scan.h. */
#include "index/exact_scan.h"

#include "base/check.h"
#include "base/memory.h"
#include "ops/cpu/sgemm.h"

#include <math.h>
#include <omp.h>

enum {
    TILE = 64,   /* queries of one product, which one thread makes */
    GLANCE = 16, /* products that are compared with the bar at once */
};

/* How far a product of two rows of unit length, and index_rows_dot's rounded to fp32, may lie apart: the
 * bound of the header, with room for lengths that are off by a rounding. */
static float margin(int64_t d)
{
    double off = (double)(d + 16) * 0x1p-24;
    return (float)(off / (1.0 - off));
}

void exact_scan_offer(const ExactScan *scan, int64_t q, const float *products, const float *rows, int64_t n,
                      int64_t d, const int64_t *ids, int64_t first_id, Neighbour *list)
{
    float off = margin(d), above = (float)scan->above;
    int64_t itself = scan->ids ? scan->ids[q] : -1;
    for (int64_t start = 0; start < n; start += GLANCE) {
        int64_t end = n - start < GLANCE ? n : start + GLANCE;
        float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
        for (int64_t j = start; j < end; j++)
            largest = products[j] > largest ? products[j] : largest;
        float bar = list[0].similarity > above ? list[0].similarity : above;
        if (largest < bar - off) continue;
        for (int64_t j = start; j < end; j++) {
            int64_t id = ids ? ids[j] : first_id + j;
            if (products[j] < bar - off || id == itself) continue;
            float similarity = (float)index_rows_dot(scan->queries + q * d, rows + j * d, d);
            if (!((double)similarity > scan->above)) continue;
            neighbour_list_offer(list, scan->k, (Neighbour){.id = id, .similarity = similarity});
        }
    }
}

/* Queries [first, first + m) against rows[n, d]. products: work space [TILE, n]. */
static void scan_tile(const ExactScan *scan, int64_t first, int64_t m, const float *rows, int64_t n,
                      int64_t d, int64_t first_id, float *products, Neighbour *lists)
{
    sgemm_run(m, n, d, (SgemmOperand){scan->queries + first * d, d, false}, (SgemmOperand){rows, d, true},
              false, products, n);
    for (int64_t q = first; q < first + m; q++)
        exact_scan_offer(scan, q, products + (q - first) * n, rows, n, d, NULL, first_id,
                         lists + q * scan->k);
}

Status exact_scan_run(const ExactScan *scan, const IndexRows *rows, float *block, Neighbour *lists,
                      const Ops *ops, Error *error)
{
    int64_t d = rows->d, k = scan->k;
    CHECK(k >= 1);
    for (int64_t q = 0; q < scan->n; q++)
        neighbour_list_clear(lists + q * k, k);
    if (scan->n == 0) return STATUS_OK;
    float *products = memory_alloc_array((size_t)ops->threads * TILE * EXACT_SCAN_BLOCK, sizeof *products);
    Status status = STATUS_OK;
    for (int64_t first = 0; first < rows->count; first += EXACT_SCAN_BLOCK) {
        int64_t n = rows->count - first < EXACT_SCAN_BLOCK ? rows->count - first : EXACT_SCAN_BLOCK;
        status = index_rows_read(rows, first, n, INDEX_ROWS_UNIT, block, error);
        if (status != STATUS_OK) break;
#pragma omp parallel for schedule(dynamic) num_threads(ops->threads)
        for (int64_t q = 0; q < scan->n; q += TILE)
            scan_tile(scan, q, scan->n - q < TILE ? scan->n - q : TILE, block, n, d, rows->first + first,
                      products + (size_t)omp_get_thread_num() * TILE * EXACT_SCAN_BLOCK, lists);
    }
    memory_free(products);
#pragma omp parallel for schedule(static) num_threads(ops->threads)
    for (int64_t q = 0; q < scan->n; q++)
        neighbour_list_sort(lists + q * k, k);
    return status;
}

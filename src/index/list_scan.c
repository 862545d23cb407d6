/* list_scan.c - see list_scan.h. */
#include "index/list_scan.h"

#include "base/memory.h"
#include "ops/cpu/sgemm.h"

#include <string.h>

enum {
    QUERIES = 256, /* of one product */
    ROWS = 512,
};

/* The queries of one thread, by the list that they look at. */
typedef struct {
    int64_t *start; /* [lists + 1] into query */
    int64_t *query; /* [queries * nprobe] */
    float *block;   /* [QUERIES, d] */
    float *scores;  /* [QUERIES, ROWS] */
} Part;

/* Queries [first, end), grouped by probes[.., nprobe]. */
static Part part_create(const int64_t *probes, int64_t first, int64_t end, int64_t nprobe, int64_t lists,
                        int64_t d)
{
    Part part = {.start = memory_alloc_array((size_t)lists + 2, sizeof *part.start),
                 .query = memory_alloc_array((size_t)((end - first) * nprobe), sizeof *part.query),
                 .block = memory_alloc_array((size_t)(QUERIES * d), sizeof *part.block),
                 .scores = memory_alloc_array((size_t)QUERIES * ROWS, sizeof *part.scores)};
    /* counted two places further on, so that filling leaves the beginnings in place */
    for (int64_t i = first * nprobe; i < end * nprobe; i++)
        if (probes[i] >= 0) part.start[probes[i] + 2]++;
    for (int64_t l = 0; l < lists; l++)
        part.start[l + 2] += part.start[l + 1];
    for (int64_t i = first * nprobe; i < end * nprobe; i++)
        if (probes[i] >= 0) part.query[part.start[probes[i] + 1]++] = i / nprobe;
    return part;
}

static void part_destroy(Part *part)
{
    memory_free(part->start);
    memory_free(part->query);
    memory_free(part->block);
    memory_free(part->scores);
}

/* query[m] against all rows of a list. */
static void scan_list(const ExactScan *scan, const FaissIndex *index, int64_t d, int64_t list,
                      const int64_t *query, int64_t m, const Part *part, Neighbour *lists)
{
    const float *rows;
    const int64_t *ids;
    int64_t count = faiss_shim_list(index, list, &rows, &ids);
    if (count == 0) return;
    for (int64_t i = 0; i < m; i++)
        memcpy(part->block + i * d, scan->queries + query[i] * d, (size_t)d * sizeof *part->block);
    for (int64_t first = 0; first < count; first += ROWS) {
        int64_t n = count - first < ROWS ? count - first : ROWS;
        sgemm_run(m, n, d, (SgemmOperand){part->block, d, false}, (SgemmOperand){rows + first * d, d, true},
                  false, part->scores, ROWS);
        for (int64_t i = 0; i < m; i++)
            exact_scan_offer(scan, query[i], part->scores + i * ROWS, rows + first * d, n, d, ids + first, 0,
                             lists + query[i] * scan->k);
    }
}

/* The queries [first, end), which no other thread touches. */
static void scan_part(const ExactScan *scan, const FaissIndex *index, int64_t d, const int64_t *probes,
                      int64_t nprobe, int64_t first, int64_t end, Neighbour *lists)
{
    int64_t list_count = faiss_shim_lists(index);
    Part part = part_create(probes, first, end, nprobe, list_count, d);
    for (int64_t q = first; q < end; q++)
        neighbour_list_clear(lists + q * scan->k, scan->k);
    for (int64_t l = 0; l < list_count; l++)
        for (int64_t from = part.start[l]; from < part.start[l + 1]; from += QUERIES) {
            int64_t m = part.start[l + 1] - from < QUERIES ? part.start[l + 1] - from : QUERIES;
            scan_list(scan, index, d, l, part.query + from, m, &part, lists);
        }
    for (int64_t q = first; q < end; q++)
        neighbour_list_sort(lists + q * scan->k, scan->k);
    part_destroy(&part);
}

Status list_scan_run(const ExactScan *scan, const FaissIndex *index, int64_t d, int64_t nprobe,
                     Neighbour *lists, const Ops *ops, Error *error)
{
    if (scan->n == 0) return STATUS_OK;
    if (nprobe > faiss_shim_lists(index)) nprobe = faiss_shim_lists(index);
    int64_t *probes = memory_alloc_array((size_t)(scan->n * nprobe), sizeof *probes);
    Status status = faiss_shim_probe(index, scan->n, scan->queries, nprobe, probes, ops->threads, error);
    if (status == STATUS_OK) {
        int parts = ops->threads;
#pragma omp parallel for schedule(static) num_threads(parts)
        for (int part = 0; part < parts; part++)
            scan_part(scan, index, d, probes, nprobe, scan->n * part / parts, scan->n * (part + 1) / parts,
                      lists);
    }
    memory_free(probes);
    return status;
}

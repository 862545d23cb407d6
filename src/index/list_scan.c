/* list_scan.c - see list_scan.h. */
#include "index/list_scan.h"

#include "base/memory.h"
#include "ops/cpu/sgemm.h"

#include <omp.h>
#include <string.h>

enum {
    QUERIES = 256, /* of one product */
    ROWS = 512,
    LOCKS = 1024,
};

/* Some of the queries that look at one list: query[first .. end). */
typedef struct {
    int64_t list, first, end;
} Visit;

/* The queries by the list that they look at, cut into visits, which threads take as they come. */
typedef struct {
    const ExactScan *scan;
    const FaissIndex *index;
    int64_t d;
    int64_t *query; /* [n * nprobe] owned */
    Visit *visits;  /* [visit_count] list by list; owned */
    int64_t visit_count;
    Neighbour *neighbours;  /* [n, k] heaps */
    omp_lock_t lock[LOCKS]; /* of the heaps of the queries q, q + LOCKS, ... */
} Visiting;

/* What a thread works in. */
typedef struct {
    float *block;  /* [QUERIES, d] */
    float *scores; /* [QUERIES, ROWS] */
} Desk;

/* visiting->query, visits = the pairs of probes[count], `nprobe` lists a query (-1: none). */
static void plan(Visiting *visiting, const int64_t *probes, int64_t count, int64_t nprobe)
{
    int64_t lists = faiss_shim_lists(visiting->index);
    int64_t *start = memory_alloc_array((size_t)lists + 2, sizeof *start);
    visiting->query = memory_alloc_array((size_t)count, sizeof *visiting->query);
    visiting->visits = memory_alloc_array((size_t)(lists + count / QUERIES), sizeof *visiting->visits);
    /* counted two places further on, so that filling leaves the beginnings in place */
    for (int64_t i = 0; i < count; i++)
        if (probes[i] >= 0) start[probes[i] + 2]++;
    for (int64_t l = 0; l < lists; l++)
        start[l + 2] += start[l + 1];
    for (int64_t i = 0; i < count; i++)
        if (probes[i] >= 0) visiting->query[start[probes[i] + 1]++] = i / nprobe;
    for (int64_t l = 0; l < lists; l++)
        for (int64_t first = start[l]; first < start[l + 1]; first += QUERIES) {
            int64_t end = start[l + 1] - first < QUERIES ? start[l + 1] : first + QUERIES;
            visiting->visits[visiting->visit_count++] = (Visit){l, first, end};
        }
    memory_free(start);
}

/* The visit's queries against all rows of its list. */
static void visit_list(Visiting *visiting, const Visit *visit, const Desk *desk)
{
    const ExactScan *scan = visiting->scan;
    const float *rows;
    const int64_t *ids, *query = visiting->query + visit->first;
    int64_t m = visit->end - visit->first, d = visiting->d;
    int64_t count = faiss_shim_list(visiting->index, visit->list, &rows, &ids);
    if (count == 0) return;
    for (int64_t i = 0; i < m; i++)
        memcpy(desk->block + i * d, scan->queries + query[i] * d, (size_t)d * sizeof *desk->block);
    for (int64_t first = 0; first < count; first += ROWS) {
        int64_t n = count - first < ROWS ? count - first : ROWS;
        sgemm_run(m, n, d, (SgemmOperand){desk->block, d, false}, (SgemmOperand){rows + first * d, d, true},
                  false, desk->scores, ROWS);
        for (int64_t i = 0; i < m; i++) {
            omp_lock_t *lock = &visiting->lock[query[i] % LOCKS];
            omp_set_lock(lock);
            exact_scan_offer(scan, query[i], desk->scores + i * ROWS, rows + first * d, n, d, ids + first, 0,
                             visiting->neighbours + query[i] * scan->k);
            omp_unset_lock(lock);
        }
    }
}

/* By all threads: a list's rows are read once for each QUERIES queries, however many threads there are. */
static void visit_all(Visiting *visiting, int threads)
{
    const ExactScan *scan = visiting->scan;
    for (int i = 0; i < LOCKS; i++)
        omp_init_lock(&visiting->lock[i]);
#pragma omp parallel num_threads(threads)
    {
        Desk desk = {.block = memory_alloc_array((size_t)(QUERIES * visiting->d), sizeof *desk.block),
                     .scores = memory_alloc_array((size_t)QUERIES * ROWS, sizeof *desk.scores)};
#pragma omp for schedule(static)
        for (int64_t q = 0; q < scan->n; q++)
            neighbour_list_clear(visiting->neighbours + q * scan->k, scan->k);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < visiting->visit_count; i++)
            visit_list(visiting, &visiting->visits[i], &desk);
#pragma omp for schedule(static)
        for (int64_t q = 0; q < scan->n; q++)
            neighbour_list_sort(visiting->neighbours + q * scan->k, scan->k);
        memory_free(desk.block);
        memory_free(desk.scores);
    }
    for (int i = 0; i < LOCKS; i++)
        omp_destroy_lock(&visiting->lock[i]);
}

Status list_scan_run(const ExactScan *scan, const FaissIndex *index, int64_t d, int64_t nprobe,
                     Neighbour *lists, const Ops *ops, Error *error)
{
    if (scan->n == 0) return STATUS_OK;
    if (nprobe > faiss_shim_lists(index)) nprobe = faiss_shim_lists(index);
    int64_t *probes = memory_alloc_array((size_t)(scan->n * nprobe), sizeof *probes);
    Status status = faiss_shim_probe(index, scan->n, scan->queries, nprobe, probes, ops->threads, error);
    if (status == STATUS_OK) {
        Visiting visiting = {.scan = scan, .index = index, .d = d, .neighbours = lists};
        plan(&visiting, probes, scan->n * nprobe, nprobe);
        visit_all(&visiting, ops->threads);
        memory_free(visiting.visits);
        memory_free(visiting.query);
    }
    memory_free(probes);
    return status;
}

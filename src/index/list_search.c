/* list_search.c - see list_search.h. */
#include "index/list_search.h"

#include "base/memory.h"
#include "index/list_scan.h"

#include <math.h>
#include <stdlib.h>

/* A pool row that may be near a query. */
typedef struct {
    int64_t id, query;
    float similarity;
    int32_t place; /* of its row in the block */
} Candidate;

/* Candidates of a query that Faiss is asked for: with room for the query itself. */
static int64_t candidates_wanted(const ShardIndex *index, const ExactScan *scan)
{
    int64_t refine = shard_index_options(index)->refine;
    int64_t wanted = (refine > 1 ? refine : 1) * scan->k + (scan->ids ? 1 : 0);
    int64_t rows = faiss_shim_rows(shard_index_faiss(index));
    return wanted < rows ? wanted : rows;
}

static int by_id(const void *left, const void *right)
{
    const Candidate *a = left, *b = right;
    if (a->id != b->id) return a->id < b->id ? -1 : 1;
    return a->query < b->query ? -1 : a->query > b->query;
}

/* Candidates [first, returned) are those of the next EXACT_SCAN_BLOCK rows, which are read into the block. */
static Status read_block(const IndexRows *pool, Candidate *candidates, int64_t first, int64_t count,
                         float *block, int64_t *end, Error *error)
{
    int64_t ids[EXACT_SCAN_BLOCK], rows = 0, i = first;
    for (; i < count; i++) {
        if (rows == 0 || ids[rows - 1] != candidates[i].id) {
            if (rows == EXACT_SCAN_BLOCK) break;
            ids[rows++] = candidates[i].id;
        }
        candidates[i].place = (int32_t)(rows - 1);
    }
    *end = i;
    return index_rows_pick(pool, ids, rows, INDEX_ROWS_UNIT, block, error);
}

/* Similarities from the rows themselves, each read once. */
static Status refine(const ExactScan *scan, const IndexRows *pool, Candidate *candidates, int64_t count,
                     float *block, const Ops *ops, Error *error)
{
    int64_t d = pool->d;
    qsort(candidates, (size_t)count, sizeof *candidates, by_id);
    for (int64_t first = 0, end = 0; first < count; first = end) {
        TRY(read_block(pool, candidates, first, count, block, &end, error));
#pragma omp parallel for schedule(static) num_threads(ops->threads)
        for (int64_t i = first; i < end; i++) {
            Candidate *c = &candidates[i];
            c->similarity = (float)index_rows_dot(scan->queries + c->query * d, block + c->place * d, d);
        }
    }
    return STATUS_OK;
}

/* The answer as candidates; returns their number. */
static int64_t take(const ExactScan *scan, const float *similarities, const int64_t *ids, int64_t wanted,
                    Candidate *candidates)
{
    int64_t count = 0;
    for (int64_t q = 0; q < scan->n; q++)
        for (int64_t i = q * wanted; i < (q + 1) * wanted; i++)
            if (ids[i] >= 0 && !(scan->ids && ids[i] == scan->ids[q]))
                candidates[count++] = (Candidate){.id = ids[i], .query = q, .similarity = similarities[i]};
    return count;
}

static Status search(const ExactScan *scan, const ShardIndex *index, int64_t wanted, Candidate *candidates,
                     int64_t *count, const Ops *ops, Error *error)
{
    const ShardIndexOptions *options = shard_index_options(index);
    size_t answers = (size_t)(scan->n * wanted);
    float *similarities = memory_alloc_array(answers, sizeof *similarities);
    int64_t *ids = memory_alloc_array(answers, sizeof *ids);
    Status status = faiss_shim_search(shard_index_faiss(index), scan->n, scan->queries, wanted,
                                      options->nprobe, similarities, ids, ops->threads, error);
    if (status == STATUS_OK) *count = take(scan, similarities, ids, wanted, candidates);
    memory_free(ids);
    memory_free(similarities);
    return status;
}

Status list_search_run(const ExactScan *scan, const ShardIndex *index, float *block, Neighbour *lists,
                       const Ops *ops, Error *error)
{
    const ShardIndexOptions *options = shard_index_options(index);
    const FaissIndex *faiss = shard_index_faiss(index);
    if (faiss_shim_is_exact(faiss) && !options->gpu)
        return list_scan_run(scan, faiss, shard_index_pool(index)->d, options->nprobe, lists, ops, error);
    for (int64_t q = 0; q < scan->n; q++)
        neighbour_list_clear(lists + q * scan->k, scan->k);
    int64_t wanted = candidates_wanted(index, scan), count = 0;
    if (scan->n == 0 || wanted == 0) return STATUS_OK;
    Candidate *candidates = memory_alloc_array((size_t)(scan->n * wanted), sizeof *candidates);
    Status status = search(scan, index, wanted, candidates, &count, ops, error);
    if (status == STATUS_OK && options->refine > 0)
        status = refine(scan, shard_index_pool(index), candidates, count, block, ops, error);
    for (int64_t i = 0; status == STATUS_OK && i < count; i++) {
        const Candidate *c = &candidates[i];
        if ((double)c->similarity > scan->above)
            neighbour_list_offer(lists + c->query * scan->k, scan->k,
                                 (Neighbour){.id = c->id, .similarity = c->similarity});
    }
    memory_free(candidates);
    for (int64_t q = 0; q < scan->n; q++)
        neighbour_list_sort(lists + q * scan->k, scan->k);
    return status;
}

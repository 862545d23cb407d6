/* knn.c - see knn.h. */
#include "eval/knn.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUERY_BLOCK = 256, /* queries of one product */
    BANK_BLOCK = 2048, /* bank rows of one product */
    SCAN = 16,         /* similarities that are compared with the threshold at once */
};

static const float NORM_EPS = 1e-12f;

OpsLimits knn_limits(int64_t d)
{
    return (OpsLimits){.rows = BANK_BLOCK, .width = d > BANK_BLOCK ? d : BANK_BLOCK};
}

Status knn_normalize(const Ops *ops, float *values, int64_t n, int64_t d, Error *error)
{
    float *unit = memory_alloc_array((size_t)(BANK_BLOCK * d), sizeof *unit);
    float norms[BANK_BLOCK];
    Status status = STATUS_OK;
    for (int64_t first = 0; first < n && status == STATUS_OK; first += BANK_BLOCK) {
        int64_t rows = n - first < BANK_BLOCK ? n - first : BANK_BLOCK;
        float *block = values + first * d;
        ops->l2_normalize_forward(ops, tensor_2d(unit, DTYPE_F32, rows, d), tensor_1d(norms, DTYPE_F32, rows),
                                  tensor_2d(block, DTYPE_F32, rows, d), NORM_EPS);
        memcpy(block, unit, (size_t)(rows * d) * sizeof *unit);
        for (int64_t i = 0; i < rows && status == STATUS_OK; i++)
            if (!isfinite(norms[i]))
                status = status_fail(error, STATUS_INPUT, "the features of row %lld are not finite numbers",
                                     (long long)(first + i));
    }
    memory_free(unit);
    return status;
}

/* --- the k best of one query: a heap with the worst at its root --- */

static bool is_worse(const KnnNeighbour *a, const KnnNeighbour *b)
{
    return a->similarity < b->similarity || (a->similarity == b->similarity && a->index > b->index);
}

/* Puts `item` in place of the root. */
static void heap_replace(KnnNeighbour *heap, int64_t k, KnnNeighbour item)
{
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= k) break;
        if (child + 1 < k && is_worse(&heap[child + 1], &heap[child])) child++;
        if (!is_worse(&heap[child], &item)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
}

static int best_first(const void *left, const void *right)
{
    const KnnNeighbour *a = left, *b = right;
    return is_worse(a, b) ? 1 : is_worse(b, a) ? -1 : 0;
}

/* Rows come in ascending order, so one as near as the worst kept never displaces it. */
static void scan(KnnNeighbour *heap, int64_t k, const float *similarities, int64_t n, const int64_t *labels,
                 int64_t first_index)
{
    for (int64_t start = 0; start < n; start += SCAN) {
        int64_t end = n - start < SCAN ? n : start + SCAN;
        float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
        for (int64_t j = start; j < end; j++)
            largest = similarities[j] > largest ? similarities[j] : largest;
        if (!(largest > heap->similarity)) continue;
        for (int64_t j = start; j < end; j++) {
            if (!(similarities[j] > heap->similarity)) continue;
            KnnNeighbour item = {similarities[j], (int32_t)labels[j], first_index + j};
            heap_replace(heap, k, item);
        }
    }
}

/* --- search --- */

typedef struct {
    const Ops *ops;
    const KnnRows *bank;
    int64_t k;
    float *queries;      /* [QUERY_BLOCK, d] of whoever asks */
    float *similarities; /* [QUERY_BLOCK, BANK_BLOCK] */
    KnnNeighbour *local; /* [QUERY_BLOCK, k] in this rank's part of the bank */
    KnnNeighbour *all;   /* [ranks, QUERY_BLOCK * k] */
} KnnSearch;

/* search->local = the k nearest of `rows` queries in this rank's part; places that stay empty are infinitely
 * far. */
static void search_local(KnnSearch *search, int64_t rows)
{
    const KnnRows *bank = search->bank;
    int64_t k = search->k, d = bank->d;
    for (int64_t i = 0; i < rows * k; i++)
        search->local[i] = (KnnNeighbour){-INFINITY, -1, INT64_MAX};
    for (int64_t first = 0; first < bank->count; first += BANK_BLOCK) {
        int64_t count = bank->count - first < BANK_BLOCK ? bank->count - first : BANK_BLOCK;
        /* linear_forward reads its weights only; tensors carry no const */
        Tensor block = tensor_2d((void *)(uintptr_t)(bank->values + first * d), DTYPE_F32, count, d);
        search->ops->linear_forward(search->ops, tensor_2d(search->similarities, DTYPE_F32, rows, count),
                                    tensor_2d(search->queries, DTYPE_F32, rows, d), block, tensor_none());
#pragma omp parallel for schedule(static) num_threads(search->ops->threads)
        for (int64_t q = 0; q < rows; q++)
            scan(search->local + q * k, k, search->similarities + q * count, count, bank->labels + first,
                 bank->first + first);
    }
#pragma omp parallel for schedule(static) num_threads(search->ops->threads)
    for (int64_t q = 0; q < rows; q++)
        qsort(search->local + q * k, (size_t)k, sizeof *search->local, best_first);
}

/* out[k] = the best of the ranks' sorted lists for query q. */
static void merge(KnnNeighbour *out, const KnnSearch *search, int64_t rows, int64_t q, int ranks,
                  int64_t *heads)
{
    memset(heads, 0, (size_t)ranks * sizeof *heads);
    for (int64_t i = 0; i < search->k; i++) {
        const KnnNeighbour *best = NULL;
        int from = 0;
        for (int r = 0; r < ranks; r++) {
            if (heads[r] == search->k) continue;
            const KnnNeighbour *head = search->all + (r * rows + q) * search->k + heads[r];
            if (best && !is_worse(best, head)) continue;
            best = head;
            from = r;
        }
        CHECK(best != NULL); /* each list is as long as what is wanted */
        heads[from]++;
        out[i] = *best;
    }
}

/* The queries of rank `source`, block by block; only it receives neighbours. Collective over COMM. */
static void serve_rank(KnnSearch *search, Comm *comm, int source, int64_t count, const KnnRows *queries,
                       KnnNeighbour *neighbours, int64_t *heads)
{
    bool mine = source == comm_rank(comm);
    int64_t d = search->bank->d, k = search->k;
    for (int64_t first = 0; first < count; first += QUERY_BLOCK) {
        int64_t rows = count - first < QUERY_BLOCK ? count - first : QUERY_BLOCK;
        if (mine) memcpy(search->queries, queries->values + first * d, (size_t)(rows * d) * sizeof(float));
        comm_broadcast(comm, search->queries, rows * d, DTYPE_F32, source, NULL);
        search_local(search, rows);
        comm_all_gather(comm, search->all, search->local, rows * k * (int64_t)sizeof *search->local, DTYPE_U8,
                        NULL);
        for (int64_t q = 0; mine && q < rows; q++)
            merge(neighbours + (first + q) * k, search, rows, q, comm_size(comm), heads);
    }
}

static KnnSearch search_layout(Arena *arena, const Ops *ops, const KnnRows *bank, int64_t k, int ranks)
{
    size_t list = (size_t)(QUERY_BLOCK * k) * sizeof(KnnNeighbour);
    return (KnnSearch){.ops = ops,
                       .bank = bank,
                       .k = k,
                       .queries = arena_alloc(arena, (size_t)(QUERY_BLOCK * bank->d) * sizeof(float)),
                       .similarities = arena_alloc(arena, (size_t)QUERY_BLOCK * BANK_BLOCK * sizeof(float)),
                       .local = arena_alloc(arena, list),
                       .all = arena_alloc(arena, (size_t)ranks * list)};
}

Status knn_search(KnnNeighbour *neighbours, const Ops *ops, Comm *comm, const KnnRows *bank,
                  const KnnRows *queries, int64_t k, Error *error)
{
    CHECK(k >= 1 && bank->d == queries->d);
    int ranks = comm_size(comm);
    int64_t total = bank->count;
    comm_all_reduce(comm, &total, 1, DTYPE_I64, COMM_SUM, NULL);
    if (total < k)
        return status_fail(error, STATUS_INPUT,
                           "%lld neighbours asked for, but there are only %lld labelled images", (long long)k,
                           (long long)total);
    int64_t *counts = memory_alloc_array((size_t)ranks, sizeof *counts);
    int64_t *heads = memory_alloc_array((size_t)ranks, sizeof *heads);
    comm_all_gather(comm, counts, &queries->count, 1, DTYPE_I64, NULL);

    Arena plan = arena_measuring();
    search_layout(&plan, ops, bank, k, ranks);
    Arena arena = arena_create(plan.peak);
    KnnSearch search = search_layout(&arena, ops, bank, k, ranks);
    for (int source = 0; source < ranks; source++)
        serve_rank(&search, comm, source, counts[source], queries, neighbours, heads);
    arena_destroy(&arena);
    memory_free(heads);
    memory_free(counts);
    return STATUS_OK;
}

/* --- votes --- */

void knn_votes(float *votes, const KnnNeighbour *neighbours, int64_t n, int64_t max_k, int64_t k,
               int64_t classes, double temperature)
{
    CHECK(k >= 1 && k <= max_k && temperature > 0);
    double *sums = memory_alloc_array((size_t)classes, sizeof *sums);
    for (int64_t q = 0; q < n; q++) {
        const KnnNeighbour *list = neighbours + q * max_k;
        memset(sums, 0, (size_t)classes * sizeof *sums);
        double total = 0.0;
        for (int64_t i = 0; i < max_k; i++) {
            double weight = exp((double)(list[i].similarity - list[0].similarity) / temperature);
            total += weight;
            CHECK(list[i].label >= 0 && list[i].label < classes);
            if (i < k) sums[list[i].label] += weight;
        }
        for (int64_t c = 0; c < classes; c++)
            votes[q * classes + c] = (float)(sums[c] / total);
    }
    memory_free(sums);
}

int64_t knn_predict(const float *votes, int64_t classes)
{
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (votes[c] > votes[best]) best = c;
    return best;
}

void knn_score(KnnScore *score, Comm *comm, const float *votes, const int64_t *labels, int64_t n,
               int64_t classes)
{
    int64_t *counts = memory_alloc_array((size_t)accuracy_cells(classes), sizeof *counts);
    accuracy_add(counts, votes, labels, n, classes, 0.0f);
    accuracy_reduce(score, comm, counts, classes);
    memory_free(counts);
}

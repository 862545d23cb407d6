/* retrieval_ranks.c - see retrieval_ranks.h. */
#include "eval/retrieval_ranks.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1024 }; /* database rows that are read at a time */

/* The positives of one query in this rank's part of the database. */
typedef struct {
    RetrievalHit *hits; /* owned */
    int64_t count, capacity;
} HitList;

/* One block of queries under way. */
typedef struct {
    const RetrievalRanks *ranks;
    const Ops *ops;
    Comm *comm;
    int64_t first, rows;                  /* of the block */
    float *queries;                       /* [RETRIEVAL_QUERY_BLOCK, d] of unit length */
    float *database;                      /* [BLOCK, d] */
    float *products;                      /* [RETRIEVAL_QUERY_BLOCK, BLOCK] */
    uint8_t *grades;                      /* [RETRIEVAL_QUERY_BLOCK, BLOCK] */
    HitList lists[RETRIEVAL_QUERY_BLOCK]; /* of this rank */
    RetrievalHit *hits;                   /* of all ranks, sorted for each query; owned */
    int64_t starts[RETRIEVAL_QUERY_BLOCK + 1];
    float *similarities; /* [starts[rows]] of the hits, rounded; owned */
    int64_t *before;     /* [starts[rows]] negatives between a hit and the one before it; owned */
    float margin;        /* how far products and rounded similarities may be apart */
} Block;

OpsLimits retrieval_ranks_limits(int64_t d)
{
    return (OpsLimits){.rows = BLOCK, .width = d > BLOCK ? d : BLOCK};
}

/* block->queries on every rank. */
static Status read_queries(Block *block, Error *error)
{
    const RetrievalRanks *ranks = block->ranks;
    const IndexRows *queries = ranks->queries;
    int64_t d = queries->d;
    Status status = STATUS_OK;
    memset(block->queries, 0, (size_t)(block->rows * d) * sizeof *block->queries);
    for (int64_t i = 0; i < block->rows && status == STATUS_OK; i++) {
        int64_t number = block->first + i;
        int64_t row = (ranks->query_rows ? ranks->query_rows[number] : number) - queries->first;
        if (row >= 0 && row < queries->count)
            status = index_rows_read(queries, row, 1, INDEX_ROWS_UNIT, block->queries + i * d, error);
    }
    TRY(comm_agree(block->comm, status, error));
    /* every row is one rank's; the others add zeros */
    comm_all_reduce(block->comm, block->queries, block->rows * d, DTYPE_F32, COMM_SUM, NULL);
    return STATUS_OK;
}

/* --- first pass: the positives --- */

static void append(HitList *list, RetrievalHit hit)
{
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 16;
        list->hits =
            memory_grow(list->hits, (size_t)list->capacity * sizeof hit, (size_t)capacity * sizeof hit);
        list->capacity = capacity;
    }
    list->hits[list->count++] = hit;
}

static void find_positives(Block *block, int64_t first, int64_t count)
{
    const RetrievalRanks *ranks = block->ranks;
    int64_t d = ranks->database->d;
#pragma omp parallel for schedule(dynamic) num_threads(block->ops->threads)
    for (int64_t q = 0; q < block->rows; q++) {
        uint8_t *grades = block->grades + q * BLOCK;
        ranks->grade(ranks->context, block->first + q, first, count, grades);
        for (int64_t j = 0; j < count; j++) {
            if (grades[j] != RETRIEVAL_EASY && grades[j] != RETRIEVAL_HARD) continue;
            double similarity = index_rows_dot(block->queries + q * d, block->database + j * d, d);
            append(&block->lists[q], (RetrievalHit){.similarity = similarity,
                                                    .row = ranks->database->first + first + j,
                                                    .grade = grades[j]});
        }
    }
}

static int nearest_first(const void *left, const void *right)
{
    const RetrievalHit *a = left, *b = right;
    if (a->similarity != b->similarity) return a->similarity > b->similarity ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* block->hits and starts from the lists of all ranks. */
static void gather_positives(Block *block)
{
    Comm *comm = block->comm;
    int size = comm_size(comm);
    int64_t mine[RETRIEVAL_QUERY_BLOCK], total = 0, most;
    for (int64_t q = 0; q < block->rows; q++) {
        mine[q] = block->lists[q].count;
        total += mine[q];
    }
    most = total;
    comm_all_reduce(comm, &most, 1, DTYPE_I64, COMM_MAX, NULL);
    int64_t *counts = memory_alloc_array((size_t)size, sizeof mine);
    RetrievalHit *sent = memory_alloc_array((size_t)most, sizeof *sent);
    RetrievalHit *all = memory_alloc_array((size_t)size, (size_t)most * sizeof *all);
    int64_t at = 0;
    for (int64_t q = 0; q < block->rows; q++) {
        if (mine[q] > 0) memcpy(sent + at, block->lists[q].hits, (size_t)mine[q] * sizeof *sent);
        at += mine[q];
        block->lists[q].count = 0;
    }
    comm_all_gather(comm, counts, mine, block->rows, DTYPE_I64, NULL);
    comm_all_gather(comm, all, sent, most * (int64_t)sizeof *sent, DTYPE_U8, NULL);
    memory_free(sent);

    total = 0;
    for (int64_t i = 0; i < size * block->rows; i++)
        total += counts[i];
    block->hits = memory_alloc_array((size_t)total, sizeof *block->hits);
    block->before = memory_alloc_array((size_t)total, sizeof *block->before);
    int64_t *read = memory_alloc_array((size_t)size, sizeof *read); /* of each rank's hits */
    for (int64_t q = 0, end = 0; q < block->rows; q++) {
        block->starts[q] = end;
        for (int r = 0; r < size; r++) {
            int64_t count = counts[r * block->rows + q];
            memcpy(block->hits + end, all + r * most + read[r], (size_t)count * sizeof *all);
            read[r] += count;
            end += count;
        }
        qsort(block->hits + block->starts[q], (size_t)(end - block->starts[q]), sizeof *block->hits,
              nearest_first);
        block->starts[q + 1] = end;
    }
    memory_free(read);
    memory_free(all);
    memory_free(counts);
    block->similarities = memory_alloc_array((size_t)total, sizeof *block->similarities);
    for (int64_t i = 0; i < total; i++)
        block->similarities[i] = (float)block->hits[i].similarity;
}

/* --- second pass: what comes before them --- */

/* How many of similarities[n], descending, are larger than x: a search whose steps depend on n alone, since
 * every row of the database passes through here. */
static int64_t count_larger(const float *similarities, int64_t n, float x)
{
    const float *base = similarities;
    while (n > 1) {
        int64_t half = n / 2;
        base += (int64_t)(base[half - 1] > x) * half;
        n -= half;
    }
    return base - similarities + (n == 1 && *base > x);
}

/* How many of hits[n] come before a row of that similarity. */
static int64_t nearer_hits(const RetrievalHit *hits, int64_t n, double similarity, int64_t row)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const RetrievalHit *hit = &hits[middle];
        if (hit->similarity > similarity || (hit->similarity == similarity && hit->row < row))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* How many hits of query q, n > 0, come before database row `row`, j of the block that was read. */
static int64_t place_of(const Block *block, int64_t q, int64_t n, int64_t j, int64_t row)
{
    const float *similarities = block->similarities + block->starts[q];
    float product = block->products[q * BLOCK + j];
    int64_t place = count_larger(similarities, n, product + block->margin);
    if (place == n || similarities[place] < product - block->margin) return place;
    int64_t near = 1; /* hits that only all digits tell from it, from `place` on */
    while (place + near < n && similarities[place + near] >= product - block->margin)
        near++;
    int64_t d = block->ranks->database->d;
    double exact = index_rows_dot(block->queries + q * d, block->database + j * d, d);
    return place + nearer_hits(block->hits + block->starts[q] + place, near, exact, row);
}

static void count_negatives(Block *block, int64_t first, int64_t count)
{
    const RetrievalRanks *ranks = block->ranks;
    int64_t d = ranks->database->d;
    float *queries = block->queries, *rows = block->database;
    /* rows of `products` are BLOCK apart: the last, shorter block is computed whole */
    block->ops->linear_forward(block->ops, tensor_2d(block->products, DTYPE_F32, block->rows, BLOCK),
                               tensor_2d(queries, DTYPE_F32, block->rows, d),
                               tensor_2d(rows, DTYPE_F32, BLOCK, d), tensor_none());
#pragma omp parallel for schedule(dynamic) num_threads(block->ops->threads)
    for (int64_t q = 0; q < block->rows; q++) {
        uint8_t *grades = block->grades + q * BLOCK;
        int64_t n = block->starts[q + 1] - block->starts[q];
        if (n == 0) continue;
        ranks->grade(ranks->context, block->first + q, first, count, grades);
        for (int64_t j = 0; j < count; j++) {
            if (grades[j] != RETRIEVAL_NEGATIVE) continue;
            int64_t place = place_of(block, q, n, j, ranks->database->first + first + j);
            if (place < n) block->before[block->starts[q] + place]++;
        }
    }
}

/* This rank's rows, block by block. */
static Status pass(Block *block, void (*use)(Block *, int64_t, int64_t), Error *error)
{
    const IndexRows *database = block->ranks->database;
    for (int64_t first = 0; first < database->count; first += BLOCK) {
        int64_t count = database->count - first < BLOCK ? database->count - first : BLOCK;
        TRY(index_rows_read(database, first, count, INDEX_ROWS_UNIT, block->database, error));
        use(block, first, count);
    }
    return STATUS_OK;
}

static Status run_block(Block *block, Error *error)
{
    const RetrievalRanks *ranks = block->ranks;
    if (ranks->block) ranks->block(ranks->context, block->first, block->rows);
    TRY(read_queries(block, error));
    TRY(comm_agree(block->comm, pass(block, find_positives, error), error));
    gather_positives(block);
    Status status = comm_agree(block->comm, pass(block, count_negatives, error), error);
    if (status == STATUS_OK) {
        comm_all_reduce(block->comm, block->before, block->starts[block->rows], DTYPE_I64, COMM_SUM, NULL);
        for (int64_t q = 0; q < block->rows; q++) {
            int64_t negatives = 0;
            for (int64_t i = block->starts[q]; i < block->starts[q + 1]; i++)
                block->hits[i].negatives = negatives += block->before[i];
            ranks->take(ranks->context, block->first + q, block->hits + block->starts[q],
                        block->starts[q + 1] - block->starts[q]);
        }
    }
    memory_free(block->hits);
    memory_free(block->similarities);
    memory_free(block->before);
    block->hits = NULL;
    block->similarities = NULL;
    block->before = NULL;
    return status;
}

Status retrieval_ranks_run(const RetrievalRanks *ranks, const Ops *ops, Comm *comm, Error *error)
{
    int64_t d = ranks->database->d;
    CHECK(ranks->queries->d == d);
    Block *block = memory_alloc(sizeof *block);
    double off = (double)(d + 16) * 0x1p-24; /* as in index/exact_scan.c */
    *block = (Block){.ranks = ranks, .ops = ops, .comm = comm, .margin = (float)(off / (1.0 - off))};
    block->queries = memory_alloc_array((size_t)(RETRIEVAL_QUERY_BLOCK * d), sizeof *block->queries);
    block->database = memory_alloc_array((size_t)(BLOCK * d), sizeof *block->database);
    block->products = memory_alloc_array(RETRIEVAL_QUERY_BLOCK * BLOCK, sizeof *block->products);
    block->grades = memory_alloc_array(RETRIEVAL_QUERY_BLOCK * BLOCK, sizeof *block->grades);
    Status status = STATUS_OK;
    for (int64_t first = 0; first < ranks->n && status == STATUS_OK; first += RETRIEVAL_QUERY_BLOCK) {
        block->first = first;
        block->rows = ranks->n - first < RETRIEVAL_QUERY_BLOCK ? ranks->n - first : RETRIEVAL_QUERY_BLOCK;
        status = run_block(block, error);
    }
    for (int i = 0; i < RETRIEVAL_QUERY_BLOCK; i++)
        memory_free(block->lists[i].hits);
    memory_free(block->queries);
    memory_free(block->database);
    memory_free(block->products);
    memory_free(block->grades);
    memory_free(block);
    return status;
}

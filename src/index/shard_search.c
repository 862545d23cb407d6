/* shard_search.c - see shard_search.h. */
#include "index/shard_search.h"

#include "base/check.h"
#include "base/memory.h"
#include "index/exact_scan.h"
#include "index/list_search.h"

#include <stdlib.h>
#include <string.h>

/* A search under way on one rank. Q = size * block queries are in a round at most. */
typedef struct {
    const ShardIndex *index;
    const IndexRows *queries;
    const ShardSearch *search;
    const Ops *ops;
    Comm *comm;
    int64_t d, k;
    int64_t views;    /* queries of a group */
    int64_t block;    /* queries of one rank in a round */
    int64_t rounds;   /* of all ranks */
    int64_t *places;  /* [size, 2] first id and count of each rank's queries */
    int64_t *counts;  /* [2, size] bytes of lists that go to each rank, that come */
    int64_t *heads;   /* [size] */
    float *mine;      /* [block, d] */
    float *all;       /* [Q, d] */
    int64_t *ids;     /* [Q] groups */
    float *pool;      /* [EXACT_SCAN_BLOCK, d] */
    Neighbour *local; /* [Q, k] of all queries in this rank's rows */
    Neighbour *come;  /* [size, block, k] of this rank's queries in all ranks' rows */
    Neighbour *best;  /* [block, k] */
} Searching;

static int64_t in_round(const Searching *s, int rank, int64_t round)
{
    int64_t left = s->places[2 * rank + 1] - round * s->block;
    return left <= 0 ? 0 : left < s->block ? left : s->block;
}

/* --- one round --- */

/* s->all, s->ids = the queries of all ranks, without gaps, and their groups; returns their number. */
static int64_t gather_queries(Searching *s, int64_t round)
{
    int size = comm_size(s->comm);
    comm_all_gather(s->comm, s->all, s->mine, s->block * s->d, DTYPE_F32, NULL);
    int64_t total = 0;
    for (int r = 0; r < size; r++) {
        int64_t n = in_round(s, r, round);
        memmove(s->all + total * s->d, s->all + r * s->block * s->d, (size_t)(n * s->d) * sizeof *s->all);
        for (int64_t i = 0; i < n; i++)
            s->ids[total + i] = (s->places[2 * r] + round * s->block + i) / s->views;
        total += n;
    }
    return total;
}

/* Lists go to whoever asked; s->best = the merged ones of this rank's queries. */
static void merge_lists(Searching *s, int64_t round)
{
    int size = comm_size(s->comm);
    int64_t n = in_round(s, comm_rank(s->comm), round), list = s->k * (int64_t)sizeof(Neighbour);
    for (int r = 0; r < size; r++) {
        s->counts[r] = in_round(s, r, round) * list;
        s->counts[size + r] = n * list;
    }
    comm_all_to_all(s->comm, s->come, s->counts + size, s->local, s->counts, DTYPE_U8);
    for (int64_t q = 0; q < n; q++)
        neighbour_list_merge(s->best + q * s->k, s->k, s->come + q * s->k, n * s->k, size, s->heads);
}

static Status run_round(Searching *s, int64_t round, ShardSearchSink sink, void *context, Error *error)
{
    int64_t n = in_round(s, comm_rank(s->comm), round);
    Status status = index_rows_read(s->queries, n ? round * s->block : 0, n, INDEX_ROWS_UNIT, s->mine, error);
    TRY(comm_agree(s->comm, status, error));
    ExactScan scan = {.queries = s->all,
                      .ids = s->search->not_itself ? s->ids : NULL,
                      .n = gather_queries(s, round),
                      .k = s->k,
                      .above = s->search->above};
    if (shard_index_faiss(s->index))
        status = list_search_run(&scan, s->index, s->pool, s->local, s->ops, error);
    else
        status = exact_scan_run(&scan, shard_index_pool(s->index), s->pool, s->local, s->ops, error);
    TRY(comm_agree(s->comm, status, error));
    merge_lists(s, round);
    ShardSearchRound result = {.round = round,
                               .rounds = s->rounds,
                               .first = s->queries->first + (n ? round * s->block : 0),
                               .count = n,
                               .k = s->k,
                               .neighbours = s->best};
    return comm_agree(s->comm, sink(context, &result, error), error);
}

/* --- all --- */

static Status check(const IndexRows *pool, const IndexRows *queries, const ShardSearch *search, Error *error)
{
    if (queries->total == 0) return status_fail(error, STATUS_INPUT, "%s: no queries", queries->name);
    if (queries->d != pool->d)
        return status_fail(error, STATUS_INPUT, "%s has rows of %lld numbers, %s of %lld", queries->name,
                           (long long)queries->d, pool->name, (long long)pool->d);
    int64_t others = pool->total - (search->not_itself ? 1 : 0);
    if (search->k < 1 || search->k > others)
        return status_fail(error, STATUS_INPUT, "%lld neighbours asked for, but %s has %lld rows%s",
                           (long long)search->k, pool->name, (long long)pool->total,
                           search->not_itself ? ", the asking one among them" : "");
    return STATUS_OK;
}

static void plan(Searching *s)
{
    int size = comm_size(s->comm);
    int64_t all = s->search->queries > 0 ? s->search->queries : SHARD_SEARCH_QUERIES;
    s->block = all / size / s->views > 0 ? all / size / s->views * s->views : s->views;
    s->places = memory_alloc_array(2 * (size_t)size, sizeof *s->places);
    int64_t mine[2] = {s->queries->first, s->queries->count};
    comm_all_gather(s->comm, s->places, mine, 2, DTYPE_I64, NULL);
    int64_t most = 0;
    for (int r = 0; r < size; r++)
        most = s->places[2 * r + 1] > most ? s->places[2 * r + 1] : most;
    if (most < s->block) s->block = most;
    s->rounds = (most + s->block - 1) / s->block;

    size_t d = (size_t)s->d, block = (size_t)s->block, q = (size_t)size * block, k = (size_t)s->k;
    s->counts = memory_alloc_array(2 * (size_t)size, sizeof *s->counts);
    s->heads = memory_alloc_array((size_t)size, sizeof *s->heads);
    s->mine = memory_alloc_array(block * d, sizeof *s->mine);
    s->all = memory_alloc_array(q * d, sizeof *s->all);
    s->ids = memory_alloc_array(q, sizeof *s->ids);
    s->pool = memory_alloc_array(EXACT_SCAN_BLOCK * d, sizeof *s->pool);
    s->local = memory_alloc_array(q * k, sizeof *s->local);
    s->come = memory_alloc_array(q * k, sizeof *s->come);
    s->best = memory_alloc_array(block * k, sizeof *s->best);
}

static void release(Searching *s)
{
    void *const blocks[] = {s->places, s->counts, s->heads, s->mine, s->all,
                            s->ids,    s->pool,   s->local, s->come, s->best};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        memory_free(blocks[i]);
}

Status shard_search_run(const ShardIndex *index, const IndexRows *queries, const ShardSearch *search,
                        ShardSearchSink sink, void *context, const Ops *ops, Comm *comm, Error *error)
{
    const IndexRows *pool = shard_index_pool(index);
    int64_t views = search->views > 0 ? search->views : 1;
    CHECK(!search->not_itself || queries->total == pool->total * views);
    CHECK(queries->first % views == 0 && queries->count % views == 0);
    TRY(comm_agree(comm, check(pool, queries, search, error), error));
    Searching searching = {.index = index,
                           .queries = queries,
                           .search = search,
                           .ops = ops,
                           .comm = comm,
                           .d = pool->d,
                           .k = search->k,
                           .views = views};
    plan(&searching);
    Status status = STATUS_OK;
    for (int64_t round = search->first_round; round < searching.rounds && status == STATUS_OK; round++)
        status = run_round(&searching, round, sink, context, error);
    release(&searching);
    return status;
}

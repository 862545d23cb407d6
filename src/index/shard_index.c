/* shard_index.c - see shard_index.h. */
#include "index/shard_index.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

enum {
    ROWS = 4096,              /* read, assigned and added at a time */
    TRAIN_LEAST = 64 * 256,   /* rows: a codebook has 256 entries */
    BROADCAST_MOST = 1 << 30, /* bytes of a packed index in one go */
};

struct ShardIndex {
    const IndexRows *pool; /* borrowed */
    ShardIndexOptions options;
    FaissIndex *faiss; /* owned; NULL: Flat */
    ShardIndexSeconds seconds;
};

OpsLimits shard_index_limits(int64_t d)
{
    return (OpsLimits){.rows = 1, .width = d};
}

/* --- learning --- */

static Status train(FaissIndex *faiss, const IndexRows *pool, const ShardIndexOptions *options,
                    const Ops *ops, Comm *comm, Error *error)
{
    int64_t wanted = options->train_rows;
    if (wanted == 0) wanted = SHARD_INDEX_ROWS_A_LIST * faiss_shim_lists(faiss);
    if (options->train_rows == 0 && wanted < TRAIN_LEAST) wanted = TRAIN_LEAST;
    if (wanted > pool->total) wanted = pool->total;
    bool root = comm_rank(comm) == 0;
    int64_t *ids = memory_alloc_array((size_t)wanted, sizeof *ids);
    float *sample = memory_alloc_array(root ? (size_t)(wanted * pool->d) : 0, sizeof *sample);
    index_rows_sample(ids, wanted, pool->total, options->seed, INDEX_DRAW_TRAIN);
    Status status = index_rows_collect(pool, ids, wanted, INDEX_ROWS_UNIT, 0, sample, comm, error);
    memory_free(ids);
    if (status == STATUS_OK) {
        if (root) status = faiss_shim_train(faiss, wanted, sample, ops->threads, error);
        if (status != STATUS_OK) status = status_prefix(error, status, "%s", options->factory);
        status = comm_agree(comm, status, error);
    }
    memory_free(sample);
    return status;
}

/* Rank 0's index, which holds no rows yet, becomes everyone's. */
static Status hand_out(FaissIndex **faiss, Comm *comm, Error *error)
{
    if (comm_size(comm) == 1) return STATUS_OK;
    void *bytes = NULL;
    size_t size = 0;
    bool root = comm_rank(comm) == 0;
    Status status = root ? faiss_shim_pack(*faiss, &bytes, &size, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    int64_t length = (int64_t)size;
    comm_broadcast(comm, &length, 1, DTYPE_I64, 0, NULL);
    if (!root) bytes = memory_alloc((size_t)length);
    for (int64_t first = 0; first < length; first += BROADCAST_MOST) {
        int64_t piece = length - first < BROADCAST_MOST ? length - first : BROADCAST_MOST;
        comm_broadcast(comm, (char *)bytes + first, piece, DTYPE_U8, 0, NULL);
    }
    if (!root) {
        faiss_shim_destroy(*faiss);
        status = faiss_shim_unpack(faiss, bytes, (size_t)length, error);
    }
    memory_free(bytes);
    return comm_agree(comm, status, error);
}

/* --- filling --- */

/* lists[pool->count] = where each row goes. */
static Status assign_rows(const FaissIndex *faiss, const IndexRows *pool, int64_t *lists, float *block,
                          int threads, Error *error)
{
    for (int64_t first = 0; first < pool->count; first += ROWS) {
        int64_t n = pool->count - first < ROWS ? pool->count - first : ROWS;
        TRY(index_rows_read(pool, first, n, INDEX_ROWS_UNIT, block, error));
        TRY(faiss_shim_assign(faiss, n, block, lists + first, threads, error));
    }
    return STATUS_OK;
}

static Status add_rows(FaissIndex *faiss, const IndexRows *pool, const int64_t *lists, float *block,
                       int threads, Error *error)
{
    for (int64_t first = 0; first < pool->count; first += ROWS) {
        int64_t n = pool->count - first < ROWS ? pool->count - first : ROWS;
        TRY(index_rows_read(pool, first, n, INDEX_ROWS_UNIT, block, error));
        TRY(faiss_shim_add(faiss, n, block, pool->first + first, lists + first, threads, error));
    }
    return STATUS_OK;
}

/* This rank's rows, of which the lists take no more room than they need: first all are assigned and counted,
 * then added. */
static Status fill(FaissIndex *faiss, const IndexRows *pool, int threads, Error *error)
{
    int64_t *lists = memory_alloc_array((size_t)pool->count, sizeof *lists);
    int64_t *counts = memory_alloc_array((size_t)faiss_shim_lists(faiss), sizeof *counts);
    float *block = memory_alloc_array((size_t)(ROWS * pool->d), sizeof *block);
    Status status = assign_rows(faiss, pool, lists, block, threads, error);
    if (status == STATUS_OK) {
        for (int64_t i = 0; i < pool->count; i++)
            counts[lists[i]]++;
        status = faiss_shim_reserve(faiss, counts, error);
    }
    if (status == STATUS_OK) status = add_rows(faiss, pool, lists, block, threads, error);
    memory_free(block);
    memory_free(counts);
    memory_free(lists);
    return status;
}

/* --- life --- */

static Status check(const IndexRows *pool, const ShardIndexOptions *options, bool flat, Error *error)
{
    if (pool->total == 0) return status_fail(error, STATUS_INPUT, "%s: no rows to search in", pool->name);
    if (flat && options->gpu)
        return status_fail(error, STATUS_INPUT, "Flat search does not use GPUs; IVFn,Flat does");
    if (!flat && options->nprobe < 1)
        return status_fail(error, STATUS_INPUT, "%s: a query has to look at one list or more, not %lld",
                           options->factory, (long long)options->nprobe);
    return STATUS_OK;
}

static Status build(ShardIndex *index, const Ops *ops, Comm *comm, Error *error)
{
    const IndexRows *pool = index->pool;
    Status status = faiss_shim_create(&index->faiss, pool->d, index->options.factory, error);
    if (status == STATUS_OK && faiss_shim_lists(index->faiss) == 0)
        status = status_fail(error, STATUS_INPUT, "%s: not a kind of index", index->options.factory);
    TRY(comm_agree(comm, status, error));
    double start = clock_seconds();
    TRY(train(index->faiss, pool, &index->options, ops, comm, error));
    TRY(hand_out(&index->faiss, comm, error));
    index->seconds.train = clock_seconds() - start;
    status = fill(index->faiss, pool, ops->threads, error);
    index->seconds.fill = clock_seconds() - start - index->seconds.train;
    if (status == STATUS_OK && index->options.gpu)
        status = faiss_shim_to_gpu(index->faiss, index->options.nprobe, error);
    return comm_agree(comm, status, error);
}

Status shard_index_create(ShardIndex **out, const IndexRows *pool, const ShardIndexOptions *options,
                          const Ops *ops, Comm *comm, Error *error)
{
    *out = NULL;
    bool flat = strcmp(options->factory, "Flat") == 0;
    TRY(comm_agree(comm, check(pool, options, flat, error), error));
    ShardIndex *index = memory_alloc(sizeof *index);
    *index = (ShardIndex){.pool = pool, .options = *options};
    Status status = flat ? STATUS_OK : build(index, ops, comm, error);
    if (status != STATUS_OK) {
        shard_index_destroy(index);
        return status;
    }
    *out = index;
    return STATUS_OK;
}

void shard_index_destroy(ShardIndex *index)
{
    if (!index) return;
    faiss_shim_destroy(index->faiss);
    memory_free(index);
}

void shard_index_tune(ShardIndex *index, int64_t nprobe, int64_t refine)
{
    CHECK(index->faiss && !index->options.gpu && nprobe >= 1 && refine >= 0);
    index->options.nprobe = nprobe;
    index->options.refine = refine;
}

ShardIndexSeconds shard_index_seconds(const ShardIndex *index)
{
    return index->seconds;
}

size_t shard_index_bytes(const ShardIndex *index)
{
    return index->faiss ? faiss_shim_bytes(index->faiss) : 0;
}

const IndexRows *shard_index_pool(const ShardIndex *index)
{
    return index->pool;
}

const ShardIndexOptions *shard_index_options(const ShardIndex *index)
{
    return &index->options;
}

FaissIndex *shard_index_faiss(const ShardIndex *index)
{
    return index->faiss;
}

/* shard_index.h - an index over a pool of rows of which each rank holds its own.
 *
 * Cosine: rows are divided by their length as they are read. "Flat" is exact search: nothing is built, the
 * rank's rows are read again for every round of queries (exact_scan.h). Every other kind is Faiss's: lists
 * and codes are learnt on rank 0 from a sample of the whole pool and handed to all, so that all ranks have
 * the same lists, and each rank adds its own rows, in blocks.
 *
 *     ShardIndexOptions options = {.factory = "IVF4096,Flat", .nprobe = 32, .seed = seed};
 *     TRY(shard_index_create(&index, &pool, &options, ops, comm, error));
 *     TRY(shard_search_run(index, &queries, &(ShardSearch){.k = 64, ...}, sink, context, ops, comm, error));
 *     shard_index_destroy(index);
 *
 * Memory of a rank, bytes: Flat: nothing. Others: its rows as the factory says (4 d + 8 each for
 * "IVFn,Flat", m + 8 for "IVFn,PQm"), 4 d a list, 8 a row while adding; rank 0 also train_rows * 4 d.
 */
#ifndef DINOBATCH_INDEX_SHARD_INDEX_H
#define DINOBATCH_INDEX_SHARD_INDEX_H

#include "index/faiss_shim.h"
#include "index/index_rows.h"
#include "ops/ops.h"

enum { SHARD_INDEX_ROWS_A_LIST = 64 }; /* of the training sample, unless said otherwise */

typedef struct {
    const char *factory; /* "Flat", or what faiss_shim_create takes */
    int64_t nprobe;      /* lists that a query looks at, at most all; not read for Flat */
    int64_t train_rows;  /* sample to learn from, at most the pool; 0: 64 for each list, 256 * 64 at least */
    /* Of codes (PQ, SQ): 0: similarities are those of codes. r >= 1: r * k candidates of each rank are looked
     * up in its rows, each row once a round, and their similarities are computed from those: needed for
     * thresholds. Not read for Flat and "IVFn,Flat", whose similarities are those of the rows anyway. */
    int64_t refine;
    bool gpu;      /* search on this process's GPUs (FAISS_GPU=1); not for Flat */
    uint64_t seed; /* of the sample */
} ShardIndexOptions;

typedef struct ShardIndex ShardIndex;

/* What ops must be made for: everything in src/index on rows of d columns. Of a CPU; what is used of it are
 * its threads, each of which makes matrix products of its own. */
OpsLimits shard_index_limits(int64_t d);

/* Reads the pool twice (assignment and adding), the sample once. `pool` is borrowed: exact search and refine
 * read it. STATUS_INPUT, the same on all ranks, for an unknown factory string, an empty pool, a row that is
 * zero or not finite (its id), a sample smaller than the lists. The outcome is agreed. Collective over COMM.
 */
Status shard_index_create(ShardIndex **out, const IndexRows *pool, const ShardIndexOptions *options,
                          const Ops *ops, Comm *comm, Error *error);

/* How searches look from now on: nprobe and refine of ShardIndexOptions. Not for Flat, nor for an index on
 * GPUs. The same on all ranks; not collective. */
void shard_index_tune(ShardIndex *index, int64_t nprobe, int64_t refine);

/* How long making the index took on this rank: learning lists and codes on rank 0 with the waiting for it,
 * and adding this rank's rows (assignment included). 0 for Flat. Not collective. */
typedef struct {
    double train, fill;
} ShardIndexSeconds;
ShardIndexSeconds shard_index_seconds(const ShardIndex *index);

/* Fine on NULL. Not collective. */
void shard_index_destroy(ShardIndex *index);

/* Bytes that the index itself takes on this rank; 0 for Flat. Not collective. */
size_t shard_index_bytes(const ShardIndex *index);

/* For shard_search.c. */
const IndexRows *shard_index_pool(const ShardIndex *index);
const ShardIndexOptions *shard_index_options(const ShardIndex *index);
FaissIndex *shard_index_faiss(const ShardIndex *index); /* NULL: Flat */

#endif

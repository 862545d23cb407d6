/* shard_search.h - the k nearest pool rows of each query, over all ranks.
 *
 * Queries travel, the pool stays: in a round every rank gives a block of its queries to all, every rank finds
 * their k nearest among its own pool rows, the lists go back to the rank that asked, and it merges them.
 *
 * Flat search gives the same neighbours, in the same order, with the same bits of similarity, on any number
 * of ranks and threads: matrix products only propose candidates, with a margin for their rounding that is a
 * bound, not an estimate; similarities are index_rows_dot's; equal ones are ordered by id (exact_scan.h has
 * the argument). "IVFn,Flat" is exact in the same way among the rows of the lists that are looked at
 * (list_scan.h); which lists, Faiss decides by a matrix product, and of lists that are as near as makes no
 * difference in fp32 another number of ranks may take another one. Codes without refine: the similarities
 * are Faiss's, and of rows as similar as the k-th those stay that come first in its lists.
 *
 * Memory of a rank beside the index, bytes, with Q queries in a round and d columns: 4 d Q for the queries,
 * 48 k Q for lists of neighbours, 4096 d for a block of the pool, for "IVFn,Flat"
 * 16 nprobe Q for the lists to look at, for codes 36 k Q (times refine) for candidates.
 */
#ifndef DINOBATCH_INDEX_SHARD_SEARCH_H
#define DINOBATCH_INDEX_SHARD_SEARCH_H

#include "index/neighbour_list.h"
#include "index/shard_index.h"

enum { SHARD_SEARCH_QUERIES = 4096 }; /* of a round, unless said otherwise */

typedef struct {
    int64_t k;           /* neighbours of a query, at least 1 */
    double above;        /* only those more similar than this; -INFINITY: all */
    bool not_itself;     /* queries are the pool itself: the row with the query's id is no neighbour */
    int64_t views;       /* queries come in groups of so many, the views of one picture, which a round never
                            parts; with not_itself the number of the group is the row; 0: 1 */
    int64_t queries;     /* of one round, all ranks together, but a group a rank; 0: SHARD_SEARCH_QUERIES */
    int64_t first_round; /* rounds before it are left out: where a run that was stopped goes on */
} ShardSearch;

/* What came of one round on one rank. */
typedef struct {
    int64_t round, rounds; /* this one, from 0; all */
    int64_t first, count;  /* the queries with the ids first .. first + count - 1; count may be 0 */
    int64_t k;
    const Neighbour *neighbours; /* [count, k] nearest first, empty places (id -1) at the end; borrowed */
} ShardSearchRound;

/* Takes a round's result. Called on every rank once a round, in order, also with nothing in it; so it may
 * itself be collective. Its outcome is agreed. */
typedef Status (*ShardSearchSink)(void *context, const ShardSearchRound *round, Error *error);

/* STATUS_INPUT, the same on all ranks: k beyond the rows of the pool (one less with not_itself), queries of
 * other columns than the pool, no query on any rank, a query that is zero or not finite (its id). The outcome
 * is agreed. Collective over COMM, which is the one that the index was made with. */
Status shard_search_run(const ShardIndex *index, const IndexRows *queries, const ShardSearch *search,
                        ShardSearchSink sink, void *context, const Ops *ops, Comm *comm, Error *error);

#endif

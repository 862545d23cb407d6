/* knn_graph.h - edges between the rows of a pool and their nearest others, above a threshold, as a stream.
 *
 * Source: DINOv2 paper, appendix A.3: k = 64 nearest neighbours of each image, edges with a cosine above 0.6.
 * An edge a - b is handed out once from each end that has it among its k nearest. Equal similarities go to
 * the lower id, so that of more than k equal rows all name the same ones and stay in one component (Flat).
 */
#ifndef DINOBATCH_INDEX_KNN_GRAPH_H
#define DINOBATCH_INDEX_KNN_GRAPH_H

#include "index/component_labels.h"
#include "index/shard_search.h"

enum { KNN_GRAPH_K = 64 };

typedef struct {
    int64_t k;             /* neighbours of a row; 0: KNN_GRAPH_K */
    double threshold;      /* edges more similar than this */
    const IndexRows *from; /* rows that look for neighbours: a part of the pool (index_rows_part), or others;
                              NULL: all of the pool */
    bool others;           /* `from` are no rows of the pool: an edge is from a row of theirs to one of it */
    int64_t queries;       /* as in ShardSearch */
} KnnGraph;

/* What came of one round on one rank. */
typedef struct {
    int64_t round, rounds;  /* this one, from 0; all */
    int64_t first, count;   /* the rows that looked: ids first .. first + count - 1; count may be 0 */
    const IndexEdge *edges; /* [n] from them: a is the row, b the neighbour; ordered by a, then nearest first;
                               borrowed */
    int64_t n;
} KnnGraphRound;

/* Takes a round's edges. Called on every rank once a round, also with none; so it may be collective
 * (component_labels_unite). Its outcome is agreed. */
typedef Status (*KnnGraphSink)(void *context, const KnnGraphRound *round, Error *error);

/* Errors as of shard_search_run. At most k edges a row of the round are held. Collective over COMM. */
Status knn_graph_run(const ShardIndex *index, const KnnGraph *graph, KnnGraphSink sink, void *context,
                     const Ops *ops, Comm *comm, Error *error);

#endif

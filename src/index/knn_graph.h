/* knn_graph.h - edges between the rows of a pool and their nearest others, above a threshold, as a stream.
 *
 * Source: DINOv2 paper, appendix A.3: k = 64 nearest neighbours of each image, edges with a cosine above 0.6.
 * An edge a - b is handed out once from each end that has it among its k nearest. Equal similarities go to
 * the lower id, so that of more than k equal rows all name the same ones and stay in one component (Flat).
 *
 * With `normalised`, an edge's similarity is how far it is above the row's background: rows in crowded places
 * need more to be linked. It is SSCD's score normalisation (README, "Score normalization") with the row's own
 * neighbours for the background set. Either end's view of a pair makes an edge. A row with more copies than
 * half of k has them for its background; `background_most`, which pictures without copies tell (curate
 * calibrate), bounds what that can hide.
 *
 * Where several rows that look are views of one picture (`views`), its neighbours are the k rows that any of
 * its views is most like; rounds and edges then tell of pictures.
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
    int64_t views;         /* of `from`, so many rows in turn are views of one picture; without `others` row r
                              of the pool is the picture that rows r * views on look for; 0: 1 */
    bool normalised;       /* see above; threshold is then one of such differences */
    double background_most; /* with normalised: a greater background counts as this one */
    int64_t queries;        /* as in ShardSearch */
} KnnGraph;

/* What came of one round on one rank. */
typedef struct {
    int64_t round, rounds; /* this one, from 0; all */
    int64_t first,
        count; /* the rows (pictures) that looked: ids first .. first + count - 1; count may be 0 */
    const IndexEdge *edges; /* [n] from them: a is the row, b the neighbour; ordered by a, then nearest first;
                               borrowed */
    int64_t n;
} KnnGraphRound;

/* The background of a row: the mean similarity of the farther half of its n edges, nearest first, as they are
 * without `normalised` and above no threshold; 0 where there are none. */
double knn_graph_background(const IndexEdge *edges, int64_t n);

/* Takes a round's edges. Called on every rank once a round, also with none; so it may be collective
 * (component_labels_unite). Its outcome is agreed. */
typedef Status (*KnnGraphSink)(void *context, const KnnGraphRound *round, Error *error);

/* Errors as of shard_search_run. At most k edges a row (picture) of the round are held. Collective over COMM.
 */
Status knn_graph_run(const ShardIndex *index, const KnnGraph *graph, KnnGraphSink sink, void *context,
                     const Ops *ops, Comm *comm, Error *error);

#endif

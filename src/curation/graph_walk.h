/* graph_walk.h - the edges of all rows of a set, looked for round by round, in a way that can be stopped.
 *
 * Which rows have been dealt with is one byte a row (`done`), or a picture where rows are views of pictures.
 * A walk that goes on, on any number of ranks, takes from each rank's rows those that are left, run by run.
 * On as many ranks as before these are the same blocks of rows as if it had never been stopped.
 */
#ifndef DINOBATCH_CURATION_GRAPH_WALK_H
#define DINOBATCH_CURATION_GRAPH_WALK_H

#include "curation/curation_state.h"
#include "index/knn_graph.h"

typedef struct {
    const ShardIndex *index;
    const IndexRows *from; /* rows that look for neighbours, this rank's run */
    uint8_t *done;         /* [from->count / graph.views] 1: dealt with; set as the walk goes on */
    KnnGraph graph;        /* its `from` is not read */
    /* Takes a round's edges; may be collective. Its outcome is agreed. */
    KnnGraphSink sink;
    void *context;
    CurationState *state; /* saved from time to time, once a round is dealt with */
    const char *what;     /* for progress */
} GraphWalk;

/* Rows of all ranks that are not done (of pictures with views: the whole ones); 0: there is nothing to make
 * an index for. Collective over COMM. */
int64_t graph_walk_left(const IndexRows *rows, const uint8_t *done, Comm *comm);

/* All arguments are borrowed. STATUS_REQUEUE when asked to stop, after saving; other errors as of
 * shard_search_run. Collective over COMM. */
Status graph_walk_run(const GraphWalk *walk, const Ops *ops, Comm *comm, Log *log, Error *error);

#endif

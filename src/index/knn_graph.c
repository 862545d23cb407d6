/* knn_graph.c - see knn_graph.h. */
#include "index/knn_graph.h"

#include "base/memory.h"

typedef struct {
    KnnGraphSink sink;
    void *context;
    IndexEdge *edges; /* [room] owned */
    int64_t room;
} Streaming;

static Status take_round(void *context, const ShardSearchRound *round, Error *error)
{
    Streaming *streaming = context;
    if (round->count * round->k > streaming->room) {
        memory_free(streaming->edges);
        streaming->room = round->count * round->k;
        streaming->edges = memory_alloc_array((size_t)streaming->room, sizeof *streaming->edges);
    }
    int64_t n = 0;
    for (int64_t q = 0; q < round->count; q++) {
        const Neighbour *list = round->neighbours + q * round->k;
        for (int64_t i = 0; i < round->k && list[i].id >= 0; i++)
            streaming->edges[n++] = (IndexEdge){round->first + q, list[i].id, list[i].similarity};
    }
    KnnGraphRound result = {round->round, round->rounds, round->first, round->count, streaming->edges, n};
    return streaming->sink(streaming->context, &result, error);
}

Status knn_graph_run(const ShardIndex *index, const KnnGraph *graph, KnnGraphSink sink, void *context,
                     const Ops *ops, Comm *comm, Error *error)
{
    ShardSearch search = {.k = graph->k > 0 ? graph->k : KNN_GRAPH_K,
                          .above = graph->threshold,
                          .not_itself = !graph->others,
                          .queries = graph->queries};
    Streaming streaming = {.sink = sink, .context = context};
    const IndexRows *from = graph->from ? graph->from : shard_index_pool(index);
    Status status = shard_search_run(index, from, &search, take_round, &streaming, ops, comm, error);
    memory_free(streaming.edges);
    return status;
}

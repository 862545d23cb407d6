/* knn_graph.c - see knn_graph.h. */
#include "index/knn_graph.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    KnnGraphSink sink;
    void *context;
    int64_t views;
    bool normalised;
    double threshold, background_most; /* where normalised */
    Neighbour *united;                 /* [views, k] owned */
    IndexEdge *edges;                  /* [room] owned */
    int64_t room;
} Streaming;

static int by_nearness(const void *left, const void *right)
{
    const Neighbour *a = left, *b = right;
    return neighbour_list_is_after(*a, *b) ? 1 : neighbour_list_is_after(*b, *a) ? -1 : 0;
}

static int by_id_and_nearness(const void *left, const void *right)
{
    const Neighbour *a = left, *b = right;
    return a->id != b->id ? (a->id < b->id ? -1 : 1) : by_nearness(left, right);
}

/* The k best of lists[views, k], a row once; returns how many there are. */
static int64_t unite_views(Streaming *streaming, const Neighbour *lists, int64_t k, const Neighbour **list)
{
    Neighbour *united = streaming->united;
    int64_t n = 0, rows = 0;
    for (int64_t view = 0; view < streaming->views; view++)
        for (int64_t i = 0; i < k && lists[view * k + i].id >= 0; i++)
            united[n++] = lists[view * k + i];
    qsort(united, (size_t)n, sizeof *united, by_id_and_nearness);
    for (int64_t i = 0; i < n; i++)
        if (rows == 0 || united[i].id != united[rows - 1].id) united[rows++] = united[i];
    qsort(united, (size_t)rows, sizeof *united, by_nearness);
    *list = united;
    return rows < k ? rows : k;
}

/* The same of one list. */
static int64_t take_list(const Neighbour *lists, int64_t k, const Neighbour **list)
{
    int64_t n = 0;
    while (n < k && lists[n].id >= 0)
        n++;
    *list = lists;
    return n;
}

double knn_graph_background(const IndexEdge *edges, int64_t n)
{
    int64_t first = n / 2, count = n - first;
    double sum = 0.0;
    for (int64_t i = first; i < n; i++)
        sum += (double)edges[i].similarity;
    return count > 0 ? sum / (double)count : 0.0;
}

/* A row's n edges, nearest first, become those whose difference is above the threshold; returns how many. */
static int64_t normalise(const Streaming *streaming, IndexEdge *edges, int64_t n)
{
    double background = fmin(knn_graph_background(edges, n), streaming->background_most);
    int64_t kept = 0;
    while (kept < n && (double)edges[kept].similarity - background > streaming->threshold) {
        edges[kept].similarity = (float)((double)edges[kept].similarity - background);
        kept++;
    }
    return kept;
}

static Status take_round(void *context, const ShardSearchRound *round, Error *error)
{
    Streaming *streaming = context;
    int64_t views = streaming->views, k = round->k, first = round->first / views;
    int64_t count = round->count / views;
    if (count * k > streaming->room) {
        memory_free(streaming->edges);
        streaming->room = count * k;
        streaming->edges = memory_alloc_array((size_t)streaming->room, sizeof *streaming->edges);
    }
    int64_t n = 0;
    for (int64_t q = 0; q < count; q++) {
        const Neighbour *lists = round->neighbours + q * views * k, *list;
        int64_t found = views > 1 ? unite_views(streaming, lists, k, &list) : take_list(lists, k, &list);
        IndexEdge *edges = streaming->edges + n;
        for (int64_t i = 0; i < found; i++)
            edges[i] = (IndexEdge){first + q, list[i].id, list[i].similarity};
        n += streaming->normalised ? normalise(streaming, edges, found) : found;
    }
    KnnGraphRound result = {round->round, round->rounds, first, count, streaming->edges, n};
    return streaming->sink(streaming->context, &result, error);
}

Status knn_graph_run(const ShardIndex *index, const KnnGraph *graph, KnnGraphSink sink, void *context,
                     const Ops *ops, Comm *comm, Error *error)
{
    ShardSearch search = {.k = graph->k > 0 ? graph->k : KNN_GRAPH_K,
                          .above = graph->normalised ? -INFINITY : graph->threshold,
                          .not_itself = !graph->others,
                          .views = graph->views,
                          .queries = graph->queries};
    Streaming streaming = {.sink = sink,
                           .context = context,
                           .views = graph->views > 0 ? graph->views : 1,
                           .normalised = graph->normalised,
                           .threshold = graph->threshold,
                           .background_most = graph->background_most};
    const IndexRows *from = graph->from ? graph->from : shard_index_pool(index);
    streaming.united = memory_alloc_array((size_t)(streaming.views * search.k), sizeof *streaming.united);
    Status status = shard_search_run(index, from, &search, take_round, &streaming, ops, comm, error);
    memory_free(streaming.edges);
    memory_free(streaming.united);
    return status;
}

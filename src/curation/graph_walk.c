/* graph_walk.c - see graph_walk.h. */
#include "curation/graph_walk.h"

#include "run/progress.h"

#include <string.h>

typedef struct {
    const GraphWalk *walk;
    Comm *comm;
    Log *log;
    Progress progress;
    int64_t done; /* rows of all ranks */
} Walking;

static int64_t sum_over_ranks(Comm *comm, int64_t value)
{
    comm_all_reduce(comm, &value, 1, DTYPE_I64, COMM_SUM, NULL);
    return value;
}

static Status take_round(void *context, const KnnGraphRound *round, Error *error)
{
    Walking *walking = context;
    const GraphWalk *walk = walking->walk;
    TRY(comm_agree(walking->comm, walk->sink(walk->context, round, error), error));
    if (round->count > 0) memset(walk->done + (round->first - walk->from->first), 1, (size_t)round->count);
    walking->done += sum_over_ranks(walking->comm, round->count);
    progress_update(&walking->progress, walking->done, "");
    return curation_state_pause(walk->state, walking->comm, walking->log, error);
}

/* The first run of rows from `at` on that are not done: *first and its length. */
static int64_t next_run(const GraphWalk *walk, int64_t at, int64_t *first)
{
    int64_t count = walk->from->count;
    while (at < count && walk->done[at])
        at++;
    *first = at;
    while (at < count && !walk->done[at])
        at++;
    return at - *first;
}

int64_t graph_walk_left(const IndexRows *from, const uint8_t *done, Comm *comm)
{
    int64_t left = 0;
    for (int64_t i = 0; i < from->count; i++)
        left += !done[i];
    return sum_over_ranks(comm, left);
}

Status graph_walk_run(const GraphWalk *walk, const Ops *ops, Comm *comm, Log *log, Error *error)
{
    int64_t first, n;
    Walking walking = {.walk = walk,
                       .comm = comm,
                       .log = log,
                       .done = walk->from->total - graph_walk_left(walk->from, walk->done, comm)};
    int64_t every = walk->from->total / 50; /* lines of a log */
    walking.progress = progress_begin(log, walk->what, walking.done, walk->from->total, every);
    walking.progress.unit = "rows";
    Status status = STATUS_OK;
    while (status == STATUS_OK && sum_over_ranks(comm, n = next_run(walk, 0, &first)) > 0) {
        IndexRows part = index_rows_part(walk->from, first, n);
        KnnGraph graph = walk->graph;
        graph.from = &part;
        status = knn_graph_run(walk->index, &graph, take_round, &walking, ops, comm, error);
    }
    progress_end(&walking.progress);
    return status;
}

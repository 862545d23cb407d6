/* graph_walk.c - see graph_walk.h. */
#include "curation/graph_walk.h"

#include "base/clock.h"
#include "run/progress.h"

#include <string.h>

typedef struct {
    const GraphWalk *walk;
    int64_t views; /* rows of a picture */
    Comm *comm;
    Log *log;
    Progress progress;
    int64_t first; /* row (picture) of this rank that done[0] is of */
    int64_t done;  /* rows (pictures) of all ranks */
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
    if (round->count > 0) memset(walk->done + (round->first - walking->first), 1, (size_t)round->count);
    walking->done += sum_over_ranks(walking->comm, round->count);
    TRY(curation_state_pause(walk->state, walking->comm, walking->log, error));
    progress_update(&walking->progress, walking->done, "");
    return STATUS_OK;
}

/* The first run of rows (pictures) that are not done: *first and its length. */
static int64_t next_run(const Walking *walking, int64_t *first)
{
    const GraphWalk *walk = walking->walk;
    int64_t count = walk->from->count / walking->views, at = 0;
    while (at < count && walk->done[at])
        at++;
    *first = at;
    while (at < count && !walk->done[at])
        at++;
    return at - *first;
}

static int64_t count_left(const uint8_t *done, int64_t count, Comm *comm)
{
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++)
        left += !done[i];
    return sum_over_ranks(comm, left);
}

int64_t graph_walk_left(const IndexRows *rows, const uint8_t *done, Comm *comm)
{
    return count_left(done, rows->count, comm);
}

Status graph_walk_run(const GraphWalk *walk, const Ops *ops, Comm *comm, Log *log, Error *error)
{
    int64_t first, n, views = walk->graph.views > 0 ? walk->graph.views : 1;
    int64_t total = walk->from->total / views;
    Walking walking = {.walk = walk,
                       .views = views,
                       .comm = comm,
                       .log = log,
                       .first = walk->from->first / views,
                       .done = total - count_left(walk->done, walk->from->count / views, comm)};
    int64_t every = total / 50; /* lines of a log */
    walking.progress = progress_begin(log, walk->what, walking.done, total, every);
    walking.progress.unit = "rows";
    int64_t before = walking.done;
    double start = clock_seconds();
    Status status = STATUS_OK;
    while (status == STATUS_OK && sum_over_ranks(comm, n = next_run(&walking, &first)) > 0) {
        IndexRows part = index_rows_part(walk->from, first * views, n * views);
        KnnGraph graph = walk->graph;
        graph.from = &part;
        status = knn_graph_run(walk->index, &graph, take_round, &walking, ops, comm, error);
    }
    progress_end(&walking.progress);
    if (status == STATUS_OK)
        log_info(log, "%s: %lld rows looked for their neighbours in %.1f s", walk->what,
                 (long long)(walking.done - before), clock_seconds() - start);
    return status;
}

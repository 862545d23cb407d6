/* deduplicate.c - see deduplicate.h. */
#include "curation/deduplicate.h"

#include "base/check.h"
#include "base/memory.h"
#include "curation/graph_walk.h"
#include "index/id_exchange.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const FeatureSource *pool;
    const CurationRun *run;
    Deduplication *result;
    ComponentLabels labels;
    uint8_t *done; /* [labels.count] */
    CurationState state;
    char path[CURATION_RUN_PATH];
} Deduplicating;

/* --- the graph --- */

static Status unite(void *context, const KnnGraphRound *round, Error *error)
{
    Deduplicating *d = context;
    int64_t edges = round->n;
    comm_all_reduce(d->run->comm, &edges, 1, DTYPE_I64, COMM_SUM, NULL);
    d->state.numbers[0].value += edges;
    return component_labels_unite(&d->labels, round->edges, round->n, d->run->comm, error);
}

static Status start(Deduplicating *d, Error *error)
{
    const CurationRun *run = d->run;
    const Config *config = run->config;
    CurationMeta meta = curation_run_meta(run, "dedup", d->pool);
    meta.digest = curation_run_digest(
        d->pool->set_digest, "dedup %lld %s %lld %lld %lld %lld %.17g %d %.17g",
        (long long)d->result->neighbours, config->curation.index, (long long)config->curation.nprobe,
        (long long)config->curation.refine, (long long)config->curation.train_rows,
        (long long)config->curation.seed, config->curation.dedup.threshold,
        (int)config->curation.score_normalization, config->curation.dedup.background_most);
    component_labels_init(&d->labels, d->pool->rows.total, run->comm);
    d->done = memory_alloc((size_t)d->labels.count);
    d->state = (CurationState){.path = d->path,
                               .meta = meta,
                               .total = d->labels.total,
                               .first = d->labels.first,
                               .count = d->labels.count,
                               .save_minutes = config->curation.save_minutes,
                               .arrays = {{"/label", H5_TYPE_I64, d->labels.label, 0, CURATION_OWN_ROW},
                                          {"/done", H5_TYPE_U8, d->done, 0, 0}},
                               .array_count = 2,
                               .numbers = {{"edges", 0}},
                               .number_count = 1};
    bool found;
    TRY(curation_state_restore(&d->state, run->resume, &found, run->comm, run->log, error));
    if (found) return STATUS_OK;
    memset(d->done, 0, (size_t)d->labels.count);
    for (int64_t i = 0; i < d->labels.count; i++)
        d->labels.label[i] = d->labels.first + i;
    d->state.numbers[0].value = 0;
    return STATUS_OK;
}

static Status walk(Deduplicating *d, Error *error)
{
    const CurationRun *run = d->run;
    if (graph_walk_left(&d->pool->rows, d->done, run->comm) == 0) return STATUS_OK;
    ShardIndex *index;
    TRY(curation_run_make_index(run, &d->pool->rows, run->config->curation.index, &index, error));
    GraphWalk graph = {.index = index,
                       .from = &d->pool->view_rows,
                       .done = d->done,
                       .graph = {.k = d->result->neighbours,
                                 .threshold = run->config->curation.dedup.threshold,
                                 .views = d->pool->views,
                                 .normalised = run->config->curation.score_normalization,
                                 .background_most = run->config->curation.dedup.background_most,
                                 .queries = run->config->curation.block_queries},
                       .sink = unite,
                       .context = d,
                       .state = &d->state,
                       .what = "dedup"};
    Status status = graph_walk_run(&graph, run->ops, run->comm, run->log, error);
    shard_index_destroy(index);
    return status;
}

/* --- groups --- */

static int by_number(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

/* result->groups, largest and kept, by the owners of the groups' lowest rows. Collective over COMM. */
static void count_groups(const ComponentLabels *labels, Deduplication *result, Comm *comm)
{
    int64_t *others = memory_alloc_array((size_t)labels->count, sizeof *others), n = 0, records = 0;
    for (int64_t i = 0; i < labels->count; i++)
        if (labels->label[i] != labels->first + i) others[n++] = labels->label[i];
    qsort(others, (size_t)n, sizeof *others, by_number);
    int64_t *members = memory_alloc_array(2 * (size_t)n, sizeof *members); /* label, rows of this rank */
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || others[i] != others[i - 1]) members[2 * records++] = others[i];
        members[2 * records - 1]++;
    }
    memory_free(others);
    IdExchange exchange;
    id_exchange_init(&exchange, members, records, 2, labels->total, comm);
    memory_free(members);
    int64_t *sizes = memory_alloc_array((size_t)labels->count, sizeof *sizes), largest = 1;
    for (int64_t i = 0; i < exchange.count; i++)
        sizes[exchange.taken[2 * i] - labels->first] += exchange.taken[2 * i + 1];
    id_exchange_fini(&exchange);
    int64_t sums[2] = {0, labels->count - n}; /* groups of more than one; lowest rows */
    for (int64_t i = 0; i < labels->count; i++) {
        sums[0] += sizes[i] > 0;
        if (sizes[i] + 1 > largest) largest = sizes[i] + 1;
    }
    memory_free(sizes);
    comm_all_reduce(comm, sums, 2, DTYPE_I64, COMM_SUM, NULL);
    comm_all_reduce(comm, &largest, 1, DTYPE_I64, COMM_MAX, NULL);
    result->groups = sums[0];
    result->kept = sums[1];
    result->largest = largest;
}

static Status write_file(const Deduplicating *d, Error *error)
{
    const CurationRun *run = d->run;
    const Deduplication *result = d->result;
    const ComponentLabels *labels = &d->labels;
    uint8_t *keep = memory_alloc((size_t)labels->count);
    for (int64_t i = 0; i < labels->count; i++)
        keep[i] = labels->label[i] == labels->first + i;
    CurationMeta meta = curation_run_meta(run, "dedup", d->pool);
    CurationFile file;
    curation_file_create(&file, result->path, result->rows, &meta, run->comm);
    curation_file_put_double(&file, "threshold", run->config->curation.dedup.threshold);
    curation_run_put_normalization(run, &file, run->config->curation.dedup.background_most);
    curation_run_put_search(run, &file, result->neighbours);
    curation_run_put_views(d->pool, &file);
    curation_file_put_text(&file, "kept_of_a_group", "the lowest row");
    curation_file_put_int(&file, "edges", result->edges);
    curation_file_put_int(&file, "groups", result->groups);
    curation_file_put_int(&file, "largest_group", result->largest);
    curation_file_put_int(&file, "rows_kept", result->kept);
    curation_file_put_rows(&file, "/group", H5_TYPE_I64, labels->label, labels->count);
    curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, labels->count);
    memory_free(keep);
    return curation_file_commit(&file, error);
}

/* --- all --- */

static Status deduplicate(Deduplicating *d, Error *error)
{
    const CurationRun *run = d->run;
    TRY(start(d, error));
    if (d->result->neighbours > 0) TRY(walk(d, error));
    component_labels_finish(&d->labels, run->comm);
    d->result->edges = d->state.numbers[0].value;
    count_groups(&d->labels, d->result, run->comm);
    TRY(write_file(d, error));
    curation_state_remove(&d->state, run->comm);
    return STATUS_OK;
}

Status deduplicate_run(Deduplication *result, const FeatureSource *pool, const CurationRun *run, Error *error)
{
    CHECK(!pool->kept);
    *result = (Deduplication){.rows = pool->rows.total};
    result->neighbours = curation_run_neighbours(run, pool->name, pool->rows.total - 1);
    Deduplicating deduplicating = {.pool = pool, .run = run, .result = result};
    TRY(curation_run_path(run, "dedup.h5", result->path, error));
    TRY(curation_run_path(run, "dedup.partial.h5", deduplicating.path, error));
    Status status = deduplicate(&deduplicating, error);
    component_labels_fini(&deduplicating.labels);
    memory_free(deduplicating.done);
    return status;
}

/* exclude.c - see exclude.h. */
#include "curation/exclude.h"

#include "base/memory.h"
#include "curation/graph_walk.h"
#include "index/id_exchange.h"

#include <stdlib.h>
#include <string.h>

/* What is done in turn; a number of the state. */
typedef enum { PHASE_FROM_POOL, PHASE_TO_VIEWS, PHASE_FROM_REFERENCES, PHASE_WITHIN_POOL } Phase;

enum { NUMBER_PHASE, NUMBER_EDGES };

typedef struct {
    const FeatureSource *pool, *references;
    const char *keep;
    const CurationRun *run;
    Exclusion *result;
    const ShardIndex *pool_index; /* while there is one */
    ComponentLabels labels;
    uint8_t *done;      /* [labels.count] of all phases but PHASE_FROM_REFERENCES */
    int64_t *reference; /* [labels.count] the most similar one, or -1 */
    float *similarity;  /* [labels.count] to it */
    CurationState state;
    char path[CURATION_RUN_PATH];
} Excluding;

/* --- edges --- */

/* Of equally similar references the lower row. */
static void meet(Excluding *x, int64_t row, int64_t reference, float similarity)
{
    if (x->reference[row] >= 0 && (similarity < x->similarity[row] ||
                                   (similarity == x->similarity[row] && reference >= x->reference[row])))
        return;
    x->reference[row] = reference;
    x->similarity[row] = similarity;
}

static Status take_from_pool(void *context, const KnnGraphRound *round, Error *error)
{
    Excluding *x = context;
    (void)error;
    for (int64_t i = 0; i < round->n; i++)
        meet(x, round->edges[i].a - x->labels.first, round->edges[i].b, round->edges[i].similarity);
    return STATUS_OK;
}

/* Neighbours are views of references. */
static Status take_views(void *context, const KnnGraphRound *round, Error *error)
{
    Excluding *x = context;
    (void)error;
    for (int64_t i = 0; i < round->n; i++)
        meet(x, round->edges[i].a - x->labels.first, round->edges[i].b / x->references->views,
             round->edges[i].similarity);
    return STATUS_OK;
}

/* Pool row, reference, bits of the similarity; as id_exchange.h wants it. */
typedef struct {
    int64_t row, reference, bits;
} Met;

static int by_row(const void *left, const void *right)
{
    const Met *a = left, *b = right;
    return a->row < b->row ? -1 : a->row > b->row;
}

static Status take_from_references(void *context, const KnnGraphRound *round, Error *error)
{
    Excluding *x = context;
    (void)error;
    Met *met = memory_alloc_array((size_t)round->n, sizeof *met);
    for (int64_t i = 0; i < round->n; i++) {
        met[i] = (Met){.row = round->edges[i].b, .reference = round->edges[i].a};
        memcpy(&met[i].bits, &round->edges[i].similarity, sizeof(float));
    }
    qsort(met, (size_t)round->n, sizeof *met, by_row);
    IdExchange exchange;
    id_exchange_init(&exchange, (const int64_t *)(const void *)met, round->n, 3, x->labels.total,
                     x->run->comm);
    memory_free(met);
    for (int64_t i = 0; i < exchange.count; i++) {
        float similarity;
        memcpy(&similarity, &exchange.taken[3 * i + 2], sizeof similarity);
        meet(x, exchange.taken[3 * i] - x->labels.first, exchange.taken[3 * i + 1], similarity);
    }
    id_exchange_fini(&exchange);
    return STATUS_OK;
}

static Status take_within_pool(void *context, const KnnGraphRound *round, Error *error)
{
    Excluding *x = context;
    int64_t edges = round->n;
    comm_all_reduce(x->run->comm, &edges, 1, DTYPE_I64, COMM_SUM, NULL);
    x->state.numbers[NUMBER_EDGES].value += edges;
    return component_labels_unite(&x->labels, round->edges, round->n, x->run->comm, error);
}

/* --- phases --- */

static Status walk(Excluding *x, const ShardIndex *index, const IndexRows *from, uint8_t *done,
                   const KnnGraph *graph, KnnGraphSink sink, const char *what, Error *error)
{
    GraphWalk walk = {.index = index,
                      .from = from,
                      .done = done,
                      .graph = *graph,
                      .sink = sink,
                      .context = x,
                      .state = &x->state,
                      .what = what};
    const Config *config = x->run->config;
    bool in_pool = index == x->pool_index;
    walk.graph.normalised = config->curation.score_normalization;
    bool as_dedup = walk.graph.normalised && in_pool; /* a difference is one to the pool */
    walk.graph.threshold = as_dedup ? config->curation.dedup.threshold : config->curation.exclude.threshold;
    walk.graph.background_most =
        as_dedup ? config->curation.dedup.background_most : config->curation.exclude.background_most;
    walk.graph.queries = config->curation.block_queries;
    return graph_walk_run(&walk, x->run->ops, x->run->comm, x->run->log, error);
}

/* Each pool row's most similar reference. */
static Status walk_from_pool(Excluding *x, Error *error)
{
    ShardIndex *index;
    int64_t k = 1; /* the farther ones are for the background alone */
    if (x->run->config->curation.score_normalization)
        k = curation_run_neighbours(x->run, x->references->name, x->references->rows.total);
    KnnGraph graph = {.k = k, .others = true, .views = x->pool->views};
    TRY(curation_run_make_index(x->run, &x->references->rows, x->run->config->curation.exclude.index, &index,
                                error));
    Status status = walk(x, index, &x->pool->view_rows, x->done, &graph, take_from_pool,
                         "pool rows to references", error);
    shard_index_destroy(index);
    return status;
}

/* Each whole pool picture's most similar view of a reference. */
static Status walk_to_views(Excluding *x, Error *error)
{
    ShardIndex *index;
    TRY(curation_run_make_index(x->run, &x->references->view_rows, x->run->config->curation.exclude.index,
                                &index, error));
    Status status = walk(x, index, &x->pool->rows, x->done, &(KnnGraph){.k = 1, .others = true}, take_views,
                         "pool rows to views of references", error);
    shard_index_destroy(index);
    return status;
}

/* Each reference's nearest pool rows: few in comparison, so a run that goes on does them anew. */
static Status walk_from_references(Excluding *x, const ShardIndex *index, Error *error)
{
    const FeatureSource *from = x->references;
    int64_t k = x->run->config->curation.neighbours;
    KnnGraph graph = {.k = k < x->result->rows ? k : x->result->rows, .others = true, .views = from->views};
    uint8_t *done = memory_alloc((size_t)from->rows.count);
    Status status = walk(x, index, &from->view_rows, done, &graph, take_from_references,
                         "references to pool rows", error);
    memory_free(done);
    return status;
}

static void enter(Excluding *x, Phase phase)
{
    x->state.numbers[NUMBER_PHASE].value = phase;
    memset(x->done, 0, (size_t)x->labels.count);
}

static Status walk_in_pool(Excluding *x, bool also_references, bool links, Error *error)
{
    if (x->state.numbers[NUMBER_PHASE].value == PHASE_WITHIN_POOL &&
        (!links || graph_walk_left(&x->pool->rows, x->done, x->run->comm) == 0))
        return STATUS_OK;
    ShardIndex *index;
    TRY(curation_run_make_index(x->run, &x->pool->rows, x->run->config->curation.index, &index, error));
    x->pool_index = index;
    Status status = STATUS_OK;
    if (also_references && x->state.numbers[NUMBER_PHASE].value <= PHASE_FROM_REFERENCES)
        status = walk_from_references(x, index, error);
    if (status == STATUS_OK && x->state.numbers[NUMBER_PHASE].value < PHASE_WITHIN_POOL)
        enter(x, PHASE_WITHIN_POOL);
    KnnGraph graph = {.k = x->result->neighbours, .views = x->pool->views};
    if (status == STATUS_OK && links && graph.k > 0)
        status = walk(x, index, &x->pool->view_rows, x->done, &graph, take_within_pool,
                      "pool rows to each other", error);
    x->pool_index = NULL;
    shard_index_destroy(index);
    return status;
}

static Status walk_all(Excluding *x, Error *error)
{
    const Config *config = x->run->config;
    bool exact = strcmp(config->curation.exclude.index, "Flat") == 0;
    bool links = config->curation.exclude.links == CONFIG_LINKS_POOL;
    bool normalised = config->curation.score_normalization; /* each side by its own background */
    if (x->state.numbers[NUMBER_PHASE].value == PHASE_FROM_POOL) {
        TRY(walk_from_pool(x, error));
        enter(x, PHASE_TO_VIEWS);
    }
    if (x->state.numbers[NUMBER_PHASE].value == PHASE_TO_VIEWS) {
        if (x->references->views > 1 && !normalised) TRY(walk_to_views(x, error));
        enter(x, PHASE_FROM_REFERENCES);
    }
    bool from_references = normalised || !exact;
    if (!from_references && !links) return STATUS_OK;
    return walk_in_pool(x, from_references, links, error);
}

/* --- who goes --- */

static int by_number(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

/* values[n] becomes the different ones, ascending; returns their number. */
static int64_t sort_unique(int64_t *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, by_number);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || values[i] != values[kept - 1]) values[kept++] = values[i];
    return kept;
}

/* hit[labels.count] = 1 for lowest rows of components in which a row has a reference. `space` [labels.count].
 * Collective over COMM. */
static void find_hit(const Excluding *x, uint8_t *hit, int64_t *space)
{
    int64_t n = 0;
    for (int64_t i = 0; i < x->labels.count; i++)
        if (x->reference[i] >= 0) space[n++] = x->labels.label[i];
    n = sort_unique(space, n);
    IdExchange exchange;
    id_exchange_init(&exchange, space, n, 1, x->labels.total, x->run->comm);
    for (int64_t i = 0; i < exchange.count; i++)
        hit[exchange.taken[i] - x->labels.first] = 1;
    id_exchange_fini(&exchange);
}

/* group[labels.count] = pool row of the lowest row of each row's component; gone[labels.count] = 1 where a
 * row of it has a reference. Collective over COMM. */
static void resolve(const Excluding *x, int64_t *group, uint8_t *gone)
{
    const ComponentLabels *labels = &x->labels;
    int64_t *wanted = memory_alloc_array((size_t)labels->count, sizeof *wanted);
    uint8_t *hit = memory_alloc((size_t)labels->count);
    find_hit(x, hit, wanted);
    memcpy(wanted, labels->label, (size_t)labels->count * sizeof *wanted);
    int64_t n = sort_unique(wanted, labels->count);
    IdExchange exchange;
    id_exchange_init(&exchange, wanted, n, 1, labels->total, x->run->comm);
    for (int64_t i = 0; i < exchange.count; i++) {
        int64_t row = exchange.taken[i] - labels->first;
        exchange.taken[i] = 2 * feature_source_pool_row(x->pool, row) + hit[row];
    }
    memory_free(hit);
    int64_t *answers = memory_alloc_array((size_t)n, sizeof *answers);
    id_exchange_answer(&exchange, answers, exchange.taken);
    id_exchange_fini(&exchange);
    for (int64_t i = 0; i < labels->count; i++) {
        const int64_t *at = bsearch(&labels->label[i], wanted, (size_t)n, sizeof *wanted, by_number);
        group[i] = answers[at - wanted] / 2;
        gone[i] = answers[at - wanted] % 2 != 0;
    }
    memory_free(answers);
    memory_free(wanted);
}

static void count_rows(const Excluding *x, const uint8_t *gone)
{
    int64_t sums[2] = {0, 0};
    for (int64_t i = 0; i < x->labels.count; i++) {
        sums[0] += x->reference[i] >= 0;
        sums[1] += gone[i];
    }
    comm_all_reduce(x->run->comm, sums, 2, DTYPE_I64, COMM_SUM, NULL);
    x->result->direct = sums[0];
    x->result->excluded = sums[1];
    x->result->kept = x->result->rows - sums[1];
    x->result->edges = x->state.numbers[NUMBER_EDGES].value;
}

/* --- the file --- */

static void put_settings(const Excluding *x, CurationFile *file)
{
    const Config *config = x->run->config;
    const Exclusion *result = x->result;
    bool links = config->curation.exclude.links == CONFIG_LINKS_POOL;
    curation_file_put_double(file, "threshold", config->curation.exclude.threshold);
    curation_run_put_normalization(x->run, file, config->curation.exclude.background_most);
    curation_file_put_text(file, "links", links ? "pool" : "none");
    curation_file_put_text(file, "reference_index", config->curation.exclude.index);
    curation_run_put_search(x->run, file, result->neighbours);
    curation_run_put_views(x->pool, file);
    curation_file_put_text(file, "references", x->references->inputs);
    curation_file_put_int(file, "reference_digest", (int64_t)x->references->digest);
    if (x->keep) curation_file_put_text(file, "kept_before", x->keep);
    curation_file_put_int(file, "reference_rows", result->references);
    curation_file_put_int(file, "set_rows", result->rows);
    curation_file_put_int(file, "edges", result->edges);
    curation_file_put_int(file, "rows_like_a_reference", result->direct);
    curation_file_put_int(file, "rows_excluded", result->excluded);
    curation_file_put_int(file, "rows_kept", result->kept);
}

/* Decisions about rows of the set are spread over this rank's share of the pool. Collective over COMM. */
static void put_rows(const Excluding *x, CurationFile *file, const int64_t *group, const uint8_t *gone)
{
    const FeatureSource *pool = x->pool;
    size_t share = (size_t)pool->pool_count;
    uint8_t *keep = memory_alloc(share);
    int64_t *groups = memory_alloc_array(share, sizeof *groups);
    int64_t *references = memory_alloc_array(share, sizeof *references);
    float *similarities = memory_alloc_array(share, sizeof *similarities);
    for (size_t i = 0; i < share; i++)
        groups[i] = references[i] = -1;
    for (int64_t i = 0; i < x->labels.count; i++) {
        int64_t at = feature_source_pool_row(pool, i) - pool->pool_first;
        keep[at] = !gone[i];
        groups[at] = group[i];
        references[at] = x->reference[i];
        similarities[at] = x->reference[i] >= 0 ? x->similarity[i] : 0.0f;
    }
    curation_file_put_rows(file, "/keep", H5_TYPE_U8, keep, pool->pool_count);
    if (x->run->config->curation.exclude.links == CONFIG_LINKS_POOL)
        curation_file_put_rows(file, "/group", H5_TYPE_I64, groups, pool->pool_count);
    curation_file_put_rows(file, "/reference", H5_TYPE_I64, references, pool->pool_count);
    curation_file_put_rows(file, "/similarity", H5_TYPE_F32, similarities, pool->pool_count);
    memory_free(keep);
    memory_free(groups);
    memory_free(references);
    memory_free(similarities);
}

static Status decide(Excluding *x, Error *error)
{
    component_labels_finish(&x->labels, x->run->comm);
    int64_t *group = memory_alloc_array((size_t)x->labels.count, sizeof *group);
    uint8_t *gone = memory_alloc((size_t)x->labels.count);
    resolve(x, group, gone);
    count_rows(x, gone);
    CurationMeta meta = curation_run_meta(x->run, "exclude", x->pool);
    CurationFile file;
    curation_file_create(&file, x->result->path, x->pool->pool_rows, &meta, x->run->comm);
    put_settings(x, &file);
    put_rows(x, &file, group, gone);
    memory_free(group);
    memory_free(gone);
    return curation_file_commit(&file, error);
}

/* --- all --- */

static uint64_t digest_of(const Excluding *x)
{
    const Config *config = x->run->config;
    return curation_run_digest(x->pool->set_digest ^ x->references->set_digest,
                               "exclude %lld %s %s %lld %lld %lld %lld %.17g %d %d %.17g %.17g %.17g",
                               (long long)x->result->neighbours, config->curation.index,
                               config->curation.exclude.index, (long long)config->curation.nprobe,
                               (long long)config->curation.refine, (long long)config->curation.train_rows,
                               (long long)config->curation.seed, config->curation.exclude.threshold,
                               (int)config->curation.exclude.links, (int)config->curation.score_normalization,
                               config->curation.exclude.background_most, config->curation.dedup.threshold,
                               config->curation.dedup.background_most);
}

static Status start(Excluding *x, Error *error)
{
    const CurationRun *run = x->run;
    component_labels_init(&x->labels, x->pool->rows.total, run->comm);
    size_t count = (size_t)x->labels.count;
    x->done = memory_alloc(count);
    x->reference = memory_alloc_array(count, sizeof *x->reference);
    x->similarity = memory_alloc_array(count, sizeof *x->similarity);
    x->state = (CurationState){.path = x->path,
                               .meta = curation_run_meta(run, "exclude", x->pool),
                               .total = x->labels.total,
                               .first = x->labels.first,
                               .count = x->labels.count,
                               .save_minutes = run->config->curation.save_minutes,
                               .arrays = {{"/label", H5_TYPE_I64, x->labels.label, 0, CURATION_OWN_ROW},
                                          {"/done", H5_TYPE_U8, x->done, 0, 0},
                                          {"/reference", H5_TYPE_I64, x->reference, -1, INT64_MAX},
                                          {"/similarity", H5_TYPE_F32, x->similarity, 0, 0}},
                               .array_count = 4,
                               .numbers = {[NUMBER_PHASE] = {"phase", 0}, [NUMBER_EDGES] = {"edges", 0}},
                               .number_count = 2};
    x->state.meta.digest = digest_of(x);
    bool found;
    TRY(curation_state_restore(&x->state, run->resume, &found, run->comm, run->log, error));
    if (found) return STATUS_OK;
    x->state.numbers[NUMBER_EDGES].value = 0;
    enter(x, PHASE_FROM_POOL);
    for (int64_t i = 0; i < x->labels.count; i++) {
        x->labels.label[i] = x->labels.first + i;
        x->reference[i] = -1;
        x->similarity[i] = 0.0f;
    }
    return STATUS_OK;
}

static Status exclude(Excluding *x, Error *error)
{
    TRY(start(x, error));
    TRY(walk_all(x, error));
    TRY(decide(x, error));
    curation_state_remove(&x->state, x->run->comm);
    return STATUS_OK;
}

Status exclude_run(Exclusion *result, const FeatureSource *pool, const char *keep,
                   const FeatureSource *references, const CurationRun *run, Error *error)
{
    TRY(feature_source_check_same(pool, references, run->log, error));
    TRY(feature_source_check_views(pool, references, error));
    *result = (Exclusion){.rows = pool->rows.total, .references = references->rows.total};
    if (run->config->curation.exclude.links == CONFIG_LINKS_POOL)
        result->neighbours = curation_run_neighbours(run, pool->name, pool->rows.total - 1);
    Excluding excluding = {
        .pool = pool, .references = references, .keep = keep, .run = run, .result = result};
    TRY(curation_run_path(run, "exclude.h5", result->path, error));
    TRY(curation_run_path(run, "exclude.partial.h5", excluding.path, error));
    Status status = exclude(&excluding, error);
    component_labels_fini(&excluding.labels);
    memory_free(excluding.done);
    memory_free(excluding.reference);
    memory_free(excluding.similarity);
    return status;
}

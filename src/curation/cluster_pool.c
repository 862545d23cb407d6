/* cluster_pool.c - see cluster_pool.h. */
#include "curation/cluster_pool.h"

#include "base/memory.h"
#include "index/balanced_sample.h"
#include "run/progress.h"

#include <stdio.h>
#include <string.h>

enum { NUMBER_ITERATION, NUMBER_SPLIT };

typedef struct {
    const FeatureSource *pool;
    const char *keep;
    const CurationRun *run;
    PoolClusters *result;
    KmeansOptions options;
    int64_t sizes[HIERARCHICAL_KMEANS_LEVELS];
    int levels;
    KmeansState lowest; /* until the tree takes it */
    HierarchicalKmeans tree;
    uint8_t *sample; /* [rows of this rank], or NULL */
    CurationState state;
    char path[CURATION_RUN_PATH]; /* of the state */
} Clustering;

/* --- what is asked for --- */

static Status parse(Clustering *c, Error *error)
{
    const Config *config = c->run->config;
    const ConfigList *levels = &config->curation.cluster.levels;
    int64_t rows = c->pool->rows.total, k = config->curation.cluster.k;
    c->options = (KmeansOptions){.k = k,
                                 .spherical = config->curation.cluster.spherical,
                                 .batch_rows = config->curation.cluster.batch_rows,
                                 .init = config->curation.cluster.init == CONFIG_CLUSTER_PLUS_PLUS
                                             ? KMEANS_INIT_PLUS_PLUS
                                             : KMEANS_INIT_ROWS,
                                 .seed = (uint64_t)config->curation.seed};
    if (k > rows)
        return status_fail(error, STATUS_INPUT, "curation.cluster.k: %lld clusters of %lld rows (%s)",
                           (long long)k, (long long)rows, c->pool->name);
    if (config->curation.cluster.sample > rows)
        return status_fail(error, STATUS_INPUT, "curation.cluster.sample: %lld of %lld rows (%s)",
                           (long long)config->curation.cluster.sample, (long long)rows, c->pool->name);
    c->sizes[c->levels++] = k;
    if (levels->count == 1 && levels->values[0] == 0) return STATUS_OK;
    for (int l = 0; l < levels->count; l++) {
        if (c->levels == HIERARCHICAL_KMEANS_LEVELS)
            return status_fail(error, STATUS_INPUT, "curation.cluster.levels: at most %d above the first",
                               HIERARCHICAL_KMEANS_LEVELS - 1);
        if (levels->values[l] < 1 || levels->values[l] >= c->sizes[c->levels - 1])
            return status_fail(error, STATUS_INPUT, "curation.cluster.levels: %lld does not come below %lld",
                               (long long)levels->values[l], (long long)c->sizes[c->levels - 1]);
        c->sizes[c->levels++] = levels->values[l];
    }
    return STATUS_OK;
}

/* --- the lowest level --- */

static void point_state(Clustering *c)
{
    const KmeansState *lowest = &c->lowest;
    c->state.tables[0] = (CurationTable){"/centroids", H5_TYPE_F32, lowest->centroids, lowest->k, lowest->d};
    c->state.tables[1] = (CurationTable){"/weights", H5_TYPE_F64, lowest->weights, lowest->k, 0};
}

/* First centroids, or those that an earlier run came to. */
static Status start(Clustering *c, Error *error)
{
    const CurationRun *run = c->run;
    const Config *config = run->config;
    CurationMeta meta = curation_run_meta(run, "cluster", c->pool);
    meta.digest =
        curation_run_digest(c->pool->set_digest, "cluster %lld %lld %lld %d %d %lld", (long long)c->options.k,
                            (long long)config->curation.cluster.iterations, (long long)c->options.batch_rows,
                            c->options.spherical, (int)c->options.init, (long long)config->curation.seed);
    c->state = (CurationState){.path = c->path,
                               .meta = meta,
                               .total = c->pool->rows.total,
                               .save_minutes = config->curation.save_minutes,
                               .table_count = 2,
                               .numbers = {{"iteration", 0}, {"split", 0}},
                               .number_count = 2};
    kmeans_restore(&c->lowest, c->options.k, c->pool->rows.d);
    point_state(c);
    bool found;
    TRY(curation_state_restore(&c->state, run->resume, &found, run->comm, run->log, error));
    c->lowest.iteration = c->state.numbers[NUMBER_ITERATION].value;
    c->lowest.split = c->state.numbers[NUMBER_SPLIT].value;
    if (found) return STATUS_OK;
    kmeans_fini(&c->lowest);
    TRY(kmeans_start(&c->lowest, &c->pool->rows, &c->options, run->ops, run->comm, error));
    point_state(c);
    return STATUS_OK;
}

static Status iterate(Clustering *c, Error *error)
{
    const CurationRun *run = c->run;
    int64_t iterations = run->config->curation.cluster.iterations;
    Progress progress = progress_begin(run->log, "cluster", c->lowest.iteration, iterations, 1);
    progress.unit = "iterations";
    Status status = STATUS_OK;
    while (status == STATUS_OK && c->lowest.iteration < iterations) {
        status = kmeans_iterate(&c->lowest, &c->pool->rows, &c->options, run->ops, run->comm, error);
        if (status != STATUS_OK) break;
        char detail[96];
        snprintf(detail, sizeof detail, "inertia %.6g, %lld empty clusters filled", c->lowest.inertia,
                 (long long)c->lowest.split);
        progress_update(&progress, c->lowest.iteration, detail);
        c->state.numbers[NUMBER_ITERATION].value = c->lowest.iteration;
        c->state.numbers[NUMBER_SPLIT].value = c->lowest.split;
        status = curation_state_pause(&c->state, run->comm, run->log, error);
    }
    progress_end(&progress);
    return status;
}

/* --- the result --- */

static void draw_sample(Clustering *c)
{
    const CurationRun *run = c->run;
    int64_t wanted = run->config->curation.cluster.sample;
    if (wanted == 0) return;
    int64_t *quota = memory_alloc_array((size_t)c->options.k, sizeof *quota);
    balanced_sample_quota(&c->tree, wanted, quota);
    c->sample = memory_alloc((size_t)c->pool->rows.count);
    balanced_sample_draw(c->sample, &c->pool->rows, c->tree.assignment, quota, c->options.k, c->options.seed,
                         run->comm);
    memory_free(quota);
    for (int64_t i = 0; i < c->pool->rows.count; i++)
        c->result->sampled += c->sample[i];
    comm_all_reduce(run->comm, &c->result->sampled, 1, DTYPE_I64, COMM_SUM, NULL);
}

static void put_levels(const HierarchicalKmeans *tree, CurationFile *file)
{
    for (int l = 1; l < tree->levels; l++) {
        char object[64];
        snprintf(object, sizeof object, "/levels/%d/centroids", l);
        curation_file_put_table(file, object, tree->level[l].centroids, tree->level[l].k, tree->level[l].d);
        int64_t *parents = memory_alloc_array((size_t)tree->level[l - 1].k, sizeof *parents);
        for (int64_t i = 0; i < tree->level[l - 1].k; i++)
            parents[i] = tree->parent[l - 1][i];
        snprintf(object, sizeof object, "/levels/%d/assignment", l);
        curation_file_put_array(file, object, H5_TYPE_I64, parents, tree->level[l - 1].k);
        memory_free(parents);
    }
}

/* What this rank knows of its rows, told of the pool rows that it tells of. */
static void put_pool_rows(const Clustering *c, CurationFile *file)
{
    const FeatureSource *pool = c->pool;
    int64_t *assignment = memory_alloc_array((size_t)pool->pool_count, sizeof *assignment);
    for (int64_t i = 0; i < pool->pool_count; i++)
        assignment[i] = -1;
    for (int64_t i = 0; i < pool->rows.count; i++)
        assignment[feature_source_pool_row(pool, i) - pool->pool_first] = c->tree.assignment[i];
    curation_file_put_rows(file, "/assignment", H5_TYPE_I64, assignment, pool->pool_count);
    memory_free(assignment);
    if (!c->sample) return;
    uint8_t *keep = memory_alloc((size_t)pool->pool_count);
    for (int64_t i = 0; i < pool->rows.count; i++)
        keep[feature_source_pool_row(pool, i) - pool->pool_first] = c->sample[i];
    curation_file_put_rows(file, "/keep", H5_TYPE_U8, keep, pool->pool_count);
    memory_free(keep);
}

static Status write_file(const Clustering *c, Error *error)
{
    const CurationRun *run = c->run;
    const Config *config = run->config;
    const PoolClusters *result = c->result;
    CurationMeta meta = curation_run_meta(run, "cluster", c->pool);
    CurationFile file;
    curation_file_create(&file, result->path, c->pool->pool_rows, &meta, run->comm);
    if (c->keep) curation_file_put_text(&file, "kept_by", c->keep);
    curation_file_put_int(&file, "k", result->k);
    curation_file_put_int(&file, "iterations", result->iterations);
    curation_file_put_int(&file, "batch_rows", c->options.batch_rows);
    curation_file_put_int(&file, "spherical", c->options.spherical);
    curation_file_put_text(&file, "init", c->options.init == KMEANS_INIT_ROWS ? "rows" : "plus_plus");
    curation_file_put_int(&file, "seed", config->curation.seed);
    curation_file_put_int(&file, "rows_clustered", result->rows);
    curation_file_put_double(&file, "inertia", result->inertia);
    curation_file_put_int(&file, "sample", config->curation.cluster.sample);
    curation_file_put_int(&file, "rows_sampled", result->sampled);
    curation_file_put_table(&file, "/centroids", c->tree.level[0].centroids, result->k, c->pool->rows.d);
    curation_file_put_array(&file, "/population", H5_TYPE_I64, c->tree.population, result->k);
    put_levels(&c->tree, &file);
    put_pool_rows(c, &file);
    return curation_file_commit(&file, error);
}

static Status cluster(Clustering *c, Error *error)
{
    const CurationRun *run = c->run;
    TRY(parse(c, error));
    TRY(start(c, error));
    TRY(iterate(c, error));
    c->result->k = c->options.k;
    c->result->iterations = c->lowest.iteration;
    TRY(hierarchical_kmeans_grow(&c->tree, &c->lowest, &c->pool->rows, c->sizes, c->levels,
                                 run->config->curation.cluster.iterations, &c->options, run->ops, run->comm,
                                 error));
    c->result->inertia = c->tree.inertia;
    c->result->smallest = c->pool->rows.total;
    for (int64_t i = 0; i < c->options.k; i++) {
        int64_t rows = c->tree.population[i];
        if (rows < c->result->smallest) c->result->smallest = rows;
        if (rows > c->result->largest) c->result->largest = rows;
    }
    draw_sample(c);
    TRY(write_file(c, error));
    curation_state_remove(&c->state, run->comm);
    return STATUS_OK;
}

Status cluster_pool_run(PoolClusters *result, const FeatureSource *pool, const char *keep,
                        const CurationRun *run, Error *error)
{
    *result = (PoolClusters){.rows = pool->rows.total};
    Clustering clustering = {.pool = pool, .keep = keep, .run = run, .result = result};
    TRY(curation_run_path(run, "cluster.h5", result->path, error));
    TRY(curation_run_path(run, "cluster.partial.h5", clustering.path, error));
    Status status = cluster(&clustering, error);
    kmeans_fini(&clustering.lowest);
    hierarchical_kmeans_fini(&clustering.tree);
    memory_free(clustering.sample);
    return status;
}

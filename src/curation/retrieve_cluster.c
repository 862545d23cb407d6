/* retrieve_cluster.c - see retrieve_cluster.h. */
#include "curation/retrieve_cluster.h"

#include "base/memory.h"
#include "base/rng.h"
#include "index/balanced_sample.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 1 << 16, ROWS = 1024 }; /* pool rows told of, and rows of features, that are read at a time */

typedef struct {
    const FeatureSource *pool, *queries;
    const CurationRun *run;
    uint64_t seed; /* of the draws */
    KmeansState clusters;
    KmeansOptions options;
    int32_t *assignment; /* [pool->rows.count] owned */
    int64_t *found;      /* [k] queries of all ranks in each; owned */
    uint8_t *drawn;      /* [pool->rows.count] owned */
} Gathering;

/* --- clusters --- */

/* Those of this rank's rows among the pool rows [first, first + n). */
static Status note_block(Gathering *g, const CurationInput *input, const int64_t *block, int64_t first,
                         int64_t n, int64_t *next, Error *error)
{
    const FeatureSource *pool = g->pool;
    for (; *next < pool->rows.count && feature_source_pool_row(pool, *next) < first + n; ++*next) {
        int64_t row = feature_source_pool_row(pool, *next), cluster = block[row - first];
        if (cluster < 0 || cluster >= g->clusters.k)
            return status_fail(error, STATUS_INPUT,
                               "%s: row %lld is in no cluster; curate cluster and curate retrieve need the "
                               "same --keep",
                               input->file.path, (long long)row);
        g->assignment[*next] = (int32_t)cluster;
    }
    return STATUS_OK;
}

static Status read_assignment(Gathering *g, const CurationInput *input, Error *error)
{
    const FeatureSource *pool = g->pool;
    int64_t end = pool->pool_first + pool->pool_count, next = 0;
    g->assignment = memory_alloc_array((size_t)pool->rows.count, sizeof *g->assignment);
    int64_t *block = memory_alloc_array(BLOCK, sizeof *block);
    Status status = STATUS_OK;
    for (int64_t at = pool->pool_first; at < end && status == STATUS_OK; at += BLOCK) {
        int64_t n = end - at < BLOCK ? end - at : BLOCK;
        status = curation_file_read(input, "/assignment", H5_TYPE_I64, at, n, block, error);
        if (status == STATUS_OK) status = note_block(g, input, block, at, n, &next, error);
    }
    memory_free(block);
    return status;
}

static Status read_centroids(Gathering *g, const CurationInput *input, Error *error)
{
    float *centroids;
    int64_t k, d, spherical;
    TRY(curation_file_read_int(input, "spherical", &spherical, error));
    TRY(curation_file_read_table(input, "/centroids", &centroids, &k, &d, error));
    Status status = STATUS_OK;
    if (d == g->pool->rows.d) {
        kmeans_restore(&g->clusters, k, d);
        memcpy(g->clusters.centroids, centroids, (size_t)(k * d) * sizeof *centroids);
    } else {
        status = status_fail(error, STATUS_INPUT, "%s: centroids of %lld numbers, but %s has %lld",
                             input->file.path, (long long)d, g->pool->name, (long long)g->pool->rows.d);
    }
    g->options = (KmeansOptions){.k = k, .spherical = spherical != 0};
    memory_free(centroids);
    return status;
}

static Status read_clusters(Gathering *g, const char *path, Error *error)
{
    CurationInput input;
    TRY(curation_file_open(&input, path, "/assignment", error));
    Status status = STATUS_OK;
    if (input.n != g->pool->pool_rows || input.digest != g->pool->digest)
        status =
            status_fail(error, STATUS_INPUT, "%s: clusters of other features than %s", path, g->pool->name);
    if (status == STATUS_OK) status = read_centroids(g, &input, error);
    if (status == STATUS_OK) status = read_assignment(g, &input, error);
    curation_file_close(&input);
    return status;
}

/* --- queries and draws --- */

/* The cluster of each query. Collective over COMM. */
static Status assign_queries(Gathering *g, RetrievedList *list, Error *error)
{
    const CurationRun *run = g->run;
    const IndexRows *rows = &g->queries->rows;
    int32_t *mine = memory_alloc_array((size_t)rows->count, sizeof *mine);
    double inertia;
    Status status =
        kmeans_assign(&g->clusters, rows, &g->options, mine, NULL, &inertia, run->ops, run->comm, error);
    if (status == STATUS_OK) {
        list->query_cluster = memory_alloc_array((size_t)rows->total, sizeof *list->query_cluster);
        g->found = memory_alloc_array((size_t)g->clusters.k, sizeof *g->found);
        for (int64_t i = 0; i < rows->count; i++) {
            list->query_cluster[rows->first + i] = mine[i];
            g->found[mine[i]]++;
        }
        comm_all_reduce(run->comm, list->query_cluster, rows->total, DTYPE_I64, COMM_SUM, NULL);
        comm_all_reduce(run->comm, g->found, g->clusters.k, DTYPE_I64, COMM_SUM, NULL);
    }
    memory_free(mine);
    return status;
}

static int64_t count_drawn(const Gathering *g)
{
    int64_t drawn = 0;
    for (int64_t i = 0; i < g->pool->rows.count; i++)
        drawn += g->drawn[i];
    comm_all_reduce(g->run->comm, &drawn, 1, DTYPE_I64, COMM_SUM, NULL);
    return drawn;
}

/* At most `cap` of the rows that are drawn stay. Collective over COMM. */
static void cut(Gathering *g, int64_t cap)
{
    enum { DRAWN, OTHERS };
    const IndexRows *rows = &g->pool->rows;
    int64_t quota[] = {cap, 0};
    int32_t *part = memory_alloc_array((size_t)rows->count, sizeof *part);
    for (int64_t i = 0; i < rows->count; i++)
        part[i] = g->drawn[i] ? DRAWN : OTHERS;
    balanced_sample_draw(g->drawn, rows, part, quota, 2, g->seed + 1, g->run->comm);
    memory_free(part);
}

/* Rows of each cluster with enough queries. Collective over COMM. */
static void draw(Gathering *g, RetrievedList *list)
{
    const Config *config = g->run->config;
    int64_t k = g->clusters.k;
    int64_t *quota = memory_alloc_array((size_t)k, sizeof *quota);
    for (int64_t c = 0; c < k; c++) {
        if (g->found[c] <= config->curation.retrieve.min_queries) continue;
        quota[c] = config->curation.retrieve.per_cluster;
        list->clusters++;
    }
    g->drawn = memory_alloc((size_t)g->pool->rows.count);
    balanced_sample_draw(g->drawn, &g->pool->rows, g->assignment, quota, k, g->seed, g->run->comm);
    memory_free(quota);
    list->retrieved = count_drawn(g);
    if (list->retrieved > config->curation.retrieve.cap) cut(g, config->curation.retrieve.cap);
}

/* --- pictures --- */

/* Rows with the set ids ids[n], which are this rank's, at the end of the list. */
static Status add_block(const Gathering *g, const int64_t *ids, int64_t n, float *block, RetrievedList *list,
                        Error *error)
{
    const IndexRows *rows = &g->pool->rows;
    TRY(index_rows_pick(rows, ids, n, INDEX_ROWS_UNIT, block, error));
    for (int64_t i = 0; i < n; i++) {
        int64_t at = list->count++, mine = ids[i] - rows->first;
        const float *centroid = g->clusters.centroids + g->assignment[mine] * rows->d;
        double length = sqrt(index_rows_dot(centroid, centroid, rows->d));
        double product = index_rows_dot(block + i * rows->d, centroid, rows->d);
        list->row[at] = feature_source_pool_row(g->pool, mine);
        list->query[at] = list->neighbour[at] = -1;
        list->cluster[at] = g->assignment[mine];
        list->similarity[at] = length > 0.0 ? (float)(product / length) : 0.0f;
        list->first[at] = 1;
    }
    return STATUS_OK;
}

static Status list_pictures(const Gathering *g, RetrievedList *list, Error *error)
{
    const IndexRows *rows = &g->pool->rows;
    RetrievedList counts = *list;
    int64_t capacity = 0, n = 0, ids[ROWS];
    for (int64_t i = 0; i < rows->count; i++)
        capacity += g->drawn[i];
    retrieved_list_init(list, capacity);
    list->retrieved = counts.retrieved;
    list->clusters = counts.clusters;
    list->query_cluster = counts.query_cluster;
    float *block = memory_alloc_array(ROWS * (size_t)rows->d, sizeof *block);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        if (g->drawn[i]) ids[n++] = rows->first + i;
        if (n < ROWS && (i + 1 < rows->count || n == 0)) continue;
        status = add_block(g, ids, n, block, list, error);
        n = 0;
    }
    memory_free(block);
    return status;
}

static Status gather(Gathering *g, RetrievedList *list, const char *path, Error *error)
{
    Comm *comm = g->run->comm;
    TRY(comm_agree(comm, read_clusters(g, path, error), error));
    TRY(assign_queries(g, list, error));
    draw(g, list);
    return comm_agree(comm, list_pictures(g, list, error), error);
}

Status retrieve_cluster_run(RetrievedList *list, const char *path, const char *name,
                            const FeatureSource *pool, const FeatureSource *queries, const CurationRun *run,
                            Error *error)
{
    *list = (RetrievedList){0};
    Gathering gathering = {.pool = pool,
                           .queries = queries,
                           .run = run,
                           .seed = rng_hash_name(name) ^ (uint64_t)run->config->curation.seed};
    Status status = gather(&gathering, list, path, error);
    kmeans_fini(&gathering.clusters);
    memory_free(gathering.assignment);
    memory_free(gathering.found);
    memory_free(gathering.drawn);
    return status;
}

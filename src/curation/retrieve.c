/* retrieve.c - see retrieve.h. */
#include "curation/retrieve.h"

#include "base/memory.h"
#include "curation/retrieve_cluster.h"
#include "curation/retrieve_sample.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const RetrieveRequest *request;
    const FeatureSource *pool, *queries;
    const CurationRun *run;
    Retrieval *result;
    RetrievedList list;
    CurationState state;
    char state_path[CURATION_RUN_PATH];
} Retrieving;

static Status check_name(const char *name, Error *error)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    if (*name && *name != '.' && name[strspn(name, allowed)] == '\0') return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--name %s: expected letters, digits, '_', '-' and '.'", name);
}

static Status make_paths(Retrieving *r, Error *error)
{
    char name[CURATION_RUN_PATH];
    TRY(check_name(r->request->name, error));
    snprintf(name, sizeof name, "retrieve_%.900s.h5", r->request->name);
    TRY(curation_run_path(r->run, name, r->result->path, error));
    snprintf(name, sizeof name, "retrieve_%.900s.partial.h5", r->request->name);
    return curation_run_path(r->run, name, r->state_path, error);
}

static Status choose_mode(Retrieving *r, Error *error)
{
    const Config *config = r->run->config;
    ConfigRetrieve mode = config->curation.retrieve.mode;
    bool is_small = r->result->queries <= config->curation.retrieve.switch_size;
    r->result->is_cluster = mode == CONFIG_RETRIEVE_CLUSTER || (mode == CONFIG_RETRIEVE_AUTO && is_small);
    if (!r->result->is_cluster || r->request->clusters) return STATUS_OK;
    if (mode == CONFIG_RETRIEVE_CLUSTER)
        return status_fail(error, STATUS_INPUT,
                           "curation.retrieve.mode=cluster needs --clusters FILE, of curate cluster");
    return status_fail(error, STATUS_INPUT,
                       "%s: %lld queries, which is not more than curation.retrieve.switch_size=%lld, are "
                       "answered by clusters: give --clusters FILE, or curation.retrieve.mode=sample",
                       r->queries->name, (long long)r->result->queries,
                       (long long)config->curation.retrieve.switch_size);
}

static void put_settings(const Retrieving *r, CurationFile *file)
{
    const Config *config = r->run->config;
    const Retrieval *result = r->result;
    curation_file_put_text(file, "name", r->request->name);
    curation_file_put_text(file, "queries", r->queries->inputs);
    curation_file_put_text(file, "mode", result->is_cluster ? "cluster" : "sample");
    if (r->request->keep) curation_file_put_text(file, "kept_by", r->request->keep);
    curation_file_put_int(file, "pool_rows", r->pool->pool_rows);
    curation_file_put_int(file, "pool_rows_kept", r->pool->rows.total);
    curation_file_put_int(file, "query_rows", result->queries);
    curation_file_put_int(file, "retrieved", result->retrieved);
    curation_file_put_int(file, "collisions", result->collisions);
    if (result->is_cluster) {
        curation_file_put_text(file, "clusters", r->request->clusters);
        curation_file_put_int(file, "clusters_used", result->clusters);
        curation_file_put_int(file, "min_queries", config->curation.retrieve.min_queries);
        curation_file_put_int(file, "per_cluster", config->curation.retrieve.per_cluster);
        curation_file_put_int(file, "cap", config->curation.retrieve.cap);
        curation_file_put_int(file, "seed", config->curation.seed);
    } else {
        bool removed = config->curation.retrieve.collisions == CONFIG_COLLISIONS_REMOVE;
        curation_run_put_search(r->run, file, result->neighbours);
        curation_file_put_int(file, "collisions_removed", removed);
    }
}

static Status write_file(const Retrieving *r, Error *error)
{
    const RetrievedList *list = &r->list;
    CurationMeta meta = curation_run_meta(r->run, "retrieve", r->pool);
    CurationFile file;
    curation_file_create(&file, r->result->path, r->result->kept, &meta, r->run->comm);
    put_settings(r, &file);
    curation_file_put_rows(&file, "/row", H5_TYPE_I64, list->row, list->count);
    curation_file_put_rows(&file, "/query", H5_TYPE_I64, list->query, list->count);
    curation_file_put_rows(&file, "/neighbour", H5_TYPE_I64, list->neighbour, list->count);
    curation_file_put_rows(&file, "/similarity", H5_TYPE_F32, list->similarity, list->count);
    curation_file_put_rows(&file, "/first", H5_TYPE_U8, list->first, list->count);
    if (r->result->is_cluster) {
        curation_file_put_rows(&file, "/cluster", H5_TYPE_I64, list->cluster, list->count);
        curation_file_put_array(&file, "/query_cluster", H5_TYPE_I64, list->query_cluster,
                                r->result->queries);
    }
    return curation_file_commit(&file, error);
}

/* Collective over COMM. */
static Status find(Retrieving *r, Error *error)
{
    const CurationRun *run = r->run;
    if (r->result->is_cluster)
        return retrieve_cluster_run(&r->list, r->request->clusters, r->request->name, r->pool, r->queries,
                                    run, error);
    int64_t wanted = run->config->curation.retrieve.neighbours, rows = r->pool->rows.total;
    if (wanted > rows) {
        log_info(run->log, "curation.retrieve.neighbours: %lld asked for, %lld rows is all there are in %s",
                 (long long)wanted, (long long)rows, r->pool->name);
        wanted = rows;
    }
    r->result->neighbours = wanted;
    return retrieve_sample_run(&r->list, wanted, r->pool, r->queries, r->state_path, &r->state, run, error);
}

static Status retrieve(Retrieving *r, Error *error)
{
    const CurationRun *run = r->run;
    TRY(make_paths(r, error));
    TRY(comm_agree(run->comm, feature_source_check_same(r->pool, r->queries, run->log, error), error));
    TRY(choose_mode(r, error));
    TRY(find(r, error));
    r->result->clusters = r->list.clusters;
    r->result->retrieved = r->list.retrieved;
    r->result->collisions = r->list.collisions;
    r->result->kept = r->list.count;
    comm_all_reduce(run->comm, &r->result->kept, 1, DTYPE_I64, COMM_SUM, NULL);
    if (r->result->kept == 0)
        log_warning(run->log, "no cluster holds more than %lld of the %lld queries: nothing is brought in",
                    (long long)run->config->curation.retrieve.min_queries, (long long)r->result->queries);
    TRY(write_file(r, error));
    if (!r->result->is_cluster) curation_state_remove(&r->state, run->comm);
    return STATUS_OK;
}

Status retrieve_run(Retrieval *result, const RetrieveRequest *request, const FeatureSource *pool,
                    const FeatureSource *queries, const CurationRun *run, Error *error)
{
    *result = (Retrieval){.queries = queries->rows.total};
    Retrieving retrieving = {
        .request = request, .pool = pool, .queries = queries, .run = run, .result = result};
    Status status = retrieve(&retrieving, error);
    retrieved_list_fini(&retrieving.list);
    return status;
}

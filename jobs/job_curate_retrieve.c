/* job_curate_retrieve.c - curate retrieve --features FILE... [--keep FILE] --queries FILE... --name NAME
 * [--clusters FILE] --output-dir DIR
 */
#include "curation/retrieve.h"
#include "job_curate.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void tell(const JobContext *context, const RetrieveRequest *request, const Retrieval *result)
{
    if (comm_rank(context->comm) == 0 && result->is_cluster)
        printf("%s: %lld rows of %lld retrieved from %lld clusters for %lld queries\n", result->path,
               (long long)result->kept, (long long)result->retrieved, (long long)result->clusters,
               (long long)result->queries);
    else if (comm_rank(context->comm) == 0)
        printf("%s: %lld rows of %lld retrieved, %lld for each of %lld queries; %lld collisions\n",
               result->path, (long long)result->kept, (long long)result->retrieved,
               (long long)result->neighbours, (long long)result->queries, (long long)result->collisions);
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate retrieve");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddStringToObject(tree, "name", request->name);
    cJSON_AddStringToObject(tree, "mode", result->is_cluster ? "cluster" : "sample");
    cJSON_AddNumberToObject(tree, "queries", (double)result->queries);
    cJSON_AddNumberToObject(tree, "neighbours", (double)result->neighbours);
    cJSON_AddNumberToObject(tree, "clusters", (double)result->clusters);
    cJSON_AddNumberToObject(tree, "retrieved", (double)result->retrieved);
    cJSON_AddNumberToObject(tree, "collisions", (double)result->collisions);
    cJSON_AddNumberToObject(tree, "kept", (double)result->kept);
    job_curate_tell(context, tree);
}

Status job_curate_retrieve(const JobContext *context, const CurationRun *run, Error *error)
{
    RetrieveRequest request = {.name = options_get(context->options, "name"),
                               .keep = options_get(context->options, "keep"),
                               .clusters = options_get(context->options, "clusters")};
    if (!request.name) return status_fail(error, STATUS_INPUT, "curate retrieve needs --name NAME");
    FeatureSource pool, queries = {0};
    Retrieval result;
    Status status = job_curate_open(&pool, context, "features", request.keep, error);
    if (status == STATUS_OK) status = job_curate_open(&queries, context, "queries", NULL, error);
    if (status == STATUS_OK) status = retrieve_run(&result, &request, &pool, &queries, run, error);
    if (status == STATUS_OK) tell(context, &request, &result);
    feature_source_close(&pool);
    feature_source_close(&queries);
    return status;
}

/* job_curate_cluster.c - curate cluster --features FILE... [--keep FILE] --output-dir DIR
 */
#include "curation/cluster_pool.h"
#include "job_curate.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void tell(const JobContext *context, const PoolClusters *result)
{
    if (comm_rank(context->comm) == 0) {
        printf("%s: %lld rows in %lld clusters of %lld to %lld rows, inertia %.6g after %lld iterations\n",
               result->path, (long long)result->rows, (long long)result->k, (long long)result->smallest,
               (long long)result->largest, result->inertia, (long long)result->iterations);
        if (result->sampled > 0)
            printf("%s: %lld rows in the balanced sample\n", result->path, (long long)result->sampled);
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate cluster");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddNumberToObject(tree, "rows", (double)result->rows);
    cJSON_AddNumberToObject(tree, "clusters", (double)result->k);
    cJSON_AddNumberToObject(tree, "iterations", (double)result->iterations);
    cJSON_AddNumberToObject(tree, "inertia", result->inertia);
    cJSON_AddNumberToObject(tree, "smallest_cluster", (double)result->smallest);
    cJSON_AddNumberToObject(tree, "largest_cluster", (double)result->largest);
    cJSON_AddNumberToObject(tree, "rows_sampled", (double)result->sampled);
    job_curate_tell(context, tree);
}

Status job_curate_cluster(const JobContext *context, const CurationRun *run, Error *error)
{
    const char *keep = options_get(context->options, "keep");
    FeatureSource pool;
    PoolClusters result;
    Status status = job_curate_open(&pool, context, "features", keep, error);
    if (status == STATUS_OK) status = cluster_pool_run(&result, &pool, keep, run, error);
    if (status == STATUS_OK) tell(context, &result);
    feature_source_close(&pool);
    return status;
}

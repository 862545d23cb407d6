/* job_curate_dedup.c - curate dedup --features FILE... --output-dir DIR
 */
#include "curation/deduplicate.h"
#include "job_curate.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void tell(const JobContext *context, const Deduplication *result)
{
    if (comm_rank(context->comm) == 0)
        printf("%s: %lld of %lld rows kept; %lld groups of more than one row, %lld rows in the largest; %lld "
               "edges seen from their ends\n",
               result->path, (long long)result->kept, (long long)result->rows, (long long)result->groups,
               (long long)result->largest, (long long)result->edges);
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate dedup");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddNumberToObject(tree, "rows", (double)result->rows);
    cJSON_AddNumberToObject(tree, "neighbours", (double)result->neighbours);
    cJSON_AddNumberToObject(tree, "edges", (double)result->edges);
    cJSON_AddNumberToObject(tree, "groups", (double)result->groups);
    cJSON_AddNumberToObject(tree, "largest_group", (double)result->largest);
    cJSON_AddNumberToObject(tree, "rows_kept", (double)result->kept);
    job_curate_tell(context, tree);
}

Status job_curate_dedup(const JobContext *context, const CurationRun *run, Error *error)
{
    FeatureSource pool;
    Deduplication result;
    Status status = job_curate_open(&pool, context, "features", NULL, error);
    CurationRun own = *run;
    if (status == STATUS_OK) status = job_curate_calibrated(&own, context, run, &pool, error);
    if (status == STATUS_OK) status = deduplicate_run(&result, &pool, &own, error);
    if (status == STATUS_OK) tell(context, &result);
    job_curate_end_calibrated(&own, run);
    feature_source_close(&pool);
    return status;
}

/* job_curate_exclude.c - curate exclude --features FILE... [--keep FILE] --reference FILE... --output-dir DIR
 */
#include "curation/exclude.h"
#include "job_curate.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void tell(const JobContext *context, const Exclusion *result)
{
    if (comm_rank(context->comm) == 0)
        printf("%s: %lld of %lld rows kept; %lld are like one of %lld references, %lld go with them\n",
               result->path, (long long)result->kept, (long long)result->rows, (long long)result->direct,
               (long long)result->references, (long long)(result->excluded - result->direct));
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate exclude");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddNumberToObject(tree, "rows", (double)result->rows);
    cJSON_AddNumberToObject(tree, "references", (double)result->references);
    cJSON_AddNumberToObject(tree, "neighbours", (double)result->neighbours);
    cJSON_AddNumberToObject(tree, "rows_like_a_reference", (double)result->direct);
    cJSON_AddNumberToObject(tree, "edges", (double)result->edges);
    cJSON_AddNumberToObject(tree, "rows_excluded", (double)result->excluded);
    cJSON_AddNumberToObject(tree, "rows_kept", (double)result->kept);
    job_curate_tell(context, tree);
}

Status job_curate_exclude(const JobContext *context, const CurationRun *run, Error *error)
{
    const char *keep = options_get(context->options, "keep");
    FeatureSource pool, references = {0};
    Exclusion result;
    Status status = job_curate_open(&pool, context, "features", keep, error);
    if (status == STATUS_OK) status = job_curate_open(&references, context, "reference", NULL, error);
    CurationRun own = *run;
    if (status == STATUS_OK) status = job_curate_calibrated(&own, context, run, &pool, error);
    if (status == STATUS_OK) status = exclude_run(&result, &pool, keep, &references, &own, error);
    if (status == STATUS_OK) tell(context, &result);
    job_curate_end_calibrated(&own, run);
    feature_source_close(&pool);
    feature_source_close(&references);
    return status;
}

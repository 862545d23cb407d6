/* job_curate_calibrate.c - curate calibrate --features FILE... --probes FILE... [--reference FILE...]
 * --output-dir DIR
 */
#include "base/memory.h"
#include "curation/calibrate.h"
#include "job_curate.h"

#include <cjson/cJSON.h>
#include <stdio.h>

static void tell(const JobContext *context, const Calibration *result)
{
    if (comm_rank(context->comm) == 0) {
        printf("%s: by %lld probes, dedup.threshold %.4f", result->path, (long long)result->probes,
               result->pool.threshold);
        if (result->has_references) printf(", exclude.threshold %.4f", result->references.threshold);
        printf("\n");
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate calibrate");
    cJSON_AddStringToObject(tree, "output", result->path);
    cJSON_AddNumberToObject(tree, "probes", (double)result->probes);
    cJSON_AddNumberToObject(tree, "dedup_threshold", result->pool.threshold);
    cJSON_AddNumberToObject(tree, "dedup_background_most", result->pool.background_most);
    if (result->has_references) {
        cJSON_AddNumberToObject(tree, "exclude_threshold", result->references.threshold);
        cJSON_AddNumberToObject(tree, "exclude_background_most", result->references.background_most);
    }
    job_curate_tell(context, tree);
}

Status job_curate_calibrate(const JobContext *context, const CurationRun *run, Error *error)
{
    const char *const *paths;
    bool references = options_get_all(context->options, "reference", &paths) > 0;
    FeatureSource pool, probes = {0}, reference = {0};
    Calibration result;
    Status status = job_curate_open(&pool, context, "features", NULL, error);
    if (status == STATUS_OK) status = job_curate_open(&probes, context, "probes", NULL, error);
    if (status == STATUS_OK && references)
        status = job_curate_open(&reference, context, "reference", NULL, error);
    if (status == STATUS_OK)
        status = calibrate_run(&result, &pool, &probes, references ? &reference : NULL, run, error);
    if (status == STATUS_OK) tell(context, &result);
    feature_source_close(&reference);
    feature_source_close(&probes);
    feature_source_close(&pool);
    return status;
}

Status job_curate_calibrated(CurationRun *own, const JobContext *context, const CurationRun *run,
                             const FeatureSource *pool, Error *error)
{
    *own = *run;
    const char *path = options_get(context->options, "calibration");
    if (!path) return STATUS_OK;
    TRY(comm_agree(context->comm, calibrate_apply(path, pool, context->config, error), error));
    own->config_text = config_dump(context->config);
    return STATUS_OK;
}

void job_curate_end_calibrated(CurationRun *own, const CurationRun *run)
{
    if (own->config_text != run->config_text) memory_free((char *)own->config_text);
    *own = *run;
}

/* job_curate.c - steps of a data curation, on features files.
 *
 *   dinobatch curate dedup --features FILE... --output-dir DIR
 *   dinobatch curate exclude --features FILE... [--keep CURATION_FILE] --reference FILE... --output-dir DIR
 *
 *   dinobatch curate score --features FILE... --truth DIR --dedup FILE [--exclude FILE] [--prefix pool/]
 * --output-dir DIR
 *
 * The first two write DIR/STEP.h5 (kind `curation`) and, while they work, DIR/STEP.partial.h5, from which a
 * run that was stopped or killed goes on.
 */
#include "job_curate.h"

#include "base/memory.h"
#include "curation/duplicate_keys.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "run/run_folder.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_curate_options[] = {
    {"features", "FILE", "the pool: features files, in order, by one option each", true},
    {"keep", "FILE", "curation file of an earlier step on the same files: only rows that it kept count",
     false},
    {"reference", "FILE", "exclude: features of images that must not be in the result; one option each",
     true},
    {"truth", "DIR", "score: pool.csv and leaks.csv of a planted benchmark", false},
    {"dedup", "FILE", "score: what dedup wrote", false},
    {"exclude", "FILE", "score: what exclude wrote", false},
    {"prefix", "TEXT", "score: what stands before a key in the truth's paths (default: pool/)", false},
    {0},
};

Status job_curate_open(FeatureSource *source, const JobContext *context, const char *option, const char *keep,
                       Error *error)
{
    const char *const *paths;
    int count = options_get_all(context->options, option, &paths);
    *source = (FeatureSource){0};
    if (count == 0) return status_fail(error, STATUS_INPUT, "this step needs --%s FILE", option);
    TRY(feature_source_open(source, paths, count, keep, context->comm, error));
    return duplicate_keys_check(source, context->comm, error);
}

void job_curate_tell(const JobContext *context, cJSON *tree)
{
    if (comm_rank(context->comm) == 0 && context->json) {
        char *text = cJSON_PrintUnformatted(tree);
        printf("%s\n", text);
        cJSON_free(text);
    }
    cJSON_Delete(tree);
}

static const struct {
    const char *name;
    JobCurateStep run;
} STEPS[] = {
    {"dedup", job_curate_dedup},
    {"exclude", job_curate_exclude},
    {"score", job_curate_score},
};

enum { STEP_COUNT = sizeof STEPS / sizeof *STEPS };

/* NULL, and the error says why. */
static JobCurateStep find_step(const char *name, Error *error)
{
    char known[256] = "";
    for (int i = 0; i < STEP_COUNT; i++) {
        if (strcmp(STEPS[i].name, name) == 0) return STEPS[i].run;
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", STEPS[i].name);
    }
    status_fail(error, STATUS_INPUT, "curate %s: expected one of %s", name, known);
    return NULL;
}

Status job_curate(JobContext *context, Error *error)
{
    JobCurateStep step = find_step(context->options->words[0], error);
    if (!step) return STATUS_INPUT;
    const char *folder = context->options->output_dir;
    if (!folder) return status_fail(error, STATUS_INPUT, "curate needs --output-dir DIR");
    bool speaks = comm_rank(context->comm) == 0;
    TRY(comm_agree(context->comm, speaks ? run_folder_make_path(folder, error) : STATUS_OK, error));
    TRY(run_start_manifest(context->run, folder, "cpu", error));
    Device *device = device_open_host();
    OpsLimits limits = shard_index_limits(1); /* of any columns: only its threads are used */
    OpsOptions options;
    Status status =
        ops_options_from(&options, context->config, device, job_threads(context, context->config), error);
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) {
        Ops *ops = ops_create(device, &limits, &options);
        char *text = config_dump(context->config);
        CurationRun run = {.config = context->config,
                           .config_text = text,
                           .folder = folder,
                           .resume = !context->options->no_resume,
                           .ops = ops,
                           .comm = context->comm,
                           .log = context->log};
        status = step(context, &run, error);
        memory_free(text);
        ops_destroy(ops);
    }
    device_close(device);
    return status;
}

/* job_curate.c - steps of a data curation, on features files.
 *
 *   dinobatch curate run CURATION.yaml --output-dir DIR
 *   dinobatch curate calibrate --features FILE... --probes FILE... [--reference FILE...] --output-dir DIR
 *   dinobatch curate dedup --features FILE... [--calibration FILE] --output-dir DIR
 *   dinobatch curate exclude --features FILE... [--keep CURATION_FILE] --reference FILE...
 *                            [--calibration FILE] --output-dir DIR
 *   dinobatch curate cluster --features FILE... [--keep CURATION_FILE] --output-dir DIR
 *   dinobatch curate retrieve --features FILE... [--keep CURATION_FILE] --queries FILE... --name NAME
 *                             [--clusters CLUSTER_FILE] --output-dir DIR
 *   dinobatch curate assemble --part RETRIEVED_FILE|NAME=SPEC... [--data SPEC]... [--features FILE]...
 *                             [--list] [--shard-size BYTES] --output-dir DIR
 *   dinobatch curate score --features FILE... --truth DIR [--dedup FILE [--exclude FILE]] [--retrieved
 * FILE]...
 *                          [--prefix TEXT] --output-dir DIR
 *
 * Each but score writes DIR/STEP.h5 (kind `curation`) and, while it works, DIR/STEP.partial.h5, from which a
 * run that was stopped or killed goes on.
 */
#include "job_curate.h"

#include "base/check.h"
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
    {"keep", "FILE",
     "curation file of an earlier step on the same pictures, by any model's features: only rows that it kept "
     "count",
     false},
    {"reference", "FILE", "features of images that must not be in the result; one option each", true},
    {"probes", "FILE", "features of pictures of the pool, made with extract --upside-down; one option each",
     true},
    {"calibration", "FILE", "file of calibrate, whose thresholds count", false},
    {"queries", "FILE", "features of the query set's images; one option each", true},
    {"name", "NAME", "of the query set; the result is retrieve_NAME.h5", false},
    {"clusters", "FILE", "file of curate cluster, for query sets that are answered by clusters", false},
    {"part", "FILE|NAME=SPEC",
     "file of curate retrieve, or a data set that goes in as it is; one option each, in order", true},
    {"data", "SPEC", "the pool's images, as a data set spec, by one option each", true},
    {"list", NULL, "only print the command line of each step (run); only a list, pictures.csv (assemble)",
     false},
    {"shard-size", "BYTES", "encoded bytes of a shard, with K, M or G as you like (default 1G)", false},
    {"data-root", "DIR", "folder of relative data and model paths (default: that of CURATION.yaml)", false},
    {"truth", "DIR", "pool.csv, leaks.csv and labels.csv of a planted benchmark", false},
    {"dedup", "FILE", "what dedup wrote", false},
    {"exclude", "FILE", "what exclude wrote", false},
    {"retrieved", "FILE", "what retrieve wrote, by one option each", true},
    {"prefix", "TEXT", "what stands before a key in the truth's paths (default: pool/)", false},
    {0},
};

const OptionsKind job_curate_kinds[] = {
    {"run", "list data-root"},
    {"calibrate", "features probes reference"},
    {"dedup", "features calibration"},
    {"exclude", "features keep reference calibration"},
    {"cluster", "features keep"},
    {"retrieve", "features keep queries name clusters"},
    {"assemble", "features part data list shard-size"},
    {"score", "features truth dedup exclude retrieved prefix"},
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
    TRY(feature_source_check_upright(source, strcmp(option, "probes") != 0, error));
    bool pool = strcmp(option, "features") == 0;
    return duplicate_keys_check(source, pool ? DUPLICATE_KEYS_IN_SET : DUPLICATE_KEYS_IN_FILE, context->comm,
                                error);
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
    {"calibrate", job_curate_calibrate}, {"dedup", job_curate_dedup},       {"exclude", job_curate_exclude},
    {"cluster", job_curate_cluster},     {"retrieve", job_curate_retrieve}, {"assemble", job_curate_assemble},
    {"score", job_curate_score},
};

static JobCurateStep find_step(const char *name)
{
    size_t i = 0, count = sizeof STEPS / sizeof *STEPS;
    while (i < count && strcmp(STEPS[i].name, name) != 0)
        i++;
    CHECK(i < count); /* options_parse refuses what job_curate_kinds has not */
    return STEPS[i].run;
}

/* DIR/STEP.manifest.json: steps of a curation share a folder. */
static Status start_manifest(const JobContext *context, const char *folder, Error *error)
{
    char file[256];
    const char *name = options_get(context->options, "name");
    if (name && strchr(name, '/')) name = NULL; /* which retrieve will refuse */
    snprintf(file, sizeof file, "%s%s%s.manifest.json", context->options->words[0], name ? "_" : "",
             name ? name : "");
    return run_start_manifest(context->run, folder, file, "cpu", error);
}

Status job_curate(JobContext *context, Error *error)
{
    if (strcmp(context->options->words[0], "run") == 0) return job_curate_run(context, error);
    JobCurateStep step = find_step(context->options->words[0]);
    if (context->options->word_count > 1)
        return status_fail(error, STATUS_INPUT, "curate %s: what is %s?", context->options->words[0],
                           context->options->words[1]);
    const char *folder = context->options->output_dir;
    if (!folder) return status_fail(error, STATUS_INPUT, "curate needs --output-dir DIR");
    bool speaks = comm_rank(context->comm) == 0;
    TRY(comm_agree(context->comm, speaks ? run_folder_make_path(folder, error) : STATUS_OK, error));
    TRY(start_manifest(context, folder, error));
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

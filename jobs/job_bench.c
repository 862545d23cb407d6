/* job_bench.c - this machine's limits, and how near to them we come.
 *
 *   dinobatch bench [--device auto|cpu|cuda] [--what limits|ops|step|augment|sharding|checkpoint|index|all]
 *                   [--preset tiny|vits14|demo|full-s|full-b|full-l|config|all] [--dtype fp32|bf16|fp16|all]
 *                   [--strategy no_shard|shard_grad_op|full_shard|hybrid_shard|all]
 *                   [--seconds S] [--quick] [--data SPEC] [--rows N] [--features FILE] [--output-dir DIR]
 *                   [key=value]...
 *
 * The first four measure one process. `sharding`, `checkpoint` and `index` measure what ranks do together,
 * under mpirun or srun on any number of them; `checkpoint` writes to a folder below --output-dir and removes
 * it again; `index` draws its curves there.
 *
 * Presets `tiny` and `vits14` are the two on which the public reference was timed on a CPU (README "Speed");
 * `demo` is jobs/configs/demo.yaml; `full-s`, `full-b`, `full-l` are a ViT-S, -B and -L with patches of 14
 * and the whole recipe, as one GPU of a cluster has it; `config` is the configuration of the command line.
 * key=value changes all of them. All of them means those for a CPU, or on a GPU the full ones.
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "bench/augment_bench.h"
#include "bench/bench_report.h"
#include "bench/hot_ops.h"
#include "bench/machine_limits.h"
#include "job.h"
#include "job_bench_index.h"
#include "job_bench_presets.h"
#include "job_threads.h"
#include "train/train_data.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const OptionSpec job_bench_options[] = {
    {"what", "limits|ops|step|augment|sharding|checkpoint|index|all",
     "what to measure; the last three on any number of ranks (default all: the first four)", false},
    {"preset", "tiny|vits14|demo|full-s|full-b|full-l|config|all",
     "step, sharding and checkpoints of which model; config: that of --config-file and key=value (default "
     "all, or config with --config-file)",
     false},
    {"dtype", "fp32|bf16|fp16|all",
     "products of the step (default bf16 on a GPU, else all that the processor has)", false},
    {"strategy", "no_shard|shard_grad_op|full_shard|hybrid_shard|all",
     "with --what sharding (default all; hybrid_shard needs compute.ranks_per_node)", false},
    {"seconds", "S", "of each measurement (default 0.3; steps three times as long, two steps at least)",
     false},
    {"device", "auto|cpu|cuda", "which processor's (default compute.device)", false},
    {"quick", NULL, "limits, operations and rows at the smallest sizes: to test the bench itself", false},
    {"data", "SPEC", "pictures to decode and crop (default: drawn ones of 500 x 375)", false},
    {"rows", "N", "with --what index: rows to search in (default 100000)", false},
    {"features", "FILE", "with --what index: rows of a features file, evenly drawn (default: drawn ones)",
     false},
    {0},
};

/* What the command line asks for. */
typedef struct {
    const char *what, *preset, *dtype; /* never NULL, once the device is open */
    double seconds;
    int threads;
    int strategy; /* a ConfigSharding, or -1: all */
    int64_t rows; /* 0: not given */
    bool gpu, quick;
    FILE *out; /* where tables go; NULL on ranks that do not speak */
} Request;

enum { DTYPES = 3 };

/* --- measuring ---------------------------------------------------------------------------------------- */

static bool wanted(const char *asked, const char *name)
{
    return strcmp(asked, "all") == 0 || strcmp(asked, name) == 0;
}

static bool needs_ranks(const Request *request)
{
    return strcmp(request->what, "sharding") == 0 || strcmp(request->what, "checkpoint") == 0 ||
           strcmp(request->what, "index") == 0;
}

static Status measure_step(JobContext *context, const Request *request, int preset, Config *config,
                           BenchReport *report, Error *error)
{
    StepBenchParams params = {.name = job_bench_presets_name(preset),
                              .config = config,
                              .comm = context->comm,
                              .device = request->gpu ? DEVICE_CUDA : DEVICE_CPU,
                              .threads = request->threads,
                              .seconds = 3 * request->seconds};
    StepBench *step = &report->steps[report->step_count];
    TRY(step_bench_run(step, &params, error));
    bench_report_print_step(report, step, request->out);
    report->step_count++;
    return STATUS_OK;
}

static Status measure_sharding(JobContext *context, const Request *request, int preset, Config *config,
                               BenchReport *report, Error *error)
{
    ShardingBenchParams params = {.name = job_bench_presets_name(preset),
                                  .config = config,
                                  .comm = context->comm,
                                  .device = context->device,
                                  .threads = request->threads,
                                  .seconds = request->seconds,
                                  .quick = request->quick,
                                  .strategy = request->strategy};
    ShardingBench *sharding = &report->shardings[report->sharding_count];
    TRY(sharding_bench_run(sharding, &params, error));
    if (request->out) bench_report_print_sharding(sharding, request->out);
    report->sharding_count++;
    return STATUS_OK;
}

/* Steps beside the writing where the model is small enough to train on this device. */
static Status measure_checkpoint(JobContext *context, const Request *request, int preset, Config *config,
                                 BenchReport *report, Error *error)
{
    char folder[PATH_MAX];
    int length = snprintf(folder, sizeof folder, "%s/bench_checkpoint", context->options->output_dir);
    if (length < 0 || (size_t)length >= sizeof folder)
        return status_fail(error, STATUS_INPUT, "--output-dir: the name is too long");
    CheckpointBenchParams params = {.name = job_bench_presets_name(preset),
                                    .config = config,
                                    .comm = context->comm,
                                    .device = context->device,
                                    .folder = folder,
                                    .threads = request->threads,
                                    .quick = request->quick};
    CheckpointBench *checkpoint = &report->checkpoints[report->checkpoint_count];
    TRY(checkpoint_bench_run(checkpoint, &params, error));
    if (request->out) bench_report_print_checkpoint(checkpoint, request->out);
    report->checkpoint_count++;
    if (job_bench_presets_is_full(preset) != request->gpu && preset != PRESET_CONFIG) return STATUS_OK;
    bool several = comm_size(context->comm) == 1 || strcmp(context->run->thread_level, "multiple") == 0;
    CheckpointTraining *training = &report->trainings[report->training_count];
    TRY(checkpoint_training_run(training, &params, several, error));
    if (request->out) bench_report_print_training(training, request->out);
    report->training_count++;
    return STATUS_OK;
}

static Status measure_preset(JobContext *context, const Request *request, int preset, BenchReport *report,
                             Error *error)
{
    static const struct {
        const char *name;
        Dtype dtype;
    } dtypes[DTYPES] = {{"fp32", DTYPE_F32}, {"bf16", DTYPE_BF16}, {"fp16", DTYPE_F16}};
    Config config;
    config_init(&config);
    Status status = job_bench_presets_overlay(&config, preset, context->options, error);
    bool checkpoint = strcmp(request->what, "checkpoint") == 0;
    if (status == STATUS_OK && checkpoint)
        status = measure_checkpoint(context, request, preset, &config, report, error);
    for (int d = 0; d < DTYPES && status == STATUS_OK && !checkpoint; d++) {
        bool named = strcmp(request->dtype, dtypes[d].name) == 0;
        bool has = request->gpu || dtypes[d].dtype == DTYPE_F32 ||
                   (dtypes[d].dtype == DTYPE_BF16 && machine_limits_has_bf16());
        if (!named && (!wanted(request->dtype, dtypes[d].name) || !has)) continue;
        job_bench_presets_set_dtype(&config, dtypes[d].dtype);
        log_info(context->log, "%s, %s", job_bench_presets_name(preset), dtypes[d].name);
        status = strcmp(request->what, "sharding") == 0
                     ? measure_sharding(context, request, preset, &config, report, error)
                     : measure_step(context, request, preset, &config, report, error);
        fflush(stdout);
    }
    config_fini(&config);
    return status;
}

static Status measure_presets(JobContext *context, const Request *request, BenchReport *report, Error *error)
{
    for (int preset = 0; preset < PRESETS; preset++) {
        bool named = strcmp(request->preset, job_bench_presets_name(preset)) == 0;
        /* "all" means the known ones: what the command line configures is asked for by name. */
        bool of_all = job_bench_presets_is_full(preset) == request->gpu;
        if (!named && (strcmp(request->preset, "all") != 0 || preset == PRESET_CONFIG || !of_all)) continue;
        char path[PATH_MAX];
        if (preset == PRESET_DEMO && !named &&
            job_bench_presets_find_demo(path, sizeof path, error) != STATUS_OK) {
            log_warning(context->log, "%s", error->text);
            continue;
        }
        TRY(measure_preset(context, request, preset, report, error));
    }
    return STATUS_OK;
}

static Status measure_index(JobContext *context, const Request *request, BenchReport *report, Error *error)
{
    JobBenchIndex index = {.seconds = request->seconds,
                           .threads = request->threads,
                           .quick = request->quick,
                           .rows = request->rows,
                           .features = options_get(context->options, "features"),
                           .out = request->out};
    return job_bench_index(context, &index, report, error);
}

/* The crops of the published recipe with patches of 14, or those of the command line. */
static Status measure_pictures(const JobContext *context, const Request *request,
                               const BenchPictures *pictures, BenchReport *report, Error *error)
{
    Config config;
    config_init(&config);
    int preset = strcmp(request->preset, "config") == 0 ? PRESET_CONFIG : PRESET_VITS14;
    Status status = job_bench_presets_overlay(&config, preset, context->options, error);
    if (status == STATUS_OK) {
        AugmentParams augment = train_data_augment(&config);
        status = augment_bench_run(&report->rows, pictures, &augment, wanted(request->what, "augment"),
                                   request->seconds, error);
    }
    config_fini(&config);
    return status;
}

/* Everything but the steps, which need the limits first. */
static Status measure_rows(JobContext *context, const Request *request, const BenchPictures *pictures,
                           BenchReport *report, Error *error)
{
    bool all_limits = wanted(request->what, "limits");
    log_info(context->log, "limits");
    MachineLimitsParams limits = {.device = context->device,
                                  .threads = request->threads,
                                  .seconds = request->seconds,
                                  .shapes = all_limits,
                                  .quick = request->quick};
    machine_limits_measure(&report->rows, &limits);
    if (pictures->count > 0) TRY(measure_pictures(context, request, pictures, report, error));
    if (wanted(request->what, "ops")) {
        log_info(context->log, "operations");
        HotOpsParams ops = {.device = context->device,
                            .threads = request->threads,
                            .seconds = request->seconds,
                            .comm = context->comm,
                            .quick = request->quick};
        hot_ops_measure(&report->rows, &ops);
    }
    return STATUS_OK;
}

/* --- the job ------------------------------------------------------------------------------------------ */

/* `value` is one of `choices`, "a|b|c". */
static Status check_choice(const char *option, const char *value, const char *choices, Error *error)
{
    size_t length = strlen(value);
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strcspn(at, "|") == length && strncmp(at, value, length) == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected %s", option, value, choices);
}

static Status parse_strategy(Request *request, const char *strategy, Error *error)
{
    static const char *const names[] = {"no_shard", "shard_grad_op", "full_shard", "hybrid_shard"};
    request->strategy = -1;
    if (!strategy) return STATUS_OK;
    TRY(check_choice("strategy", strategy, job_bench_options[3].argument, error));
    for (int i = 0; i < SHARDING_STRATEGIES; i++)
        if (strcmp(strategy, names[i]) == 0) request->strategy = i;
    return STATUS_OK;
}

static Status parse_rows(Request *request, const char *rows, Error *error)
{
    enum { MOST = 1000000000 };
    char *end;
    if (!rows) return STATUS_OK;
    request->rows = strtoll(rows, &end, 10);
    if (*end || request->rows < 1 || request->rows > MOST)
        return status_fail(error, STATUS_INPUT, "--rows %s: expected a number in 1 .. %d", rows, MOST);
    return STATUS_OK;
}

static Status parse(const JobContext *context, Request *request, Error *error)
{
    const Options *options = context->options;
    const char *seconds = options_get(options, "seconds");
    *request = (Request){.what = options_get(options, "what"),
                         .preset = options_get(options, "preset"),
                         .dtype = options_get(options, "dtype"),
                         .seconds = 0.3,
                         .quick = options_get(options, "quick") != NULL,
                         .threads = job_threads(context, context->config)};
    if (!request->what) request->what = "all";
    if (!request->preset) request->preset = options->config_file_count > 0 ? "config" : "all";
    TRY(check_choice("what", request->what, job_bench_options[0].argument, error));
    TRY(check_choice("preset", request->preset, job_bench_options[1].argument, error));
    if (seconds) {
        char *end;
        request->seconds = strtod(seconds, &end);
        if (*end || !(request->seconds > 0 && request->seconds <= 3600))
            return status_fail(error, STATUS_INPUT, "--seconds %s: expected a number in (0, 3600]", seconds);
    }
    if (comm_rank(context->comm) == 0) request->out = stdout;
    if (comm_size(context->comm) > 1 && !needs_ranks(request))
        return status_fail(error, STATUS_INPUT,
                           "bench --what %s measures one process: run it on one rank (sharding, checkpoint "
                           "and index take any number)",
                           request->what);
    if (strcmp(request->what, "checkpoint") == 0 && !options->output_dir)
        return status_fail(error, STATUS_INPUT,
                           "bench --what checkpoint writes files: --output-dir says to which disk");
    TRY(parse_rows(request, options_get(options, "rows"), error));
    return parse_strategy(request, options_get(options, "strategy"), error);
}

/* Rank 0. */
static Status write_report(const JobContext *context, const BenchReport *report, Error *error)
{
    const char *folder = context->options->output_dir;
    char *json = bench_report_json(report), path[PATH_MAX];
    Status status = STATUS_OK;
    if (folder) {
        status = run_folder_make_path(folder, error);
        snprintf(path, sizeof path, "%s/bench.json", folder);
        if (status == STATUS_OK) status = atomic_file_write(path, json, strlen(json), error);
        if (status == STATUS_OK) log_info(context->log, "wrote %s", path);
    }
    if (context->json) printf("%s\n", json);
    memory_free(json);
    return status;
}

static Status measure(JobContext *context, const Request *request, BenchReport *report, Error *error)
{
    BenchPictures pictures = {0};
    bool decodes =
        strcmp(request->what, "augment") == 0 || (wanted(request->what, "limits") && !request->quick);
    Status status = STATUS_OK;
    if (request->out) bench_report_print_machine(report, request->out);
    fflush(stdout);
    if (needs_ranks(request)) {
        TRY(strcmp(request->what, "index") == 0 ? measure_index(context, request, report, error)
                                                : measure_presets(context, request, report, error));
        if (request->out) status = write_report(context, report, error);
        return comm_agree(context->comm, status, error);
    }
    if (decodes) status = bench_pictures_init(&pictures, options_get(context->options, "data"), error);
    if (decodes) report->pictures = pictures.source;
    if (status == STATUS_OK) status = measure_rows(context, request, &pictures, report, error);
    if (status == STATUS_OK) bench_report_print_rows(report, request->out);
    fflush(stdout);
    if (status == STATUS_OK && wanted(request->what, "step"))
        status = measure_presets(context, request, report, error);
    if (status == STATUS_OK) status = write_report(context, report, error);
    report->pictures = ""; /* it pointed into what ends here */
    bench_pictures_fini(&pictures);
    return status;
}

/* --device before compute.device; and what the device decides. */
static Status open_device(JobContext *context, Request *request, Error *error)
{
    const char *device = options_get(context->options, "device");
    if (device) {
        char assignment[64];
        TRY(check_choice("device", device, "auto|cpu|cuda", error));
        snprintf(assignment, sizeof assignment, "compute.device=%s", device);
        TRY(config_override(context->config, assignment, error));
    }
    TRY(job_open_device(context, error));
    request->gpu = device_kind(context->device) != DEVICE_CPU;
    if (!request->dtype) request->dtype = request->gpu ? "bf16" : "all";
    const char *dtypes = job_bench_options[2].argument;
    return check_choice("dtype", request->dtype, request->gpu ? dtypes : "fp32|bf16|all", error);
}

Status job_bench(JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context, &request, error));
    TRY(open_device(context, &request, error));
    omp_set_num_threads(request.threads);
    BenchReport report = {
        .threads = request.threads, .cores = (int)sysconf(_SC_NPROCESSORS_ONLN), .pictures = ""};
    machine_limits_processor(report.processor, sizeof report.processor);
    if (request.gpu) snprintf(report.device, sizeof report.device, "%s", device_name(context->device));
    report.steps = memory_alloc_array(PRESETS * DTYPES, sizeof *report.steps);
    report.shardings = memory_alloc_array(PRESETS * DTYPES, sizeof *report.shardings);
    report.checkpoints = memory_alloc_array(PRESETS, sizeof *report.checkpoints);
    report.trainings = memory_alloc_array(PRESETS, sizeof *report.trainings);
    Status status = measure(context, &request, &report, error);
    bench_rows_fini(&report.rows);
    memory_free(report.steps);
    memory_free(report.shardings);
    memory_free(report.checkpoints);
    memory_free(report.trainings);
    return status;
}

/* job_bench.c - this machine's limits, and how near to them we come.
 *
 *   dinobatch bench [--device auto|cpu|cuda] [--what limits|ops|step|augment|sharding|checkpoint|all]
 *                   [--preset tiny|vits14|demo|full-s|full-b|full-l|config|all] [--dtype fp32|bf16|fp16|all]
 *                   [--strategy no_shard|shard_grad_op|full_shard|hybrid_shard|all]
 *                   [--seconds S] [--quick] [--data SPEC] [--output-dir DIR] [key=value]...
 *
 * The first four measure one process. `sharding` and `checkpoint` measure what ranks do together, under
 * mpirun or srun on any number of them; `checkpoint` writes to a folder below --output-dir and removes it
 * again.
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
#include "job_threads.h"
#include "train/train_data.h"

#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const OptionSpec job_bench_options[] = {
    {"what", "limits|ops|step|augment|sharding|checkpoint|all",
     "what to measure; the last two on any number of ranks (default all: the first four)", false},
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
    {"quick", NULL, "limits and operations at the smallest sizes: to test the bench itself", false},
    {"data", "SPEC", "pictures to decode and crop (default: drawn ones of 500 x 375)", false},
    {0},
};

/* What the command line asks for. */
typedef struct {
    const char *what, *preset, *dtype; /* never NULL, once the device is open */
    double seconds;
    int threads;
    int strategy; /* a ConfigSharding, or -1: all */
    bool gpu, quick;
    FILE *out; /* where tables go; NULL on ranks that do not speak */
} Request;

enum {
    PRESET_TINY,
    PRESET_VITS14,
    PRESET_DEMO,
    PRESET_FULL_S,
    PRESET_FULL_B,
    PRESET_FULL_L,
    PRESET_CONFIG,
    PRESETS
};
enum { DTYPES = 3, ASSIGNMENTS = 16 };

#define FULL(arch)                                                                                           \
    {                                                                                                        \
        "student.arch=" arch, "student.patch_size=14", "student.drop_path_rate=0.3",                         \
            "crops.global_crops_size=224", "crops.local_crops_size=98", "crops.local_crops_number=8",        \
            "train.batch_size_per_gpu=32", "train.centering=sinkhorn_knopp", "ibot.separate_head=true",      \
            "dino.head_n_prototypes=131072", "ibot.head_n_prototypes=131072", "dino.head_bottleneck_dim=256" \
    }

/* The peer's settings, as assignments. */
static const struct {
    const char *name;
    const char *assignments[ASSIGNMENTS];
} PRESET_LIST[PRESETS] = {
    [PRESET_TINY] = {"tiny",
                     {"student.arch=vit_custom", "student.embed_dim=96", "student.depth=4",
                      "student.num_heads=3", "student.patch_size=4", "student.drop_path_rate=0.3",
                      "crops.global_crops_size=32", "crops.local_crops_size=16", "crops.local_crops_number=4",
                      "train.batch_size_per_gpu=32", "train.centering=sinkhorn_knopp",
                      "ibot.separate_head=true", "dino.head_n_prototypes=8192",
                      "ibot.head_n_prototypes=8192"}},
    [PRESET_VITS14] = {"vits14",
                       {"student.arch=vit_small", "student.patch_size=14", "student.drop_path_rate=0.3",
                        "crops.global_crops_size=224", "crops.local_crops_size=98",
                        "crops.local_crops_number=8", "train.batch_size_per_gpu=4",
                        "train.centering=sinkhorn_knopp", "ibot.separate_head=true",
                        "dino.head_n_prototypes=8192", "ibot.head_n_prototypes=8192"}},
    [PRESET_DEMO] = {"demo", {0}},
    [PRESET_FULL_S] = {"full-s", FULL("vit_small")},
    [PRESET_FULL_B] = {"full-b", FULL("vit_base")},
    [PRESET_FULL_L] = {"full-l", FULL("vit_large")},
    [PRESET_CONFIG] = {"config", {0}},
};

/* --- configurations ----------------------------------------------------------------------------------- */

/* jobs/configs/demo.yaml from here, or beside the program's build folder. */
static Status find_demo(char *path, size_t size, Error *error)
{
    static const char FILE_NAME[] = "jobs/configs/demo.yaml";
    snprintf(path, size, "%s", FILE_NAME);
    if (access(path, R_OK) == 0) return STATUS_OK;
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 0) {
        program[length] = '\0';
        for (int i = 0; i < 2; i++) { /* away with the name and with build/ */
            char *slash = strrchr(program, '/');
            if (slash) *slash = '\0';
        }
        int written = snprintf(path, size, "%s/%s", program, FILE_NAME);
        if (written > 0 && (size_t)written < size && access(path, R_OK) == 0) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--preset demo: %s is not here; run it in the checkout",
                       FILE_NAME);
}

static Status overlay(Config *config, int preset, const Options *options, Error *error)
{
    if (preset == PRESET_DEMO) {
        char path[PATH_MAX];
        TRY(find_demo(path, sizeof path, error));
        TRY(config_load_file(config, path, error));
    }
    if (preset == PRESET_CONFIG)
        for (int i = 0; i < options->config_file_count; i++)
            TRY(config_load_file(config, options->config_files[i], error));
    for (int i = 0; i < ASSIGNMENTS && PRESET_LIST[preset].assignments[i]; i++)
        TRY(config_override(config, PRESET_LIST[preset].assignments[i], error));
    for (int i = 0; i < options->override_count; i++)
        TRY(config_override(config, options->overrides[i], error));
    return config_check(config, error);
}

static void set_dtype(Config *config, Dtype dtype)
{
    ConfigPrecisions *both[] = {&config->compute_precision.teacher, &config->compute_precision.student};
    for (int i = 0; i < 2; i++) {
        both[i]->backbone.mixed_precision.param_dtype = dtype;
        both[i]->dino_head.mixed_precision.param_dtype = dtype;
        both[i]->ibot_head.mixed_precision.param_dtype = dtype;
    }
}

/* Of the size that a GPU trains. */
static bool is_full(int preset)
{
    return preset >= PRESET_FULL_S && preset <= PRESET_FULL_L;
}

/* --- measuring ---------------------------------------------------------------------------------------- */

static bool wanted(const char *asked, const char *name)
{
    return strcmp(asked, "all") == 0 || strcmp(asked, name) == 0;
}

static bool needs_ranks(const Request *request)
{
    return strcmp(request->what, "sharding") == 0 || strcmp(request->what, "checkpoint") == 0;
}

static Status measure_step(JobContext *context, const Request *request, int preset, Config *config,
                           BenchReport *report, Error *error)
{
    StepBenchParams params = {.name = PRESET_LIST[preset].name,
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
    ShardingBenchParams params = {.name = PRESET_LIST[preset].name,
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
    CheckpointBenchParams params = {.name = PRESET_LIST[preset].name,
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
    if (is_full(preset) != request->gpu && preset != PRESET_CONFIG) return STATUS_OK;
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
    Status status = overlay(&config, preset, context->options, error);
    bool checkpoint = strcmp(request->what, "checkpoint") == 0;
    if (status == STATUS_OK && checkpoint)
        status = measure_checkpoint(context, request, preset, &config, report, error);
    for (int d = 0; d < DTYPES && status == STATUS_OK && !checkpoint; d++) {
        bool named = strcmp(request->dtype, dtypes[d].name) == 0;
        bool has = request->gpu || dtypes[d].dtype == DTYPE_F32 ||
                   (dtypes[d].dtype == DTYPE_BF16 && machine_limits_has_bf16());
        if (!named && (!wanted(request->dtype, dtypes[d].name) || !has)) continue;
        set_dtype(&config, dtypes[d].dtype);
        log_info(context->log, "%s, %s", PRESET_LIST[preset].name, dtypes[d].name);
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
        bool named = strcmp(request->preset, PRESET_LIST[preset].name) == 0;
        /* "all" means the known ones: what the command line configures is asked for by name. */
        bool of_all = is_full(preset) == request->gpu;
        if (!named && (strcmp(request->preset, "all") != 0 || preset == PRESET_CONFIG || !of_all)) continue;
        char path[PATH_MAX];
        if (preset == PRESET_DEMO && !named && find_demo(path, sizeof path, error) != STATUS_OK) {
            log_warning(context->log, "%s", error->text);
            continue;
        }
        TRY(measure_preset(context, request, preset, report, error));
    }
    return STATUS_OK;
}

/* The crops of the published recipe with patches of 14, or those of the command line. */
static Status measure_pictures(const JobContext *context, const Request *request,
                               const BenchPictures *pictures, BenchReport *report, Error *error)
{
    Config config;
    config_init(&config);
    int preset = strcmp(request->preset, "config") == 0 ? PRESET_CONFIG : PRESET_VITS14;
    Status status = overlay(&config, preset, context->options, error);
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
        return status_fail(
            error, STATUS_INPUT,
            "bench --what %s measures one process: run it on one rank (sharding and checkpoint "
            "take any number)",
            request->what);
    if (strcmp(request->what, "checkpoint") == 0 && !options->output_dir)
        return status_fail(error, STATUS_INPUT,
                           "bench --what checkpoint writes files: --output-dir says to which disk");
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
        TRY(measure_presets(context, request, report, error));
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

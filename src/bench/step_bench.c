/* step_bench.c - builds a model, runs steps, takes them apart. */
#include "bench/step_bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LEAST_STEPS = 2 };

/* Seconds by unit of the model, for the passes of one network. */
typedef struct {
    struct StepRun *run;
    NnHooks own; /* of the network: what it does around units counts for them */
    bool teacher;
    double started;
} Listener;

typedef struct StepRun {
    const StepBenchParams *params;
    Device *device; /* owned */
    bool gpu;
    BenchModel model;
    OpsTimed timed;
    Listener student, teacher;
    double part_seconds[STEP_PART_COUNT]; /* since the first counted step */
    double masked;                        /* the same */
    SslFigures figures;
} StepRun;

static StepPart part_of(const Listener *listener, int unit, NnPhase phase)
{
    const SslMetaArch *ssl = &listener->run->model.ssl;
    static const StepPart PARTS[3][3] = {
        {STEP_TEACHER_EMBED, STEP_TEACHER_BLOCKS, STEP_TEACHER_HEADS},
        {STEP_STUDENT_EMBED, STEP_STUDENT_BLOCKS, STEP_STUDENT_HEADS},
        {STEP_BACKWARD_EMBED, STEP_BACKWARD_BLOCKS, STEP_BACKWARD_HEADS},
    };
    bool ibot = ssl->do_ibot && !ssl->student.shared_head && unit == ssl->student.ibot_head.unit;
    int kind = unit == ssl->student.vit.embed_unit ? 0 : unit == ssl->student.dino_head.unit || ibot ? 2 : 1;
    if (unit == ssl->student.vit.norm_unit) return STEP_NORMS;
    return PARTS[listener->teacher ? 0 : phase == NN_FORWARD ? 1 : 2][kind];
}

/* On a GPU the part's time is that of its operations, on a CPU the host's. */
static void before_unit(void *context, int unit, NnPhase phase)
{
    Listener *listener = context;
    listener->started = clock_seconds();
    ops_timed_into(&listener->run->timed, &listener->run->part_seconds[part_of(listener, unit, phase)]);
    nn_hooks_before(&listener->own, unit, phase);
}

static void after_unit(void *context, int unit, NnPhase phase)
{
    Listener *listener = context;
    StepRun *run = listener->run;
    nn_hooks_after(&listener->own, unit, phase);
    ops_timed_into(&run->timed, NULL);
    if (!run->gpu) run->part_seconds[part_of(listener, unit, phase)] += clock_seconds() - listener->started;
}

static Status run_init(StepRun *run, const StepBenchParams *params, Error *error)
{
    *run = (StepRun){.params = params};
    TRY(device_open(&run->device, params->device, 0, error));
    run->gpu = device_kind(run->device) != DEVICE_CPU;
    TRY(bench_model_init(&run->model, params->config, params->comm, run->device, params->threads, &run->timed,
                         error));
    SslMetaArch *ssl = &run->model.ssl;
    run->student = (Listener){.run = run, .own = ssl->student.hooks};
    run->teacher = (Listener){.run = run, .teacher = true, .own = ssl->teacher.hooks};
    ssl->student.hooks = (NnHooks){&run->student, before_unit, after_unit};
    ssl->teacher.hooks = (NnHooks){&run->teacher, before_unit, after_unit};
    return STATUS_OK;
}

static void run_fini(StepRun *run)
{
    bool built = run->model.ops != NULL;
    bench_model_fini(&run->model);
    if (built) ops_timed_fini(&run->timed);
    device_close(run->device);
}

static void forget_times(StepRun *run)
{
    ops_timed_reset(&run->timed);
    memset(run->part_seconds, 0, sizeof run->part_seconds);
    run->masked = 0;
}

/* The first step warms up: what it took is forgotten. */
static void next_batch(void *context)
{
    StepRun *run = context;
    if (run->model.batches <= 1) forget_times(run);
    bench_model_next_batch(&run->model);
}

static void one_step(void *context)
{
    StepRun *run = context;
    const SslMetaArch *ssl = &run->model.ssl;
    bench_model_gradients(&run->model);
    double gradients_done = clock_seconds();
    ops_timed_into(&run->timed, &run->part_seconds[STEP_OPTIMIZER]);
    bench_model_update(&run->model);
    double update_done = clock_seconds();
    ops_timed_into(&run->timed, &run->part_seconds[STEP_AVERAGE]);
    bench_model_average(&run->model);
    ops_timed_into(&run->timed, NULL);
    run->masked += (double)ssl->masked_patches;
    if (run->gpu) return;
    run->figures = ssl_meta_arch_last_figures(ssl);
    run->part_seconds[STEP_OPTIMIZER] += update_done - gradients_done;
    run->part_seconds[STEP_AVERAGE] += clock_seconds() - update_done;
}

/* One step with an event around every operation. Returns its time. */
static double take_apart(StepRun *run)
{
    DeviceEvent *before = device_event_create(run->device), *after = device_event_create(run->device);
    run->model.ssl.ops = &run->timed.ops;
    next_batch(run);
    forget_times(run);
    device_event_record(before);
    one_step(run);
    device_event_record(after);
    ops_timed_collect(&run->timed);
    double seconds = device_event_seconds(before, after);
    run->model.ssl.ops = run->model.ops;
    run->figures = ssl_meta_arch_last_figures(&run->model.ssl);
    device_event_destroy(before);
    device_event_destroy(after);
    return seconds;
}

/* --- memory ------------------------------------------------------------------------------------------- */

/* Starts the kernel's high-water mark anew (Linux); elsewhere it stays that of the process so far. */
static void reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

static void fill_memory(StepBench *result, const StepRun *run)
{
    const SslMetaArch *ssl = &run->model.ssl;
    enum { LOCAL_VECTORS = 5 }; /* student, teacher, gradients, two moments */
    result->weight_bytes = (size_t)ssl->student.map.count * LOCAL_VECTORS * sizeof(float) +
                           sharded_weights_bytes(&ssl->student.copies) +
                           sharded_weights_bytes(&ssl->teacher.copies) + ssl->gradients.bytes;
    result->step_bytes = ssl->step.capacity;
    result->scratch_bytes = run->model.ops->scratch->capacity;
    result->batch_bytes = batch_bytes(&run->model.batch);
    result->peak_rss_bytes = memory_resident_peak();
    if (run->gpu) result->peak_device_bytes = device_memory_peak(run->device);
}

/* --- where the time goes ------------------------------------------------------------------------------ */

static double steps_taken_apart(const StepBench *result, const StepRun *run)
{
    return run->gpu ? 1.0 : (double)result->times.count;
}

static void fill_parts(StepBench *result, const StepRun *run)
{
    const OpsTimedTotal *t = result->operations;
    double steps = steps_taken_apart(result, run), known = 0;
    for (int i = 0; i < STEP_PART_COUNT; i++)
        result->part_seconds[i] = run->part_seconds[i] / steps;
    result->part_seconds[STEP_TARGETS] =
        t[OPS_TIMED_prototype_sinkhorn].seconds + t[OPS_TIMED_prototype_center].seconds;
    result->part_seconds[STEP_LOSSES] =
        t[OPS_TIMED_prototype_cross_entropy].seconds + t[OPS_TIMED_koleo].seconds;
    for (int i = 0; i < STEP_OTHER; i++)
        known += result->part_seconds[i];
    result->part_seconds[STEP_OTHER] = result->parts_seconds - known;
}

static void fill_operations(StepBench *result, const StepRun *run)
{
    double steps = steps_taken_apart(result, run), known = 0;
    for (int i = 0; i < OPS_TIMED_COUNT; i++) {
        const OpsTimedTotal *total = &run->timed.totals[i];
        result->operations[i] = (OpsTimedTotal){.calls = llround((double)total->calls / steps),
                                                .seconds = total->seconds / steps,
                                                .flops = total->flops / steps,
                                                .bytes = total->bytes / steps};
        result->counted_flops += total->flops / steps;
        known += total->seconds / steps;
    }
    result->other_seconds = result->parts_seconds - known;
}

/* After the timed steps. On a GPU one more follows. */
static void fill(StepBench *result, StepRun *run)
{
    const SslMetaArch *ssl = &run->model.ssl;
    snprintf(result->name, sizeof result->name, "%s", run->params->name);
    result->dtype = weights_act(&ssl->student.weights[PARAM_BACKBONE]);
    result->samples = run->model.batch.samples;
    result->parameters = ssl->student.table.flat_count;
    result->masked = run->masked / (double)result->times.count;
    result->flops = step_flops_count(ssl, result->masked, result->part_flops);
    result->parts_seconds = run->gpu ? take_apart(run) : result->times.mean;
    result->parts_flops = result->flops;
    if (run->gpu) result->parts_flops = step_flops_count(ssl, run->masked, result->part_flops);
    result->loss = run->figures.total_loss;
    fill_memory(result, run);
    fill_operations(result, run);
    fill_parts(result, run);
}

Status step_bench_run(StepBench *result, const StepBenchParams *params, Error *error)
{
    *result = (StepBench){0};
    reset_peak();
    StepRun *run = memory_alloc(sizeof *run);
    Status status = run_init(run, params, error);
    if (status == STATUS_OK) {
        BenchTask task = {.context = run, .prepare = next_batch, .work = one_step, .device = run->device};
        result->times = bench_timer_run(&task, params->seconds, LEAST_STEPS);
        fill(result, run);
        if (!isfinite(result->loss))
            status = status_fail(error, STATUS_FAILED, "%s: the loss is not finite on random batches",
                                 params->name);
    }
    run_fini(run);
    memory_free(run);
    return status;
}

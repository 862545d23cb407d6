/* train_state.c - a training step, and the state around it. */
#include "train/train_state.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/pixel_levels.h"
#include "ops/ops_options.h"
#include "optim/param_groups.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `count`, or less where the environment says so; of a list ("4,2") its first number counts. */
static int at_most(int count, const char *variable)
{
    const char *text = getenv(variable);
    long most = text ? strtol(text, NULL, 10) : 0;
    return most > 0 && most < count ? (int)most : count;
}

int train_state_threads(const Config *config, int ranks_on_node)
{
    if (config->compute.threads > 0) return (int)config->compute.threads;
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    int share = count / (ranks_on_node > 0 ? ranks_on_node : 1);
    return at_most(at_most(share > 1 ? share : 1, "OMP_NUM_THREADS"), "SLURM_CPUS_PER_TASK");
}

/* [count] of the device's memory, or NULL for nothing. */
static float *device_floats(Device *device, int64_t count)
{
    return count > 0 ? device_alloc(device, (size_t)count * sizeof(float)) : NULL;
}

static int64_t value_count(const TrainState *state)
{
    return state->ssl.layout.count + CONTROL_COUNT + state->optimizer.segments.count;
}

static void prepare_memory(TrainState *state)
{
    Device *device = state->device;
    int64_t dino, ibot;
    ssl_meta_arch_center_counts(&state->ssl, &dino, &ibot);
    state->dino_center_before = device_floats(device, dino);
    state->ibot_center_before = device_floats(device, ibot);
    for (int i = 0; i < TRAIN_SUBMISSIONS; i++) {
        state->submissions[i].values = device_alloc_host(device, (size_t)value_count(state) * sizeof(double));
        state->submissions[i].done = device_event_create(device);
    }
    if (device_kind(device) == DEVICE_CPU && !state->config->checkpoint.async) return;
    size_t bytes = (size_t)state->ssl.student.map.count * sizeof(float);
    TrainMirror *m = &state->mirror;
    float **flats[] = {&m->student, &m->model_ema, &m->exp_avg, &m->exp_avg_sq};
    for (int i = 0; i < 4; i++)
        *flats[i] = device_alloc_host(device, bytes);
    if (dino > 0) m->dino_center = device_alloc_host(device, (size_t)dino * sizeof(float));
    if (ibot > 0) m->ibot_center = device_alloc_host(device, (size_t)ibot * sizeof(float));
}

/* The networks, with initial weights, and with the teacher's where there is a frozen one. */
static Status make_networks(TrainState *state, Log *log, int threads, Error *error)
{
    Config *config = state->config;
    const Config *frozen = NULL;
    if (*config->distillation.checkpoint_path) {
        TRY(train_teacher_open(&state->teacher, config, state->comm, log, error));
        frozen = &state->teacher.config;
    }
    OpsLimits limits = ssl_ops_limits(config, frozen, &state->groups);
    OpsOptions options;
    TRY(comm_agree(state->comm, ops_options_from(&options, config, state->device, threads, error), error));
    state->ops = ops_create(state->device, &limits, &options);
    state->ops->moving = state->ranks.modules[PARAM_BACKBONE].parts;
    PixelNorm norm = pixel_levels_imagenet();
    ssl_meta_arch_init(&state->ssl, config, frozen, &state->groups, &norm, state->ops, &state->ranks);
    param_groups_assign(&state->ssl.student.table, state->ssl.student.vit.config.depth,
                        config->optim.layerwise_decay, config->optim.patch_embed_lr_mult);
    ssl_meta_arch_initialise(&state->ssl, (uint64_t)config->train.seed);
    return frozen ? train_teacher_load(&state->teacher, &state->ssl, state->comm, error) : STATUS_OK;
}

Status train_state_init(TrainState *state, Config *config, Comm *comm, Device *device, int threads, Log *log,
                        Error *error)
{
    *state =
        (TrainState){.config = config, .comm = comm, .device = device, .resident_before = memory_resident()};
    TRY(ssl_groups_deal(&state->groups, config, comm_rank(comm), comm_size(comm), error));
    config->train.global_batch_size = state->groups.total_groups * state->groups.group_size;
    TRY(fsdp_ranks_init(&state->ranks, config, comm, device, error));
    TRY(make_networks(state, log, threads, error));
    adamw_optimizer_init(&state->optimizer, &state->ssl.student.map, comm, device, config->optim.adamw_beta1,
                         config->optim.adamw_beta2);
    prepare_memory(state);
    device_download(device, state->control, state->ssl.control.data, sizeof state->control);
    device_finish(device);
    state->peak_lr = cosine_schedule_scaled_lr(config, config->train.global_batch_size);
    state->schedules = train_schedules(config, state->peak_lr);
    state->total_iterations = config->optim.epochs * config->train.OFFICIAL_EPOCH_LENGTH;
    return STATUS_OK;
}

void train_state_fini(TrainState *state)
{
    if (state->config && *state->config->distillation.checkpoint_path) train_teacher_fini(&state->teacher);
    if (!state->ops) {
        fsdp_ranks_fini(&state->ranks);
        return;
    }
    Device *device = state->device;
    device_finish(device);
    device_free(device, state->dino_center_before);
    device_free(device, state->ibot_center_before);
    TrainMirror *m = &state->mirror;
    float *mirrored[] = {m->student, m->model_ema, m->exp_avg, m->exp_avg_sq, m->dino_center, m->ibot_center};
    for (size_t i = 0; i < sizeof mirrored / sizeof *mirrored; i++)
        device_free_host(device, mirrored[i]);
    for (int i = 0; i < TRAIN_SUBMISSIONS; i++) {
        device_free_host(device, state->submissions[i].values);
        device_event_destroy(state->submissions[i].done);
    }
    adamw_optimizer_fini(&state->optimizer);
    ssl_meta_arch_fini(&state->ssl);
    ops_destroy(state->ops);
    fsdp_ranks_fini(&state->ranks);
    *state = (TrainState){0};
}

static const char *first_bad_loss(const SslFigures *f)
{
    if (!isfinite(f->dino_global_crops_loss)) return "dino_global_crops_loss";
    if (!isfinite(f->dino_local_crops_loss)) return "dino_local_crops_loss";
    if (!isfinite(f->koleo_loss)) return "koleo_loss";
    if (!isfinite(f->ibot_loss)) return "ibot_loss";
    return isfinite(f->total_loss) ? NULL : "total_loss";
}

/* The first parameter, in table order, whose squared norm is not finite. squares: by segment. */
static const Param *first_bad(const TrainState *state, const double *squares)
{
    const ShardMap *map = &state->ssl.student.map;
    int first = INT_MAX;
    for (int s = 0; s < map->table->count; s++)
        if (!isfinite(squares[s]) && map->order[s] < first) first = map->order[s];
    return first == INT_MAX ? NULL : &map->table->params[first];
}

/* Collective over all ranks. */
static const Param *first_bad_weight(const TrainState *state, float *local)
{
    const AdamwOptimizer *o = &state->optimizer;
    double *squares = memory_alloc_array((size_t)o->segments.count, sizeof *squares);
    adamw_optimizer_squares(o, state->ops, local);
    device_download(state->device, squares, o->squares.data, tensor_bytes(o->squares));
    device_finish(state->device);
    const Param *bad = first_bad(state, squares);
    memory_free(squares);
    return bad;
}

/* Collective over all ranks. */
static Status describe_bad_step(const TrainState *state, const TrainStep *step,
                                const double *gradient_squares, Error *error)
{
    const char *loss = first_bad_loss(&step->figures);
    const struct {
        const char *name;
        const Param *bad;
    } kinds[] = {{"student weight", first_bad_weight(state, state->ssl.student.local)},
                 {state->ssl.distilled ? "moving average of" : "teacher weight",
                  first_bad_weight(state, state->ssl.model_ema->local)},
                 {"gradient of", first_bad(state, gradient_squares)}};
    char tensor[160] = "none among weights and gradients";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const Param *bad = kinds[i].bad;
        if (!bad) continue;
        snprintf(tensor, sizeof tensor, "%s %s.%s", kinds[i].name, param_module_name(bad->module), bad->name);
        break;
    }
    return status_fail(error, STATUS_FAILED, "iteration %lld: %s is not finite; first bad tensor: %s",
                       (long long)step->iteration, loss ? loss : "a gradient norm", tensor);
}

/* The centres follow the teacher's scores inside the forward pass: a step that must change nothing takes them
 * back. */
static void keep_centers(TrainState *state)
{
    int64_t dino, ibot;
    ssl_meta_arch_center_counts(&state->ssl, &dino, &ibot);
    device_copy(state->device, state->dino_center_before, state->ssl.dino_center,
                (size_t)dino * sizeof(float));
    device_copy(state->device, state->ibot_center_before, state->ssl.ibot_center,
                (size_t)ibot * sizeof(float));
}

static void take_centers_back(TrainState *state)
{
    const Ops *ops = state->ops;
    const SslMetaArch *ssl = &state->ssl;
    int64_t dino, ibot;
    ssl_meta_arch_center_counts(&state->ssl, &dino, &ibot);
    if (dino > 0)
        ops->take_back(ops, tensor_1d(ssl->dino_center, DTYPE_F32, dino),
                       tensor_1d(state->dino_center_before, DTYPE_F32, dino), ssl->control);
    if (ibot > 0)
        ops->take_back(ops, tensor_1d(ssl->ibot_center, DTYPE_F32, ibot),
                       tensor_1d(state->ibot_center_before, DTYPE_F32, ibot), ssl->control);
}

static void fetch_values(TrainState *state, TrainSubmission *s)
{
    const SslMetaArch *ssl = &state->ssl;
    const Tensor parts[] = {ssl->figures, ssl->control, state->optimizer.squares};
    double *to = s->values;
    for (int i = 0; i < 3; i++) {
        device_download(state->device, to, parts[i].data, tensor_bytes(parts[i]));
        to += tensor_count(parts[i]);
    }
    s->masked_patches = ssl->masked_patches;
    device_event_record(s->done);
}

void train_state_submit(TrainState *state, const Batch *batch)
{
    CHECK(state->iteration - state->finished < TRAIN_SUBMISSIONS);
    SslMetaArch *ssl = &state->ssl;
    TrainSubmission *s = &state->submissions[state->iteration % TRAIN_SUBMISSIONS];
    AdamwOptimizerStep update = {.schedule = train_schedules_at(&state->schedules, state->iteration),
                                 .clip_grad = state->config->optim.clip_grad,
                                 .scaled = ssl->scaled};
    s->step = (TrainStep){.iteration = state->iteration, .schedule = update.schedule};
    keep_centers(state);
    ssl_meta_arch_forward_backward(ssl, batch, update.schedule.teacher_temp);
    adamw_optimizer_step(&state->optimizer, state->ops, ssl->student.local, ssl->gradients.local,
                         ssl->control, tensor_rows(ssl->figures, 0, ssl->layout.dino_entropy), &update);
    take_centers_back(state);
    ssl_meta_arch_update_ema(ssl, update.schedule.momentum);
    ssl_meta_arch_refresh(ssl);
    fetch_values(state, s);
    state->iteration++;
}

Status train_state_finish(TrainState *state, bool all, TrainStep *step, bool *ready, Error *error)
{
    int64_t under_way = state->iteration - state->finished;
    bool at_once = device_kind(state->device) == DEVICE_CPU;
    *ready = under_way > (all || at_once ? 0 : 1);
    if (!*ready) return STATUS_OK;
    TrainSubmission *s = &state->submissions[state->finished % TRAIN_SUBMISSIONS];
    device_event_wait(s->done);
    const double *control = s->values + state->ssl.layout.count;
    double scale_before = state->control[CONTROL_LOSS_SCALE];
    memcpy(state->control, control, sizeof state->control);
    *step = s->step;
    step->figures = ssl_meta_arch_figures(&state->ssl, s->values, s->masked_patches);
    step->loss_scale = scale_before;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        step->grad_norm[m] = control[CONTROL_NORM + m];
    step->skipped = control[CONTROL_FINITE] == 0.0;
    state->finished++;

    bool overflow = step->skipped && !first_bad_loss(&step->figures) && scale_before > 1.0;
    if (!step->skipped) state->bad_steps = 0;
    if (!step->skipped || overflow) return STATUS_OK;
    if (state->bad_steps >= state->config->train.skip_bad_steps)
        return describe_bad_step(state, step, control + CONTROL_COUNT, error);
    state->bad_steps++;
    return STATUS_OK;
}

/* "backbone bf16, dino_head fp32 (fp16 asked), ..." */
static void describe_precision(const ConfigPrecisions *asked, const Weights *weights, char *text, size_t size)
{
    const ConfigPrecision *by_module[PARAM_MODULE_COUNT] = {[PARAM_BACKBONE] = &asked->backbone,
                                                            [PARAM_DINO_HEAD] = &asked->dino_head,
                                                            [PARAM_IBOT_HEAD] = &asked->ibot_head};
    size_t used = 0;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        Dtype wanted = by_module[m]->mixed_precision.param_dtype, act = weights_act(&weights[m]);
        int length = snprintf(text + used, size - used, "%s%s %s", m ? ", " : "",
                              param_module_name((ParamModule)m), dtype_name(act));
        used += (size_t)length;
        if (wanted == act) continue;
        length = snprintf(text + used, size - used, " (%s asked)", dtype_name(wanted));
        used += (size_t)length;
    }
}

void train_state_log_precision(const TrainState *state, Log *log)
{
    char student[160], teacher[160];
    const SslMetaArch *ssl = &state->ssl;
    describe_precision(&state->config->compute_precision.student, ssl->student.weights, student,
                       sizeof student);
    describe_precision(&state->config->compute_precision.teacher, ssl->teacher.weights, teacher,
                       sizeof teacher);
    log_info(log, "products: student %s; teacher %s; everything else in fp32", student, teacher);
    if (comm_size(state->comm) == 1) return;
    const Dtype *reduce = ssl->gradients.reduce;
    log_info(log, "sums of gradients over %d ranks: backbone %s, dino_head %s, ibot_head %s",
             comm_size(state->comm), dtype_name(reduce[PARAM_BACKBONE]), dtype_name(reduce[PARAM_DINO_HEAD]),
             dtype_name(reduce[PARAM_IBOT_HEAD]));
}

void train_state_log_memory(const TrainState *state, size_t batch_bytes, Log *log)
{
    const SslMetaArch *ssl = &state->ssl;
    double copies =
        (double)(sharded_weights_bytes(&ssl->student.copies) + sharded_weights_bytes(&ssl->teacher.copies));
    if (ssl->distilled) copies += (double)sharded_weights_bytes(&ssl->spare.copies);
    const double mib = 1048576.0, part = (double)ssl->student.map.count * sizeof(float) / mib;
    log_info(log,
             "memory of a rank, MiB: weights of student and %s %.1f, gradients %.1f, AdamW moments "
             "%.1f, copies for computing %.1f, gradients under way %.1f",
             ssl->distilled ? "moving average" : "teacher", 2 * part, part, 2 * part, copies / mib,
             (double)ssl->gradients.bytes / mib);
    if (ssl->distilled)
        log_info(log, "memory of a rank, MiB: weights of the frozen teacher %.1f",
                 (double)ssl->teacher.map.count * sizeof(float) / mib);
    log_info(log, "memory of a rank, MiB: step %.1f, scratch of operations %.1f, batches %.1f",
             (double)ssl->step.capacity / 1048576.0, (double)state->ops->scratch->capacity / 1048576.0,
             (double)batch_bytes / 1048576.0);
    if (device_kind(state->device) != DEVICE_CPU)
        log_info(log, "memory of %s in use, MiB: %.1f", device_name(state->device),
                 (double)device_memory_used(state->device) / 1048576.0);
}

void train_state_log_resident(const TrainState *state, Log *log)
{
    double now = (double)memory_resident() / 1048576.0, before = (double)state->resident_before / 1048576.0;
    log_info(log, "resident memory of a rank, MiB: %.1f, of which %.1f since the networks were made", now,
             now - before);
}

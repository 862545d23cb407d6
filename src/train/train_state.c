/* train_state.c - a training step, and the state around it. */
#include "train/train_state.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/pixel_levels.h"
#include "ops/ops_options.h"
#include "optim/param_groups.h"
#include "run/version.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

int train_state_threads(const Config *config, int ranks_on_node)
{
    if (config->compute.threads > 0) return (int)config->compute.threads;
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    int share = count / (ranks_on_node > 0 ? ranks_on_node : 1);
    return share > 1 ? share : 1;
}

/* [count] of the device's memory, or NULL for nothing. */
static float *device_floats(Device *device, int64_t count)
{
    return count > 0 ? device_alloc(device, (size_t)count * sizeof(float)) : NULL;
}

/* Prototypes of the heads whose teacher is centred; 0 elsewhere. */
static void center_counts(const TrainState *state, int64_t *dino, int64_t *ibot)
{
    const SslMetaArch *ssl = &state->ssl;
    bool centering = state->config->train.centering == CONFIG_CENTERING_CENTERING;
    int64_t K = ssl->dino_head.config.prototypes;
    *dino = centering && ssl->do_dino ? K : 0;
    *ibot = centering && ssl->do_ibot ? (ssl->shared_head ? K : ssl->ibot_head.config.prototypes) : 0;
}

static int64_t value_count(const TrainState *state)
{
    return state->ssl.layout.count + CONTROL_COUNT + state->optimizer.segments.count;
}

static void prepare_memory(TrainState *state)
{
    Device *device = state->device;
    int64_t dino, ibot;
    center_counts(state, &dino, &ibot);
    state->dino_center_before = device_floats(device, dino);
    state->ibot_center_before = device_floats(device, ibot);
    for (int i = 0; i < TRAIN_SUBMISSIONS; i++) {
        state->submissions[i].values = device_alloc_host(device, (size_t)value_count(state) * sizeof(double));
        state->submissions[i].done = device_event_create(device);
    }
    if (device_kind(device) == DEVICE_CPU && !state->config->checkpoint.async) return;
    size_t bytes = (size_t)state->ssl.map.count * sizeof(float);
    TrainMirror *m = &state->mirror;
    float **flats[] = {&m->student, &m->teacher, &m->exp_avg, &m->exp_avg_sq};
    for (int i = 0; i < 4; i++)
        *flats[i] = device_alloc_host(device, bytes);
    if (dino > 0) m->dino_center = device_alloc_host(device, (size_t)dino * sizeof(float));
    if (ibot > 0) m->ibot_center = device_alloc_host(device, (size_t)ibot * sizeof(float));
}

Status train_state_init(TrainState *state, Config *config, Comm *comm, Device *device, int threads,
                        Error *error)
{
    *state =
        (TrainState){.config = config, .comm = comm, .device = device, .resident_before = memory_resident()};
    TRY(ssl_groups_deal(&state->groups, config, comm_rank(comm), comm_size(comm), error));
    config->train.global_batch_size = state->groups.total_groups * state->groups.group_size;
    TRY(fsdp_ranks_init(&state->ranks, config, comm, device, error));

    OpsLimits limits = ssl_ops_limits(config, &state->groups);
    OpsOptions options;
    TRY(comm_agree(comm, ops_options_from(&options, config, device, threads, error), error));
    state->ops = ops_create(device, &limits, &options);
    state->ops->moving = state->ranks.modules[PARAM_BACKBONE].parts;
    PixelNorm norm = pixel_levels_imagenet();
    ssl_meta_arch_init(&state->ssl, config, &state->groups, &norm, state->ops, &state->ranks);
    param_groups_assign(&state->ssl.table, state->ssl.vit.config.depth, config->optim.layerwise_decay,
                        config->optim.patch_embed_lr_mult);
    ssl_meta_arch_initialise(&state->ssl, (uint64_t)config->train.seed);
    adamw_optimizer_init(&state->optimizer, &state->ssl.map, comm, device, config->optim.adamw_beta1,
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
    if (!state->ops) {
        fsdp_ranks_fini(&state->ranks);
        return;
    }
    Device *device = state->device;
    device_finish(device);
    device_free(device, state->dino_center_before);
    device_free(device, state->ibot_center_before);
    TrainMirror *m = &state->mirror;
    float *mirrored[] = {m->student, m->teacher, m->exp_avg, m->exp_avg_sq, m->dino_center, m->ibot_center};
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
    const ShardMap *map = &state->ssl.map;
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
    } kinds[] = {{"student weight", first_bad_weight(state, state->ssl.student)},
                 {"teacher weight", first_bad_weight(state, state->ssl.teacher)},
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
    center_counts(state, &dino, &ibot);
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
    center_counts(state, &dino, &ibot);
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
    adamw_optimizer_step(&state->optimizer, state->ops, ssl->student, ssl->gradients.local, ssl->control,
                         tensor_rows(ssl->figures, 0, ssl->layout.dino_entropy), &update);
    take_centers_back(state);
    ssl_meta_arch_update_teacher(ssl, update.schedule.momentum);
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

static const char *arch_name(ConfigArch arch)
{
    static const char *const names[] = {[CONFIG_ARCH_VIT_SMALL] = "vit_small",
                                        [CONFIG_ARCH_VIT_BASE] = "vit_base",
                                        [CONFIG_ARCH_VIT_LARGE] = "vit_large",
                                        [CONFIG_ARCH_VIT_GIANT2] = "vit_giant2",
                                        [CONFIG_ARCH_VIT_CUSTOM] = "vit_custom"};
    return names[arch];
}

static bool has_mirror(const TrainState *state)
{
    return state->mirror.student != NULL;
}

/* Where a checkpoint's tensors lie in host memory: in the mirror, or where they are computed. */
static CheckpointState host_tensors(TrainState *state)
{
    SslMetaArch *ssl = &state->ssl;
    const TrainMirror *m = &state->mirror;
    bool host = !has_mirror(state);
    CheckpointState s = {.map = &ssl->map,
                         .student = host ? ssl->student : m->student,
                         .teacher = host ? ssl->teacher : m->teacher,
                         .exp_avg = host ? state->optimizer.exp_avg : m->exp_avg,
                         .exp_avg_sq = host ? state->optimizer.exp_avg_sq : m->exp_avg_sq};
    center_counts(state, &s.dino_center_count, &s.ibot_center_count);
    if (s.dino_center_count > 0) s.dino_center = host ? ssl->dino_center : m->dino_center;
    if (s.ibot_center_count > 0) s.ibot_center = host ? ssl->ibot_center : m->ibot_center;
    return s;
}

/* Between the device and the mirror; nothing to do where there is none. */
static void copy_mirror(TrainState *state, bool to_device)
{
    if (!has_mirror(state)) return;
    const SslMetaArch *ssl = &state->ssl;
    const TrainMirror *m = &state->mirror;
    int64_t part = ssl->map.count, dino, ibot;
    center_counts(state, &dino, &ibot);
    const struct {
        float *device, *host;
        int64_t count;
    } pairs[] = {{ssl->student, m->student, part},
                 {ssl->teacher, m->teacher, part},
                 {state->optimizer.exp_avg, m->exp_avg, part},
                 {state->optimizer.exp_avg_sq, m->exp_avg_sq, part},
                 {ssl->dino_center, m->dino_center, dino},
                 {ssl->ibot_center, m->ibot_center, ibot}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t bytes = (size_t)pairs[i].count * sizeof(float);
        if (to_device)
            device_upload(state->device, pairs[i].device, pairs[i].host, bytes);
        else
            device_download(state->device, pairs[i].host, pairs[i].device, bytes);
    }
    device_finish(state->device);
}

CheckpointState train_state_checkpoint(TrainState *state, int64_t iteration, char *config_text)
{
    CHECK(state->finished == state->iteration);
    const Config *c = state->config;
    const VitConfig *v = &state->ssl.vit.config;
    CheckpointState s = host_tensors(state);
    copy_mirror(state, false);
    s.meta = (CheckpointMeta){.iteration = iteration,
                              .optimizer_step = (int64_t)state->control[CONTROL_STEPS],
                              .loss_scale = state->control[CONTROL_LOSS_SCALE],
                              .loss_scale_good_steps = (int64_t)state->control[CONTROL_GROWTH],
                              .bad_steps = state->bad_steps,
                              .global_batch_size = c->train.global_batch_size,
                              .samples_seen = (iteration + 1) * c->train.global_batch_size,
                              .seed = c->train.seed,
                              .config = config_text,
                              .embed_dim = v->embed_dim,
                              .patch_size = v->patch_size,
                              .n_registers = v->num_register_tokens,
                              .block_chunks = v->block_chunks,
                              .global_crops_size = c->crops.global_crops_size,
                              .local_crops_size = c->crops.local_crops_size};
    PixelNorm norm = pixel_levels_imagenet();
    for (int i = 0; i < 3; i++) {
        s.meta.mean[i] = norm.mean[i];
        s.meta.std[i] = norm.std[i];
    }
    snprintf(s.meta.arch, sizeof s.meta.arch, "%s", arch_name(c->student.arch));
    snprintf(s.meta.version, sizeof s.meta.version, "%s", version_number());
    return s;
}

/* Pictures here are normalised as ImageNet's; weights that are used to others would not notice. */
static Status check_norm(const CheckpointMeta *meta, const char *path, Error *error)
{
    PixelNorm ours = pixel_levels_imagenet(), theirs = pixel_levels_norm(meta->mean, meta->std);
    for (int c = 0; c < 3; c++)
        if (ours.mean[c] != theirs.mean[c] || ours.std[c] != theirs.std[c])
            return status_fail(error, STATUS_INPUT,
                               "%s: its pictures were normalised by another mean and std than training does",
                               path);
    return STATUS_OK;
}

/* Whether the run may go on under this configuration. */
static Status check_saved_config(const TrainState *state, const CheckpointMeta *meta, const char *path,
                                 bool allow_change, Error *error)
{
    TRY(check_norm(meta, path, error));
    if (allow_change) return STATUS_OK;
    Config saved;
    config_init(&saved);
    Status status = config_load_text(&saved, path, meta->config, strlen(meta->config), error);
    if (status == STATUS_OK) status = config_diff_check_resume(&saved, state->config, error);
    config_fini(&saved);
    return status == STATUS_OK ? STATUS_OK : status_prefix(error, status, "%s", path);
}

Status train_state_resume(TrainState *state, const char *path, bool allow_change, bool *damaged, Error *error)
{
    *damaged = false;
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(path, &meta, state->comm, error));
    Status status =
        comm_agree(state->comm, check_saved_config(state, &meta, path, allow_change, error), error);
    checkpoint_meta_fini(&meta);
    TRY(status);

    CheckpointState saved = host_tensors(state);
    status = checkpoint_load(path, &saved, state->comm, error);
    *damaged = saved.damaged;
    TRY(status);
    copy_mirror(state, true);
    state->iteration = state->finished = saved.meta.iteration + 1;
    state->control[CONTROL_STEPS] = (double)saved.meta.optimizer_step;
    if (state->ssl.scaled) {
        state->control[CONTROL_LOSS_SCALE] = saved.meta.loss_scale;
        state->control[CONTROL_GROWTH] = (double)saved.meta.loss_scale_good_steps;
    }
    device_upload(state->device, state->ssl.control.data, state->control, sizeof state->control);
    state->bad_steps = saved.meta.bad_steps;
    checkpoint_meta_fini(&saved.meta);
    ssl_meta_arch_refresh(&state->ssl);
    return STATUS_OK;
}

/* Recognised by the name, for a better answer than "not an HDF5 file". */
static Status check_format(const char *path, Error *error)
{
    static const char *const others[] = {".safetensors", ".pth", ".pt", ".bin"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t ending = strlen(others[i]);
        if (length > ending && strcmp(path + length - ending, others[i]) == 0)
            return status_fail(error, STATUS_INPUT,
                               "student.pretrained_weights: %s: expected an HDF5 checkpoint of this program, "
                               "not a %s file%s",
                               path, others[i], i == 0 ? "; `dinobatch convert` makes one of it" : "");
    }
    return STATUS_OK;
}

/* What the shapes of the weights do not tell. */
static Status check_pretrained(const TrainState *state, const CheckpointMeta *meta, const char *path,
                               Error *error)
{
    Config saved;
    config_init(&saved);
    Status status = config_load_text(&saved, path, meta->config, strlen(meta->config), error);
    int64_t theirs = ssl_vit_config(&saved).num_heads, ours = state->ssl.vit.config.num_heads;
    if (status == STATUS_OK && theirs != ours)
        status = status_fail(error, STATUS_INPUT, "%s: another architecture: %lld heads there, %lld here",
                             path, (long long)theirs, (long long)ours);
    config_fini(&saved);
    return status == STATUS_OK ? check_norm(meta, path, error) : status;
}

static Status load_pretrained(TrainState *state, const char *path, float *backbone, Error *error)
{
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(path, &meta, state->comm, error));
    Status status = comm_agree(state->comm, check_pretrained(state, &meta, path, error), error);
    checkpoint_meta_fini(&meta);
    TRY(status);
    return checkpoint_load_backbone(path, CHECKPOINT_TEACHER, &state->ssl.map, backbone, state->comm, error);
}

Status train_state_load_pretrained(TrainState *state, const char *path, Error *error)
{
    SslMetaArch *ssl = &state->ssl;
    TRY(check_format(path, error)); /* the same on all ranks */
    copy_mirror(state, false);
    CheckpointState host = host_tensors(state);
    Status status = load_pretrained(state, path, host.student, error);
    if (status != STATUS_OK) return status_prefix(error, status, "student.pretrained_weights");
    memcpy(host.teacher, host.student, (size_t)ssl->map.count * sizeof *host.teacher);
    copy_mirror(state, true);
    ssl_meta_arch_refresh(ssl);
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
    describe_precision(&state->config->compute_precision.student, ssl->student_weights, student,
                       sizeof student);
    describe_precision(&state->config->compute_precision.teacher, ssl->teacher_weights, teacher,
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
    const double mib = 1048576.0, part = (double)ssl->map.count * sizeof(float) / mib;
    log_info(
        log,
        "memory of a rank, MiB: weights of student and teacher %.1f, gradients %.1f, AdamW moments "
        "%.1f, copies for computing %.1f, gradients under way %.1f",
        2 * part, part, 2 * part,
        (double)(sharded_weights_bytes(&ssl->student_copies) + sharded_weights_bytes(&ssl->teacher_copies)) /
            mib,
        (double)ssl->gradients.bytes / mib);
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

/* train_state.c - a training step, and the state around it. */
#include "train/train_state.h"

#include "base/memory.h"
#include "data/augment.h"
#include "optim/param_groups.h"
#include "run/version.h"

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

Status train_state_init(TrainState *state, Config *config, Comm *comm, int threads, Error *error)
{
    *state = (TrainState){.config = config, .comm = comm};
    TRY(ssl_groups_deal(&state->groups, config, comm_rank(comm), comm_size(comm), error));
    config->train.global_batch_size = state->groups.total_groups * state->groups.group_size;

    OpsLimits limits = ssl_ops_limits(config, &state->groups);
    state->ops = ops_cpu_create(&limits, threads);
    ssl_meta_arch_init(&state->ssl, config, &state->groups, state->ops, comm);
    param_groups_assign(&state->ssl.table, state->ssl.vit.config.depth, config->optim.layerwise_decay,
                        config->optim.patch_embed_lr_mult);
    ssl_meta_arch_initialise(&state->ssl, (uint64_t)config->train.seed);
    adamw_optimizer_init(&state->optimizer, &state->ssl.table, config->optim.adamw_beta1,
                         config->optim.adamw_beta2);
    CheckpointState s = train_state_checkpoint(state, 0, NULL);
    if (s.dino_center)
        state->dino_center_before = memory_alloc_array((size_t)s.dino_center_count, sizeof(float));
    if (s.ibot_center)
        state->ibot_center_before = memory_alloc_array((size_t)s.ibot_center_count, sizeof(float));
    state->peak_lr = cosine_schedule_scaled_lr(config, config->train.global_batch_size);
    state->schedules = train_schedules(config, state->peak_lr);
    state->total_iterations = config->optim.epochs * config->train.OFFICIAL_EPOCH_LENGTH;
    return STATUS_OK;
}

void train_state_fini(TrainState *state)
{
    if (!state->ops) return;
    memory_free(state->dino_center_before);
    memory_free(state->ibot_center_before);
    adamw_optimizer_fini(&state->optimizer);
    ssl_meta_arch_fini(&state->ssl);
    ops_destroy(state->ops);
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

/* The first parameter, in table order, that holds a non-finite value in `flat`. */
static const Param *first_bad_tensor(const TrainState *state, float *flat)
{
    for (int i = 0; i < state->ssl.table.count; i++) {
        double square;
        state->ops->sum_squares(state->ops, &square, param_vector_view(&state->ssl.table, i, flat));
        if (!isfinite(square)) return &state->ssl.table.params[i];
    }
    return NULL;
}

static Status describe_bad_step(const TrainState *state, const TrainStep *step, Error *error)
{
    const char *loss = first_bad_loss(&step->figures);
    const struct {
        const char *name;
        float *flat;
    } kinds[] = {{"student weight", state->ssl.student},
                 {"teacher weight", state->ssl.teacher},
                 {"gradient of", state->ssl.grads}};
    char tensor[160] = "none among weights and gradients";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const Param *bad = first_bad_tensor(state, kinds[i].flat);
        if (!bad) continue;
        snprintf(tensor, sizeof tensor, "%s %s.%s", kinds[i].name, param_module_name(bad->module), bad->name);
        break;
    }
    return status_fail(error, STATUS_FAILED, "iteration %lld: %s is not finite; first bad tensor: %s",
                       (long long)state->iteration, loss ? loss : "a gradient norm", tensor);
}

static bool step_is_finite(const TrainStep *step)
{
    bool finite = first_bad_loss(&step->figures) == NULL;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        finite = finite && isfinite(step->grad_norm[m]);
    return finite;
}

/* The centres follow the teacher's scores inside the forward pass, so a step that must change nothing takes
 * them back. */
static void keep_centers(TrainState *state, bool take_back)
{
    CheckpointState s = train_state_checkpoint(state, 0, NULL);
    const struct {
        float *now, *before;
        int64_t count;
    } centers[] = {{s.dino_center, state->dino_center_before, s.dino_center_count},
                   {s.ibot_center, state->ibot_center_before, s.ibot_center_count}};
    for (int i = 0; i < 2; i++) {
        if (!centers[i].before) continue;
        float *to = take_back ? centers[i].now : centers[i].before;
        memcpy(to, take_back ? centers[i].before : centers[i].now, (size_t)centers[i].count * sizeof *to);
    }
}

Status train_state_step(TrainState *state, const Batch *batch, TrainStep *step, Error *error)
{
    SslMetaArch *ssl = &state->ssl;
    *step = (TrainStep){.schedule = train_schedules_at(&state->schedules, state->iteration)};
    keep_centers(state, false);
    ssl_meta_arch_forward_backward(ssl, batch, step->schedule.teacher_temp, &step->figures);
    adamw_optimizer_grad_norms(&ssl->table, state->ops, ssl->grads, step->grad_norm);
    if (!step_is_finite(step)) {
        keep_centers(state, true);
        if (state->bad_steps >= state->config->train.skip_bad_steps)
            return describe_bad_step(state, step, error);
        state->bad_steps++;
        step->skipped = true;
        state->iteration++;
        return STATUS_OK;
    }
    state->bad_steps = 0;
    adamw_optimizer_step(&state->optimizer, &ssl->table, state->ops, ssl->student, ssl->grads,
                         &step->schedule, state->config->optim.clip_grad, step->grad_norm);
    ssl_meta_arch_update_teacher(ssl, step->schedule.momentum);
    ssl_meta_arch_refresh(ssl);
    state->iteration++;
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

CheckpointState train_state_checkpoint(TrainState *state, int64_t iteration, char *config_text)
{
    const Config *c = state->config;
    SslMetaArch *ssl = &state->ssl;
    const VitConfig *v = &ssl->vit.config;
    bool centering = c->train.centering == CONFIG_CENTERING_CENTERING;
    CheckpointState s = {.table = &ssl->table,
                         .student = ssl->student,
                         .teacher = ssl->teacher,
                         .exp_avg = state->optimizer.exp_avg,
                         .exp_avg_sq = state->optimizer.exp_avg_sq};
    if (centering && ssl->do_dino) {
        s.dino_center = ssl->dino_center;
        s.dino_center_count = ssl->dino_head.config.prototypes;
    }
    if (centering && ssl->do_ibot) {
        s.ibot_center = ssl->ibot_center;
        s.ibot_center_count =
            ssl->shared_head ? ssl->dino_head.config.prototypes : ssl->ibot_head.config.prototypes;
    }
    s.meta = (CheckpointMeta){.iteration = iteration,
                              .optimizer_step = state->optimizer.steps,
                              .loss_scale = 1.0,
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
    AugmentParams augment = augment_params_default();
    for (int i = 0; i < 3; i++) {
        s.meta.mean[i] = augment.mean[i];
        s.meta.std[i] = augment.std[i];
    }
    snprintf(s.meta.arch, sizeof s.meta.arch, "%s", arch_name(c->student.arch));
    snprintf(s.meta.version, sizeof s.meta.version, "%s", version_number());
    return s;
}

/* Whether the run may go on under this configuration. */
static Status check_saved_config(const TrainState *state, const CheckpointMeta *meta, const char *path,
                                 bool allow_change, Error *error)
{
    if (allow_change) return STATUS_OK;
    Config saved;
    config_init(&saved);
    Status status = config_load_text(&saved, path, meta->config, strlen(meta->config), error);
    if (status == STATUS_OK) status = config_diff_check_resume(&saved, state->config, error);
    config_fini(&saved);
    return status == STATUS_OK ? STATUS_OK : status_prefix(error, status, "%s", path);
}

Status train_state_resume(TrainState *state, const char *path, bool allow_change, Error *error)
{
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(path, &meta, state->comm, error));
    Status status =
        comm_agree(state->comm, check_saved_config(state, &meta, path, allow_change, error), error);
    checkpoint_meta_fini(&meta);
    TRY(status);

    CheckpointState saved = train_state_checkpoint(state, 0, NULL);
    TRY(checkpoint_load(path, &saved, state->comm, error));
    state->iteration = saved.meta.iteration + 1;
    state->optimizer.steps = saved.meta.optimizer_step;
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
                               "student.pretrained_weights: %s: expected an HDF5 checkpoint of this program; "
                               "%s files cannot be read",
                               path, others[i]);
    }
    return STATUS_OK;
}

Status train_state_load_pretrained(TrainState *state, const char *path, Error *error)
{
    SslMetaArch *ssl = &state->ssl;
    TRY(check_format(path, error)); /* the same on all ranks */
    Status status =
        checkpoint_load_backbone(path, CHECKPOINT_TEACHER, &ssl->table, ssl->student, state->comm, error);
    if (status != STATUS_OK) return status_prefix(error, status, "student.pretrained_weights");
    memcpy(ssl->teacher, ssl->student, (size_t)ssl->table.flat_count * sizeof *ssl->teacher);
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
}

void train_state_log_memory(const TrainState *state, size_t batch_bytes, Log *log)
{
    const SslMetaArch *ssl = &state->ssl;
    double flat = (double)ssl->table.flat_count * sizeof(float) / 1048576.0;
    double reduced = ((ssl->student_reduced != NULL) + (ssl->teacher_reduced != NULL)) * flat / 2;
    log_info(log,
             "memory of a rank, MiB: weights of student and teacher %.1f, gradients %.1f, AdamW moments "
             "%.1f, bf16 copies %.1f",
             2 * flat, flat, 2 * flat, reduced);
    log_info(log, "memory of a rank, MiB: step %.1f, scratch of operations %.1f, batches %.1f",
             (double)ssl->step.capacity / 1048576.0, (double)state->ops->scratch->capacity / 1048576.0,
             (double)batch_bytes / 1048576.0);
}

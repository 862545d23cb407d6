/* train_state_files.c - the state's way into and out of checkpoints. */
#include "base/check.h"
#include "base/memory.h"
#include "ckpt/checkpoint_init.h"
#include "data/pixel_levels.h"
#include "run/version.h"
#include "train/train_state.h"

#include <stdio.h>
#include <string.h>

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

/* What the file of a distillation says of its teacher. */
static void name_teacher(const TrainState *state, CheckpointMeta *meta)
{
    if (!state->ssl.distilled) return;
    snprintf(meta->distilled_from, sizeof meta->distilled_from, "%s", state->teacher.path);
    snprintf(meta->teacher_digest, sizeof meta->teacher_digest, "%s", state->teacher.digest);
}

/* Where a checkpoint's tensors lie in host memory: in the mirror, or where they are computed. */
static CheckpointState host_tensors(TrainState *state)
{
    SslMetaArch *ssl = &state->ssl;
    const TrainMirror *m = &state->mirror;
    bool host = !has_mirror(state);
    CheckpointState s = {.map = &ssl->student.map,
                         .student = host ? ssl->student.local : m->student,
                         .model_ema = host ? ssl->model_ema->local : m->model_ema,
                         .exp_avg = host ? state->optimizer.exp_avg : m->exp_avg,
                         .exp_avg_sq = host ? state->optimizer.exp_avg_sq : m->exp_avg_sq};
    ssl_meta_arch_center_counts(&state->ssl, &s.dino_center_count, &s.ibot_center_count);
    if (s.dino_center_count > 0) s.dino_center = host ? ssl->dino_center : m->dino_center;
    if (s.ibot_center_count > 0) s.ibot_center = host ? ssl->ibot_center : m->ibot_center;
    name_teacher(state, &s.meta);
    return s;
}

/* Between the device and the mirror; nothing to do where there is none. */
static void copy_mirror(TrainState *state, bool to_device)
{
    if (!has_mirror(state)) return;
    const SslMetaArch *ssl = &state->ssl;
    const TrainMirror *m = &state->mirror;
    int64_t part = ssl->student.map.count, dino, ibot;
    ssl_meta_arch_center_counts(&state->ssl, &dino, &ibot);
    const struct {
        float *device, *host;
        int64_t count;
    } pairs[] = {
        {ssl->student.local, m->student, part},       {ssl->model_ema->local, m->model_ema, part},
        {state->optimizer.exp_avg, m->exp_avg, part}, {state->optimizer.exp_avg_sq, m->exp_avg_sq, part},
        {ssl->dino_center, m->dino_center, dino},     {ssl->ibot_center, m->ibot_center, ibot}};
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
    const VitConfig *v = &state->ssl.student.vit.config;
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
    name_teacher(state, &s.meta);
    return s;
}

/* Pictures here are normalised as ImageNet's; weights that are used to others would not notice. */
static Status check_norm(const CheckpointMeta *meta, const char *path, Error *error)
{
    PixelNorm ours = pixel_levels_imagenet(), theirs = pixel_levels_norm(meta->mean, meta->std);
    if (pixel_levels_equal(&ours, &theirs)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "%s: its pictures were normalised by another mean and std than training does", path);
}

/* Whether the run may go on under this configuration. */
static Status check_saved_config(const TrainState *state, const CheckpointMeta *meta, const char *path,
                                 bool allow_change, Error *error)
{
    TRY(check_norm(meta, path, error));
    if (allow_change) return STATUS_OK;
    const char *was = *meta->distilled_from ? meta->teacher_digest : "none";
    const char *is = state->ssl.distilled ? state->teacher.digest : "none";
    if (strcmp(was, is) != 0)
        return status_fail(error, STATUS_INPUT,
                           "%s: a run with another frozen teacher: digest %s there, %s of "
                           "distillation.checkpoint_path \"%s\"",
                           path, was, is, state->config->distillation.checkpoint_path);
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
static Status check_meta(const TrainState *state, const CheckpointMeta *meta, const char *path, Error *error)
{
    Config saved;
    config_init(&saved);
    Status status = config_load_text(&saved, path, meta->config, strlen(meta->config), error);
    int64_t theirs = ssl_vit_config(&saved).num_heads, ours = state->ssl.student.vit.config.num_heads;
    if (status == STATUS_OK && theirs != ours)
        status = status_fail(error, STATUS_INPUT, "%s: another architecture: %lld heads there, %lld here",
                             path, (long long)theirs, (long long)ours);
    config_fini(&saved);
    return status == STATUS_OK ? check_norm(meta, path, error) : status;
}

/* Collective over COMM. */
static Status check_source(const TrainState *state, const char *path, Error *error)
{
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(path, &meta, state->comm, error));
    Status status = comm_agree(state->comm, check_meta(state, &meta, path, error), error);
    checkpoint_meta_fini(&meta);
    return status;
}

/* Weights of one role of train.init_from into `local`; heads where they are asked for. */
static Status init_role(const TrainState *state, const char *path, const CheckpointSource *source,
                        CheckpointRole role, float *local, Error *error)
{
    const SslMetaArch *ssl = &state->ssl;
    CheckpointInit init = {.vit = &ssl->student.vit,
                           .heads = state->config->train.init_heads == CONFIG_HEADS_LOAD};
    return checkpoint_init_load(path, source, role, &init, &ssl->student.map, local, state->comm, error);
}

Status train_state_init_from(TrainState *state, const char *path, Log *log, Error *error)
{
    SslMetaArch *ssl = &state->ssl;
    size_t bytes = (size_t)ssl->student.map.count * sizeof(float);
    char file[CHECKPOINT_PATH_MAX];
    CheckpointSource source;
    copy_mirror(state, false);
    CheckpointState host = host_tensors(state);
    Status status = checkpoint_resolve(path, file, state->comm, log, error);
    if (status == STATUS_OK) status = check_source(state, file, error);
    if (status == STATUS_OK) status = checkpoint_init_look(file, &source, state->comm, error);
    if (status == STATUS_OK)
        status = init_role(state, file, &source, CHECKPOINT_TEACHER, host.model_ema, error);
    if (status == STATUS_OK && source.has_student)
        status = init_role(state, file, &source, CHECKPOINT_STUDENT, host.student, error);
    if (status != STATUS_OK) return status_prefix(error, status, "train.init_from");
    if (!source.has_student) memcpy(host.student, host.model_ema, bytes);
    copy_mirror(state, true);
    ssl_meta_arch_refresh(ssl);
    log_info(log, "starting with %s of %s after iteration %lld%s",
             source.has_student ? "student and moving average" : "the moving average", file,
             (long long)source.iteration,
             state->config->train.init_heads == CONFIG_HEADS_LOAD ? ", heads included"
                                                                  : "; heads from initial weights");
    if (source.grid != ssl->student.vit.grid)
        log_info(log, "position embeddings resampled from %lld x %lld to %lld x %lld patches",
                 (long long)source.grid, (long long)source.grid, (long long)ssl->student.vit.grid,
                 (long long)ssl->student.vit.grid);
    return STATUS_OK;
}

Status train_state_load_pretrained(TrainState *state, const char *path, Error *error)
{
    SslMetaArch *ssl = &state->ssl;
    TRY(check_format(path, error)); /* the same on all ranks */
    copy_mirror(state, false);
    CheckpointState host = host_tensors(state);
    Status status = check_source(state, path, error);
    if (status == STATUS_OK)
        status = checkpoint_load_backbone(path, CHECKPOINT_TEACHER, &ssl->student.map, host.student,
                                          state->comm, error);
    if (status != STATUS_OK) return status_prefix(error, status, "student.pretrained_weights");
    memcpy(host.model_ema, host.student, (size_t)ssl->student.map.count * sizeof *host.model_ema);
    copy_mirror(state, true);
    ssl_meta_arch_refresh(ssl);
    return STATUS_OK;
}

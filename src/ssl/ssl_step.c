/* ssl_step.c - one training step: passes over the micro-batches, then figures and the average gradient. */
#include "ssl/ssl_step.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

int64_t ssl_step_cls_rows(const SslMetaArch *ssl)
{
    if (ssl->do_dino) return 2 + ssl->config->crops.local_crops_number;
    return ssl->do_koleo ? 2 : 0;
}

Tensor ssl_step_figures(const SslMetaArch *ssl, int64_t first, int64_t count)
{
    return tensor_rows(ssl->figures, first, count);
}

/* Weights of the batch centre: every class token alike; every group's patches alike, and every group. */
static void stage_center_weights(const SslMetaArch *ssl, SslStep *s, Arena *arena)
{
    const SslGroups *g = &ssl->groups;
    float *dino, *ibot;
    s->dino_center_weight = tensor_stage_1d(arena, DTYPE_F32, s->samples * 2, &dino);
    s->ibot_center_weight = tensor_stage_1d(arena, DTYPE_F32, s->masked, &ibot);
    if (arena_is_measuring(arena)) return;
    for (int64_t i = 0; i < s->samples * 2; i++)
        dino[i] = (float)(1.0 / (double)(2 * g->group_size * g->total_groups));
    int64_t N = s->batch->patches, crops = 2 * g->group_size, at = 0;
    for (int64_t group = 0; group < g->groups && ssl->do_ibot; group++) {
        int64_t count = ibot_patch_loss_count(s->batch->masks + group * crops * N, crops, N);
        for (int64_t i = 0; i < count; i++)
            ibot[at++] = (float)(1.0 / (double)(count * g->total_groups));
    }
    CHECK(at == s->masked);
}

SslStep ssl_step_layout(const SslMetaArch *ssl, Arena *arena, const Batch *batch, int64_t samples,
                        int64_t masked)
{
    const SslNetwork *student = &ssl->student, *teacher = &ssl->teacher;
    SslStep s = {.batch = batch, .samples = samples, .masked = masked};
    int64_t K = student->dino_head.config.prototypes, most = K;
    s.teacher_dino_scale = tensor_alloc_1d(arena, DTYPE_F32, K);
    s.student_dino_scale = tensor_alloc_1d(arena, DTYPE_F32, K);
    if (ssl->do_dino) {
        s.teacher_dino =
            tensor_alloc_2d(arena, DTYPE_F32, samples * 2, teacher->dino_head.config.bottleneck_dim);
        s.dino_bias = tensor_alloc_1d(arena, DTYPE_F32, K);
        s.dino_usage = tensor_alloc_1d(arena, DTYPE_F32, K);
    }
    s.teacher_ibot_scale = s.teacher_dino_scale;
    s.student_ibot_scale = s.student_dino_scale;
    if (ssl->do_ibot) {
        const DinoHeadConfig *head = &ssl_network_patch_head(teacher)->config;
        int64_t K_ibot = head->prototypes;
        s.teacher_ibot = tensor_alloc_2d(arena, DTYPE_F32, masked, head->bottleneck_dim);
        s.ibot_bias = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        s.ibot_usage = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        if (!teacher->shared_head) s.teacher_ibot_scale = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        if (!student->shared_head) s.student_ibot_scale = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        if (K_ibot > most) most = K_ibot;
    }
    s.center_sum = tensor_alloc_1d(arena, DTYPE_F32, most);
    if (ssl->config->train.centering == CONFIG_CENTERING_CENTERING) stage_center_weights(ssl, &s, arena);
    if (ssl->do_koleo) {
        s.koleo_cls = tensor_alloc_2d(arena, DTYPE_F32, samples * 2, ssl->student.vit.config.embed_dim);
        s.koleo_d_cls = tensor_alloc_2d(arena, DTYPE_F32, samples * 2, ssl->student.vit.config.embed_dim);
        s.koleo_scratch = koleo_loss_scratch(&ssl->koleo, arena, ssl->ranks->world);
    }
    return s;
}

/* Pictures [first, first + n) of the batch's `all` (NULL while measuring) where the device reads them: a view
 * on a host, a copy in the arena elsewhere. */
static Tensor images_of(const SslMetaArch *ssl, void *all, int64_t first, int64_t n, int64_t side,
                        Arena *arena)
{
    Device *device = ssl->ops->device;
    Dtype dtype = tensor_given(ssl->levels) ? DTYPE_U8 : DTYPE_F32;
    size_t each = (size_t)(VIT_IMAGE_CHANNELS * side * side) * dtype_size(dtype);
    char *host = all ? (char *)all + (size_t)first * each : NULL, *images = host;
    if (device_kind(device) != DEVICE_CPU) {
        images = arena_alloc(arena, (size_t)n * each);
        if (!arena_is_measuring(arena)) device_upload(device, images, host, (size_t)n * each);
    }
    return tensor_view(images, dtype, 4, (const int64_t[]){n, VIT_IMAGE_CHANNELS, side, side});
}

static Tensor stage_masks(const unsigned char *masks, int64_t count, Arena *arena)
{
    unsigned char *host;
    Tensor staged = tensor_stage_1d(arena, DTYPE_U8, count, &host);
    if (masks && host) memcpy(host, masks, (size_t)count); /* neither while measuring */
    return staged;
}

VitCrops ssl_step_crops(const SslMetaArch *ssl, const Batch *batch, const SslMicroBatch *micro, int set,
                        bool masked, Arena *arena)
{
    const SslGroups *g = &ssl->groups;
    int64_t per_sample = set == 0 ? 2 : ssl->config->crops.local_crops_number;
    int64_t side = set == 0 ? ssl->student.vit.config.img_size : ssl->config->crops.local_crops_size;
    int64_t first = micro->first * per_sample, n = micro->samples * per_sample;
    int64_t patches = vit_patches(&ssl->student.vit, side, side);
    VitCrops crops = {.sequences = n,
                      .height = side,
                      .width = side,
                      .levels = ssl->levels,
                      .place = {.group_sequences = g->group_size * per_sample,
                                .first_sequence = g->first_group * g->group_size * per_sample + first}};
    void *all = NULL;
    if (batch) all = set == 0 ? batch->global_crops : batch->local_crops;
    crops.images = images_of(ssl, all, first, n, side, arena);
    if (masked) crops.masks = stage_masks(batch ? batch->masks + first * patches : NULL, n * patches, arena);
    return crops;
}

IbotPatchLoss ssl_step_ibot(const SslMetaArch *ssl, const SslStep *step, const SslMicroBatch *micro,
                            double loss_weight, Arena *arena)
{
    const SslGroups *g = &ssl->groups;
    int64_t side = ssl->student.vit.config.img_size, patches = vit_patches(&ssl->student.vit, side, side);
    IbotPatchRows rows = {.crops = ssl->do_ibot ? micro->samples * 2 : 0,
                          .patches_per_crop = patches,
                          .count = micro->masked,
                          .first_teacher_row = micro->first_masked,
                          .first_crop = micro->first * 2,
                          .crops_per_group = g->group_size * 2,
                          .first_group = g->first_group};
    if (step->batch && ssl->do_ibot) rows.masks = step->batch->masks + micro->first * 2 * patches;
    return ibot_patch_loss_layout(arena, &rows, loss_weight, 2 * g->total_groups * g->group_size);
}

void ssl_step_koleo(const SslMetaArch *ssl, SslStep *step)
{
    const SslFigureLayout *f = &ssl->layout;
    KoleoLossTensors tensors = {.cls = step->koleo_cls,
                                .d_cls = step->koleo_d_cls,
                                .by_group = ssl_step_figures(ssl, f->koleo, ssl->groups.total_groups),
                                .discarded = ssl_step_figures(ssl, f->discarded, 1),
                                .loss_scale = tensor_rows(ssl->control, CONTROL_LOSS_SCALE, 1)};
    koleo_loss_forward_backward(&ssl->koleo, ssl->ops, &tensors, &step->koleo_scratch, ssl->ranks->world);
    step->koleo_ready = true;
}

Tensor ssl_step_prototypes(const SslMetaArch *ssl, const SslNetwork *network, bool patches)
{
    const DinoHead *head = patches ? ssl_network_patch_head(network) : &network->dino_head;
    const Weights *w =
        &network->weights[patches && !network->shared_head ? PARAM_IBOT_HEAD : PARAM_DINO_HEAD];
    return ssl->ops->reduced_prototypes ? weights_matrix(w, head->weight_v)
                                        : param_matrix_view(w->master, head->weight_v);
}

static void compute_scale(const SslMetaArch *ssl, SslNetwork *network, const DinoHead *head, Tensor scale)
{
    sharded_weights_need(&network->copies, head->unit);
    ParamValues values = {&network->table, NULL, network->copies.full};
    ssl->ops->prototype_scale(ssl->ops, scale, param_matrix_view(values, head->weight_v),
                              param_vector_view(values, head->weight_g));
}

/* The heads of both networks are wanted from here to the losses. */
static void compute_scales(SslMetaArch *ssl, const SslStep *step)
{
    SslNetwork *teacher = &ssl->teacher, *student = &ssl->student;
    compute_scale(ssl, teacher, &teacher->dino_head, step->teacher_dino_scale);
    compute_scale(ssl, student, &student->dino_head, step->student_dino_scale);
    if (!ssl->do_ibot) return;
    if (!teacher->shared_head) compute_scale(ssl, teacher, &teacher->ibot_head, step->teacher_ibot_scale);
    if (!student->shared_head) compute_scale(ssl, student, &student->ibot_head, step->student_ibot_scale);
}

/* --- figures
 * ------------------------------------------------------------------------------------------------
 */

/* Sums over ranks, and how many prototypes some rank's targets favour. */
static void reduce_figures(SslMetaArch *ssl, SslStep *step)
{
    const Ops *ops = ssl->ops;
    const SslFigureLayout *f = &ssl->layout;
    const struct {
        Tensor usage;
        int64_t at;
    } heads[] = {{step->dino_usage, f->dino_used}, {step->ibot_usage, f->ibot_used}};
    comm_all_reduce(ssl->ranks->world, ssl->figures.data, f->summed, DTYPE_F64, COMM_SUM, ops->device);
    for (int i = 0; i < 2; i++) {
        Tensor usage = heads[i].usage;
        if (!tensor_given(usage)) continue;
        comm_all_reduce(ssl->ranks->world, usage.data, tensor_count(usage), DTYPE_F32, COMM_SUM, ops->device);
        ops->count_positive(ops, ssl_step_figures(ssl, heads[i].at, 1), usage);
    }
    ssl->masked_patches = step->masked;
    comm_all_reduce(ssl->ranks->world, &ssl->masked_patches, 1, DTYPE_I64, COMM_SUM, NULL);
}

static double sum_of(const double *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    return sum;
}

/* Spread of L2-normalised class tokens: about 1 for directions all over the sphere, 0 for a collapsed
 * network.
 */
static double feature_std(const SslMetaArch *ssl, const double *sum)
{
    if (!ssl->do_dino) return 0;
    int64_t D = ssl->teacher.vit.config.embed_dim;
    const double *squares = sum + D;
    double n = (double)(2 * ssl->groups.total_groups * ssl->groups.group_size), std = 0;
    for (int64_t d = 0; d < D; d++) {
        double mean = sum[d] / n;
        std += sqrt(fmax(squares[d] / n - mean * mean, 0));
    }
    return std / (double)D * sqrt((double)D);
}

SslGroupLosses ssl_meta_arch_group_losses(const SslMetaArch *ssl, const double *sums, int64_t group)
{
    const SslFigureLayout *f = &ssl->layout;
    CHECK(group >= 0 && group < ssl->groups.total_groups);
    double groups = (double)ssl->groups.total_groups;
    return (SslGroupLosses){.dino_local_crops_loss = sums[f->dino_local + group] * groups,
                            .dino_global_crops_loss = sums[f->dino_global + group] * groups,
                            .koleo_loss = sums[f->koleo + group] * groups / 2,
                            .ibot_loss = sums[f->ibot + group] * groups / 2};
}

SslFigures ssl_meta_arch_figures(const SslMetaArch *ssl, const double *sums, int64_t masked_patches)
{
    const SslFigureLayout *f = &ssl->layout;
    int64_t G = ssl->groups.total_groups;
    double local = sum_of(sums + f->dino_local, G), global = sum_of(sums + f->dino_global, G);
    double koleo = sum_of(sums + f->koleo, G), ibot = sum_of(sums + f->ibot, G);
    const double *dino_entropy = sums + f->dino_entropy, *ibot_entropy = sums + f->ibot_entropy;
    return (SslFigures){
        .dino_local_crops_loss = local,
        .dino_global_crops_loss = global,
        .koleo_loss = koleo / 2,
        .ibot_loss = ibot / 2,
        .total_loss =
            ssl->config->dino.loss_weight * (local + global) + koleo + ssl->config->ibot.loss_weight * ibot,
        .dino_teacher_entropy = dino_entropy[1] > 0 ? dino_entropy[0] / dino_entropy[1] : 0,
        .ibot_teacher_entropy = ibot_entropy[1] > 0 ? ibot_entropy[0] / ibot_entropy[1] : 0,
        .dino_prototypes_used = sums[f->dino_used] / (double)ssl->student.dino_head.config.prototypes,
        .ibot_prototypes_used =
            sums[f->ibot_used] / (double)ssl_network_patch_head(&ssl->student)->config.prototypes,
        .feature_std = feature_std(ssl, sums + f->features),
        .masked_patches = masked_patches,
    };
}

SslFigures ssl_meta_arch_last_figures(const SslMetaArch *ssl)
{
    double *sums = memory_alloc_array((size_t)ssl->layout.count, sizeof *sums);
    device_download(ssl->ops->device, sums, ssl->figures.data, tensor_bytes(ssl->figures));
    device_finish(ssl->ops->device);
    SslFigures figures = ssl_meta_arch_figures(ssl, sums, ssl->masked_patches);
    memory_free(sums);
    return figures;
}

/* --- the step
 * -----------------------------------------------------------------------------------------------
 */

typedef void MicroBatchPass(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena);

static void for_each_micro_batch(SslMetaArch *ssl, SslStep *step, MicroBatchPass *pass)
{
    ArenaMark mark = arena_mark(&ssl->step);
    int64_t patches = step->batch->patches, first_masked = 0;
    for (int64_t first = 0; first < step->samples; first += ssl->micro_samples) {
        int64_t count =
            step->samples - first < ssl->micro_samples ? step->samples - first : ssl->micro_samples;
        SslMicroBatch micro = {.first = first, .samples = count, .first_masked = first_masked};
        if (ssl->do_ibot)
            micro.masked =
                ibot_patch_loss_count(step->batch->masks + first * 2 * patches, count * 2, patches);
        first_masked += micro.masked;
        device_wait_staged(ssl->ops->device);
        pass(ssl, step, &micro, &ssl->step);
        arena_reset(&ssl->step, mark);
    }
}

/* Lays the step out and sets what will be added to to zero. */
static SslStep *begin_step(SslMetaArch *ssl, const Batch *batch, double teacher_temp)
{
    const Ops *ops = ssl->ops;
    int64_t masked =
        ssl->do_ibot ? ibot_patch_loss_count(batch->masks, batch->samples * 2, batch->patches) : 0;
    device_wait_staged(ops->device);
    arena_reset(&ssl->step, ARENA_START);
    SslStep *step = ssl->current;
    *step = ssl_step_layout(ssl, &ssl->step, batch, batch->samples, masked);
    step->teacher_temp = teacher_temp;
    device_upload_staged(ops->device, &ssl->step, ARENA_START);
    ops->zero(ops, ssl->figures);
    if (ssl->do_dino) ops->zero(ops, step->dino_usage);
    if (ssl->do_ibot) ops->zero(ops, step->ibot_usage);
    sharded_gradients_begin(&ssl->gradients);
    compute_scales(ssl, step);
    return step;
}

void ssl_meta_arch_forward_backward(SslMetaArch *ssl, const Batch *batch, double teacher_temp)
{
    CHECK(batch->samples == ssl->groups.groups * ssl->groups.group_size &&
          batch->first_group == ssl->groups.first_group);
    CHECK(batch->pixels == (tensor_given(ssl->levels) ? DTYPE_U8 : DTYPE_F32));
    SslStep *step = begin_step(ssl, batch, teacher_temp);
    for_each_micro_batch(ssl, step, ssl_teacher_forward);
    ssl_teacher_targets(ssl, step);
    if (ssl->do_koleo && ssl->micro_samples < batch->samples) {
        for_each_micro_batch(ssl, step, ssl_student_class_tokens);
        ssl_step_koleo(ssl, step);
    }
    for_each_micro_batch(ssl, step, ssl_student_forward_backward);
    sharded_gradients_end(&ssl->gradients);
    reduce_figures(ssl, step);
}

/* ssl_step.c - one training step: passes over the micro-batches, then figures and the average gradient. */
#include "ssl/ssl_step.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

int64_t ssl_step_cls_rows(const SslMetaArch *ssl)
{
    if (ssl->do_dino) return 2 + ssl->config->crops.local_crops_number;
    return ssl->do_koleo ? 2 : 0;
}

const DinoHead *ssl_step_ibot_head(const SslMetaArch *ssl)
{
    return ssl->shared_head ? &ssl->dino_head : &ssl->ibot_head;
}

/* n zeros. */
static double *alloc_sums(Arena *arena, int64_t n)
{
    double *sums = arena_alloc(arena, (size_t)n * sizeof *sums);
    if (!arena_is_measuring(arena)) memset(sums, 0, (size_t)n * sizeof *sums);
    return sums;
}

SslStep ssl_step_layout(const SslMetaArch *ssl, Arena *arena, const Batch *batch, int64_t samples,
                        int64_t masked)
{
    SslStep s = {.batch = batch, .samples = samples, .masked = masked};
    int64_t K = ssl->dino_head.config.prototypes, most = K;
    s.teacher_dino_scale = tensor_alloc_1d(arena, DTYPE_F32, K);
    s.student_dino_scale = tensor_alloc_1d(arena, DTYPE_F32, K);
    if (ssl->do_dino) {
        s.teacher_dino = tensor_alloc_2d(arena, DTYPE_F32, samples * 2, ssl->dino_head.config.bottleneck_dim);
        s.dino_bias = tensor_alloc_1d(arena, DTYPE_F32, K);
        s.dino_usage = tensor_alloc_1d(arena, DTYPE_F32, K);
    }
    s.teacher_ibot_scale = s.teacher_dino_scale;
    s.student_ibot_scale = s.student_dino_scale;
    if (ssl->do_ibot) {
        int64_t K_ibot = ssl_step_ibot_head(ssl)->config.prototypes;
        s.teacher_ibot =
            tensor_alloc_2d(arena, DTYPE_F32, masked, ssl_step_ibot_head(ssl)->config.bottleneck_dim);
        s.ibot_bias = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        s.ibot_usage = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        if (!ssl->shared_head) {
            s.teacher_ibot_scale = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
            s.student_ibot_scale = tensor_alloc_1d(arena, DTYPE_F32, K_ibot);
        }
        if (K_ibot > most) most = K_ibot;
    }
    s.center_sum = tensor_alloc_1d(arena, DTYPE_F32, most);
    s.center_weight = tensor_alloc_1d(arena, DTYPE_F32, samples * 2 > masked ? samples * 2 : masked);
    if (ssl->do_koleo) {
        s.koleo_cls = tensor_alloc_2d(arena, DTYPE_F32, samples * 2, ssl->vit.config.embed_dim);
        s.koleo_d_cls = tensor_alloc_2d(arena, DTYPE_F32, samples * 2, ssl->vit.config.embed_dim);
        s.koleo_scratch = koleo_loss_scratch(&ssl->koleo, arena, comm_size(ssl->comm));
    }
    s.dino_local = alloc_sums(arena, ssl->groups.groups);
    s.dino_global = alloc_sums(arena, ssl->groups.groups);
    s.koleo = alloc_sums(arena, ssl->groups.groups);
    s.ibot = alloc_sums(arena, ssl->groups.groups);
    s.feature_sums = alloc_sums(arena, 2 * ssl->vit.config.embed_dim);
    return s;
}

VitCrops ssl_step_crops(const SslMetaArch *ssl, const Batch *batch, const SslMicroBatch *micro, int set,
                        bool masked)
{
    const SslGroups *g = &ssl->groups;
    int64_t per_sample = set == 0 ? 2 : ssl->config->crops.local_crops_number;
    int64_t side = set == 0 ? ssl->vit.config.img_size : ssl->config->crops.local_crops_size;
    int64_t first = micro->first * per_sample, n = micro->samples * per_sample;
    VitCrops crops = {.sequences = n,
                      .height = side,
                      .width = side,
                      .place = {.group_sequences = g->group_size * per_sample,
                                .first_sequence = g->first_group * g->group_size * per_sample + first}};
    if (!batch) return crops; /* measuring */
    float *images =
        (set == 0 ? batch->global_crops : batch->local_crops) + first * VIT_IMAGE_CHANNELS * side * side;
    crops.images = tensor_view(images, DTYPE_F32, 4, (const int64_t[]){n, VIT_IMAGE_CHANNELS, side, side});
    if (masked) crops.masks = tensor_1d(batch->masks + first * batch->patches, DTYPE_U8, n * batch->patches);
    return crops;
}

static void compute_scales(const SslMetaArch *ssl, const SslStep *step)
{
    const Ops *ops = ssl->ops;
    const struct {
        const DinoHead *head;
        float *weights;
        Tensor scale;
    } layers[] = {{&ssl->dino_head, ssl->teacher, step->teacher_dino_scale},
                  {&ssl->dino_head, ssl->student, step->student_dino_scale},
                  {ssl_step_ibot_head(ssl), ssl->teacher, step->teacher_ibot_scale},
                  {ssl_step_ibot_head(ssl), ssl->student, step->student_ibot_scale}};
    int count = ssl->do_ibot && !ssl->shared_head ? 4 : 2;
    for (int i = 0; i < count; i++)
        ops->prototype_scale(ops, layers[i].scale,
                             param_matrix_view(&ssl->table, layers[i].head->weight_v, layers[i].weights),
                             param_vector_view(&ssl->table, layers[i].head->weight_g, layers[i].weights));
}

/* From d/dW, which the losses added up in weight_v's gradient, to weight_v and weight_g. */
static void finish_weight_norm(const SslMetaArch *ssl, const DinoHead *head)
{
    const ParamTable *t = &ssl->table;
    ssl->ops->weight_norm_backward(ssl->ops, param_matrix_view(t, head->weight_v, ssl->grads),
                                   param_vector_view(t, head->weight_g, ssl->grads),
                                   param_matrix_view(t, head->weight_v, ssl->student),
                                   param_vector_view(t, head->weight_g, ssl->student));
}

static double share_used(Tensor usage, Comm *comm)
{
    if (!tensor_given(usage)) return 0;
    int64_t K = usage.shape[0], used = 0;
    const float *counts = tensor_f32(usage);
    comm_all_reduce(comm, usage.data, K, DTYPE_F32, COMM_SUM, NULL);
    for (int64_t k = 0; k < K; k++)
        used += counts[k] > 0;
    return (double)used / (double)K;
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
static double feature_std(SslMetaArch *ssl, SslStep *step)
{
    if (!ssl->do_dino) return 0;
    int64_t D = ssl->vit.config.embed_dim;
    double *sum = step->feature_sums, *squares = sum + D, std = 0;
    double n = (double)(2 * ssl->groups.total_groups * ssl->groups.group_size);
    comm_all_reduce(ssl->comm, sum, 2 * D, DTYPE_F64, COMM_SUM, NULL);
    for (int64_t d = 0; d < D; d++) {
        double mean = sum[d] / n;
        std += sqrt(fmax(squares[d] / n - mean * mean, 0));
    }
    return std / (double)D * sqrt((double)D);
}

SslGroupLosses ssl_meta_arch_group_losses(const SslMetaArch *ssl, int64_t group)
{
    const SslStep *step = ssl->current;
    CHECK(group >= 0 && group < ssl->groups.groups);
    double groups = (double)ssl->groups.total_groups;
    return (SslGroupLosses){.dino_local_crops_loss = step->dino_local[group] * groups,
                            .dino_global_crops_loss = step->dino_global[group] * groups,
                            .koleo_loss = step->koleo[group] * groups / 2,
                            .ibot_loss = step->ibot[group] * groups / 2};
}

static void reduce_figures(SslMetaArch *ssl, SslStep *step, SslFigures *f)
{
    enum { LOCAL, GLOBAL, KOLEO, IBOT, DINO_ENTROPY, DINO_PAIRS, IBOT_ENTROPY, IBOT_PAIRS, MASKED, COUNT };
    int64_t groups = ssl->groups.groups;
    double sums[COUNT] = {[LOCAL] = sum_of(step->dino_local, groups),
                          [GLOBAL] = sum_of(step->dino_global, groups),
                          [KOLEO] = sum_of(step->koleo, groups),
                          [IBOT] = sum_of(step->ibot, groups),
                          [DINO_ENTROPY] = step->dino_entropy,
                          [DINO_PAIRS] = (double)step->dino_pairs,
                          [IBOT_ENTROPY] = step->ibot_entropy,
                          [IBOT_PAIRS] = (double)step->ibot_pairs,
                          [MASKED] = (double)step->masked};
    comm_all_reduce(ssl->comm, sums, COUNT, DTYPE_F64, COMM_SUM, NULL);
    f->dino_local_crops_loss = sums[LOCAL];
    f->dino_global_crops_loss = sums[GLOBAL];
    f->koleo_loss = sums[KOLEO] / 2;
    f->ibot_loss = sums[IBOT] / 2;
    f->total_loss = ssl->config->dino.loss_weight * (sums[LOCAL] + sums[GLOBAL]) + sums[KOLEO] +
                    ssl->config->ibot.loss_weight * sums[IBOT];
    f->dino_teacher_entropy = sums[DINO_PAIRS] > 0 ? sums[DINO_ENTROPY] / sums[DINO_PAIRS] : 0;
    f->ibot_teacher_entropy = sums[IBOT_PAIRS] > 0 ? sums[IBOT_ENTROPY] / sums[IBOT_PAIRS] : 0;
    f->feature_std = feature_std(ssl, step);
    f->masked_patches = (int64_t)sums[MASKED];
    f->dino_prototypes_used = share_used(step->dino_usage, ssl->comm);
    f->ibot_prototypes_used = share_used(step->ibot_usage, ssl->comm);
}

typedef void MicroBatchPass(const SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena);

static void for_each_micro_batch(SslMetaArch *ssl, SslStep *step, MicroBatchPass *pass)
{
    size_t mark = ssl->step.used;
    int64_t patches = step->batch->patches, first_masked = 0;
    for (int64_t first = 0; first < step->samples; first += ssl->micro_samples) {
        int64_t count =
            step->samples - first < ssl->micro_samples ? step->samples - first : ssl->micro_samples;
        SslMicroBatch micro = {.first = first, .samples = count, .first_masked = first_masked};
        if (ssl->do_ibot)
            micro.masked =
                ibot_patch_loss_count(step->batch->masks + first * 2 * patches, count * 2, patches);
        first_masked += micro.masked;
        pass(ssl, step, &micro, &ssl->step);
        arena_reset(&ssl->step, mark);
    }
}

void ssl_meta_arch_forward_backward(SslMetaArch *ssl, const Batch *batch, double teacher_temp,
                                    SslFigures *figures)
{
    CHECK(batch->samples == ssl->groups.groups * ssl->groups.group_size &&
          batch->first_group == ssl->groups.first_group);
    arena_reset(&ssl->step, 0);
    int64_t masked =
        ssl->do_ibot ? ibot_patch_loss_count(batch->masks, batch->samples * 2, batch->patches) : 0;
    SslStep *step = ssl->current;
    *step = ssl_step_layout(ssl, &ssl->step, batch, batch->samples, masked);
    step->teacher_temp = teacher_temp;
    if (ssl->do_dino) memset(step->dino_usage.data, 0, tensor_bytes(step->dino_usage));
    if (ssl->do_ibot) memset(step->ibot_usage.data, 0, tensor_bytes(step->ibot_usage));
    memset(ssl->grads, 0, (size_t)ssl->table.flat_count * sizeof(float));
    compute_scales(ssl, step);

    for_each_micro_batch(ssl, step, ssl_teacher_forward);
    ssl_teacher_targets(ssl, step);
    if (ssl->do_koleo && ssl->micro_samples < batch->samples) {
        for_each_micro_batch(ssl, step, ssl_student_class_tokens);
        koleo_loss_forward_backward(&ssl->koleo, ssl->ops, step->koleo_cls, step->koleo_d_cls, step->koleo,
                                    &step->koleo_scratch, ssl->comm);
        step->koleo_ready = true;
    }
    for_each_micro_batch(ssl, step, ssl_student_forward_backward);

    finish_weight_norm(ssl, &ssl->dino_head);
    if (ssl->do_ibot && !ssl->shared_head) finish_weight_norm(ssl, &ssl->ibot_head);
    comm_all_reduce(ssl->comm, ssl->grads, ssl->table.flat_count, DTYPE_F32, COMM_SUM, NULL);
    reduce_figures(ssl, step, figures);
}

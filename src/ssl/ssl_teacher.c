/* ssl_teacher.c - the teacher's half of a step: unmasked global crops to bottleneck rows, then targets. */
#include "base/memory.h"
#include "loss/teacher_targets.h"
#include "ssl/ssl_step.h"

#include <math.h>
#include <string.h>

static const double CENTER_MOMENTUM = 0.9; /* the reference's default of both losses */

/* Rows of the pack whose final norm is needed: class tokens in sample order, then masked patches. */
static Tensor teacher_rows(const SslMetaArch *ssl, const VitPass *pass, const IbotPatchLoss *ibot,
                           int64_t cls, Arena *arena)
{
    int32_t *out;
    Tensor rows = tensor_stage_1d(arena, DTYPE_I32, cls + ibot->patches, &out);
    if (arena_is_measuring(arena)) return rows;
    int64_t N = pass->patches[0], skip = 1 + ssl->teacher.vit.config.num_register_tokens;
    for (int64_t i = 0; i < cls; i++)
        out[i] = (int32_t)vit_row(pass, 0, i);
    for (int64_t i = 0; i < ibot->patches; i++)
        out[cls + i] = (int32_t)(vit_row(pass, 0, ibot->positions[i] / N) + skip + ibot->positions[i] % N);
    return rows;
}

/* One head over rows of `normed`, its bottleneck copied to `out` (where given). */
static void run_head(const SslMetaArch *ssl, const DinoHead *head, ParamModule module, Tensor normed,
                     Tensor out[2], int64_t split, Arena *arena)
{
    const Ops *ops = ssl->ops;
    const Weights *weights = &ssl->teacher.weights[module];
    DinoHeadActivations acts =
        dino_head_activations(head, arena, weights_act(weights), normed.shape[0], false);
    if (arena_is_measuring(arena)) return;
    dino_head_forward(head, ops, weights, &acts, normed, &ssl->teacher.hooks);
    int64_t rest = normed.shape[0] - split;
    if (split > 0) ops->gather_rows(ops, out[0], tensor_rows(acts.bottleneck, 0, split), tensor_none());
    if (rest > 0) ops->gather_rows(ops, out[1], tensor_rows(acts.bottleneck, split, rest), tensor_none());
}

void ssl_teacher_forward(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena)
{
    const Ops *ops = ssl->ops;
    const SslNetwork *teacher = &ssl->teacher;
    const Weights *backbone = &teacher->weights[PARAM_BACKBONE];
    bool measuring = arena_is_measuring(arena);
    ArenaMark mark = arena_mark(arena);
    int64_t D = teacher->vit.config.embed_dim, cls = ssl->do_dino ? micro->samples * 2 : 0,
            n = cls + micro->masked;
    VitInput input = {.set_count = 1,
                      .sets = {ssl_step_crops(ssl, step->batch, micro, 0, false, arena)},
                      .act = weights_act(backbone)};
    VitPass pass = vit_pass(&teacher->vit, &input, arena);
    IbotPatchLoss ibot = ssl_step_ibot(ssl, step, micro, 1, arena);
    Tensor rows = teacher_rows(ssl, &pass, &ibot, cls, arena);
    Tensor normed = tensor_alloc_2d(arena, DTYPE_F32, n, D), stats = tensor_alloc_2d(arena, DTYPE_F32, n, 2);
    if (!measuring) {
        device_upload_staged(ops->device, arena, mark);
        vit_forward(&teacher->vit, ops, backbone, &pass, &teacher->hooks);
        vit_norm_forward(&teacher->vit, ops, backbone, pass.x, rows, normed, stats, &teacher->hooks);
        ops->direction_sums(ops, ssl_step_figures(ssl, ssl->layout.features, 2 * D),
                            tensor_rows(normed, 0, cls));
    }
    Tensor out[2] = {{0}};
    if (!measuring && ssl->do_dino) out[0] = tensor_rows(step->teacher_dino, micro->first * 2, cls);
    if (!measuring && ssl->do_ibot)
        out[1] = tensor_rows(step->teacher_ibot, micro->first_masked, micro->masked);
    if (!ssl->do_ibot || teacher->shared_head) {
        run_head(ssl, &teacher->dino_head, PARAM_DINO_HEAD, normed, out, cls, arena);
        return;
    }
    run_head(ssl, &teacher->dino_head, PARAM_DINO_HEAD, tensor_rows(normed, 0, cls), out, cls, arena);
    run_head(ssl, &teacher->ibot_head, PARAM_IBOT_HEAD, tensor_rows(normed, cls, micro->masked), out, 0,
             arena);
}

static void make_targets(SslMetaArch *ssl, const SslStep *step, bool patches)
{
    TeacherScores scores = {.rows = patches ? step->teacher_ibot : step->teacher_dino,
                            .v = ssl_step_prototypes(ssl, &ssl->teacher, patches),
                            .scale = patches ? step->teacher_ibot_scale : step->teacher_dino_scale};
    Tensor bias = patches ? step->ibot_bias : step->dino_bias;
    if (ssl->config->train.centering == CONFIG_CENTERING_SINKHORN_KNOPP) {
        teacher_targets_sinkhorn(ssl->ops, bias, &scores, step->teacher_temp, ssl->ranks->world);
        return;
    }
    int64_t K = bias.shape[0];
    Tensor center = tensor_1d(patches ? ssl->ibot_center : ssl->dino_center, DTYPE_F32, K);
    teacher_targets_centering(ssl->ops, bias, center, tensor_rows(step->center_sum, 0, K), &scores,
                              patches ? step->ibot_center_weight : step->dino_center_weight,
                              step->teacher_temp, CENTER_MOMENTUM, ssl->ranks->world);
}

void ssl_teacher_targets(SslMetaArch *ssl, SslStep *step)
{
    if (ssl->do_dino) make_targets(ssl, step, false);
    if (ssl->do_ibot) make_targets(ssl, step, true);
}

/* Row-wise softmax of scores[n, K] / temp + bias, in place. */
static void softmax_rows(float *scores, int64_t n, int64_t K, const float *bias, double temp)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = scores + i * K;
        double most = -INFINITY, sum = 0;
        for (int64_t k = 0; k < K; k++)
            most = fmax(most, row[k] / temp + bias[k]);
        for (int64_t k = 0; k < K; k++)
            sum += exp(row[k] / temp + bias[k] - most);
        for (int64_t k = 0; k < K; k++)
            row[k] = (float)(exp(row[k] / temp + bias[k] - most) / sum);
    }
}

void ssl_meta_arch_teacher_targets(const SslMetaArch *ssl, double teacher_temp, float *dino, float *ibot)
{
    Device *device = ssl->ops->device;
    const SslStep *step = ssl->current;
    const struct {
        float *out;
        Tensor rows, scale, bias;
    } parts[] = {{dino, step->teacher_dino, step->teacher_dino_scale, step->dino_bias},
                 {ibot, step->teacher_ibot, step->teacher_ibot_scale, step->ibot_bias}};
    for (int i = 0; i < 2; i++) {
        if (!parts[i].out) continue;
        int64_t n = parts[i].rows.shape[0], K = parts[i].bias.shape[0];
        float *bias = memory_alloc_array((size_t)K, sizeof *bias);
        Tensor scores = tensor_2d(device_alloc(device, (size_t)(n * K) * sizeof(float)), DTYPE_F32, n, K);
        ssl->ops->prototype_scores(ssl->ops, scores, parts[i].rows,
                                   ssl_step_prototypes(ssl, &ssl->teacher, i == 1), parts[i].scale);
        device_download(device, parts[i].out, scores.data, tensor_bytes(scores));
        device_download(device, bias, parts[i].bias.data, tensor_bytes(parts[i].bias));
        device_finish(device);
        softmax_rows(parts[i].out, n, K, bias, teacher_temp);
        device_free(device, scores.data);
        memory_free(bias);
    }
}

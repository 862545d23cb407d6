/* ssl_student.c - the student's half of a step: masked global and local crops in one pack, losses, backward.
 */
#include "base/check.h"
#include "ssl/ssl_step.h"

#include <string.h>

/* Everything that a student pass of one micro-batch lays out. Row order of `normed`: class tokens
 * sample-major [g0, g1, l0, ..], then masked patches. */
typedef struct {
    VitPass pass;
    int64_t cls_rows;   /* samples * rows per sample */
    int64_t head_first; /* first row that goes through the dino head, */
    int64_t head_rows;  /* and how many */
    DinoClstokenLoss dino;
    IbotPatchLoss ibot;
    Tensor rows, normed, stats, d_normed; /* [n] int32, [n, D], [n, 2], [n, D] */
    Tensor global_cls; /* [samples * 2] int32: rows of `normed` that hold global class tokens */
    DinoHeadActivations dino_acts, ibot_acts;
    Tensor d_dino, d_ibot; /* like the bottlenecks */
} StudentPass;

static void fill_rows(const SslMetaArch *ssl, const StudentPass *s, const SslMicroBatch *micro, int32_t *rows,
                      int32_t *global_cls)
{
    int64_t per_sample = ssl_step_cls_rows(ssl), L = per_sample - 2, N = s->pass.patches[0];
    int64_t at = 0;
    for (int64_t i = 0; i < micro->samples && per_sample > 0; i++) {
        for (int64_t c = 0; c < 2; c++) {
            global_cls[2 * i + c] = (int32_t)at;
            rows[at++] = (int32_t)vit_row(&s->pass, 0, 2 * i + c);
        }
        for (int64_t c = 0; c < L; c++)
            rows[at++] = (int32_t)vit_row(&s->pass, 1, L * i + c);
    }
    const int32_t *positions = s->ibot.positions;
    int64_t skip = 1 + ssl->student.vit.config.num_register_tokens;
    for (int64_t i = 0; i < s->ibot.patches; i++)
        rows[at++] = (int32_t)(vit_row(&s->pass, 0, positions[i] / N) + skip + positions[i] % N);
    CHECK(at == s->rows.shape[0]);
}

static VitInput student_input(const SslMetaArch *ssl, const SslStep *step, const SslMicroBatch *micro,
                              bool local, Arena *arena)
{
    VitInput input = {
        .set_count = local ? 2 : 1,
        .sets = {ssl_step_crops(ssl, step->batch, micro, 0, ssl->do_ibot && !ssl->distilled, arena)},
        .act = weights_act(&ssl->student.weights[PARAM_BACKBONE]),
        .backward = true,
        .recompute = ssl->config->train.checkpoint_activations == CONFIG_ACTIVATIONS_BLOCK,
        .drop_path = ssl->config->student.drop_path_rate > 0,
        .seed = (uint64_t)ssl->config->train.seed,
        .step = step->batch ? step->batch->step : 0};
    if (local) input.sets[1] = ssl_step_crops(ssl, step->batch, micro, 1, false, arena);
    return input;
}

static StudentPass student_layout(const SslMetaArch *ssl, const SslStep *step, const SslMicroBatch *micro,
                                  Arena *arena)
{
    int64_t per_sample = ssl_step_cls_rows(ssl), D = ssl->student.vit.config.embed_dim;
    VitInput input = student_input(ssl, step, micro, per_sample > 2, arena);
    StudentPass s = {.pass = vit_pass(&ssl->student.vit, &input, arena),
                     .cls_rows = micro->samples * per_sample};
    const SslGroups *g = &ssl->groups;
    int64_t total_samples = g->total_groups * g->group_size;
    DinoClstokenRows dino = {.samples = micro->samples,
                             .local_crops = per_sample - 2,
                             .first_sample = micro->first,
                             .group_size = g->group_size,
                             .first_group = g->first_group};
    if (ssl->do_dino)
        s.dino = dino_clstoken_loss_layout(arena, &dino, ssl->config->dino.loss_weight, total_samples);
    s.ibot = ssl_step_ibot(ssl, step, micro, ssl->config->ibot.loss_weight, arena);
    int64_t n = s.cls_rows + micro->masked;
    int32_t *rows, *global_cls;
    s.rows = tensor_stage_1d(arena, DTYPE_I32, n, &rows);
    s.global_cls = tensor_stage_1d(arena, DTYPE_I32, micro->samples * 2, &global_cls);
    if (!arena_is_measuring(arena)) fill_rows(ssl, &s, micro, rows, global_cls);
    s.normed = tensor_alloc_2d(arena, DTYPE_F32, n, D);
    s.stats = tensor_alloc_2d(arena, DTYPE_F32, n, 2);
    s.d_normed = tensor_alloc_2d(arena, DTYPE_F32, n, D);
    s.head_first = ssl->do_dino ? 0 : s.cls_rows;
    s.head_rows = (ssl->do_dino ? s.cls_rows : 0) + (ssl->student.shared_head ? micro->masked : 0);
    s.dino_acts =
        dino_head_activations(&ssl->student.dino_head, arena,
                              weights_act(&ssl->student.weights[PARAM_DINO_HEAD]), s.head_rows, true);
    s.d_dino = tensor_alloc_2d(arena, DTYPE_F32, s.head_rows, ssl->student.dino_head.config.bottleneck_dim);
    if (ssl->do_ibot && !ssl->student.shared_head) {
        s.ibot_acts =
            dino_head_activations(&ssl->student.ibot_head, arena,
                                  weights_act(&ssl->student.weights[PARAM_IBOT_HEAD]), micro->masked, true);
        s.d_ibot =
            tensor_alloc_2d(arena, DTYPE_F32, micro->masked, ssl->student.ibot_head.config.bottleneck_dim);
    }
    return s;
}

static void student_forward(const SslMetaArch *ssl, StudentPass *s)
{
    const Ops *ops = ssl->ops;
    const Weights *backbone = &ssl->student.weights[PARAM_BACKBONE];
    vit_forward(&ssl->student.vit, ops, backbone, &s->pass, &ssl->student.hooks);
    vit_norm_forward(&ssl->student.vit, ops, backbone, s->pass.x, s->rows, s->normed, s->stats,
                     &ssl->student.hooks);
    dino_head_forward(&ssl->student.dino_head, ops, &ssl->student.weights[PARAM_DINO_HEAD], &s->dino_acts,
                      tensor_rows(s->normed, s->head_first, s->head_rows), &ssl->student.hooks);
    if (ssl->do_ibot && !ssl->student.shared_head)
        dino_head_forward(&ssl->student.ibot_head, ops, &ssl->student.weights[PARAM_IBOT_HEAD], &s->ibot_acts,
                          tensor_rows(s->normed, s->cls_rows, s->ibot.patches), &ssl->student.hooks);
}

static PrototypeCrossEntropy cross_entropy(const SslMetaArch *ssl, const SslStep *step, bool patches)
{
    static const float STUDENT_TEMP = 0.1f; /* the reference's default of both losses */
    const SslNetwork *student = &ssl->student;
    const DinoHead *head = patches ? ssl_network_patch_head(student) : &student->dino_head;
    return (PrototypeCrossEntropy){
        .student_v = ssl_step_prototypes(ssl, student, patches),
        .student_temp = STUDENT_TEMP,
        .teacher_v = ssl_step_prototypes(ssl, &ssl->teacher, patches),
        .teacher_temp = (float)step->teacher_temp,
        .d_student_w = param_matrix_view(sharded_gradients_view(&ssl->gradients), head->weight_v),
        .loss_scale = tensor_rows(ssl->control, CONTROL_LOSS_SCALE, 1),
        .entropy = ssl_step_figures(ssl, patches ? ssl->layout.ibot_entropy : ssl->layout.dino_entropy, 2)};
}

static void dino_loss(const SslMetaArch *ssl, const SslStep *step, StudentPass *s)
{
    PrototypeCrossEntropy ce = cross_entropy(ssl, step, false);
    ce.student = tensor_rows(s->dino_acts.bottleneck, 0, s->cls_rows);
    ce.student_scale = step->student_dino_scale;
    ce.teacher = step->teacher_dino;
    ce.teacher_scale = step->teacher_dino_scale;
    ce.teacher_bias = step->dino_bias;
    ce.targets = s->dino.targets;
    ce.row_weight = s->dino.row_weight;
    ce.loss = s->dino.loss;
    ce.d_student = tensor_rows(s->d_dino, 0, s->cls_rows);
    ce.usage = step->dino_usage;
    ssl->ops->prototype_cross_entropy(ssl->ops, &ce);
    dino_clstoken_loss_sums(&s->dino, ssl->ops,
                            ssl_step_figures(ssl, ssl->layout.dino_local, ssl->groups.total_groups),
                            ssl_step_figures(ssl, ssl->layout.dino_global, ssl->groups.total_groups));
}

static void ibot_loss(const SslMetaArch *ssl, const SslStep *step, StudentPass *s)
{
    int64_t first = ssl->do_dino ? s->cls_rows : 0; /* of the patches, among the rows of a shared head */
    PrototypeCrossEntropy ce = cross_entropy(ssl, step, true);
    ce.student = ssl->student.shared_head ? tensor_rows(s->dino_acts.bottleneck, first, s->ibot.patches)
                                          : s->ibot_acts.bottleneck;
    ce.student_scale = step->student_ibot_scale;
    ce.teacher = step->teacher_ibot;
    ce.teacher_scale = step->teacher_ibot_scale;
    ce.teacher_bias = step->ibot_bias;
    ce.targets = s->ibot.targets;
    ce.row_weight = s->ibot.row_weight;
    ce.loss = s->ibot.loss;
    ce.d_student = ssl->student.shared_head ? tensor_rows(s->d_dino, first, s->ibot.patches) : s->d_ibot;
    ce.usage = step->ibot_usage;
    ssl->ops->prototype_cross_entropy(ssl->ops, &ce);
    ibot_patch_loss_sums(&s->ibot, ssl->ops,
                         ssl_step_figures(ssl, ssl->layout.ibot, ssl->groups.total_groups));
}

/* From d/dW, which the losses added up in weight_v's gradient, to weight_v and weight_g. */
static void finish_head(SslMetaArch *ssl, const DinoHead *head)
{
    ParamValues grads = sharded_gradients_view(&ssl->gradients);
    ParamValues values = {&ssl->student.table, NULL, ssl->student.copies.full};
    ssl->ops->weight_norm_backward(
        ssl->ops, param_matrix_view(grads, head->weight_v), param_vector_view(grads, head->weight_g),
        param_matrix_view(values, head->weight_v), param_vector_view(values, head->weight_g));
    sharded_gradients_reduce_head(&ssl->gradients, head->unit);
}

static void heads_backward(SslMetaArch *ssl, const SslStep *step, StudentPass *s, const SslMicroBatch *micro)
{
    const Ops *ops = ssl->ops;
    ParamValues grads = sharded_gradients_view(&ssl->gradients);
    bool own_ibot_head = ssl->do_ibot && !ssl->student.shared_head;
    bool last = micro->first + micro->samples == step->samples;
    dino_head_backward(&ssl->student.dino_head, ops, &ssl->student.weights[PARAM_DINO_HEAD], &s->dino_acts,
                       tensor_rows(s->d_normed, s->head_first, s->head_rows), s->d_dino, grads,
                       &ssl->student.hooks);
    if (last) finish_head(ssl, &ssl->student.dino_head);
    if (own_ibot_head)
        dino_head_backward(&ssl->student.ibot_head, ops, &ssl->student.weights[PARAM_IBOT_HEAD],
                           &s->ibot_acts, tensor_rows(s->d_normed, s->cls_rows, s->ibot.patches), s->d_ibot,
                           grads, &ssl->student.hooks);
    if (own_ibot_head && last) finish_head(ssl, &ssl->student.ibot_head);
}

static void student_backward(SslMetaArch *ssl, const SslStep *step, StudentPass *s,
                             const SslMicroBatch *micro)
{
    const Ops *ops = ssl->ops;
    if (!ssl->do_dino) ops->zero(ops, s->d_normed);
    heads_backward(ssl, step, s, micro);
    if (ssl->do_koleo)
        ops->scatter_add_rows(ops, s->d_normed,
                              tensor_rows(step->koleo_d_cls, micro->first * 2, micro->samples * 2),
                              s->global_cls);

    ops->zero(ops, s->pass.dx);
    ParamValues grads = sharded_gradients_view(&ssl->gradients);
    const Weights *backbone = &ssl->student.weights[PARAM_BACKBONE];
    vit_norm_backward(&ssl->student.vit, ops, backbone, &s->pass, s->rows, s->d_normed, s->stats, grads,
                      &ssl->student.hooks);
    vit_backward(&ssl->student.vit, ops, backbone, &s->pass, grads, NULL, &ssl->student.hooks);
}

void ssl_student_forward_backward(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena)
{
    ArenaMark mark = arena_mark(arena);
    StudentPass s = student_layout(ssl, step, micro, arena);
    if (arena_is_measuring(arena)) return;
    device_upload_staged(ssl->ops->device, arena, mark);
    student_forward(ssl, &s);
    if (ssl->do_dino) dino_loss(ssl, step, &s);
    if (ssl->do_ibot) ibot_loss(ssl, step, &s);
    if (ssl->do_koleo && !step->koleo_ready) {
        ssl->ops->gather_rows(ssl->ops, step->koleo_cls, s.normed, s.global_cls);
        ssl_step_koleo(ssl, step);
    }
    student_backward(ssl, step, &s, micro);
}

void ssl_student_class_tokens(SslMetaArch *ssl, SslStep *step, const SslMicroBatch *micro, Arena *arena)
{
    if (!ssl->do_koleo) return;
    /* The same draws and masks as the pass that will follow: attention never leaves a sequence, so the local
     * crops that are missing here change nothing. */
    ArenaMark mark = arena_mark(arena);
    VitInput input = student_input(ssl, step, micro, false, arena);
    VitPass pass = vit_pass(&ssl->student.vit, &input, arena);
    int64_t n = micro->samples * 2;
    int32_t *first_tokens;
    Tensor rows = tensor_stage_1d(arena, DTYPE_I32, n, &first_tokens),
           stats = tensor_alloc_2d(arena, DTYPE_F32, n, 2);
    if (arena_is_measuring(arena)) return;
    for (int64_t i = 0; i < n; i++)
        first_tokens[i] = (int32_t)vit_row(&pass, 0, i);
    device_upload_staged(ssl->ops->device, arena, mark);
    const Weights *backbone = &ssl->student.weights[PARAM_BACKBONE];
    vit_forward(&ssl->student.vit, ssl->ops, backbone, &pass, &ssl->student.hooks);
    vit_norm_forward(&ssl->student.vit, ssl->ops, backbone, pass.x, rows,
                     tensor_rows(step->koleo_cls, micro->first * 2, n), stats, &ssl->student.hooks);
}

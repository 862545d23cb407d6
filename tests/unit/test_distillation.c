/* test_distillation.c - a step against a frozen teacher of another shape: its losses put together by hand,
 * its gradients by finite differences, and what must not move. */
#include "../support/ssl_support.h"

#include "base/memory.h"
#include "data/batch_masks.h"
#include "optim/adamw_optimizer.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* Wider, less deep, with registers and another MLP, heads of other widths; as many prototypes. */
static const char TEACHER[] = "student.embed_dim=40 student.depth=2 student.num_heads=5 "
                              "student.num_register_tokens=2 student.ffn_layer=swiglufused "
                              "dino.head_hidden_dim=28 ibot.head_hidden_dim=26 ibot.head_nlayers=2 "
                              "dino.head_bottleneck_dim=11 ibot.head_bottleneck_dim=4";

static const double TEACHER_TEMP = 0.1, STUDENT_TEMP = 0.1;

/* --- by hand: one picture at a time, everything about losses in fp64 --- */

/* Tokens of one picture behind the final norm: row 0 the class token, then the patches. */
static void tokens_of(const SslFixture *f, const SslNetwork *net, const float *image, int64_t side,
                      Arena *arena, Tensor *tokens)
{
    Tensor pixels = tensor_view((void *)image, DTYPE_F32, 4, (const int64_t[]){1, 3, side, side});
    VitInput input = {
        .set_count = 1,
        .sets = {{.sequences = 1, .height = side, .width = side, .images = pixels, .place = {1, 0}}}};
    VitPass pass = vit_pass(&net->vit, &input, arena);
    vit_forward(&net->vit, f->ops, &net->weights[PARAM_BACKBONE], &pass, NULL);
    int64_t N = vit_patches(&net->vit, side, side), first = 1 + net->vit.config.num_register_tokens;
    int32_t *rows = arena_alloc(arena, (size_t)(1 + N) * sizeof *rows);
    for (int64_t i = 0; i <= N; i++)
        rows[i] = i == 0 ? 0 : (int32_t)(first + i - 1);
    *tokens = tensor_alloc_2d(arena, DTYPE_F32, 1 + N, net->vit.config.embed_dim);
    vit_norm_forward(&net->vit, f->ops, &net->weights[PARAM_BACKBONE], pass.x,
                     tensor_1d(rows, DTYPE_I32, 1 + N), *tokens, tensor_alloc_2d(arena, DTYPE_F32, 1 + N, 2),
                     NULL);
}

/* scores[n, K] of rows behind a head: x . g v / |v|. */
static void scores_of(const SslFixture *f, const SslNetwork *net, ParamModule module, Tensor rows,
                      Arena *arena, double *scores)
{
    const DinoHead *head = module == PARAM_DINO_HEAD ? &net->dino_head : &net->ibot_head;
    const Weights *weights = &net->weights[module];
    DinoHeadActivations acts = dino_head_activations(head, arena, DTYPE_F32, rows.shape[0], false);
    dino_head_forward(head, f->ops, weights, &acts, rows, NULL);
    int64_t K = head->config.prototypes, d = head->config.bottleneck_dim;
    const float *v = tensor_f32(param_matrix_view(weights->master, head->weight_v)),
                *g = tensor_f32(param_vector_view(weights->master, head->weight_g)),
                *x = tensor_f32(acts.bottleneck);
    for (int64_t i = 0; i < rows.shape[0]; i++)
        for (int64_t k = 0; k < K; k++) {
            double dot = 0, square = 0;
            for (int64_t j = 0; j < d; j++) {
                dot += (double)x[i * d + j] * (double)v[k * d + j];
                square += (double)v[k * d + j] * (double)v[k * d + j];
            }
            scores[i * K + k] = dot * (double)g[k] / sqrt(square);
        }
}

/* Three rounds over q[n, K] = exp(score / temp), prototypes then samples (paper section 4; Caron et al.
 * 2020). */
static void sinkhorn(double *q, int64_t n, int64_t K)
{
    for (int64_t i = 0; i < n * K; i++)
        q[i] = exp(q[i] / TEACHER_TEMP);
    for (int round = 0; round < 3; round++) {
        for (int64_t k = 0; k < K; k++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += q[i * K + k];
            for (int64_t i = 0; i < n; i++)
                q[i * K + k] /= sum * (double)K;
        }
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += q[i * K + k];
            for (int64_t k = 0; k < K; k++)
                q[i * K + k] /= sum;
        }
    }
}

static double cross_entropy(const double *q, const double *scores, int64_t K)
{
    double sum = 0, loss = 0;
    for (int64_t k = 0; k < K; k++)
        sum += exp(scores[k] / STUDENT_TEMP);
    for (int64_t k = 0; k < K; k++)
        loss -= q[k] * (scores[k] / STUDENT_TEMP - log(sum));
    return loss;
}

/* Scores of all pictures [n, 3, side, side]: cls[n, K] by the DINO head, patches[n * N, K_ibot] by iBOT's (or
 * NULL). */
static void all_scores(const SslFixture *f, const SslNetwork *net, const float *images, int64_t n,
                       int64_t side, double *cls, double *patches)
{
    Arena arena = arena_create((size_t)8 << 20);
    int64_t K = net->dino_head.config.prototypes, K_ibot = net->ibot_head.config.prototypes;
    for (int64_t i = 0; i < n; i++) {
        Tensor tokens;
        arena_reset(&arena, ARENA_START);
        tokens_of(f, net, images + i * 3 * side * side, side, &arena, &tokens);
        int64_t N = tokens.shape[0] - 1;
        scores_of(f, net, PARAM_DINO_HEAD, tensor_rows(tokens, 0, 1), &arena, cls + i * K);
        if (patches)
            scores_of(f, net, PARAM_IBOT_HEAD, tensor_rows(tokens, 1, N), &arena, patches + i * N * K_ibot);
    }
    arena_destroy(&arena);
}

/* The three losses that have targets, as the reference logs them. */
static SslFigures by_hand(const SslFixture *f)
{
    const Batch *b = &f->batch;
    int64_t S = b->samples, L = b->local_count, N = b->patches, K = 32, K_ibot = 24;
    double *t_cls = memory_alloc_array((size_t)(2 * S * K), sizeof(double)),
           *s_cls = memory_alloc_array((size_t)(2 * S * K), sizeof(double)),
           *s_local = memory_alloc_array((size_t)(L * S * K), sizeof(double)),
           *t_patch = memory_alloc_array((size_t)(2 * S * N * K_ibot), sizeof(double)),
           *s_patch = memory_alloc_array((size_t)(2 * S * N * K_ibot), sizeof(double));
    all_scores(f, &f->ssl.teacher, b->global_crops, 2 * S, b->global_size, t_cls, t_patch);
    all_scores(f, &f->ssl.student, b->global_crops, 2 * S, b->global_size, s_cls, s_patch);
    all_scores(f, &f->ssl.student, b->local_crops, L * S, b->local_size, s_local, NULL);
    sinkhorn(t_cls, 2 * S, K);
    sinkhorn(t_patch, 2 * S * N, K_ibot);
    double local = 0, global = 0, ibot = 0, terms = (double)(2 + 2 * L);
    for (int64_t s = 0; s < S; s++) {
        for (int64_t t = 0; t < 2; t++) {
            global += cross_entropy(t_cls + (2 * s + t) * K, s_cls + (2 * s + 1 - t) * K, K);
            for (int64_t l = 0; l < L; l++)
                local += cross_entropy(t_cls + (2 * s + t) * K, s_local + (L * s + l) * K, K);
        }
    }
    for (int64_t i = 0; i < 2 * S * N; i++)
        ibot += cross_entropy(t_patch + i * K_ibot, s_patch + i * K_ibot, K_ibot);
    void *all[] = {t_cls, s_cls, s_local, t_patch, s_patch};
    for (int i = 0; i < 5; i++)
        memory_free(all[i]);
    return (SslFigures){.dino_local_crops_loss = local / (double)S / terms,
                        .dino_global_crops_loss = global / (double)S / terms,
                        .ibot_loss = ibot / (double)(2 * S * N) / 2};
}

Test(distillation, losses_are_those_put_together_by_hand)
{
    SslFixture *f = ssl_support_create_distilled("", TEACHER, 7);
    SslFigures step = ssl_support_step(f, TEACHER_TEMP), hand = by_hand(f);
    cr_expect_float_eq(step.dino_local_crops_loss, hand.dino_local_crops_loss, 1e-5);
    cr_expect_float_eq(step.dino_global_crops_loss, hand.dino_global_crops_loss, 1e-5);
    cr_expect_float_eq(step.ibot_loss, hand.ibot_loss, 1e-5);
    cr_expect_eq(step.masked_patches, 2 * f->batch.samples * f->batch.patches);
    cr_expect(hand.dino_local_crops_loss > 1 && hand.dino_global_crops_loss > 0.3 && hand.ibot_loss > 1);
    ssl_support_destroy(f);
}

/* --- gradients --- */

static double total_loss(void *context)
{
    return ssl_support_loss(context);
}

static void check_gradient(const char *overrides, const char *teacher)
{
    SslFixture *f = ssl_support_create_distilled(overrides, teacher, 21);
    const ParamTable *t = &f->ssl.student.table;
    size_t n = (size_t)t->flat_count, teacher_bytes = (size_t)f->ssl.teacher.map.count * sizeof(float);
    float *grads = memory_alloc_array(n, sizeof(float)), *direction = memory_alloc_array(n, sizeof(float)),
          *frozen = memory_alloc(teacher_bytes);
    memcpy(frozen, f->ssl.teacher.local, teacher_bytes);
    ssl_support_loss(f);
    memcpy(grads, f->ssl.gradients.local, n * sizeof(float));
    double size, wanted = ssl_support_direction(t, grads, 0, t->count, direction, &size);
    double slope = ssl_support_slope(total_loss, f, f->ssl.student.local, direction, t->flat_count, 4e-3);
    cr_expect(fabs(slope - wanted) < 1e-4 * size, "%s: slope %.8g, gradient says %.8g of %.8g", overrides,
              slope, wanted, size);
    cr_expect_eq(memcmp(frozen, f->ssl.teacher.local, teacher_bytes), 0);
    memory_free(grads);
    memory_free(direction);
    memory_free(frozen);
    ssl_support_destroy(f);
}

Test(distillation, gradients_are_those_of_the_losses)
{
    check_gradient("", TEACHER);
    check_gradient("train.micro_batch_size=5", TEACHER);
    check_gradient("train.centering=centering student.num_register_tokens=3", TEACHER);
    check_gradient("ibot.loss_weight=0", TEACHER);
}

/* A head that scores both kinds of token in one network, and one kind in the other. */
Test(distillation, heads_may_be_shared_on_either_side)
{
    check_gradient("ibot.head_n_prototypes=32 ibot.head_bottleneck_dim=8",
                   "student.embed_dim=40 student.num_heads=5 ibot.separate_head=false");
    check_gradient("ibot.separate_head=false",
                   "student.embed_dim=40 student.num_heads=5 ibot.head_n_prototypes=32 "
                   "ibot.head_bottleneck_dim=8");
}

/* --- what moves, and what does not --- */

Test(distillation, the_moving_average_follows_and_the_teacher_stays)
{
    enum { STEPS = 3 };
    static const double MOMENTUM = 0.9;
    SslFixture *f = ssl_support_create_distilled("", TEACHER, 31);
    int64_t n = f->ssl.student.map.count;
    size_t teacher_bytes = (size_t)f->ssl.teacher.map.count * sizeof(float);
    float *frozen = memory_alloc(teacher_bytes);
    double *ema = memory_alloc_array((size_t)n, sizeof *ema);
    memcpy(frozen, f->ssl.teacher.local, teacher_bytes);
    for (int64_t i = 0; i < n; i++)
        ema[i] = f->ssl.model_ema->local[i];
    AdamwOptimizer optimizer;
    adamw_optimizer_init(&optimizer, &f->ssl.student.map, f->comm, f->device, 0.9, 0.999);
    AdamwOptimizerStep update = {
        .schedule = {.lr = 1e-2, .last_layer_lr = 1e-2, .backbone_lr = 1e-2, .weight_decay = 0.04}};
    double first = 0, last = 0;
    for (int step = 0; step < STEPS; step++) {
        ssl_meta_arch_forward_backward(&f->ssl, &f->batch, TEACHER_TEMP);
        last = ssl_meta_arch_last_figures(&f->ssl).total_loss;
        if (step == 0) first = last;
        adamw_optimizer_step(&optimizer, f->ops, f->ssl.student.local, f->ssl.gradients.local, f->ssl.control,
                             f->ssl.figures, &update);
        ssl_meta_arch_update_ema(&f->ssl, MOMENTUM);
        ssl_meta_arch_refresh(&f->ssl);
        for (int64_t i = 0; i < n; i++)
            ema[i] = MOMENTUM * ema[i] + (1 - MOMENTUM) * (double)f->ssl.student.local[i];
    }
    cr_expect(last < first - 0.1, "the loss went from %g to %g", first, last);
    cr_expect_eq(memcmp(frozen, f->ssl.teacher.local, teacher_bytes), 0, "the teacher has changed");
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(ema[i] - (double)f->ssl.model_ema->local[i]));
    cr_expect(worst < 1e-6, "the moving average is off by %g", worst);
    const SslNetwork *model = ssl_meta_arch_model(&f->ssl);
    cr_expect(model == &f->ssl.spare && model != &f->ssl.teacher);
    adamw_optimizer_fini(&optimizer);
    memory_free(frozen);
    memory_free(ema);
    ssl_support_destroy(f);
}

/* The loader gives every patch to iBOT, and says so to who plans. */
Test(distillation, every_patch_is_in_the_masks)
{
    Config config;
    ssl_support_config(&config, "distillation.checkpoint_path=somewhere ibot.mask_sample_probability=0.1");
    SslGroups groups;
    cr_assert_eq(ssl_groups_deal(&groups, &config, 0, 1, NULL), STATUS_OK);
    Batch batch = ssl_support_batch(&config, &groups, DTYPE_F32, NULL);
    BatchMasks masks = batch_masks_of(&config);
    uint8_t scratch[8 * 16];
    for (int64_t group = 0; group < groups.groups; group++) {
        batch_masks_draw(&masks, &batch, group, scratch);
        cr_expect_eq(batch.upperbound[group], 8 * batch.patches);
    }
    for (int64_t i = 0; i < batch.samples * 2 * batch.patches; i++)
        cr_assert_eq(batch.masks[i], 1);
    batch_fini(&batch);
    config_fini(&config);
}

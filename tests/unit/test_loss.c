/* test_loss.c - which rows each loss compares and how it weighs them; KoLeo's scopes; the lazy centre. */
#include "../support/ops_support.h"

#include "loss/dino_clstoken_loss.h"
#include "loss/ibot_patch_loss.h"
#include "loss/koleo_loss.h"
#include "loss/teacher_targets.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(loss, dino_compares_each_global_crop_with_the_other_and_local_crops_with_both)
{
    OpsFixture f = ops_support_create(1, 1);
    /* sample 5 is the last of group 2 (of 2 samples), sample 6 the first of group 3; 10 groups came before */
    DinoClstokenRows rows = {
        .samples = 2, .local_crops = 2, .first_sample = 5, .group_size = 2, .first_group = 10};
    DinoClstokenLoss loss = dino_clstoken_loss_layout(&f.arena, &rows, 3.0, 8);
    static const int32_t TARGETS[8][2] = {{11, -1}, {10, -1}, {10, 11}, {10, 11},
                                          {13, -1}, {12, -1}, {12, 13}, {12, 13}};
    cr_expect(memcmp(tensor_i32(loss.targets), TARGETS, sizeof TARGETS) == 0);
    for (int i = 0; i < 8; i++) {
        cr_expect_float_eq(tensor_f32(loss.row_weight)[i], 3.0 / (6 * 8), 1e-8);
        tensor_f32(loss.loss)[i] = (float)(1 << i);
    }
    double local[14] = {[12] = 1}, global[14] = {0};
    dino_clstoken_loss_sums(&loss, f.ops, tensor_1d(local, DTYPE_F64, 14), tensor_1d(global, DTYPE_F64, 14));
    cr_expect_float_eq(local[12], 1 + (4 + 8) / 48.0, 1e-12);
    cr_expect_float_eq(local[13], (64 + 128) / 48.0, 1e-12);
    cr_expect_float_eq(global[12], (1 + 2) / 48.0, 1e-12);
    cr_expect_float_eq(global[13], (16 + 32) / 48.0, 1e-12);
    ops_support_destroy(&f);
}

Test(loss, dino_without_local_crops_still_counts_one_term_for_them)
{
    Arena arena = arena_create(65536);
    DinoClstokenRows rows = {.samples = 3, .group_size = 3};
    DinoClstokenLoss loss = dino_clstoken_loss_layout(&arena, &rows, 1.0, 3);
    cr_expect_eq(loss.targets.shape[0], 6);
    cr_expect_float_eq(tensor_f32(loss.row_weight)[0], 1.0 / 9, 1e-8);
    arena_destroy(&arena);
}

Test(loss, ibot_weighs_a_patch_by_the_masked_patches_of_its_crop)
{
    OpsFixture f = ops_support_create(1, 2);
    static const unsigned char MASKS[4][4] = {{0, 1, 0, 1}, {0, 0, 0, 0}, {1, 1, 1, 1}, {0, 0, 1, 0}};
    int64_t count = ibot_patch_loss_count(MASKS[0], 4, 4);
    cr_assert_eq(count, 7);
    /* crops 2 and 3 of a group of 4, then 0 and 1 of the next */
    IbotPatchRows rows = {.masks = MASKS[0],
                          .crops = 4,
                          .patches_per_crop = 4,
                          .count = count,
                          .first_teacher_row = 100,
                          .first_crop = 6,
                          .crops_per_group = 4,
                          .first_group = 3};
    IbotPatchLoss loss = ibot_patch_loss_layout(&f.arena, &rows, 0.5, 8);
    static const int32_t POSITIONS[] = {1, 3, 8, 9, 10, 11, 14};
    static const double SHARES[] = {2, 2, 4, 4, 4, 4, 1};
    for (int i = 0; i < 7; i++) {
        cr_expect_eq(loss.positions[i], POSITIONS[i]);
        cr_expect_eq(tensor_i32(loss.targets)[i], 100 + i);
        cr_expect_float_eq(tensor_f32(loss.row_weight)[i], 0.5 / SHARES[i] / 8, 1e-8);
        tensor_f32(loss.loss)[i] = (float)(i + 1);
    }
    double by_group[6] = {0};
    ibot_patch_loss_sums(&loss, f.ops, tensor_1d(by_group, DTYPE_F64, 6));
    cr_expect_float_eq(by_group[4], (1 + 2) / 2.0 / 8, 1e-7);
    cr_expect_float_eq(by_group[5], ((3 + 4 + 5 + 6) / 4.0 + 7) / 8, 1e-7);
    cr_expect_eq(by_group[3], 0);
    ops_support_destroy(&f);
}

/* --- KoLeo
 * ----------------------------------------------------------------------------------------------------- */

enum { SAMPLES = 12, WIDTH = 16 };

static KoleoLoss koleo_of(int64_t group_size, bool global_scope)
{
    int64_t groups = SAMPLES / group_size;
    return (KoleoLoss){.embed_dim = WIDTH,
                       .group_size = group_size,
                       .groups = groups,
                       .total_groups = groups,
                       .most_groups = groups,
                       .global_scope = global_scope,
                       .loss_weight = 0.3};
}

static double koleo_run(OpsFixture *f, const KoleoLoss *loss, Tensor cls, Tensor d_cls, double *by_group)
{
    Comm *comm = comm_self_create();
    double sum = 0, discarded = 0;
    for (int64_t i = 0; i < loss->groups; i++)
        by_group[i] = 0;
    KoleoLossScratch scratch = koleo_loss_scratch(loss, &f->arena, comm);
    KoleoLossTensors tensors = {.cls = cls,
                                .d_cls = d_cls,
                                .by_group = tensor_1d(by_group, DTYPE_F64, loss->groups),
                                .discarded = tensor_1d(&discarded, DTYPE_F64, 1)};
    koleo_loss_forward_backward(loss, f->ops, &tensors, &scratch, comm);
    comm_destroy(comm);
    for (int64_t i = 0; i < loss->groups; i++)
        sum += by_group[i];
    return sum;
}

Test(loss, koleo_over_the_batch_is_koleo_of_one_large_group)
{
    OpsFixture f = ops_support_create(1, 5);
    Tensor cls = ops_support_normal(&f, DTYPE_F32, 2 * SAMPLES, WIDTH, 1.0);
    Tensor d_global = ops_support_poison(&f, DTYPE_F32, 2 * SAMPLES, WIDTH);
    Tensor d_large = ops_support_poison(&f, DTYPE_F32, 2 * SAMPLES, WIDTH);
    Tensor d_group = ops_support_poison(&f, DTYPE_F32, 2 * SAMPLES, WIDTH);
    double by_group[SAMPLES];
    KoleoLoss global = koleo_of(3, true), large = koleo_of(SAMPLES, false), group = koleo_of(3, false);
    double a = koleo_run(&f, &global, cls, d_global, by_group),
           b = koleo_run(&f, &large, cls, d_large, by_group);
    cr_expect_float_eq(a, b, 1e-9);
    cr_expect(ops_support_error(d_global, ops_support_f64(&f, d_large)) < 1e-6);
    double c = koleo_run(&f, &group, cls, d_group, by_group);
    cr_expect(fabs(c - b) > 1e-3, "groups of 3 have farther neighbours than a batch of 12");
    for (int64_t g = 0; g < group.groups; g++) { /* each group as a batch of its own */
        double alone;
        KoleoLoss one = group;
        one.groups = one.total_groups = one.most_groups = 1;
        Tensor d_one = ops_support_poison(&f, DTYPE_F32, 6, WIDTH);
        koleo_run(&f, &one, tensor_rows(cls, 6 * g, 6), d_one, &alone);
        cr_expect_float_eq(alone / (double)group.groups, by_group[g], 1e-9);
        double *expected = ops_support_f64(&f, d_one);
        for (int i = 0; i < 6 * WIDTH; i++)
            expected[i] /= (double)group.groups;
        cr_expect(ops_support_error(tensor_rows(d_group, 6 * g, 6), expected) < 1e-6);
    }
    ops_support_destroy(&f);
}

Test(loss, koleo_never_compares_the_crops_of_one_image)
{
    OpsFixture f = ops_support_create(1, 6);
    Tensor cls = ops_support_normal(&f, DTYPE_F32, 2 * SAMPLES, WIDTH, 1.0);
    Tensor d_cls = ops_support_poison(&f, DTYPE_F32, 2 * SAMPLES, WIDTH);
    double by_group[SAMPLES];
    KoleoLoss loss = koleo_of(4, false);
    double apart = koleo_run(&f, &loss, cls, d_cls, by_group);
    for (int64_t s = 0; s < SAMPLES;
         s++) /* both crops of every image alike: each crop's own set is as spread as it was */
        memcpy(tensor_f32(cls) + (2 * s + 1) * WIDTH, tensor_f32(cls) + 2 * s * WIDTH, WIDTH * sizeof(float));
    double alike = koleo_run(&f, &loss, cls, d_cls, by_group);
    cr_expect(isfinite(alike) && fabs(alike - apart) < 0.3, "%g and %g", alike, apart);
    ops_support_destroy(&f);
}

/* --- targets
 * ----------------------------------------------------------------------------------------------------- */

Test(loss, a_centre_is_used_one_step_after_it_was_made)
{
    enum { K = 8, D = 4, N = 6 };
    OpsFixture f = ops_support_create(1, 8);
    Comm *comm = comm_self_create();
    TeacherScores scores = {.rows = ops_support_normal(&f, DTYPE_F32, N, D, 1.0),
                            .v = ops_support_normal(&f, DTYPE_F32, K, D, 1.0)};
    Tensor g = ops_support_normal_1d(&f, DTYPE_F32, K, 1.0), table = ops_support_zeros(&f, DTYPE_F32, N, K);
    scores.scale = ops_support_poison_1d(&f, DTYPE_F32, K);
    f.ops->prototype_scale(f.ops, scores.scale, scores.v, g);
    f.ops->prototype_scores(f.ops, table, scores.rows, scores.v, scores.scale);
    Tensor bias = ops_support_poison_1d(&f, DTYPE_F32, K), sum = ops_support_poison_1d(&f, DTYPE_F32, K);
    Tensor center = ops_support_normal_1d(&f, DTYPE_F32, K, 0.5),
           weight = ops_support_poison_1d(&f, DTYPE_F32, N);
    double before[K];
    for (int k = 0; k < K; k++)
        before[k] = ops_support_get(center, k);
    for (int i = 0; i < N; i++)
        ops_support_set(weight, i, i < 4 ? 0.125 : 0.25); /* a group of 4 rows and one of 2 */
    teacher_targets_centering(f.ops, bias, center, sum, &scores, weight, 0.05, 0.9, comm);
    for (int k = 0; k < K; k++) {
        double mean = 0;
        for (int i = 0; i < N; i++)
            mean += ops_support_get(weight, i) * ops_support_get(table, i * K + k);
        cr_expect_float_eq(ops_support_get(bias, k), -before[k] / 0.05, 2e-6);
        cr_expect_float_eq(ops_support_get(center, k), 0.9 * before[k] + 0.1 * mean, 1e-6);
    }
    comm_destroy(comm);
    ops_support_destroy(&f);
}

Test(loss, sinkhorn_uses_every_prototype_equally)
{
    enum { K = 12, D = 6, N = 40 };
    OpsFixture f = ops_support_create(1, 9);
    Comm *comm = comm_self_create();
    TeacherScores scores = {.rows = ops_support_normal(&f, DTYPE_F32, N, D, 0.3),
                            .v = ops_support_normal(&f, DTYPE_F32, K, D, 1.0)};
    scores.scale = ops_support_poison_1d(&f, DTYPE_F32, K);
    f.ops->prototype_scale(f.ops, scores.scale, scores.v, ops_support_normal_1d(&f, DTYPE_F32, K, 1.0));
    Tensor bias = ops_support_poison_1d(&f, DTYPE_F32, K), table = ops_support_zeros(&f, DTYPE_F32, N, K);
    teacher_targets_sinkhorn(f.ops, bias, &scores, 0.2, comm);
    f.ops->prototype_scores(f.ops, table, scores.rows, scores.v, scores.scale);
    double mass[K] = {0};
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int k = 0; k < K; k++)
            sum += exp(ops_support_get(table, i * K + k) / 0.2 + ops_support_get(bias, k));
        for (int k = 0; k < K; k++)
            mass[k] += exp(ops_support_get(table, i * K + k) / 0.2 + ops_support_get(bias, k)) / sum;
    }
    for (int k = 0; k < K; k++) /* three rounds end on the samples: prototypes are nearly even */
        cr_expect(fabs(mass[k] - (double)N / K) < 0.15 * N / K, "prototype %d has %g", k, mass[k]);
    comm_destroy(comm);
    ops_support_destroy(&f);
}

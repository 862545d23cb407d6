/* test_ssl.c - a training step's losses and gradients: switches, micro-batches, groups, memory,
 * repeatability. */
#include "../support/ssl_support.h"

#include "base/memory.h"
#include "optim/adamw_optimizer.h"
#include "optim/param_groups.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- gradients by finite differences -----------------------------------------------------------------------
 */

static double total_loss(void *context)
{
    return ssl_support_loss(context);
}

/* Parameters [first, last) of the table. */
typedef struct {
    int first, last;
} Range;

/* One slope per module, or per parameter. */
static void check_gradient_of(const char *overrides, bool each_parameter, double limit)
{
    SslFixture *f = ssl_support_create(overrides, 21);
    const ParamTable *t = &f->ssl.student.table;
    size_t n = (size_t)t->flat_count;
    float *grads = memory_alloc_array(n, sizeof(float)), *direction = memory_alloc_array(n, sizeof(float));
    double loss = ssl_support_loss(f);
    cr_assert(isfinite(loss), "%s: loss %g", overrides, loss);
    memcpy(grads, f->ssl.gradients.local, n * sizeof(float));
    for (Range range = {0, 0}; range.first < t->count; range.first = range.last) {
        const Param *p = &t->params[range.first];
        do
            range.last++;
        while (!each_parameter && range.last < t->count && t->params[range.last].module == p->module);
        double size, wanted = ssl_support_direction(t, grads, range.first, range.last, direction, &size);
        double slope = ssl_support_slope(total_loss, f, f->ssl.student.local, direction, t->flat_count, 4e-3);
        double error = fabs(slope - wanted) / fmax(size, 1e-2);
        cr_expect(error < limit, "%s, %s.%s%s: slope %.8g, gradient says %.8g (%.2g of its size)", overrides,
                  param_module_name(p->module), p->name, each_parameter ? "" : " and on", slope, wanted,
                  error);
    }
    memory_free(grads);
    memory_free(direction);
    ssl_support_destroy(f);
}

static void check_gradient(const char *overrides)
{
    check_gradient_of(overrides, false, 1e-4);
}

Test(ssl, gradient_of_every_parameter)
{
    check_gradient_of(
        "student.ffn_layer=swiglufused student.num_register_tokens=2 student.drop_path_rate=0.3 "
        "train.micro_batch_size=5",
        true, 1e-3);
}

Test(ssl, gradient_of_everything)
{
    check_gradient("");
    check_gradient("student.drop_path_rate=0.3 student.drop_path_uniform=true");
    check_gradient("ibot.separate_head=false");
    check_gradient("train.centering=centering");
}

Test(ssl, gradient_of_every_model_option)
{
    check_gradient("student.ffn_layer=swiglufused student.num_register_tokens=2 student.block_chunks=3");
    check_gradient("student.interpolate_antialias=true student.interpolate_offset=0");
    check_gradient(
        "student.qkv_bias=false student.proj_bias=false student.ffn_bias=false student.layerscale=0");
    check_gradient("dino.head_nlayers=1 ibot.head_nlayers=2");
}

Test(ssl, gradient_of_each_loss_alone)
{
    check_gradient("ibot.loss_weight=0 dino.koleo_loss_weight=0");
    check_gradient("ibot.loss_weight=0 dino.koleo_loss_weight=0 crops.local_crops_number=0");
    check_gradient("dino.loss_weight=0 dino.koleo_loss_weight=0");
    check_gradient("dino.loss_weight=0 dino.koleo_loss_weight=0 ibot.separate_head=false");
    check_gradient("dino.loss_weight=0 ibot.loss_weight=0");
    check_gradient("dino.loss_weight=0 ibot.loss_weight=0 dino.koleo_scope=global");
}

Test(ssl, gradient_of_pairs_of_losses)
{
    check_gradient("dino.koleo_loss_weight=0");
    check_gradient("ibot.loss_weight=0 crops.local_crops_number=0");
    check_gradient("dino.loss_weight=0");
    check_gradient("dino.loss_weight=0 ibot.separate_head=false train.centering=centering");
    check_gradient("dino.koleo_scope=global crops.local_crops_number=1");
}

/* --- what is switched off stays out
 * -------------------------------------------------------------------------- */

static double module_norm(const SslFixture *f, ParamModule module)
{
    double square = 0;
    for (int i = 0; i < f->ssl.student.table.count; i++) {
        const Param *p = &f->ssl.student.table.params[i];
        for (int64_t k = p->offset; p->module == module && k < p->offset + p->count; k++)
            square += pow(f->ssl.gradients.local[k], 2);
    }
    return sqrt(square);
}

Test(ssl, losses_that_are_off_are_zero)
{
    SslFigures figures;
    SslFixture *f = ssl_support_create("dino.loss_weight=0 dino.koleo_loss_weight=0", 3);
    figures = ssl_support_step(f, 0.05);
    cr_expect(figures.dino_local_crops_loss == 0 && figures.dino_global_crops_loss == 0 &&
              figures.koleo_loss == 0);
    cr_expect(figures.ibot_loss > 0 && module_norm(f, PARAM_DINO_HEAD) == 0 &&
              module_norm(f, PARAM_IBOT_HEAD) > 0);
    cr_expect_float_eq(figures.total_loss, 0.7 * 2 * figures.ibot_loss, 1e-12);
    ssl_support_destroy(f);

    f = ssl_support_create("ibot.loss_weight=0", 3);
    figures = ssl_support_step(f, 0.05);
    cr_expect(figures.ibot_loss == 0 && figures.masked_patches == 0);
    cr_expect(param_table_find(&f->ssl.student.table, PARAM_IBOT_HEAD, "last_layer.weight_v") < 0);
    cr_expect_float_eq(
        figures.total_loss,
        figures.dino_local_crops_loss + figures.dino_global_crops_loss + 2 * figures.koleo_loss, 1e-12);
    ssl_support_destroy(f);
}

Test(ssl, a_batch_without_masked_patches)
{
    for (int shared = 0; shared < 2; shared++) {
        SslFigures figures;
        SslFixture *f = ssl_support_create(shared ? "ibot.separate_head=false" : "", 4);
        memset(f->batch.masks, 0, (size_t)(f->batch.samples * 2 * f->batch.patches));
        figures = ssl_support_step(f, 0.05);
        cr_expect(figures.ibot_loss == 0 && isfinite(figures.total_loss) &&
                  isfinite(module_norm(f, PARAM_BACKBONE)));
        ssl_support_destroy(f);
    }
}

/* --- micro-batches
 * ------------------------------------------------------------------------------------------- */

static void expect_same_step(const SslFixture *a, const SslFigures *fa, const SslFixture *b,
                             const SslFigures *fb, const char *what)
{
    const double pairs[][2] = {{fa->dino_local_crops_loss, fb->dino_local_crops_loss},
                               {fa->dino_global_crops_loss, fb->dino_global_crops_loss},
                               {fa->koleo_loss, fb->koleo_loss},
                               {fa->ibot_loss, fb->ibot_loss},
                               {fa->total_loss, fb->total_loss},
                               {fa->feature_std, fb->feature_std},
                               {fa->dino_teacher_entropy, fb->dino_teacher_entropy},
                               {fa->ibot_prototypes_used, fb->ibot_prototypes_used}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        cr_expect(fabs(pairs[i][0] - pairs[i][1]) <= 1e-6 * fabs(pairs[i][1]) + 1e-9,
                  "%s: figure %zu is %.9g and %.9g", what, i, pairs[i][0], pairs[i][1]);
    for (int i = 0; i < a->ssl.student.table.count; i++) {
        const Param *p = &a->ssl.student.table.params[i];
        if (strstr(p->name, "qkv.bias")) continue; /* the key bias has no gradient but noise */
        double error = ssl_support_difference(a->ssl.gradients.local + p->offset,
                                              b->ssl.gradients.local + p->offset, p->count);
        cr_expect(error < 1e-5, "%s: gradient of %s off by %.3g", what, p->name, error);
    }
}

static void check_micro_batches(const char *overrides)
{
    char text[256];
    SslFigures whole, parts;
    SslFixture *a = ssl_support_create(overrides, 31);
    whole = ssl_support_step(a, 0.06);
    for (int micro = 1; micro <= 5; micro++) {
        snprintf(text, sizeof text, "train.micro_batch_size=%d%s%s", micro, *overrides ? " " : "", overrides);
        SslFixture *b = ssl_support_create(text, 31);
        parts = ssl_support_step(b, 0.06);
        expect_same_step(b, &parts, a, &whole, text);
        ssl_support_destroy(b);
    }
    ssl_support_destroy(a);
}

Test(ssl, micro_batches_change_nothing)
{
    check_micro_batches("student.drop_path_rate=0.3");
    check_micro_batches("student.drop_path_rate=0.3 ibot.separate_head=false train.centering=centering");
    check_micro_batches("dino.koleo_scope=global student.drop_path_rate=0.3 student.drop_path_uniform=true");
}

/* --- groups
 * --------------------------------------------------------------------------------------------------- */

Test(ssl, groups_are_dealt_in_contiguous_runs)
{
    Config config;
    ssl_support_config(&config, "train.batch_size_per_gpu=4 train.global_batch_size=44");
    for (int ranks = 1; ranks <= 11; ranks++) {
        int64_t next = 0, least = 11, most = 0;
        for (int rank = 0; rank < ranks; rank++) {
            SslGroups g;
            cr_assert_eq(ssl_groups_deal(&g, &config, rank, ranks, NULL), STATUS_OK);
            cr_expect(g.first_group == next && g.total_groups == 11 && g.group_size == 4);
            next += g.groups;
            least = g.groups < least ? g.groups : least;
            most = g.groups > most ? g.groups : most;
        }
        cr_expect(next == 11 && most - least <= 1, "%d ranks", ranks);
    }
    SslGroups g;
    Error error = {0};
    cr_expect_eq(ssl_groups_deal(&g, &config, 0, 12, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "12 ranks") && strstr(error.text, "11 groups"), "%s", error.text);
    config.train.global_batch_size = 0;
    cr_expect_eq(ssl_groups_deal(&g, &config, 1, 3, NULL), STATUS_OK);
    cr_expect(g.total_groups == 3 && g.groups == 1 && g.first_group == 1);
    config_fini(&config);
}

/* Centering before any update makes each target from its own row: a step over three groups is the mean of
 * three. */
Test(ssl, groups_together_are_the_mean_of_groups_alone)
{
    static const char *const OVERRIDES =
        "train.centering=centering student.drop_path_rate=0.3 student.drop_path_uniform=true";
    SslFigures together, alone;
    SslFixture *all = ssl_support_create(OVERRIDES, 41);
    together = ssl_support_step(all, 0.06);
    size_t n = (size_t)all->ssl.student.table.flat_count;
    float *mean = memory_alloc_array(n, sizeof(float));
    double total = 0;
    float dino_center[32] = {0}, ibot_center[24] = {0};
    for (int64_t group = 0; group < all->groups.total_groups; group++) {
        SslGroups one = {.group_size = 4, .total_groups = 3, .groups = 1, .first_group = group};
        SslFixture *f = ssl_support_create_groups(OVERRIDES, 41, &one);
        alone = ssl_support_step(f, 0.06);
        SslGroupLosses part = ssl_support_group_losses(all, group), own = ssl_support_group_losses(f, group);
        cr_expect_float_eq(part.koleo_loss, own.koleo_loss, 1e-6);
        cr_expect_float_eq(part.ibot_loss, own.ibot_loss, 1e-6);
        cr_expect_float_eq(part.dino_local_crops_loss, own.dino_local_crops_loss, 5e-6);
        cr_expect_float_eq(part.dino_global_crops_loss, own.dino_global_crops_loss, 2e-6);
        total += alone.total_loss; /* a third of the mean over groups */
        for (int k = 0; k < 32; k++)
            dino_center[k] += f->ssl.dino_center[k];
        for (int k = 0; k < 24; k++)
            ibot_center[k] += f->ssl.ibot_center[k];
        for (size_t i = 0; i < n; i++)
            mean[i] += f->ssl.gradients.local[i];
        ssl_support_destroy(f);
    }
    cr_expect_float_eq(together.total_loss, total, 1e-6 * total);
    double error = ssl_support_difference(all->ssl.gradients.local, mean, (int64_t)n);
    cr_expect(error < 3e-6, "gradients differ by %g", error);
    /* and so are the new centres, though groups have different numbers of masked patches */
    cr_expect(ssl_support_difference(all->ssl.dino_center, dino_center, 32) < 1e-5);
    cr_expect(ssl_support_difference(all->ssl.ibot_center, ibot_center, 24) < 1e-5);
    memory_free(mean);
    ssl_support_destroy(all);
}

/* --- pictures
 * ---------------------------------------------------------------------------------------------------------
 */

/* out[count] of pictures of `side` pixels = what their grey levels are. */
static void look_up(float *out, const uint8_t *levels, const float *values, int64_t count, int64_t side)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = values[i / (side * side) % 3 * 256 + levels[i]];
}

/* Grey levels give the losses and gradients, to the bit, of the same pictures normalised beforehand. */
Test(ssl, grey_levels_are_normalised_where_they_are_used)
{
    SslFixture *f = ssl_support_create("student.drop_path_rate=0.3 train.micro_batch_size=5", 91);
    Batch normalised = f->batch, grey = ssl_support_batch(&f->config, &f->groups, DTYPE_U8, NULL);
    PixelNorm norm = pixel_levels_imagenet();
    Tensor levels = pixel_levels_create(f->device, &norm);
    int64_t S = grey.samples, G = grey.global_size, l = grey.local_size, L = grey.local_count;
    size_t bytes = (size_t)f->ssl.student.table.flat_count * sizeof(float);
    float *grads = memory_alloc(bytes);
    ssl_support_fill(&grey, &f->config, 91, 0);
    look_up(normalised.global_crops, grey.global_crops, tensor_f32(levels), S * 2 * 3 * G * G, G);
    look_up(normalised.local_crops, grey.local_crops, tensor_f32(levels), S * L * 3 * l * l, l);
    double want = ssl_support_loss(f);
    memcpy(grads, f->ssl.gradients.local, bytes);
    f->batch = grey;
    f->ssl.levels = levels; /* the fixture's from here on */
    cr_expect_eq(ssl_support_loss(f), want);
    cr_expect_eq(memcmp(f->ssl.gradients.local, grads, bytes), 0);
    memory_free(grads);
    batch_fini(&normalised);
    ssl_support_destroy(f);
}

/* --- memory, repeatability, the update
 * ------------------------------------------------------------------------- */

static void full_step(SslFixture *f, AdamwOptimizer *optimizer, int64_t step)
{
    AdamwOptimizerStep update = {
        .schedule = {.lr = 1e-3, .last_layer_lr = 1e-3, .backbone_lr = 1e-3, .weight_decay = 0.04},
        .clip_grad = 3};
    f->batch.step = step;
    ssl_meta_arch_forward_backward(&f->ssl, &f->batch, 0.06);
    adamw_optimizer_step(optimizer, f->ops, f->ssl.student.local, f->ssl.gradients.local, f->ssl.control,
                         f->ssl.figures, &update);
    ssl_meta_arch_update_ema(&f->ssl, 0.9);
    ssl_meta_arch_refresh(&f->ssl);
}

Test(ssl, a_step_allocates_nothing)
{
    static const char *const CASES[] = {
        "student.drop_path_rate=0.3", "student.drop_path_rate=0.3 train.micro_batch_size=3",
        "ibot.separate_head=false train.centering=centering dino.koleo_scope=global"};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        SslFixture *f = ssl_support_create(CASES[i], 51);
        AdamwOptimizer optimizer;
        param_groups_assign(&f->ssl.student.table, 3, 0.9, 0.2);
        adamw_optimizer_init(&optimizer, &f->ssl.student.map, f->comm, f->device, 0.9, 0.999);
        full_step(f, &optimizer, 0);
        int64_t before = memory_allocation_count();
        full_step(f, &optimizer, 1);
        full_step(f, &optimizer, 2);
        cr_expect_eq(memory_allocation_count(), before, "%s: %lld allocations", CASES[i],
                     (long long)(memory_allocation_count() - before));
        adamw_optimizer_fini(&optimizer);
        ssl_support_destroy(f);
    }
}

Test(ssl, the_plan_holds_every_mask)
{
    /* the most masked patches that the configuration allows, and other draws of stochastic depth at each step
     */
    SslFixture *f = ssl_support_create("student.drop_path_rate=0.4 train.micro_batch_size=5 "
                                       "ibot.mask_sample_probability=1 ibot.mask_ratio_min_max=[0.4,0.5]",
                                       61);
    for (int64_t step = 0; step < 6; step++) {
        SslFigures figures;
        ssl_support_fill_batch(f, 61, step);
        figures = ssl_support_step(f, 0.06);
        cr_expect(isfinite(figures.total_loss));
        cr_expect(f->ssl.step.peak <= f->ssl.step.capacity);
    }
    ssl_support_destroy(f);
}

/* Threads only change the order of sums, and not even that from run to run. */
Test(ssl, two_runs_give_the_same_bits)
{
    enum { RUNS = 3 };
    SslFixture *runs[RUNS];
    for (int r = 0; r < RUNS; r++) {
        static const char *const THREADS[RUNS] = {"compute.threads=2", "compute.threads=2",
                                                  "compute.threads=1"};
        char overrides[160];
        snprintf(overrides, sizeof overrides, "train.global_batch_size=4 student.drop_path_rate=0.3 %s",
                 THREADS[r]);
        SslFixture *f = runs[r] = ssl_support_create(overrides, 71);
        AdamwOptimizer optimizer;
        adamw_optimizer_init(&optimizer, &f->ssl.student.map, f->comm, f->device, 0.9, 0.999);
        for (int64_t step = 0; step < 2; step++)
            full_step(f, &optimizer, step);
        adamw_optimizer_fini(&optimizer);
    }
    int64_t n = runs[0]->ssl.student.table.flat_count;
    size_t bytes = (size_t)n * sizeof(float);
    cr_expect(memcmp(runs[0]->ssl.student.local, runs[1]->ssl.student.local, bytes) == 0);
    cr_expect(memcmp(runs[0]->ssl.teacher.local, runs[1]->ssl.teacher.local, bytes) == 0);
    cr_expect(memcmp(runs[0]->ssl.gradients.local, runs[1]->ssl.gradients.local, bytes) == 0);
    cr_expect(ssl_support_difference(runs[0]->ssl.student.local, runs[2]->ssl.student.local, n) < 1e-3);
    for (int r = 0; r < RUNS; r++)
        ssl_support_destroy(runs[r]);
}

Test(ssl, initialisation_depends_on_the_seed_alone)
{
    SslFixture *a = ssl_support_create("", 1), *b = ssl_support_create("student.block_chunks=0", 2);
    size_t bytes = (size_t)a->ssl.student.table.flat_count * sizeof(float);
    ssl_meta_arch_initialise(&a->ssl, 5);
    ssl_meta_arch_initialise(&b->ssl, 5);
    cr_expect(memcmp(a->ssl.student.local, b->ssl.student.local, bytes) == 0);
    cr_expect(memcmp(a->ssl.student.local, a->ssl.teacher.local, bytes) == 0);
    ssl_meta_arch_initialise(&b->ssl, 6);
    cr_expect(memcmp(a->ssl.student.local, b->ssl.student.local, bytes) != 0);
    ssl_support_destroy(a);
    ssl_support_destroy(b);
}

Test(ssl, the_teacher_follows_slowly)
{
    SslFixture *f = ssl_support_create("", 81);
    int id = f->ssl.student.dino_head.weight_v;
    int64_t at = f->ssl.student.table.params[id].offset;
    double teacher = f->ssl.teacher.local[at], student = f->ssl.student.local[at];
    ssl_meta_arch_update_ema(&f->ssl, 0.9);
    cr_expect_float_eq(f->ssl.teacher.local[at], 0.9 * teacher + 0.1 * student, 1e-7);
    ssl_meta_arch_update_ema(&f->ssl, 1);
    cr_expect_float_eq(f->ssl.teacher.local[at], 0.9 * teacher + 0.1 * student, 1e-7);
    ssl_support_destroy(f);
}

/* --- reduced precision
 * ------------------------------------------------------------------------------------------ */

/* |a - b| / |b| over the gradients of a module. */
static double gradient_distance(const SslFixture *a, const SslFixture *b, ParamModule module)
{
    double error = 0, size = 0;
    for (int i = 0; i < b->ssl.student.table.count; i++) {
        const Param *p = &b->ssl.student.table.params[i];
        for (int64_t k = p->offset; p->module == module && k < p->offset + p->count; k++) {
            error += pow((double)a->ssl.gradients.local[k] - (double)b->ssl.gradients.local[k], 2);
            size += pow(b->ssl.gradients.local[k], 2);
        }
    }
    return sqrt(error / size);
}

static void check_bf16(const char *precision, const char *overrides)
{
    char text[640];
    SslFigures exact, reduced;
    snprintf(text, sizeof text, "%s%s%s", precision, *overrides ? " " : "", overrides);
    SslFixture *a = ssl_support_create(overrides, 91), *b = ssl_support_create(text, 91);
    exact = ssl_support_step(a, 0.1);
    reduced = ssl_support_step(b, 0.1);
    cr_expect(fabs(reduced.total_loss - exact.total_loss) < 0.02 * exact.total_loss, "%s: %g and %g", text,
              reduced.total_loss, exact.total_loss);
    cr_expect((reduced.total_loss != exact.total_loss) == b->ops->has_bf16, "%s: bf16 was not used", text);
    for (int m = 0; m < (a->ssl.student.shared_head ? 2 : 3); m++) {
        double distance = gradient_distance(b, a, (ParamModule)m);
        cr_expect(distance < 0.08, "%s: gradients of %s differ by %.3g", text,
                  param_module_name((ParamModule)m), distance);
    }
    ssl_support_destroy(a);
    ssl_support_destroy(b);
}

#define BF16(role, module) "compute_precision." role "." module ".mixed_precision.param_dtype=bf16"

Test(ssl, bf16_stays_near_fp32)
{
    static const char *const ALL = BF16("student", "backbone") " " BF16("student", "dino_head") " " BF16(
        "student", "ibot_head") " " BF16("teacher", "backbone") " " BF16("teacher",
                                                                         "dino_head") " " BF16("teacher",
                                                                                               "ibot_head");
    check_bf16(ALL, "");
    check_bf16(ALL, "student.drop_path_rate=0.3 student.ffn_layer=swiglufused student.num_register_tokens=1 "
                    "train.micro_batch_size=3");
    check_bf16(ALL, "ibot.separate_head=false dino.head_nlayers=1");
    check_bf16(BF16("student", "dino_head"), "");
    check_bf16(BF16("teacher", "ibot_head"), "");
    check_bf16(BF16("student", "backbone"), "");
}

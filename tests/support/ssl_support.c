/* ssl_support.c - tiny networks and batches for tests of a training step. */
#include "ssl_support.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/block_mask.h"
#include "ssl/ssl_step.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void set(Config *config, const char *assignment)
{
    Error error = {0};
    if (config_override(config, assignment, &error) == STATUS_OK) return;
    fprintf(stderr, "%s\n", error.text);
    CHECK(!"a test's override");
}

void ssl_support_config(Config *config, const char *overrides)
{
    static const char *const TINY[] = {
        "student.arch=vit_custom",
        "student.embed_dim=24",
        "student.depth=3",
        "student.num_heads=3",
        "student.patch_size=7",
        "student.drop_path_rate=0",
        "crops.global_crops_size=28",
        "crops.local_crops_size=14",
        "crops.local_crops_number=3",
        "dino.head_n_prototypes=32",
        "dino.head_bottleneck_dim=8",
        "dino.head_hidden_dim=20",
        "dino.koleo_loss_weight=1",
        "ibot.loss_weight=0.7",
        "ibot.separate_head=true",
        "ibot.head_n_prototypes=24",
        "ibot.head_bottleneck_dim=6",
        "ibot.head_hidden_dim=18",
        "train.batch_size_per_gpu=4",
        "train.global_batch_size=12",
        "train.centering=sinkhorn_knopp",
        "student.block_chunks=0",
        "train.seed=11",
        "compute.threads=1",
    };
    static const char *const MODULES[] = {"backbone", "dino_head", "ibot_head"};
    char text[160];
    config_init(config);
    for (size_t i = 0; i < sizeof TINY / sizeof *TINY; i++)
        set(config, TINY[i]);
    for (int i = 0; i < 6; i++) {
        snprintf(text, sizeof text, "compute_precision.%s.%s.mixed_precision.param_dtype=fp32",
                 i % 2 ? "teacher" : "student", MODULES[i / 2]);
        set(config, text);
    }
    for (const char *at = overrides ? overrides : ""; *at;) {
        int length = (int)strcspn(at, " ");
        snprintf(text, sizeof text, "%.*s", length, at);
        set(config, text);
        at += length + (at[length] == ' ');
    }
    Error error = {0};
    if (config_check(config, &error) != STATUS_OK) fprintf(stderr, "%s\n", error.text);
    CHECK(error.text[0] == '\0');
}

void ssl_support_random_params(const ParamTable *table, uint64_t seed, float *flat)
{
    memset(flat, 0, (size_t)table->flat_count * sizeof *flat);
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        Rng rng = rng_at(seed, RNG_TEST, 1, rng_hash_name(p->name) + (uint64_t)p->module);
        double std = 0.3, mean = 0;
        if (p->ndim >= 2 && p->shape[0] > 1) std = 0.8 / sqrt((double)(p->count / p->shape[0]));
        if (strstr(p->name, "norm") && strstr(p->name, "weight")) mean = 1, std = 0.2;
        if (strstr(p->name, "gamma")) mean = 0.7, std = 0.2;
        if (strstr(p->name, "weight_g")) mean = 1, std = 0.2;
        if (strstr(p->name, "weight_v")) std = 0.5;
        for (int64_t k = 0; k < p->count; k++)
            flat[p->offset + k] = (float)(mean + std * rng_normal(&rng));
    }
}

/* Normal numbers as pictures [n, 3, side, side] from picture `first` of `all` on; as grey levels they are
 * nearly that once they are normalised. */
static void fill_normal(Rng rng, Dtype pixels, void *all, int64_t first, int64_t n, int64_t side)
{
    PixelNorm norm = pixel_levels_imagenet();
    int64_t plane = side * side, begin = first * 3 * plane;
    for (int64_t i = 0; i < n * 3 * plane; i++) {
        int64_t c = i / plane % 3;
        double value = rng_normal(&rng), level = 255 * ((double)norm.mean[c] + (double)norm.std[c] * value);
        if (pixels == DTYPE_F32)
            ((float *)all)[begin + i] = (float)value;
        else
            ((uint8_t *)all)[begin + i] = (uint8_t)lrint(fmin(fmax(level, 0), 255));
    }
}

Batch ssl_support_batch(const Config *config, const SslGroups *groups, Dtype pixels, Device *device)
{
    int64_t side = config->crops.global_crops_size / config->student.patch_size;
    Batch batch = {.samples = groups->groups * groups->group_size,
                   .group_size = groups->group_size,
                   .groups = groups->groups,
                   .first_group = groups->first_group,
                   .local_count = config->crops.local_crops_number,
                   .global_size = config->crops.global_crops_size,
                   .local_size = config->crops.local_crops_size,
                   .patches = side * side,
                   .pixels = pixels};
    batch_init(&batch, device);
    return batch;
}

void ssl_support_fill(Batch *b, const Config *c, uint64_t seed, int64_t step)
{
    int64_t B = b->group_size, N = b->patches;
    b->step = step;
    for (int64_t s = 0; s < b->samples; s++) {
        uint64_t sample = (uint64_t)(b->first_group * B + s);
        fill_normal(rng_at(seed, RNG_TEST, (uint64_t)(2 + 2 * step), sample), b->pixels, b->global_crops,
                    2 * s, 2, b->global_size);
        fill_normal(rng_at(seed, RNG_TEST, (uint64_t)(3 + 2 * step), sample), b->pixels, b->local_crops,
                    b->local_count * s, b->local_count, b->local_size);
    }
    BlockMaskGrid grid = block_mask_grid(b->global_size, c->student.patch_size);
    uint8_t *masks = memory_alloc((size_t)(2 * B * N));
    for (int64_t group = 0; group < b->groups; group++) {
        Rng rng = rng_at(seed, RNG_MASK, (uint64_t)step, (uint64_t)(b->first_group + group));
        memset(masks, 0, (size_t)(2 * B * N));
        BlockMaskCounts counts =
            block_mask_group(&grid, 2 * B, c->ibot.mask_sample_probability, c->ibot.mask_ratio_min_max[0],
                             c->ibot.mask_ratio_min_max[1], rng, masks);
        b->upperbound[group] = counts.upperbound;
        for (int64_t i = 0; i < 2 * B; i++) /* crop-major to sample-major */
            memcpy(b->masks + ((group * B + i % B) * 2 + i / B) * N, masks + i * N, (size_t)N);
    }
    memory_free(masks);
}

void ssl_support_fill_batch(SslFixture *f, uint64_t seed, int64_t step)
{
    ssl_support_fill(&f->batch, &f->config, seed, step);
}

/* Everything but the weights and the batch; f->config, f->teacher and f->groups are set. */
static void build(SslFixture *f)
{
    Error error = {0};
    const Config *teacher = f->distilled ? &f->teacher : NULL;
    f->comm = comm_self_create();
    OpsLimits limits = ssl_ops_limits(&f->config, teacher, &f->groups);
    f->device = device_open_host();
    f->ops = ops_create(f->device, &limits, &(OpsOptions){.threads = (int)f->config.compute.threads});
    CHECK(fsdp_ranks_init(&f->ranks, &f->config, f->comm, f->device, &error) == STATUS_OK);
    ssl_meta_arch_init(&f->ssl, &f->config, teacher, &f->groups, NULL, f->ops, &f->ranks);
}

SslFixture *ssl_support_create_groups(const char *overrides, uint64_t seed, const SslGroups *groups)
{
    SslFixture *f = memory_alloc(sizeof *f);
    ssl_support_config(&f->config, overrides);
    Error error = {0};
    CHECK(groups || ssl_groups_deal(&f->groups, &f->config, 0, 1, &error) == STATUS_OK);
    if (groups) f->groups = *groups;
    build(f);
    ssl_support_random_params(&f->ssl.student.table, seed, f->ssl.student.local);
    ssl_support_random_params(&f->ssl.teacher.table, seed + 1, f->ssl.teacher.local);
    ssl_meta_arch_refresh(&f->ssl);
    f->batch = ssl_support_batch(&f->config, &f->groups, DTYPE_F32, NULL);
    ssl_support_fill_batch(f, seed, 0);
    return f;
}

SslFixture *ssl_support_create(const char *overrides, uint64_t seed)
{
    return ssl_support_create_groups(overrides, seed, NULL);
}

SslFixture *ssl_support_create_distilled(const char *overrides, const char *teacher_overrides, uint64_t seed)
{
    SslFixture *f = memory_alloc(sizeof *f);
    Error error = {0};
    ssl_support_config(&f->config, overrides);
    ssl_support_config(&f->teacher, teacher_overrides);
    f->distilled = true;
    CHECK(ssl_groups_deal(&f->groups, &f->config, 0, 1, &error) == STATUS_OK);
    build(f);
    ssl_support_random_params(&f->ssl.student.table, seed, f->ssl.student.local);
    ssl_support_random_params(&f->ssl.teacher.table, seed + 1, f->ssl.teacher.local);
    ssl_support_random_params(&f->ssl.student.table, seed + 2, f->ssl.model_ema->local);
    ssl_meta_arch_refresh(&f->ssl);
    ssl_meta_arch_teacher_changed(&f->ssl);
    f->batch = ssl_support_batch(&f->config, &f->groups, DTYPE_F32, NULL);
    ssl_support_fill_batch(f, seed, 0);
    memset(f->batch.masks, 1, (size_t)(f->batch.samples * 2 * f->batch.patches));
    return f;
}

void ssl_support_destroy(SslFixture *f)
{
    batch_fini(&f->batch);
    ssl_meta_arch_fini(&f->ssl);
    ops_destroy(f->ops);
    fsdp_ranks_fini(&f->ranks);
    device_close(f->device);
    comm_destroy(f->comm);
    config_fini(&f->config);
    if (f->distilled) config_fini(&f->teacher);
    memory_free(f);
}

SslFigures ssl_support_step(SslFixture *f, double teacher_temp)
{
    ssl_meta_arch_refresh(&f->ssl); /* weights may have been changed by hand */
    ssl_meta_arch_forward_backward(&f->ssl, &f->batch, teacher_temp);
    return ssl_meta_arch_last_figures(&f->ssl);
}

SslGroupLosses ssl_support_group_losses(const SslFixture *f, int64_t group)
{
    return ssl_meta_arch_group_losses(&f->ssl, tensor_f64(f->ssl.figures), group);
}

double ssl_support_loss(SslFixture *f)
{
    memset(f->ssl.dino_center, 0, (size_t)f->ssl.student.dino_head.config.prototypes * sizeof(float));
    memset(f->ssl.ibot_center, 0,
           (size_t)ssl_network_patch_head(&f->ssl.student)->config.prototypes * sizeof(float));
    return ssl_support_step(f, 0.1).total_loss;
}

double ssl_support_direction(const ParamTable *t, const float *grads, int first, int last, float *direction,
                             double *size)
{
    double gradient = 0, random = 0, slope = 0, length = 0;
    memset(direction, 0, (size_t)t->flat_count * sizeof *direction);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = first; i < last; i++) {
            const Param *p = &t->params[i];
            Rng rng = rng_at(5, RNG_TEST, 9, (uint64_t)i);
            for (int64_t k = p->offset; k < p->offset + p->count; k++) {
                double g = grads[k], r = rng_normal(&rng);
                if (pass == 0) {
                    gradient += g * g;
                    random += r * r;
                    continue;
                }
                direction[k] = (float)(g / sqrt(gradient + 1e-30) + r / sqrt(random));
                slope += g * (double)direction[k];
                length += (double)direction[k] * (double)direction[k];
            }
        }
    }
    *size = sqrt(gradient * length);
    return slope;
}

double ssl_support_slope(double (*loss)(void *context), void *context, float *flat, const float *direction,
                         int64_t count, double h)
{
    float *saved = memory_alloc_array((size_t)count, sizeof *saved);
    memcpy(saved, flat, (size_t)count * sizeof *saved);
    double at[4];
    static const double STEPS[4] = {-2, -1, 1, 2};
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < count; i++)
            flat[i] = (float)((double)saved[i] + STEPS[k] * h * (double)direction[i]);
        at[k] = loss(context);
    }
    memcpy(flat, saved, (size_t)count * sizeof *saved);
    memory_free(saved);
    return (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h);
}

double ssl_support_difference(const float *a, const float *b, int64_t count)
{
    double worst = 0, most = 0;
    for (int64_t i = 0; i < count; i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        if (isnan(error)) return INFINITY;
        worst = fmax(worst, error);
        most = fmax(most, fabs((double)b[i]));
    }
    return most > 0 ? worst / most : worst;
}

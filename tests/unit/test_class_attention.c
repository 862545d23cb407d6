/* test_class_attention.c - the class token's attention beside a plain computation from the block's input, on
 * pictures that are not square, with and without registers, in fp32 and bf16; what a mass keeps.
 */
#include "../support/ops_support.h"
#include "../support/ssl_support.h"

#include "base/memory.h"
#include "data/pixel_levels.h"
#include "features/class_attention.h"
#include "features/feature_extractor.h"

#include <criterion/criterion.h>
#include <math.h>

enum { PATCH = 4, HEIGHT = 12, WIDTH = 20, PATCHES = 15, D = 24, HEADS = 3, DEPTH = 3, TOKENS_MAX = 20 };

typedef struct {
    ParamTable table;
    Vit vit;
    float *flat;       /* owned */
    uint16_t *reduced; /* owned */
    float levels[3 * 256];
    uint8_t image[3 * HEIGHT * WIDTH];
    Weights weights;
    FeatureBackbone backbone;
    OpsLimits limits;
} Setting;

static void begin(Setting *s, int64_t registers, bool bf16)
{
    VitConfig config = {.embed_dim = D,
                        .depth = DEPTH,
                        .num_heads = HEADS,
                        .patch_size = PATCH,
                        .img_size = 16,
                        .num_register_tokens = registers,
                        .mlp_ratio = 4,
                        .qkv_bias = true,
                        .proj_bias = true,
                        .ffn_bias = true,
                        .layerscale = 1};
    *s = (Setting){0};
    param_table_init(&s->table);
    vit_build(&s->vit, &config, &s->table);
    s->flat = memory_alloc_array((size_t)s->table.flat_count, sizeof *s->flat);
    s->reduced = memory_alloc_array((size_t)s->table.flat_count, sizeof *s->reduced);
    ssl_support_random_params(&s->table, 21 + (uint64_t)registers, s->flat);
    for (int64_t i = 0; i < s->table.flat_count; i++)
        s->reduced[i] = dtype_bf16_from_f32(s->flat[i]);
    PixelNorm norm = pixel_levels_imagenet();
    pixel_levels_fill(s->levels, &norm);
    Rng rng = rng_at(22, RNG_TEST, 0, (uint64_t)registers);
    for (size_t i = 0; i < sizeof s->image; i++)
        s->image[i] = (uint8_t)rng_uniform(&rng, 0, 256);
    s->weights = (Weights){.master = param_values_flat(&s->table, s->flat),
                           .reduced = bf16 ? s->reduced : NULL,
                           .reduced_dtype = DTYPE_BF16};
    s->backbone = (FeatureBackbone){
        .vit = &s->vit, .weights = &s->weights, .levels = tensor_2d(s->levels, DTYPE_F32, 3, 256)};
    s->limits = backbone_pass_limits(&s->backbone, 1, HEIGHT, WIDTH);
}

static void end(Setting *s)
{
    vit_fini(&s->vit);
    param_table_fini(&s->table);
    memory_free(s->flat);
    memory_free(s->reduced);
}

/* input[tokens, D] of block `block` >= 1, in fp32; returns tokens. */
static int64_t capture(Setting *s, const Ops *ops, int64_t block, float *input)
{
    Tensor captures[DEPTH] = {{0}};
    int64_t shape[] = {1, 3, HEIGHT, WIDTH}, tokens = 1 + s->vit.config.num_register_tokens + PATCHES;
    Weights weights = s->weights;
    weights.reduced = NULL;
    captures[block - 1] = tensor_2d(input, DTYPE_F32, tokens, D);
    VitCrops crops = {.sequences = 1,
                      .height = HEIGHT,
                      .width = WIDTH,
                      .images = tensor_view(s->image, DTYPE_U8, 4, shape),
                      .levels = s->backbone.levels};
    VitInput pass_input = {
        .set_count = 1, .sets = {crops}, .act = DTYPE_F32, .blocks = block, .captures = captures};
    Arena plan = arena_measuring();
    vit_pass(&s->vit, &pass_input, &plan);
    Arena arena = device_arena_create(ops->device, &plan);
    VitPass pass = vit_pass(&s->vit, &pass_input, &arena);
    vit_forward(&s->vit, ops, &weights, &pass, NULL);
    device_arena_destroy(ops->device, &arena);
    return tokens;
}

/* row[D] after the block's first norm. */
static void plain_norm(const Setting *s, const VitBlock *block, const float *x, double *row)
{
    const float *scale = tensor_f32(weights_vector(&s->weights, block->norm1_weight));
    const float *shift = tensor_f32(weights_vector(&s->weights, block->norm1_bias));
    double mean = 0.0, squares = 0.0;
    for (int k = 0; k < D; k++)
        mean += (double)x[k] / D;
    for (int k = 0; k < D; k++)
        squares += ((double)x[k] - mean) * ((double)x[k] - mean) / D;
    for (int k = 0; k < D; k++)
        row[k] = ((double)x[k] - mean) / sqrt(squares + 1e-6) * (double)scale[k] + (double)shift[k];
}

/* out[HEADS, tokens] from the block's input. */
static void plain_attention(const Setting *s, const VitBlock *block, const float *input, int64_t tokens,
                            double *out)
{
    enum { WIDE = D / HEADS };
    const float *weight = tensor_f32(param_matrix_view(s->weights.master, block->qkv_weight));
    const float *bias = tensor_f32(param_vector_view(s->weights.master, block->qkv_bias));
    double qk[TOKENS_MAX][2 * D];
    for (int64_t t = 0; t < tokens; t++) {
        double row[D];
        plain_norm(s, block, input + t * D, row);
        for (int j = 0; j < 2 * D; j++) {
            qk[t][j] = (double)bias[j];
            for (int k = 0; k < D; k++)
                qk[t][j] += row[k] * (double)weight[j * D + k];
        }
    }
    for (int h = 0; h < HEADS; h++) {
        double sum = 0.0;
        for (int64_t t = 0; t < tokens; t++) {
            double score = 0.0;
            for (int c = h * WIDE; c < (h + 1) * WIDE; c++)
                score += qk[0][c] * qk[t][D + c];
            sum += out[h * tokens + t] = exp(score / sqrt(WIDE));
        }
        for (int64_t t = 0; t < tokens; t++)
            out[h * tokens + t] /= sum;
    }
}

static void compare(int64_t registers, bool bf16, double tolerance)
{
    Setting s;
    begin(&s, registers, bf16);
    Ops *ops = ops_support_open(&s.limits, 1);
    for (int64_t block = 1; block < DEPTH; block++) {
        float input[TOKENS_MAX * D], got[HEADS * TOKENS_MAX];
        double want[HEADS * TOKENS_MAX], spread = 0.0;
        int64_t tokens = capture(&s, ops, block, input);
        plain_attention(&s, &s.vit.blocks[block], input, tokens, want);
        class_attention_compute(&s.backbone, ops, s.image, HEIGHT, WIDTH, block, got);
        for (int h = 0; h < HEADS; h++) {
            double sum = 0.0;
            for (int64_t t = 0; t < tokens; t++) {
                int64_t i = h * tokens + t;
                sum += (double)got[i];
                spread = fmax(spread, fabs(want[i] - 1.0 / (double)tokens));
                cr_expect_float_eq((double)got[i], want[i], tolerance, "block %lld, head %d, token %lld",
                                   (long long)block, h, (long long)t);
            }
            cr_expect_float_eq(sum, 1.0, 1e-6);
        }
        cr_expect(spread > 0.02, "attention is the same everywhere: it would be right by itself");
    }
    ops_support_close(ops);
    end(&s);
}

Test(class_attention, is_that_of_a_plain_computation)
{
    compare(0, false, 1e-6);
    compare(2, false, 1e-6);
    compare(4, true, 2e-2);
}

Test(class_attention, a_mass_keeps_the_fewest_that_hold_it)
{
    const float weights[] = {0.1f, 0.4f, 0.05f, 0.3f, 0.15f};
    const struct {
        double mass;
        uint8_t kept[5];
    } cases[] = {
        {0.0, {0, 0, 0, 0, 0}}, {0.4, {0, 1, 0, 0, 0}}, {0.6, {0, 1, 0, 1, 0}},
        {0.9, {1, 1, 0, 1, 1}}, {1.0, {1, 1, 1, 1, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t kept[5];
        class_attention_keep(kept, weights, 5, cases[i].mass - 1e-7);
        cr_expect_arr_eq(kept, cases[i].kept, 5, "mass %g", cases[i].mass);
    }
}

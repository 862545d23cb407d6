/* test_bf16_features.c - features made of bf16 products classify as well as those made in fp32: the same
 * weights, the same pictures, k-NN within 2 points.
 *
 * The pictures are a pattern per class in noise of a strength that leaves a good part of them on the wrong
 * side, so that there is an accuracy to lose.
 */
#include "../support/ops_support.h"
#include "../support/ssl_support.h"

#include "base/memory.h"
#include "data/pixel_levels.h"
#include "eval/knn.h"
#include "features/feature_extractor.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 10, BANK = 800, QUERIES = 800, IMAGES = BANK + QUERIES, BATCH = 100, EDGE = 32, K = 10 };
enum { PIXELS = 3 * EDGE * EDGE };

static const double NOISE = 2.0, POINTS = 2.0;
static const PixelNorm NORM = {{0.5f, 0.5f, 0.5f}, {0.1f, 0.1f, 0.1f}};

typedef struct {
    ParamTable table;
    Vit vit;
    float *flat;       /* weights; owned */
    uint16_t *reduced; /* the same in bf16; owned */
    float levels[3 * 256];
    uint8_t *images; /* [IMAGES, 3, EDGE, EDGE] owned */
    int64_t *labels; /* [IMAGES] owned */
} Setting;

/* The grey level that is `value` once normalised. */
static uint8_t level_of(double value)
{
    return (uint8_t)lrint(fmin(fmax(255.0 * (NORM.mean[0] + NORM.std[0] * value), 0), 255));
}

static void draw_images(Setting *s, uint64_t seed)
{
    pixel_levels_fill(s->levels, &NORM);
    float *patterns = memory_alloc_array((size_t)CLASSES * PIXELS, sizeof *patterns);
    Rng rng = rng_at(seed, RNG_TEST, 40, 0);
    for (int64_t i = 0; i < CLASSES * PIXELS; i++)
        patterns[i] = (float)rng_normal(&rng);
    s->images = memory_alloc_array((size_t)IMAGES * PIXELS, sizeof *s->images);
    s->labels = memory_alloc_array(IMAGES, sizeof *s->labels);
    for (int64_t i = 0; i < IMAGES; i++) {
        s->labels[i] = i % CLASSES;
        for (int64_t p = 0; p < PIXELS; p++)
            s->images[i * PIXELS + p] =
                level_of((double)patterns[s->labels[i] * PIXELS + p] + NOISE * rng_normal(&rng));
    }
    memory_free(patterns);
}

static Setting begin(uint64_t seed)
{
    Setting s = {0};
    VitConfig config = {.embed_dim = 48,
                        .depth = 4,
                        .num_heads = 4,
                        .patch_size = 8,
                        .img_size = EDGE,
                        .mlp_ratio = 4,
                        .qkv_bias = true,
                        .proj_bias = true,
                        .ffn_bias = true,
                        .layerscale = 1};
    param_table_init(&s.table);
    vit_build(&s.vit, &config, &s.table);
    size_t n = (size_t)s.table.flat_count;
    s.flat = memory_alloc_array(n, sizeof *s.flat);
    s.reduced = memory_alloc_array(n, sizeof *s.reduced);
    ssl_support_random_params(&s.table, seed, s.flat);
    for (size_t i = 0; i < n; i++)
        s.reduced[i] = dtype_bf16_from_f32(s.flat[i]);
    draw_images(&s, seed);
    return s;
}

static void end(Setting *s)
{
    vit_fini(&s->vit);
    param_table_fini(&s->table);
    memory_free(s->flat);
    memory_free(s->reduced);
    memory_free(s->images);
    memory_free(s->labels);
}

/* features[IMAGES, D]: means of the patch tokens. */
static float *extract(Setting *s, const Ops *ops, bool bf16)
{
    int64_t D = s->vit.config.embed_dim, patches = vit_patches(&s->vit, EDGE, EDGE);
    Weights weights = {.master = param_values_flat(&s->table, s->flat),
                       .reduced = bf16 ? s->reduced : NULL,
                       .reduced_dtype = DTYPE_BF16};
    FeatureBackbone backbone = {
        .vit = &s->vit, .weights = &weights, .levels = tensor_2d(s->levels, DTYPE_F32, 3, 256)};
    float *tokens = memory_alloc_array((size_t)(BATCH * patches * D), sizeof *tokens);
    float *features = memory_alloc_array((size_t)(IMAGES * D), sizeof *features);
    for (int64_t first = 0; first < IMAGES; first += BATCH) {
        feature_extractor_patch_tokens(&backbone, ops, s->images + first * PIXELS, BATCH, EDGE, EDGE, tokens);
        for (int64_t row = 0; row < BATCH * patches; row++)
            for (int64_t j = 0; j < D; j++)
                features[(first + row / patches) * D + j] += tokens[row * D + j] / (float)patches;
    }
    memory_free(tokens);
    return features;
}

/* Top-1 in percent. */
static double classify(const Setting *s, const Ops *ops, float *features)
{
    Error error = {0};
    KnnScore score;
    int64_t D = s->vit.config.embed_dim;
    Comm *comm = comm_self_create();
    KnnRows bank = {.count = BANK, .d = D, .values = features, .labels = s->labels};
    KnnRows queries = {.count = QUERIES, .d = D, .values = features + BANK * D, .labels = s->labels + BANK};
    KnnNeighbour *found = memory_alloc_array(QUERIES * K, sizeof *found);
    float *votes = memory_alloc_array(QUERIES * CLASSES, sizeof *votes);
    cr_assert_eq(knn_normalize(ops, features, IMAGES, D, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(knn_search(found, ops, comm, &bank, &queries, K, &error), STATUS_OK, "%s", error.text);
    knn_votes(votes, found, QUERIES, K, K, CLASSES, 0.07);
    knn_score(&score, comm, votes, queries.labels, QUERIES, CLASSES);
    memory_free(found);
    memory_free(votes);
    comm_destroy(comm);
    return 100 * score.top1;
}

Test(bf16_features, classify_within_two_points_of_fp32, .timeout = 60)
{
    Setting s = begin(7);
    int64_t D = s.vit.config.embed_dim, tokens = 1 + vit_patches(&s.vit, EDGE, EDGE);
    OpsLimits limits = {.rows = BATCH * tokens,
                        .width = 8 * D,
                        .max_seqlen = tokens,
                        .head_dim = D / s.vit.config.num_heads,
                        .reduced = true};
    Ops *ops = ops_support_open(&limits, 1);
    OpsLimits search_limits = knn_limits(D);
    Ops *search = ops_support_open(&search_limits, 1);
    cr_assert(ops->has_bf16 || !getenv("CI"), "this processor does not multiply bf16");
    if (!ops->has_bf16) cr_skip_test("this processor does not multiply bf16");
    float *exact = extract(&s, ops, false), *reduced = extract(&s, ops, true);
    double apart = ssl_support_difference(reduced, exact, IMAGES * D);
    cr_expect(apart > 1e-5 && apart < 0.1, "features differ by %g", apart);
    double top1_exact = classify(&s, search, exact), top1_reduced = classify(&s, search, reduced);
    cr_log_info("features differ by %g; top-1 fp32 %.2f %%, bf16 %.2f %%", apart, top1_exact, top1_reduced);
    cr_expect(top1_exact > 40 && top1_exact < 90, "%.2f %% leaves something to lose", top1_exact);
    cr_expect_leq(fabs(top1_exact - top1_reduced), POINTS, "fp32 %.2f %%, bf16 %.2f %%", top1_exact,
                  top1_reduced);
    memory_free(exact);
    memory_free(reduced);
    ops_support_close(ops);
    ops_support_close(search);
    end(&s);
}

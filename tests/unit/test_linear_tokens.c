/* test_linear_tokens.c - tokens of a batch beside the feature extractor's, in one pass and in several. */
#include "base/memory.h"
#include "base/rng.h"
#include "eval/eval_model.h"
#include "eval/linear_tokens.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { EDGE = 32, PATCHES = 16, D = 32, DEPTH = 3, IMAGES = 5 };

static void make_config(Config *config)
{
    static const char *const keys[] = {
        "student.arch=vit_custom",   "student.embed_dim=32",          "student.depth=3",
        "student.num_heads=2",       "student.patch_size=8",          "crops.global_crops_size=32",
        "crops.local_crops_size=16", "student.num_register_tokens=2", "student.layerscale=1.0"};
    Error error = {0};
    config_init(config);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_assert_eq(config_override(config, keys[i], &error), STATUS_OK, "%s", error.text);
}

static float *copy_tokens(const LinearProbeTokens *tokens)
{
    size_t classes = (size_t)(tokens->rows * D), patches = (size_t)(tokens->rows * tokens->patches * D);
    float *copy = memory_alloc_array((size_t)tokens->blocks * classes + patches, sizeof *copy);
    for (int64_t b = 0; b < tokens->blocks; b++)
        memcpy(copy + (size_t)b * classes, tokens->class_tokens[b], classes * sizeof *copy);
    memcpy(copy + (size_t)tokens->blocks * classes, tokens->patch_tokens, patches * sizeof *copy);
    return copy;
}

static float *tokens_in_passes(const EvalModel *model, Device *device, uint8_t *images, int64_t blocks,
                               int64_t pass_images)
{
    OpsLimits limits = backbone_pass_limits(&model->backbone, pass_images, EDGE, EDGE);
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = 1});
    LinearTokensSpec spec = {
        .blocks = blocks, .most = IMAGES, .pass_images = pass_images, .height = EDGE, .width = EDGE};
    LinearTokens *tokens = linear_tokens_create(&model->backbone, device, &spec);
    LinearProbeTokens out = linear_tokens_run(tokens, ops, images, IMAGES);
    cr_assert(out.rows == IMAGES && out.blocks == blocks && out.patches == PATCHES);
    float *copy = copy_tokens(&out);
    linear_tokens_destroy(tokens);
    ops_destroy(ops);
    return copy;
}

static double worst(const float *a, const float *b, int64_t n)
{
    double most = 0.0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

Test(linear_tokens, any_pass_and_the_extractors_patch_tokens)
{
    Config config;
    make_config(&config);
    EvalModel model;
    Error error = {0};
    cr_assert_eq(eval_model_untrained(&model, &config, &error), STATUS_OK, "%s", error.text);
    Device *device = device_open_host();
    eval_model_place(&model, device);
    uint8_t images[IMAGES * 3 * EDGE * EDGE];
    Rng rng = rng_at(3, RNG_TEST, 0, 0);
    for (size_t i = 0; i < sizeof images; i++)
        images[i] = (uint8_t)rng_integer(&rng, 0, 255);

    float *whole = tokens_in_passes(&model, device, images, DEPTH, IMAGES);
    float *parts = tokens_in_passes(&model, device, images, DEPTH, 2);
    float *last = tokens_in_passes(&model, device, images, 1, IMAGES);
    int64_t classes = IMAGES * D, patches = IMAGES * PATCHES * D;
    cr_expect_lt(worst(whole, parts, DEPTH * classes + patches), 1e-5);
    cr_expect_lt(worst(whole + (DEPTH - 1) * classes, last, classes + patches), 1e-6);
    cr_expect_gt(worst(whole, whole + classes, classes), 1e-3, "blocks differ");

    OpsLimits limits = backbone_pass_limits(&model.backbone, IMAGES, EDGE, EDGE);
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = 1});
    float *extracted = memory_alloc_array((size_t)patches, sizeof *extracted);
    feature_extractor_patch_tokens(&model.backbone, ops, images, IMAGES, EDGE, EDGE, extracted);
    cr_expect_lt(worst(whole + DEPTH * classes, extracted, patches), 1e-6);
    ops_destroy(ops);
    memory_free(extracted);
    memory_free(whole);
    memory_free(parts);
    memory_free(last);
    eval_model_fini(&model);
    device_close(device);
    config_fini(&config);
}

/* test_one_place.c - all that evaluates takes network, patches, registers, normalisation and picture size
 * from the checkpoint: of one whose values are all unlike the defaults the features are those of a network
 * built here by hand, and no option can contradict it.
 */
#include "../support/process.h"
#include "../support/ssl_support.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "ckpt/checkpoint.h"
#include "config/config.h"
#include "data/augment.h"
#include "data/data_set.h"
#include "data/pixel_levels.h"
#include "features/feature_extractor.h"
#include "features/features_file.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D = 24, COUNT = 5, NATIVE = 20, OTHER = 28, LIMIT_SECONDS = 60 };

#define DATA "synthetic:classes=2,size=40,count=5,seed=3"

static const VitConfig VIT = {.embed_dim = D,
                              .depth = 2,
                              .num_heads = 3,
                              .patch_size = 4,
                              .img_size = NATIVE,
                              .num_register_tokens = 3,
                              .mlp_ratio = 4,
                              .swiglu = true,
                              .qkv_bias = false,
                              .proj_bias = true,
                              .ffn_bias = false,
                              .layerscale = 0.5,
                              .interpolate_antialias = true,
                              .interpolate_offset = 0.0};
static const PixelNorm NORM = {{0.3f, 0.6f, 0.5f}, {0.2f, 0.35f, 0.15f}};

/* The same as a training would save it. */
static const char CONFIG[] =
    "student: {arch: vit_custom, embed_dim: 24, depth: 2, num_heads: 3, patch_size: 4,\n"
    "  num_register_tokens: 3, ffn_layer: swiglufused, qkv_bias: false, ffn_bias: false,\n"
    "  layerscale: 0.5, interpolate_antialias: true, interpolate_offset: 0}\n"
    "crops: {global_crops_size: 20, local_crops_size: 12}\n";

typedef struct {
    TempFolder temp;
    TempPath model, features;
    ParamTable table;
    Vit vit;
    float *flat; /* owned */
} Setting;

static void save(const Setting *s)
{
    Config config;
    Error error = {0};
    Comm *comm = comm_self_create();
    ShardMap map;
    config_init(&config);
    cr_assert_eq(config_load_text(&config, "odd", CONFIG, strlen(CONFIG), &error), STATUS_OK, "%s",
                 error.text);
    char *text = config_dump(&config);
    shard_map_init_whole(&map, &s->table, comm);
    CheckpointState state = {.map = &map,
                             .model_ema = s->flat,
                             .meta = {.loss_scale = 1,
                                      .config = text,
                                      .arch = "vit_custom",
                                      .embed_dim = D,
                                      .patch_size = VIT.patch_size,
                                      .n_registers = VIT.num_register_tokens,
                                      .global_crops_size = NATIVE,
                                      .local_crops_size = 12}};
    for (int c = 0; c < 3; c++) {
        state.meta.mean[c] = NORM.mean[c];
        state.meta.std[c] = NORM.std[c];
    }
    cr_assert_eq(checkpoint_save_model_ema(s->model.text, &state, comm, &error), STATUS_OK, "%s", error.text);
    memory_free(text);
    shard_map_fini(&map);
    config_fini(&config);
    comm_destroy(comm);
}

static void begin(Setting *s)
{
    *s = (Setting){.temp = temp_folder_create()};
    s->model = temp_folder_in(&s->temp, "odd.h5");
    s->features = temp_folder_in(&s->temp, "features.h5");
    param_table_init(&s->table);
    vit_build(&s->vit, &VIT, &s->table);
    s->flat = memory_alloc_array((size_t)s->table.flat_count, sizeof *s->flat);
    ssl_support_random_params(&s->table, 5, s->flat);
    save(s);
}

static void end(Setting *s)
{
    vit_fini(&s->vit);
    param_table_fini(&s->table);
    memory_free(s->flat);
    temp_folder_destroy(&s->temp);
}

/* --- features by hand --- */

static void mean_of_tokens(const Setting *s, const PixelNorm *norm, const uint8_t *crop, int64_t edge,
                           Device *host, float *row)
{
    int64_t patches = vit_patches(&s->vit, edge, edge);
    float *tokens = memory_alloc_array((size_t)(patches * D), sizeof *tokens);
    uint8_t *copy = memory_alloc((size_t)(3 * edge * edge));
    memcpy(copy, crop, (size_t)(3 * edge * edge));
    Weights weights = {.master = param_values_flat(&s->table, s->flat)};
    FeatureBackbone backbone = {
        .vit = &s->vit, .weights = &weights, .levels = pixel_levels_create(host, norm)};
    FeatureExtractor extractor = {.kind = FEATURE_MEAN_PATCH,
                                  .input = {.crop_size = edge, .resize_size = edge, .batch_size = 1},
                                  .backbone = &backbone};
    OpsLimits limits = feature_extractor_limits(&extractor);
    Ops *ops = ops_create(host, &limits, &(OpsOptions){.threads = 1});
    feature_extractor_patch_tokens(&backbone, ops, copy, 1, edge, edge, tokens);
    ops_destroy(ops);
    for (int64_t j = 0; j < D; j++) {
        double sum = 0;
        for (int64_t p = 0; p < patches; p++)
            sum += (double)tokens[p * D + j];
        row[j] = (float)(sum / (double)patches);
    }
    device_free(host, backbone.levels.data);
    memory_free(copy);
    memory_free(tokens);
}

/* rows[COUNT, D] of the data set, pictures to `resize` and then the centre of `edge` pixels. */
static void by_hand(const Setting *s, const PixelNorm *norm, int64_t resize, int64_t edge, float *rows)
{
    Error error = {0};
    DataSet *set;
    cr_assert_eq(data_set_create(&set, DATA, &error), STATUS_OK, "%s", error.text);
    Device *host = device_open_host();
    Image image = {0};
    DataBuffer buffer = {0};
    AugmentScratch *scratch = augment_scratch_create();
    uint8_t *crop = memory_alloc((size_t)(3 * edge * edge));
    for (int64_t i = 0; i < COUNT; i++) {
        cr_assert_eq(data_set_load_image(set, i, &image, &buffer, &error), STATUS_OK, "%s", error.text);
        augment_eval(&image, resize, edge, crop, scratch);
        mean_of_tokens(s, norm, crop, edge, host, rows + i * D);
    }
    memory_free(crop);
    augment_scratch_destroy(scratch);
    data_buffer_destroy(&buffer);
    image_destroy(&image);
    device_close(host);
    data_set_destroy(set);
}

/* The largest difference to what the program wrote, which saw pictures of `edge` pixels. */
static double difference(const Setting *s, const float *rows, int64_t edge)
{
    FeaturesFile file;
    Error error = {0};
    float found[COUNT * D];
    double most = 0;
    cr_assert_eq(features_file_open(&file, s->features.text, &error), STATUS_OK, "%s", error.text);
    cr_assert(file.n == COUNT && file.d == D && file.meta.input_size == edge);
    cr_assert_eq(features_file_read(&file, 0, COUNT, found, NULL, &error), STATUS_OK);
    features_file_close(&file);
    for (int i = 0; i < COUNT * D; i++)
        most = fmax(most, fabs((double)found[i] - (double)rows[i]));
    return most;
}

static void extract(const Setting *s, const char *word)
{
    ProcessResult result = process_run_dinobatch(
        0,
        WORDS("extract", "--model", s->model.text, "--data", DATA, "--layer", "mean_patch", "--output-dir",
              s->features.text, "compute.threads=1", "compute.device=cpu", "train.num_workers=0", word),
        LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

Test(one_place, features_are_those_of_the_checkpoint, .timeout = 120)
{
    Setting s;
    float rows[COUNT * D];
    PixelNorm imagenet = pixel_levels_imagenet();
    begin(&s);
    extract(&s, NULL); /* the picture size is the checkpoint's, too: 20 of 23 pixels */
    by_hand(&s, &NORM, 23, NATIVE, rows);
    cr_expect_lt(difference(&s, rows, NATIVE), 1e-5);
    by_hand(&s, &imagenet, 23, NATIVE, rows);
    cr_expect_gt(difference(&s, rows, NATIVE), 1e-2, "the normalisation does not count");

    extract(&s, "evaluation.crop_size=28"); /* which resamples the position embedding; of 32 pixels */
    by_hand(&s, &NORM, 32, OTHER, rows);
    cr_expect_lt(difference(&s, rows, OTHER), 1e-5);
    s.vit.config.interpolate_antialias = false;
    s.vit.config.interpolate_offset = 0.1;
    by_hand(&s, &NORM, 32, OTHER, rows);
    cr_expect_gt(difference(&s, rows, OTHER), 1e-4, "the resampling does not count");
    end(&s);
}

/* --- contradictions --- */

static void expect_refused(const Setting *s, const char *key, const char *const *words)
{
    const char *all[24] = {words[0]};
    int count = 1;
    for (; words[count]; count++)
        all[count] = words[count];
    TempPath out = temp_folder_in(&s->temp, "out");
    const char *more[] = {"--output-dir", out.text, "compute.threads=1", "compute.device=cpu"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        all[count++] = more[i];
    ProcessResult result = process_run_dinobatch(0, all, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "%s %s: exit %d: %s", words[0], key, result.exit_status, result.err);
    cr_expect(strstr(result.err, key) && strstr(result.err, "in the checkpoint, and cannot become"),
              "%s: '%s' not in: %s", words[0], key, result.err);
    process_result_fini(&result);
}

Test(one_place, no_option_contradicts_the_checkpoint, .timeout = 120)
{
    Setting s;
    begin(&s);
    const char *model = s.model.text;
    TempPath config = temp_folder_in(&s.temp, "other.yaml"), png = temp_folder_in(&s.temp, "o.png");
    TempPath safetensors = temp_folder_in(&s.temp, "o.safetensors");
    temp_folder_write(&s.temp, "other.yaml", "student: {num_register_tokens: 0}\n");
    expect_refused(&s, "student.patch_size",
                   WORDS("extract", "--model", model, "--data", DATA, "student.patch_size=8"));
    expect_refused(&s, "student.num_register_tokens",
                   WORDS("extract", "--model", model, "--data", DATA, "--config-file", config.text));
    expect_refused(&s, "crops.global_crops_size",
                   WORDS("evaluate", "knn", "--model", model, "--train-data", DATA, "--val-data", DATA,
                         "crops.global_crops_size=40"));
    expect_refused(&s, "student.ffn_layer",
                   WORDS("evaluate", "logreg", "--model", model, "--train-data", DATA, "--val-data", DATA,
                         "student.ffn_layer=mlp"));
    expect_refused(&s, "student.num_heads",
                   WORDS("evaluate", "linear", "--model", model, "--train-data", DATA, "--val-data", DATA,
                         "student.num_heads=6"));
    expect_refused(&s, "student.interpolate_antialias",
                   WORDS("evaluate", "retrieval", "--model", model, "--train-data", DATA, "--val-data", DATA,
                         "student.interpolate_antialias=false"));
    expect_refused(&s, "student.interpolate_offset",
                   WORDS("visualize", "pca", "--model", model, "--data", DATA, "--output", png.text,
                         "student.interpolate_offset=0.1"));
    expect_refused(&s, "student.num_register_tokens",
                   WORDS("convert", model, safetensors.text, "--config-file", config.text));
    end(&s);
}

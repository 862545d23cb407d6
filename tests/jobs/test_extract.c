/* test_extract.c - extract by the real program with a copy-detection network: ranks, shapes, whitening, and
 * what it refuses; a network's grid of patches, fewer dimensions, and pictures upside down. */
#include "../support/process.h"
#include "../support/sscd_weights.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "ckpt/descriptor_file.h"
#include "data/data_set.h"
#include "data/image_encode.h"
#include "features/features_file.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { DIMS = 8, LIMIT_SECONDS = 120 };

#define DATA  "synthetic:classes=3,size=40,count=11,seed=2"
#define QUICK "train.num_workers=1", "compute.threads=1", "evaluation.batch_size=4", "compute.device=cpu"

typedef struct {
    TempFolder folder;
    TempPath weights, model; /* the file, and "sscd:" in front */
} Setting;

static Setting begin(void)
{
    Setting s = {.folder = temp_folder_create()};
    DescriptorMeta meta = {.config = {.arch = RESNET_18, .dims = DIMS, .gem_p = 3.0, .bn_eps = 1e-5},
                           .mean = {0.485, 0.456, 0.406},
                           .std = {0.229, 0.224, 0.225},
                           .source = "a formula"};
    ParamTable table;
    Resnet resnet;
    param_table_init(&table);
    resnet_build(&resnet, &meta.config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    sscd_weights_fill(&table, 1, flat);
    s.weights = temp_folder_in(&s.folder, "sscd.h5");
    snprintf(s.model.text, sizeof s.model.text, "sscd:%.300s", s.weights.text);
    Comm *comm = comm_self_create();
    cr_assert_eq(descriptor_file_save(s.weights.text, &meta, &table, flat, comm, NULL), STATUS_OK);
    comm_destroy(comm);
    memory_free(flat);
    param_table_fini(&table);
    return s;
}

static void end(Setting *s)
{
    temp_folder_destroy(&s->folder);
}

static void run_well(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

static void expect_refused(const char *const *words, const char *part)
{
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_not_null(strstr(result.err, part), "\"%s\" is not in:\n%s", part, result.err);
    process_result_fini(&result);
}

/* All rows of a features file; memory_free. */
static float *read_rows(const char *path, int64_t n, const char *layer, int64_t input_size)
{
    FeaturesFile file;
    Error error = {0};
    cr_assert_eq(features_file_open(&file, path, &error), STATUS_OK, "%s", error.text);
    cr_assert(file.n == n && file.d == DIMS && file.meta.input_size == input_size);
    cr_assert_str_eq(file.meta.arch, "sscd_resnet18");
    cr_assert_str_eq(file.meta.layer, layer);
    float *rows = memory_alloc_array((size_t)(n * DIMS), sizeof *rows);
    cr_assert_eq(features_file_read(&file, 0, n, rows, NULL, NULL), STATUS_OK);
    features_file_close(&file);
    return rows;
}

static double worst(const float *a, const float *b, int64_t count)
{
    double most = 0.0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

Test(extract, a_copy_detector_on_any_ranks, .timeout = 300)
{
    Setting s = begin();
    TempPath one = temp_folder_in(&s.folder, "one.h5"), three = temp_folder_in(&s.folder, "three.h5");
    TempPath whole = temp_folder_in(&s.folder, "whole.h5"), white = temp_folder_in(&s.folder, "white.h5");
    const char *model = s.model.text;
    run_well(0, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", one.text, QUICK));
    run_well(3, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", three.text, QUICK));
    run_well(0, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", whole.text, "--resize",
                      "shorter", QUICK));
    run_well(2, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", white.text, "--whiten",
                      one.text, QUICK));
    run_well(0, WORDS("validate", white.text));
    run_well(0, WORDS("validate", s.weights.text));
    float *alone = read_rows(one.text, 11, "embedding", 320);
    float *together = read_rows(three.text, 11, "embedding", 320);
    float *other = read_rows(whole.text, 11, "embedding", 288);
    float *whitened = read_rows(white.text, 11, "embedding_whitened", 320);
    cr_expect_leq(worst(alone, together, 11 * DIMS), 1e-5);
    cr_expect(worst(alone, other, 11 * DIMS) > 1e-3, "another size of the same pictures");
    for (int i = 0; i < 11; i++) {
        double length = 0.0, white_length = 0.0;
        for (int j = 0; j < DIMS; j++) {
            length += (double)alone[i * DIMS + j] * (double)alone[i * DIMS + j];
            white_length += (double)whitened[i * DIMS + j] * (double)whitened[i * DIMS + j];
        }
        cr_expect_float_eq(length, 1.0, 1e-5);
        cr_expect_float_eq(white_length, 1.0, 1e-5);
    }
    memory_free(alone);
    memory_free(together);
    memory_free(other);
    memory_free(whitened);
    /* learned at another size */
    expect_refused(WORDS("extract", "--model", model, "--data", DATA, "--output-dir", white.text, "--center",
                         whole.text, QUICK),
                   "at 288 pixels");
    end(&s);
}

Test(extract, a_copy_detector_refuses_what_it_cannot_do, .timeout = 120)
{
    Setting s = begin();
    TempPath out = temp_folder_in(&s.folder, "out.h5");
#define EXTRACT(...) WORDS("extract", "--data", DATA, "--output-dir", out.text, QUICK, __VA_ARGS__)
    const char *model = s.model.text;
    expect_refused(EXTRACT("--model", "sscd:/nowhere/x.h5"), "/nowhere/x.h5");
    expect_refused(EXTRACT("--model", s.weights.text), "sscd.h5"); /* no checkpoint */
    expect_refused(EXTRACT("--model", model, "--resize", "round"), "expected square or shorter");
    expect_refused(EXTRACT("--model", model, "--layer", "mean_patch"), "--layer is not for");
    expect_refused(EXTRACT("--model", model, "--center", "a.h5", "--whiten", "b.h5"), "choose one");
    expect_refused(EXTRACT("--model", model, "--whiten", "/nowhere/b.h5"), "/nowhere/b.h5");
    expect_refused(EXTRACT("--model", "run", "--resize", "shorter"), "expected square or centre");
    expect_refused(EXTRACT("--model", "raw-pixels", "--which", "student"), "--which is not for");
    expect_refused(EXTRACT("--model", "untrained", "student.arch=vit_tiny"), "student.arch");
    expect_refused(EXTRACT("--model", model, "--views", "mirror,crop:2:3"),
                   "--views: \"crop:2:3\": expected");
    end(&s);
}

/* --- a grid of patches, fewer dimensions, upside down --- */

#define GRID(layer)                                                                              \
    "student.arch=vit_custom", "student.embed_dim=32", "student.depth=2", "student.num_heads=2", \
        "student.patch_size=8", "student.layerscale=1", "evaluation.crop_size=32",               \
        "evaluation.resize_size=32", "--layer", layer, "--model", "untrained", "--resize", "square"

/* All rows of a file of that many rows and columns; memory_free. */
static float *read_grid(const char *path, int64_t n, int64_t d, const char *layer)
{
    FeaturesFile file;
    Error error = {0};
    cr_assert_eq(features_file_open(&file, path, &error), STATUS_OK, "%s", error.text);
    cr_assert(file.n == n && file.d == d, "%s: %lld x %lld", path, (long long)file.n, (long long)file.d);
    cr_assert_str_eq(file.meta.layer, layer);
    float *rows = memory_alloc_array((size_t)(n * d), sizeof *rows);
    cr_assert_eq(features_file_read(&file, 0, n, rows, NULL, NULL), STATUS_OK);
    features_file_close(&file);
    return rows;
}

/* Extracts one layer of the drawn pictures on that many ranks. */
static float *extract_grid(const Setting *s, int ranks, const char *layer, int64_t d)
{
    TempPath path = temp_folder_in(&s->folder, "grid.h5");
    run_well(ranks, WORDS("extract", "--data", DATA, "--output-dir", path.text, GRID(layer), QUICK));
    return read_grid(path.text, 11, d, layer);
}

Test(extract, a_grid_keeps_places, .timeout = 300)
{
    Setting s = begin();
    float *fine = extract_grid(&s, 0, "grid:2:4", 16 * 32), *dealt = extract_grid(&s, 3, "grid:2:4", 16 * 32);
    float *coarse = extract_grid(&s, 0, "grid:2:2", 4 * 32),
          *first = extract_grid(&s, 0, "grid:1:4", 16 * 32);
    float *one = extract_grid(&s, 0, "grid:2:1", 32), *mean = extract_grid(&s, 0, "mean_patch", 32);
    cr_expect_leq(worst(fine, dealt, 11 * 16 * 32), 1e-5);
    cr_expect(worst(fine, first, 11 * 16 * 32) > 1e-3, "a block makes a difference");
    cr_expect_arr_eq(one, mean, 11 * 32 * sizeof *one);
    for (int64_t i = 0; i < 11 * 4 * 32; i++) { /* a cell is four places */
        int64_t image = i / 128, cell = i / 32 % 4;
        const float *corner = fine + image * 512 + (cell / 2 * 8 + cell % 2 * 2) * 32 + i % 32;
        double sum = (double)corner[0] + (double)corner[32] + (double)corner[4 * 32] + (double)corner[5 * 32];
        cr_assert_float_eq(coarse[i], sum / 4, 1e-6);
    }
    float *const all[] = {fine, dealt, coarse, first, one, mean};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        memory_free(all[i]);
    TempPath out = temp_folder_in(&s.folder, "out.h5");
#define REFUSED(layer, part) \
    expect_refused(WORDS("extract", "--data", DATA, "--output-dir", out.text, GRID(layer), QUICK), part)
    REFUSED("grid:3:4", "grid:3:4: the network has only 2 blocks");
    REFUSED("grid:2:5", "grid:2:5: a picture has only 4 x 4 patches");
    REFUSED("grid:0:4", "--layer: layer grid:0:4: expected class_token, mean_patch");
    end(&s);
}

Test(extract, whitening_to_fewer_dimensions, .timeout = 300)
{
    Setting s = begin();
    TempPath raw = temp_folder_in(&s.folder, "raw.h5"), out = temp_folder_in(&s.folder, "out.h5");
    run_well(0, WORDS("extract", "--data", DATA, "--output-dir", raw.text, "--views", "mirror",
                      GRID("grid:1:4"), QUICK));
#define WHITEN(...)                                                                                    \
    WORDS("extract", "--data", DATA, "--output-dir", out.text, "--whiten", raw.text, GRID("grid:1:4"), \
          __VA_ARGS__, QUICK)
    static const char LAYER[] = "grid:1:4_whitened7_ridge0.03";
    float *rows[2];
    for (int i = 0; i < 2; i++) {
        run_well(i ? 3 : 0, WHITEN("--whiten-dims", "7", "--whiten-ridge", "0.03", "--views", "rotate:5"));
        run_well(0, WORDS("validate", out.text));
        rows[i] = read_grid(out.text, 33, 7, LAYER);
    }
    cr_expect_leq(worst(rows[0], rows[1], 33 * 7), 1e-5);
    for (int i = 0; i < 33; i++) {
        double length = 0.0;
        for (int j = 0; j < 7; j++)
            length += (double)rows[0][i * 7 + j] * (double)rows[0][i * 7 + j];
        cr_expect_float_eq(length, 1.0, 1e-5);
    }
    memory_free(rows[0]);
    memory_free(rows[1]);
    expect_refused(WHITEN("--whiten-dims", "22"), "raw.h5: whitening to 22 columns needs more rows than 22");
    expect_refused(WHITEN("--whiten-dims", "513"), "rows of 512 columns cannot be whitened to 513");
    expect_refused(WHITEN("--whiten-dims", "0"), "--whiten-dims 0: expected a number from 1");
    expect_refused(WORDS("extract", "--data", DATA, "--output-dir", out.text, "--whiten-dims", "3",
                         GRID("grid:1:4"), QUICK),
                   "--whiten-dims is for --whiten");
    end(&s);
}

/* A folder of the drawn pictures, their rows of pixels the other way round. */
static void write_upside_down(const Setting *s)
{
    DataSet *set;
    Image image = {0};
    DataBuffer encoded = {0}, scratch = {0};
    cr_assert_eq(data_set_create(&set, DATA, NULL), STATUS_OK);
    for (int64_t i = 0; i < data_set_count(set); i++) {
        cr_assert_eq(data_set_load_image(set, i, &image, &scratch, NULL), STATUS_OK);
        size_t bytes = 3 * (size_t)image.width;
        uint8_t *turned = memory_alloc_array((size_t)image.height, bytes);
        for (int64_t y = 0; y < image.height; y++)
            memcpy(turned + (size_t)y * bytes, image.rgb + (size_t)(image.height - 1 - y) * bytes, bytes);
        cr_assert_eq(image_encode_png(&encoded, turned, image.width, image.height, 3, NULL), STATUS_OK);
        TempPath name = temp_folder_in(&s->folder, "turned/%02d.png", (int)i);
        temp_folder_write_bytes(&s->folder, name.text + strlen(s->folder.path) + 1, encoded.bytes,
                                encoded.size);
        memory_free(turned);
    }
    data_buffer_destroy(&encoded);
    data_buffer_destroy(&scratch);
    image_destroy(&image);
    data_set_destroy(set);
}

Test(extract, upside_down_is_the_pictures_turned_first, .timeout = 300)
{
    Setting s = begin();
    TempPath folder = temp_folder_in(&s.folder, "turned"), a = temp_folder_in(&s.folder, "a.h5");
    TempPath b = temp_folder_in(&s.folder, "b.h5"), upright = temp_folder_in(&s.folder, "upright.h5");
    TempPath spec = {0};
    mkdir(folder.text, 0777);
    write_upside_down(&s);
    snprintf(spec.text, sizeof spec.text, "folder:%.300s", folder.text);
#define VIEWED "--views", "rotate:8,mirror,crop:0.8:2", GRID("grid:1:4"), QUICK
    run_well(2, WORDS("extract", "--upside-down", "--data", DATA, "--output-dir", a.text, VIEWED));
    run_well(0, WORDS("extract", "--data", spec.text, "--output-dir", b.text, VIEWED));
    run_well(0, WORDS("extract", "--data", DATA, "--output-dir", upright.text, VIEWED));
    run_well(0, WORDS("validate", a.text));
    int64_t n = 11 * 14;
    float *turned = read_grid(a.text, n, 512, "grid:1:4"), *written = read_grid(b.text, n, 512, "grid:1:4");
    float *other = read_grid(upright.text, n, 512, "grid:1:4");
    cr_expect_leq(worst(turned, written, n * 512), 1e-5);
    cr_expect(worst(turned, other, n * 512) > 1e-2);
    memory_free(turned);
    memory_free(written);
    memory_free(other);
    /* probes, and nothing else */
    expect_refused(WORDS("curate", "dedup", "--features", a.text, "--output-dir", s.folder.path, QUICK),
                   "a.h5 is of pictures upside down");
    expect_refused(WORDS("curate", "exclude", "--features", upright.text, "--reference", a.text,
                         "--output-dir", s.folder.path, QUICK),
                   "a.h5 is of pictures upside down");
    expect_refused(
        WORDS("extract", "--data", DATA, "--output-dir", b.text, "--whiten", a.text, GRID("grid:1:4"), QUICK),
        "a.h5: is of pictures upside down");
    end(&s);
}

/* Floors for what training is worth: the pixels, and a network at its first step. */
Test(extract, baselines_without_weights, .timeout = 120)
{
    Setting s = begin();
    TempPath centre = temp_folder_in(&s.folder, "centre.h5"), square = temp_folder_in(&s.folder, "square.h5");
    TempPath a = temp_folder_in(&s.folder, "a.h5"), b = temp_folder_in(&s.folder, "b.h5");
#define VIT                                                                                      \
    "student.arch=vit_custom", "student.embed_dim=32", "student.depth=1", "student.num_heads=2", \
        "student.patch_size=8", "--layer", "mean_patch", "evaluation.crop_size=16",              \
        "evaluation.resize_size=16"
    run_well(0, WORDS("extract", "--model", "raw-pixels", "--data", DATA, "--output-dir", centre.text,
                      "evaluation.crop_size=16", "evaluation.resize_size=20", QUICK));
    run_well(2, WORDS("extract", "--model", "raw-pixels", "--data", DATA, "--output-dir", square.text,
                      "--resize", "square", "evaluation.crop_size=16", "evaluation.resize_size=20", QUICK));
    run_well(0, WORDS("extract", "--model", "untrained", "--data", DATA, "--output-dir", a.text, VIT, QUICK));
    run_well(3, WORDS("extract", "--model", "untrained", "--data", DATA, "--output-dir", b.text, VIT, QUICK));
    FeaturesFile file[4];
    const char *const paths[] = {centre.text, square.text, a.text, b.text};
    float *rows[4];
    for (int i = 0; i < 4; i++) {
        Error error = {0};
        cr_assert_eq(features_file_open(&file[i], paths[i], &error), STATUS_OK, "%s", error.text);
        cr_assert_eq(file[i].d, i < 2 ? 3 * 16 * 16 : 32);
        cr_assert_str_eq(file[i].meta.arch, i < 2 ? "none" : "vit_custom");
        rows[i] = memory_alloc_array((size_t)(file[i].n * file[i].d), sizeof(float));
        cr_assert_eq(features_file_read(&file[i], 0, file[i].n, rows[i], NULL, NULL), STATUS_OK);
        features_file_close(&file[i]);
    }
    for (int64_t i = 0; i < 11 * 3 * 16 * 16; i++)
        cr_assert(rows[0][i] >= 0 && rows[0][i] <= 1);
    cr_expect(worst(rows[0], rows[1], 11 * 3 * 16 * 16) > 0.01, "all of a picture, and its middle");
    cr_expect_leq(worst(rows[2], rows[3], 11 * 32), 1e-5);
    cr_expect(worst(rows[2], rows[2] + 32, 32) > 1e-3, "pictures differ");
    for (int i = 0; i < 4; i++)
        memory_free(rows[i]);
    end(&s);
}

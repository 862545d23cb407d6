/* test_extract_patches.c - extract by the real program at any size: patch tokens of pictures of one size and
 * of their own sizes, float16, on any number of ranks; who reads such files, and what is refused.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include "base/dtype.h"
#include "base/memory.h"
#include "data/image_encode.h"
#include "features/features_file.h"
#include "h5/h5_check.h"
#include "h5/h5_dataset.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { D = 32, PATCH = 8, LIMIT_SECONDS = 120 };

#define DATA "synthetic:classes=3,size=40,count=21,seed=2"
#define NETWORK                                                                                       \
    "--model", "untrained", "student.arch=vit_custom", "student.embed_dim=32", "student.depth=2",     \
        "student.num_heads=2", "student.patch_size=8", "student.layerscale=1", "train.num_workers=1", \
        "student.num_register_tokens=1", "compute.threads=1", "compute.device=cpu"

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

/* A whole data set of a file, which it describes; memory_free. */
static void *get(const char *path, const char *object, H5Type type, int ndim, H5Info *info)
{
    H5File file;
    Error error = {0};
    void *values;
    cr_assert_eq(h5_file_open(&file, path, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(h5_dataset_get(&file, object, type, ndim, info, &values, &error), STATUS_OK, "%s",
                 error.text);
    h5_file_close(&file, NULL);
    return values;
}

static void expect_same(const char *path, const char *other, const char *object, H5Type type, int ndim)
{
    H5Info a, b;
    void *x = get(path, object, type, ndim, &a), *y = get(other, object, type, ndim, &b);
    cr_assert_eq(memcmp(a.shape, b.shape, sizeof a.shape), 0, "%s", object);
    cr_expect_eq(memcmp(x, y, (size_t)a.count * a.item_bytes), 0, "%s", object);
    memory_free(x);
    memory_free(y);
}

static void expect_close(const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        cr_assert_float_eq(a[i], b[i], 1e-5, "%lld: %g %g", (long long)i, (double)a[i], (double)b[i]);
}

Test(extract_patches, of_one_size_on_any_ranks, .timeout = 300)
{
    TempFolder folder = temp_folder_create();
    TempPath one = temp_folder_in(&folder, "one.h5"), three = temp_folder_in(&folder, "three.h5");
    TempPath means = temp_folder_in(&folder, "means.h5"), half = temp_folder_in(&folder, "half.h5");
#define TALL(path, layer)                                                                            \
    WORDS("extract", "--data", DATA, "--size", "56x32", "--output-dir", path.text, "--layer", layer, \
          "evaluation.batch_size=3", NETWORK)
    run_well(0, TALL(one, "class_token+patch"));
    run_well(3, TALL(three, "class_token+patch"));
    run_well(0, TALL(means, "mean_patch"));
    run_well(0, WORDS("extract", "--data", DATA, "--size", "56x32", "--output-dir", half.text, "--layer",
                      "class_token+patch", "--dtype", "float16", "evaluation.batch_size=3", NETWORK));
    run_well(0, WORDS("validate", one.text));
    run_well(0, WORDS("validate", half.text));
    expect_same(one.text, three.text, "/features", H5_TYPE_F32, 2);
    expect_same(one.text, three.text, "/patch_features", H5_TYPE_F32, 4);
    expect_same(one.text, three.text, "/labels", H5_TYPE_I64, 1);
    expect_same(one.text, three.text, "/keys", H5_TYPE_TEXT, 1);
    H5Info info;
    float *tokens = get(one.text, "/patch_features", H5_TYPE_F32, 4, &info);
    cr_assert(info.shape[0] == 21 && info.shape[1] == 7 && info.shape[2] == 4 && info.shape[3] == D);
    float *mean = get(means.text, "/features", H5_TYPE_F32, 2, &info), summed[21 * D] = {0};
    for (int64_t i = 0; i < 21 * 28 * D; i++)
        summed[i / (28 * D) * D + i % D] += tokens[i] / 28;
    expect_close(summed, mean, 21L * D);
    uint16_t *halves = get(half.text, "/patch_features", H5_TYPE_F16, 4, &info);
    for (int64_t i = 0; i < 21 * 28 * D; i++)
        cr_assert_eq(halves[i], dtype_f16_from_f32(tokens[i]));
    memory_free(tokens);
    memory_free(mean);
    memory_free(halves);
    temp_folder_destroy(&folder);
}

/* Pictures of 3 shapes, one of them unreadable; name by number. */
static TempPath write_pictures(TempFolder *folder)
{
    static const int64_t sides[][2] = {{40, 24}, {24, 40}, {40, 24}, {100, 300}, {3, 5}, {24, 40}};
    TempPath path = temp_folder_in(folder, "pictures");
    mkdir(path.text, 0777);
    for (int i = 0; i < 6; i++) {
        uint8_t pixels[3 * 100 * 300];
        DataBuffer png = {0};
        char name[32];
        for (size_t k = 0; k < sizeof pixels; k++)
            pixels[k] = (uint8_t)(k * k / 97 + k % 131 * (size_t)(i + 1));
        cr_assert_eq(image_encode_png(&png, pixels, sides[i][1], sides[i][0], 3, NULL), STATUS_OK);
        snprintf(name, sizeof name, "pictures/%d.png", i);
        temp_folder_write_bytes(folder, name, png.bytes, i == 2 ? png.size / 2 : png.size);
        data_buffer_destroy(&png);
    }
    TempPath spec;
    snprintf(spec.text, sizeof spec.text, "folder:%.300s", path.text);
    return spec;
}

Test(extract_patches, of_their_own_sizes_on_any_ranks, .timeout = 300)
{
    static const int64_t grids[][2] = {{5, 3}, {3, 5}, {4, 12}, {1, 1}, {3, 5}};
    TempFolder folder = temp_folder_create();
    TempPath spec = write_pictures(&folder), one = temp_folder_in(&folder, "one.h5");
    TempPath two = temp_folder_in(&folder, "two.h5"), sized = temp_folder_in(&folder, "sized.h5");
#define NATIVE(path, layer)                                                                            \
    WORDS("extract", "--data", spec.text, "--size", "native:50", "--output-dir", path.text, "--layer", \
          layer, "evaluation.batch_size=2", NETWORK)
    run_well(0, NATIVE(one, "class_token+patch"));
    run_well(2, NATIVE(two, "class_token+patch"));
    run_well(0, WORDS("validate", one.text));
    expect_same(one.text, two.text, "/features", H5_TYPE_F32, 2);
    expect_same(one.text, two.text, "/patch_rows", H5_TYPE_F32, 2);
    expect_same(one.text, two.text, "/patch_offsets", H5_TYPE_U64, 1);
    expect_same(one.text, two.text, "/grid", H5_TYPE_I64, 2);
    H5Info info;
    int64_t *grid = get(one.text, "/grid", H5_TYPE_I64, 2, &info);
    cr_assert_eq(info.shape[0], 5, "what cannot be read is left out");
    cr_expect_eq(memcmp(grid, grids, sizeof grids), 0);
    uint64_t *offsets = get(one.text, "/patch_offsets", H5_TYPE_U64, 1, &info);
    cr_assert(info.shape[0] == 6 && offsets[5] == 15 + 15 + 48 + 1 + 15);
    /* the same network on that size alone */
    run_well(0, WORDS("extract", "--data", spec.text, "--size", "24x40", "--output-dir", sized.text,
                      "--layer", "class_token+patch", NETWORK));
    float *rows = get(one.text, "/patch_rows", H5_TYPE_F32, 2, &info);
    float *tokens = get(sized.text, "/patch_features", H5_TYPE_F32, 4, &info);
    cr_assert(info.shape[0] == 5 && info.shape[1] == 3 && info.shape[2] == 5);
    expect_close(rows + (int64_t)offsets[1] * D, tokens + 15L * D, 15L * D);
    expect_close(rows + (int64_t)offsets[4] * D, tokens + 4 * 15L * D, 15L * D);
    float *class_own = get(one.text, "/features", H5_TYPE_F32, 2, &info);
    float *class_sized = get(sized.text, "/features", H5_TYPE_F32, 2, &info);
    expect_close(class_own + 4L * D, class_sized + 4L * D, D);
    void *const all[] = {grid, offsets, rows, tokens, class_own, class_sized};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        memory_free(all[i]);
    temp_folder_destroy(&folder);
}

/* float16 rows, and rows beside patch tokens, are read like any. */
Test(extract_patches, who_reads_them, .timeout = 300)
{
    TempFolder folder = temp_folder_create();
    TempPath half = temp_folder_in(&folder, "half.h5"), alone = temp_folder_in(&folder, "alone.h5");
    TempPath other = temp_folder_in(&folder, "other.h5"), white = temp_folder_in(&folder, "white.h5");
#define SIZED(path, ...) WORDS("extract", "--data", DATA, "--output-dir", path.text, NETWORK, __VA_ARGS__)
    run_well(0, SIZED(half, "--size", "32x48", "--layer", "class_token+patch", "--dtype", "float16"));
    run_well(0, SIZED(alone, "--size", "32x48", "--layer", "patch"));
    run_well(0, SIZED(other, "--size", "32x40", "--layer", "class_token"));
#define CURATE(job, file)                                                                              \
    WORDS("curate", job, "--features", file.text, "--output-dir", folder.path, "curation.cluster.k=2", \
          "compute.device=cpu")
#define KNN(path)                                                                        \
    WORDS("evaluate", "knn", "--train-features", path.text, "--val-features", path.text, \
          "evaluation.knn_k=[3]", "compute.device=cpu")
    run_well(0, KNN(half));
    run_well(0, WORDS("evaluate", "retrieval", "--train-features", half.text, "--val-features", half.text,
                      "--output-dir", folder.path, "compute.device=cpu"));
    run_well(0, CURATE("dedup", half));
    run_well(0, CURATE("cluster", half));
    run_well(0, SIZED(white, "--size", "32x48", "--center", half.text, "--dtype", "float16"));
    static const char ALONE[] = "alone.h5: has patch tokens alone, no /features";
    expect_refused(KNN(alone), ALONE);
    expect_refused(CURATE("dedup", alone), ALONE);
    expect_refused(SIZED(white, "--size", "32x48", "--center", alone.text), ALONE);
    expect_refused(SIZED(white, "--size", "32x48", "--center", other.text),
                   "other.h5: is of --size \"32x40\"");
    expect_refused(WORDS("curate", "dedup", "--features", half.text, "--features", other.text, "--output-dir",
                         folder.path, "compute.device=cpu"),
                   "size '32x48' and '32x40'");
    run_well(0, WORDS("validate", alone.text));
    temp_folder_destroy(&folder);
}

Test(extract_patches, what_is_refused, .timeout = 120)
{
    TempFolder folder = temp_folder_create();
    TempPath out = temp_folder_in(&folder, "out.h5");
    expect_refused(SIZED(out, "--size", "30x48"), "size 30x48: sides are not multiples of the patch size 8");
    expect_refused(SIZED(out, "--size", "32"), "--size 32: expected HEIGHTxWIDTH");
    expect_refused(SIZED(out, "--size", "native:0"), "--size native:0: expected HEIGHTxWIDTH");
    expect_refused(SIZED(out, "--size", "32x32", "--resize", "square"), "--size takes all of a picture");
    expect_refused(SIZED(out, "--size", "16x48", "--layer", "grid:1:3"), "a picture has only 2 x 6 patches");
    expect_refused(SIZED(out, "--size", "native", "--layer", "grid:1:1"), "pictures of their own sizes");
    expect_refused(SIZED(out, "--layer", "grid:1:1+patch"), "--layer: layer grid:1:1+patch: expected");
    expect_refused(SIZED(out, "--layer", "patch", "--whiten", "x.h5"), "--whiten is for rows, not for patch");
    expect_refused(SIZED(out, "--dtype", "bfloat16"), "--dtype bfloat16: expected float32 or float16");
    expect_refused(WORDS("extract", "--model", "raw-pixels", "--data", DATA, "--output-dir", out.text,
                         "--size", "32x32"),
                   "--size is not for --model raw-pixels");
    temp_folder_destroy(&folder);
}

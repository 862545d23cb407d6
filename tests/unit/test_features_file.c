/* test_features_file.c - patch tokens in features files: written in pieces, fewer than announced, in half
 * precision; and files whose offsets and grids do not go together.
 */
#include "../support/temp_folder.h"

#include "base/dtype.h"
#include "base/memory.h"
#include "features/features_file.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"
#include "h5/h5_dataset.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 9, WRITTEN = 7, WIDTH = 3, MOST = 6 };

static const int64_t GRIDS[WRITTEN][2] = {{1, 1}, {2, 3}, {3, 2}, {1, 4}, {2, 2}, {6, 1}, {1, 2}};

#define OK(expression)                                         \
    do {                                                       \
        Status ok_status_ = (expression);                      \
        cr_assert_eq(ok_status_, STATUS_OK, "%s", error.text); \
    } while (0)

static FeaturesMeta meta_of(bool half, FeaturesPatchKind kind)
{
    return (FeaturesMeta){.model = "model.h5",
                          .arch = "vit_small",
                          .layer = "patch",
                          .data = "folder:x",
                          .config = "x: 1",
                          .version = "0",
                          .size = "native:6",
                          .half = half,
                          .patches = {.kind = kind, .height = 2, .width = 2, .most = MOST, .columns = WIDTH}};
}

static float number(int64_t token, int64_t column)
{
    return (float)(token * WIDTH + column) / 7.0f;
}

/* Rows from `first` on, token `token` of all before them; returns the token behind. */
static int64_t write_rows(FeaturesFile *file, int64_t first, int64_t count, int64_t token)
{
    Error error = {0};
    static const char *const keys[N] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
    int64_t labels[N] = {0}, n = 0;
    float rows[N * 2], tokens[N * MOST * WIDTH];
    for (int64_t i = 0; i < count; i++) {
        bool fixed = file->meta.patches.kind == FEATURES_PATCH_GRID;
        n += fixed ? 4 : GRIDS[first + i][0] * GRIDS[first + i][1];
        rows[2 * i] = rows[2 * i + 1] = (float)(first + i);
    }
    for (int64_t i = 0; i < n * WIDTH; i++)
        tokens[i] = number(token + i / WIDTH, i % WIDTH);
    OK(features_file_write(file, first, count, rows, labels, keys + first, &error));
    OK(features_file_write_patches(file, first, count, GRIDS[first], tokens, &error));
    return token + n;
}

/* A file of N rows, of which so many come. */
static void write_file(const char *path, bool half, FeaturesPatchKind kind, int64_t d, int64_t written)
{
    Error error = {0};
    FeaturesFile file;
    FeaturesMeta meta = meta_of(half, kind);
    OK(features_file_create(&file, path, N, d, 0, 1, &meta, &error));
    int64_t first = written < 3 ? written : 3, token = write_rows(&file, 0, first, 0);
    if (written > first) write_rows(&file, first, written - first, token);
    OK(features_file_commit(&file, &error));
}

static void expect_tokens(const char *path, const char *object, bool half, int64_t count)
{
    Error error = {0};
    H5File file;
    H5Info info;
    OK(h5_file_open(&file, path, &error));
    OK(h5_dataset_info(&file, object, &info, &error));
    cr_assert_eq(info.count, count * WIDTH, "%lld numbers", (long long)info.count);
    void *values = memory_alloc((size_t)info.count * info.item_bytes);
    OK(h5_dataset_read_rows(&file, object, half ? H5_TYPE_F16 : H5_TYPE_F32, 0, info.shape[0], values,
                            &error));
    for (int64_t i = 0; i < info.count; i++) {
        float expected = number(i / WIDTH, i % WIDTH);
        if (half)
            cr_assert_eq(((uint16_t *)values)[i], dtype_f16_from_f32(expected));
        else
            cr_assert_eq(((float *)values)[i], expected);
    }
    memory_free(values);
    h5_file_close(&file, NULL);
}

Test(features_file, patch_tokens_come_back, .timeout = 20)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "x.h5");
    Error error = {0};
    for (int half = 0; half < 2; half++)
        for (int d = 0; d <= 2; d += 2) {
            write_file(path.text, half, FEATURES_PATCH_GRID, d, WRITTEN);
            OK(h5_check_file(path.text, "features", H5_CHECK_CHECKSUMS, NULL, &error));
            expect_tokens(path.text, "/patch_features", half, WRITTEN * 4);
            write_file(path.text, half, FEATURES_PATCH_ROWS, d, WRITTEN);
            OK(h5_check_file(path.text, "features", H5_CHECK_CHECKSUMS, NULL, &error));
            expect_tokens(path.text, "/patch_rows", half, 1 + 6 + 6 + 4 + 4 + 6 + 2);
            FeaturesFile file;
            Status status = features_file_open(&file, path.text, &error);
            if (d == 0) {
                cr_expect(status == STATUS_INPUT && strstr(error.text, "has patch tokens alone"));
                continue;
            }
            float rows[WRITTEN * 2];
            OK(status);
            cr_assert(file.n == WRITTEN && file.d == 2 && strcmp(file.meta.size, "native:6") == 0);
            OK(features_file_read(&file, 0, WRITTEN, rows, NULL, &error));
            for (int i = 0; i < WRITTEN * 2; i++)
                cr_expect_eq(rows[i], (float)(i / 2));
            features_file_close(&file);
        }
    write_file(path.text, false, FEATURES_PATCH_ROWS, 2, 0);
    OK(h5_check_file(path.text, "features", H5_CHECK_CHECKSUMS, NULL, &error));
    temp_folder_destroy(&folder);
}

Test(features_file, numbers_beyond_half_precision_are_told, .timeout = 20)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "x.h5");
    Error error = {0};
    FeaturesFile file;
    FeaturesMeta meta = meta_of(true, FEATURES_NO_PATCHES);
    static const char *const keys[] = {"a"};
    const int64_t label = 0;
    const float fine[] = {65519.0f, -INFINITY}, wrong[] = {1.0f, -65520.0f};
    OK(features_file_create(&file, path.text, 1, 2, 0, 1, &meta, &error));
    OK(features_file_write(&file, 0, 1, fine, &label, keys, &error));
    cr_expect_eq(features_file_write(&file, 0, 1, wrong, &label, keys, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "/features: -65520 of row 0 or behind is beyond float16"), "%s",
                       error.text);
    features_file_abandon(&file);
    temp_folder_destroy(&folder);
}

/* A file that is right but for what the caller puts there, refused by that line. */
static void expect_refused(const char *without, const uint64_t offsets[3], const int64_t grid[4],
                           const char *part)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "x.h5");
    Error error = {0};
    H5File file;
    const char *const texts[] = {"model", "arch", "layer", "data", "config", "version"};
    const char *const keys[] = {"a", "b"};
    const int64_t two = 2, three = 3, labels[2] = {0}, tokens[] = {7, 3}, pairs[] = {2, 2};
    float values[7 * 3] = {0};
    OK(h5_file_create(&file, path.text, &error));
    OK(h5_attribute_write_text(&file, "/", "format", "dinobatch-features", &error));
    OK(h5_attribute_write_int(&file, "/", "format_version", 1, &error));
    for (int i = 0; i < 6; i++)
        OK(h5_attribute_write_text(&file, "/", texts[i], "t", &error));
    OK(h5_attribute_write_int(&file, "/", "input_size", 0, &error));
    OK(h5_attribute_write_int(&file, "/", "classes", 0, &error));
    OK(h5_dataset_put(&file, "/labels", H5_TYPE_I64, 1, &two, labels, &error));
    OK(h5_dataset_put_text(&file, "/keys", 2, keys, &error));
    if (strcmp(without, "/patch_rows") != 0)
        OK(h5_dataset_put(&file, "/patch_rows", H5_TYPE_F32, 2, tokens, values, &error));
    if (strcmp(without, "/patch_offsets") != 0)
        OK(h5_dataset_put(&file, "/patch_offsets", H5_TYPE_U64, 1, &three, offsets, &error));
    if (strcmp(without, "/grid") != 0)
        OK(h5_dataset_put(&file, "/grid", H5_TYPE_I64, 2, pairs, grid, &error));
    OK(h5_file_commit(&file, &error));
    Status status = h5_check_file(path.text, "features", H5_CHECK_CHECKSUMS, NULL, &error);
    if (*part) {
        cr_expect_eq(status, STATUS_INPUT, "accepted: %s", part);
        cr_expect_not_null(strstr(error.text, part), "\"%s\" is not in: %s", part, error.text);
    } else {
        OK(status);
    }
    temp_folder_destroy(&folder);
}

Test(features_file, offsets_and_grids_that_do_not_fit_are_refused, .timeout = 20)
{
    enum { HUGE = 1 << 30 };
    const uint64_t good[] = {0, 4, 7}, late[] = {1, 4, 7}, gap[] = {0, 5, 7}, back[] = {0, 4, 3};
    const uint64_t beyond[] = {0, UINT64_MAX, 7}, early[] = {0, 4, 6};
    const int64_t fits[] = {2, 2, 1, 3}, other[] = {2, 2, 1, 2}, none[] = {2, 2, 0, 3};
    const int64_t large[] = {4L * HUGE, 4L * HUGE, 1, 3}, minus[] = {-2, -2, 1, 3};
    expect_refused("", good, fits, "");
    expect_refused("", late, fits, "/patch_offsets: does not start at 0");
    expect_refused("", gap, fits, "/patch_offsets: item 0 is not a grid of 2 x 2 rows");
    expect_refused("", back, fits, "/patch_offsets: item 1 is not a grid of 1 x 3 rows");
    expect_refused("", beyond, fits, "/patch_offsets: item 0 is not");
    expect_refused("", good, none, "/patch_offsets: item 1 is not a grid of 0 x 3 rows");
    expect_refused("", good, large, "/patch_offsets: item 0 is not");
    expect_refused("", good, minus, "/patch_offsets: item 0 is not");
    expect_refused("", early, other, "/patch_offsets: does not end where /patch_rows ends");
    expect_refused("/grid", good, fits, "/grid: missing");
    expect_refused("/patch_offsets", good, fits, "/patch_offsets: missing");
    expect_refused("/patch_rows", good, fits, "/features: missing");
}

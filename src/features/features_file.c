/* features_file.c - writing and reading features. */
#include "features/features_file.h"

#include "base/check.h"
#include "base/dtype.h"
#include "base/memory.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"

#include <math.h>
#include <string.h>

static Status write_meta(const H5File *file, const FeaturesFile *features, Error *error)
{
    const FeaturesMeta *meta = &features->meta;
    H5Schema schema;
    h5_schema_load(&schema, "features");
    TRY(h5_schema_stamp(&schema, file, error));
    TRY(h5_attribute_write_text(file, "/", "model", meta->model, error));
    TRY(h5_attribute_write_text(file, "/", "arch", meta->arch, error));
    TRY(h5_attribute_write_text(file, "/", "layer", meta->layer, error));
    TRY(h5_attribute_write_text(file, "/", "data", meta->data, error));
    TRY(h5_attribute_write_text(file, "/", "config", meta->config, error));
    TRY(h5_attribute_write_text(file, "/", "version", meta->version, error));
    if (meta->size) TRY(h5_attribute_write_text(file, "/", "size", meta->size, error));
    if (meta->whitening) TRY(h5_attribute_write_text(file, "/", "whitening", meta->whitening, error));
    if (meta->view_list) {
        TRY(h5_attribute_write_int(file, "/", "views", meta->views, error));
        TRY(h5_attribute_write_text(file, "/", "view_list", meta->view_list, error));
    }
    if (meta->upside_down) TRY(h5_attribute_write_int(file, "/", "upside_down", 1, error));
    TRY(h5_attribute_write_int(file, "/", "input_size", meta->input_size, error));
    return h5_attribute_write_int(file, "/", "classes", features->classes, error);
}

static Status lay_out_patches(const FeaturesFile *features, H5Type type, Error *error)
{
    const H5File *file = &features->file;
    const FeaturesPatches *p = &features->meta.patches;
    int64_t n = features->n;
    H5Layout checked = H5_LAYOUT_CHECKED;
    H5Info grid = {.type = type, .ndim = 4, .shape = {n, p->height, p->width, p->columns}, .layout = checked};
    H5Info tokens = {.type = type, .ndim = 2, .shape = {n * p->most, p->columns}, .layout = checked};
    H5Info offsets = {.type = H5_TYPE_U64, .ndim = 1, .shape = {n + 1}, .layout = checked};
    H5Info grids = {.type = H5_TYPE_I64, .ndim = 2, .shape = {n, 2}, .layout = checked};
    static const uint64_t start = 0;
    if (p->kind == FEATURES_NO_PATCHES) return STATUS_OK;
    if (p->kind == FEATURES_PATCH_GRID) return h5_dataset_create(file, "/patch_features", &grid, error);
    TRY(h5_dataset_create(file, "/patch_rows", &tokens, error));
    TRY(h5_dataset_create(file, "/patch_offsets", &offsets, error));
    TRY(h5_dataset_create(file, "/grid", &grids, error));
    return h5_dataset_write_rows(file, "/patch_offsets", 0, 1, &start, error);
}

static Status lay_out(const FeaturesFile *features, Error *error)
{
    const H5File *file = &features->file;
    H5Type type = features->meta.half ? H5_TYPE_F16 : H5_TYPE_F32;
    H5Info values = {.type = type, .ndim = 2, .shape = {features->n, features->d}};
    H5Info labels = {.type = H5_TYPE_I64, .ndim = 1, .shape = {features->n}};
    H5Info keys = {
        .type = H5_TYPE_TEXT, .item_bytes = features->key_bytes, .ndim = 1, .shape = {features->n}};
    values.layout = labels.layout = keys.layout = H5_LAYOUT_CHECKED;
    TRY(write_meta(file, features, error));
    if (features->d > 0) TRY(h5_dataset_create(file, "/features", &values, error));
    TRY(lay_out_patches(features, type, error));
    TRY(h5_dataset_create(file, "/labels", &labels, error));
    return h5_dataset_create(file, "/keys", &keys, error);
}

Status features_file_create(FeaturesFile *features, const char *path, int64_t n, int64_t d, int64_t classes,
                            size_t key_bytes, const FeaturesMeta *meta, Error *error)
{
    CHECK(n >= 0 && key_bytes > 0 && d >= (meta->patches.kind == FEATURES_NO_PATCHES ? 1 : 0));
    CHECK(!meta->view_list || (meta->views > 0 && n % meta->views == 0));
    *features = (FeaturesFile){.n = n, .d = d, .classes = classes, .key_bytes = key_bytes, .meta = *meta};
    TRY(h5_file_create(&features->file, path, error));
    Status status = lay_out(features, error);
    if (status != STATUS_OK) features_file_abandon(features);
    return status;
}

static Status write_keys(FeaturesFile *features, int64_t first, int64_t rows, const char *const *keys,
                         Error *error)
{
    char *packed = memory_alloc_array((size_t)rows, features->key_bytes);
    for (int64_t i = 0; i < rows; i++) {
        size_t length = strlen(keys[i]);
        CHECK(length <= features->key_bytes);
        memcpy(packed + (size_t)i * features->key_bytes, keys[i], length);
    }
    Status status = h5_dataset_write_rows(&features->file, "/keys", first, rows, packed, error);
    memory_free(packed);
    return status;
}

/* `count` numbers, those of rows from `first` on, as rows [at, at + rows) of the data set. */
static Status write_numbers(const FeaturesFile *features, const char *object, int64_t at, int64_t rows,
                            int64_t first, int64_t count, const float *values, Error *error)
{
    if (!features->meta.half) return h5_dataset_write_rows(&features->file, object, at, rows, values, error);
    static const float BEYOND = 65520.0f; /* what is rounded to infinity */
    uint16_t *halves = memory_alloc_array((size_t)count + 1, sizeof *halves);
    int64_t wrong = -1;
    for (int64_t i = 0; i < count; i++) {
        halves[i] = dtype_f16_from_f32(values[i]);
        if (isfinite(values[i]) && fabsf(values[i]) >= BEYOND && wrong < 0) wrong = i;
    }
    Status status = STATUS_OK;
    if (wrong >= 0)
        status = status_fail(error, STATUS_INPUT, "%s: %s: %g of row %lld or behind is beyond float16",
                             features->file.path, object, (double)values[wrong], (long long)first);
    else
        status = h5_dataset_write_rows(&features->file, object, at, rows, halves, error);
    memory_free(halves);
    return status;
}

Status features_file_write(FeaturesFile *features, int64_t first, int64_t rows, const float *values,
                           const int64_t *labels, const char *const *keys, Error *error)
{
    int64_t d = features->d;
    features->written += rows;
    if (d > 0) TRY(write_numbers(features, "/features", first, rows, first, rows * d, values, error));
    TRY(h5_dataset_write_rows(&features->file, "/labels", first, rows, labels, error));
    return write_keys(features, first, rows, keys, error);
}

Status features_file_write_patches(FeaturesFile *features, int64_t first, int64_t rows, const int64_t *grids,
                                   const float *tokens, Error *error)
{
    const FeaturesPatches *p = &features->meta.patches;
    const H5File *file = &features->file;
    CHECK(p->kind != FEATURES_NO_PATCHES);
    if (p->kind == FEATURES_PATCH_GRID)
        return write_numbers(features, "/patch_features", first, rows, first,
                             rows * p->height * p->width * p->columns, tokens, error);
    uint64_t *ends = memory_alloc_array((size_t)rows + 1, sizeof *ends);
    int64_t end = features->patch_rows;
    for (int64_t i = 0; i < rows; i++) {
        CHECK(grids[2 * i] * grids[2 * i + 1] <= p->most);
        ends[i] = (uint64_t)(end += grids[2 * i] * grids[2 * i + 1]);
    }
    int64_t at = features->patch_rows, count = end - at;
    features->patch_rows = end;
    Status status =
        write_numbers(features, "/patch_rows", at, count, first, count * p->columns, tokens, error);
    if (status == STATUS_OK)
        status = h5_dataset_write_rows(file, "/patch_offsets", first + 1, rows, ends, error);
    if (status == STATUS_OK) status = h5_dataset_write_rows(file, "/grid", first, rows, grids, error);
    memory_free(ends);
    return status;
}

/* To what was written. */
static Status shorten(const FeaturesFile *features, Error *error)
{
    const H5File *file = &features->file;
    int64_t n = features->written;
    FeaturesPatchKind kind = features->meta.patches.kind;
    if (kind == FEATURES_PATCH_ROWS)
        TRY(h5_dataset_shorten(file, "/patch_rows", features->patch_rows, error));
    if (n == features->n) return STATUS_OK;
    if (features->d > 0) TRY(h5_dataset_shorten(file, "/features", n, error));
    TRY(h5_dataset_shorten(file, "/labels", n, error));
    TRY(h5_dataset_shorten(file, "/keys", n, error));
    if (kind == FEATURES_PATCH_GRID) TRY(h5_dataset_shorten(file, "/patch_features", n, error));
    if (kind != FEATURES_PATCH_ROWS) return STATUS_OK;
    TRY(h5_dataset_shorten(file, "/patch_offsets", n + 1, error));
    return h5_dataset_shorten(file, "/grid", n, error);
}

Status features_file_commit(FeaturesFile *features, Error *error)
{
    Status status = shorten(features, error);
    if (status != STATUS_OK) {
        features_file_abandon(features);
        return status;
    }
    return h5_file_commit(&features->file, error);
}

void features_file_abandon(FeaturesFile *features)
{
    h5_file_abandon(&features->file);
}

/* --- reading ------------------------------------------------------------------------------------------- */

static Status read_text(const H5File *file, const char *name, const char **text, Error *error)
{
    char *owned;
    TRY(h5_attribute_read_text(file, "/", name, &owned, error));
    *text = owned;
    return STATUS_OK;
}

/* Most files have none: *text stays. */
static Status read_optional(const H5File *file, const char *name, const char **text, Error *error)
{
    H5AttributeInfo info;
    TRY(h5_attribute_info(file, "/", name, &info, error));
    return info.exists ? read_text(file, name, text, error) : STATUS_OK;
}

/* Of files without views one. */
static Status read_views(FeaturesFile *features, Error *error)
{
    const H5File *file = &features->file;
    FeaturesMeta *meta = &features->meta;
    meta->views = 1;
    TRY(read_optional(file, "view_list", &meta->view_list, error));
    H5AttributeInfo info;
    TRY(h5_attribute_info(file, "/", "views", &info, error));
    if (info.exists != (meta->view_list != NULL))
        return status_fail(error, STATUS_INPUT, "%s: views and view_list go together", file->path);
    if (!info.exists) return STATUS_OK;
    TRY(h5_attribute_read_ints(file, "/", "views", &meta->views, 1, error));
    if (meta->views < 1 || features->n % meta->views != 0)
        return status_fail(error, STATUS_INPUT, "%s: %lld rows are not pictures of %lld views each",
                           file->path, (long long)features->n, (long long)meta->views);
    return STATUS_OK;
}

/* False where the file says nothing. */
static Status read_upside_down(FeaturesFile *features, Error *error)
{
    H5AttributeInfo info;
    int64_t value = 0;
    TRY(h5_attribute_info(&features->file, "/", "upside_down", &info, error));
    if (info.exists) TRY(h5_attribute_read_ints(&features->file, "/", "upside_down", &value, 1, error));
    features->meta.upside_down = value != 0;
    return STATUS_OK;
}

static Status read_description(FeaturesFile *features, Error *error)
{
    const H5File *file = &features->file;
    FeaturesMeta *meta = &features->meta;
    H5Info values, keys;
    H5Kind kind;
    TRY(h5_file_kind(file, "/features", &kind, error));
    if (kind == H5_KIND_ABSENT)
        return status_fail(error, STATUS_INPUT,
                           "%s: has patch tokens alone, no /features: extract with --layer "
                           "class_token+patch, or class_token",
                           file->path);
    TRY(h5_dataset_info(file, "/features", &values, error));
    TRY(h5_dataset_info(file, "/keys", &keys, error));
    features->n = values.shape[0];
    features->d = values.shape[1];
    features->key_bytes = keys.item_bytes;
    if (features->d < 1) return status_fail(error, STATUS_INPUT, "%s: /features: no columns", file->path);
    TRY(read_text(file, "model", &meta->model, error));
    TRY(read_text(file, "arch", &meta->arch, error));
    TRY(read_text(file, "layer", &meta->layer, error));
    TRY(read_text(file, "data", &meta->data, error));
    TRY(read_text(file, "config", &meta->config, error));
    TRY(read_text(file, "version", &meta->version, error));
    TRY(read_optional(file, "whitening", &meta->whitening, error));
    TRY(read_optional(file, "size", &meta->size, error));
    TRY(read_views(features, error));
    TRY(read_upside_down(features, error));
    TRY(h5_attribute_read_ints(file, "/", "input_size", &meta->input_size, 1, error));
    TRY(h5_attribute_read_ints(file, "/", "classes", &features->classes, 1, error));
    if (features->classes >= 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: attribute classes is %lld", file->path,
                       (long long)features->classes);
}

Status features_file_open(FeaturesFile *features, const char *path, Error *error)
{
    *features = (FeaturesFile){0};
    TRY(h5_check_open(&features->file, path, "features", error));
    Status status = read_description(features, error);
    if (status != STATUS_OK) features_file_close(features);
    return status;
}

static Status read_values(const FeaturesFile *features, int64_t first, int64_t rows, float *values,
                          Error *error)
{
    const H5File *file = &features->file;
    H5Info info;
    TRY(h5_dataset_info(file, "/features", &info, error));
    if (info.type != H5_TYPE_F16)
        return h5_dataset_read_rows(file, "/features", H5_TYPE_F32, first, rows, values, error);
    int64_t count = rows * features->d;
    uint16_t *halves = memory_alloc_array((size_t)count, sizeof *halves);
    Status status = h5_dataset_read_rows(file, "/features", H5_TYPE_F16, first, rows, halves, error);
    for (int64_t i = 0; i < count && status == STATUS_OK; i++)
        values[i] = dtype_f32_from_f16(halves[i]);
    memory_free(halves);
    return status;
}

Status features_file_read(const FeaturesFile *features, int64_t first, int64_t rows, float *values,
                          int64_t *labels, Error *error)
{
    CHECK(first >= 0 && rows >= 0 && first <= features->n - rows);
    if (values) TRY(read_values(features, first, rows, values, error));
    if (labels)
        TRY(h5_dataset_read_rows(&features->file, "/labels", H5_TYPE_I64, first, rows, labels, error));
    return STATUS_OK;
}

Status features_file_read_keys(const FeaturesFile *features, int64_t first, int64_t rows, char *keys,
                               Error *error)
{
    CHECK(first >= 0 && rows >= 0 && first <= features->n - rows);
    size_t bytes = features->key_bytes;
    char *packed = memory_alloc_array((size_t)rows, bytes);
    Status status = h5_dataset_read_rows(&features->file, "/keys", H5_TYPE_TEXT, first, rows, packed, error);
    for (int64_t i = 0; i < rows && status == STATUS_OK; i++) {
        memcpy(keys + (size_t)i * (bytes + 1), packed + (size_t)i * bytes, bytes);
        keys[(size_t)i * (bytes + 1) + bytes] = '\0';
    }
    memory_free(packed);
    return status;
}

void features_file_close(FeaturesFile *features)
{
    const FeaturesMeta *meta = &features->meta;
    memory_free((char *)(uintptr_t)meta->model);
    memory_free((char *)(uintptr_t)meta->arch);
    memory_free((char *)(uintptr_t)meta->layer);
    memory_free((char *)(uintptr_t)meta->data);
    memory_free((char *)(uintptr_t)meta->config);
    memory_free((char *)(uintptr_t)meta->version);
    memory_free((char *)(uintptr_t)meta->size);
    memory_free((char *)(uintptr_t)meta->whitening);
    memory_free((char *)(uintptr_t)meta->view_list);
    h5_file_close(&features->file, NULL);
    *features = (FeaturesFile){.file = {.id = -1}};
}

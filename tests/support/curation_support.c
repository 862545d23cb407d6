/* curation_support.c - see curation_support.h. */
#include "curation_support.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>

enum { KEY_BYTES = 24 };

CurationSupportData curation_support_data(int64_t first, int64_t n, int64_t d)
{
    return (CurationSupportData){.first = first,
                                 .n = n,
                                 .d = d,
                                 .groups = 40,
                                 .copies = 3,
                                 .noise = 0.4,
                                 .seed = 5,
                                 .nan_row = -1,
                                 .zero_row = -1,
                                 .same_key = -1};
}

int64_t curation_support_group(const CurationSupportData *data, int64_t row)
{
    Rng rng = rng_at(data->seed, RNG_TEST, 901, (uint64_t)row);
    return row % 8 < data->copies ? rng_integer(&rng, 0, data->groups - 1) : data->groups + row;
}

/* A direction of unit length for each number. */
static void draw_direction(const CurationSupportData *data, uint64_t step, int64_t number, double *out)
{
    Rng rng = rng_at(data->seed, RNG_TEST, step, (uint64_t)number);
    double squares = 0.0;
    for (int64_t j = 0; j < data->d; j++) {
        out[j] = rng_normal(&rng);
        squares += out[j] * out[j];
    }
    for (int64_t j = 0; j < data->d; j++)
        out[j] /= sqrt(squares);
}

void curation_support_fill(const CurationSupportData *data, float *values)
{
    double *centre = memory_alloc_array((size_t)data->d, sizeof *centre);
    double *noise = memory_alloc_array((size_t)data->d, sizeof *noise);
    for (int64_t i = 0; i < data->n; i++) {
        int64_t row = data->first + i;
        draw_direction(data, 902, curation_support_group(data, row), centre);
        draw_direction(data, 903, row, noise);
        for (int64_t j = 0; j < data->d; j++)
            values[i * data->d + j] = (float)(3.0 * (centre[j] + data->noise * noise[j]));
        if (i == data->nan_row) values[i * data->d + 1] = NAN;
        for (int64_t j = 0; i == data->zero_row && j < data->d; j++)
            values[i * data->d + j] = 0.0f;
    }
    memory_free(noise);
    memory_free(centre);
}

static FeaturesMeta meta_of(const char *arch, const char *model)
{
    return (FeaturesMeta){.model = model ? model : "m.h5",
                          .arch = arch ? arch : "sscd_resnet50",
                          .layer = "embedding",
                          .data = "planted",
                          .config = "",
                          .version = "0",
                          .input_size = 320};
}

void curation_support_write(const CurationSupportData *data, const char *path)
{
    FeaturesMeta meta = meta_of(data->arch, data->model);
    meta.upside_down = data->upside_down;
    size_t n = (size_t)data->n;
    float *values = memory_alloc_array(n * (size_t)data->d, sizeof *values);
    int64_t *labels = memory_alloc_array(n, sizeof *labels);
    char *text = memory_alloc_array(n, KEY_BYTES);
    const char **keys = memory_alloc_array(n, sizeof *keys);
    curation_support_fill(data, values);
    for (int64_t i = 0; i < data->n; i++) {
        labels[i] = curation_support_group(data, data->first + i);
        keys[i] = text + i * KEY_BYTES;
        snprintf(text + i * KEY_BYTES, KEY_BYTES, "row %lld",
                 (long long)(data->first + (i == data->same_key ? 0 : i)));
    }
    FeaturesFile file;
    Status status = features_file_create(&file, path, data->n, data->d, 0, KEY_BYTES, &meta, NULL);
    if (status == STATUS_OK && data->n > 0)
        status = features_file_write(&file, 0, data->n, values, labels, keys, NULL);
    if (status == STATUS_OK) status = features_file_commit(&file, NULL);
    CHECK(status == STATUS_OK);
    memory_free(keys);
    memory_free(text);
    memory_free(labels);
    memory_free(values);
}

void curation_support_write_views(const CurationSupportViews *data, const char *path)
{
    FeaturesMeta meta = meta_of(NULL, data->model);
    meta.views = data->views;
    meta.view_list = data->list;
    meta.upside_down = data->upside_down;
    FeaturesFile file;
    int64_t rows = data->n * data->views;
    Status status = features_file_create(&file, path, rows, data->d, 0, KEY_BYTES, &meta, NULL);
    for (int64_t r = 0; r < rows && status == STATUS_OK; r++) {
        char key[KEY_BYTES];
        const char *const keys[] = {key};
        int64_t label = -1;
        snprintf(key, sizeof key, "row %lld", (long long)(data->first + r / data->views));
        status = features_file_write(&file, r, 1, data->values + r * data->d, &label, keys, NULL);
    }
    if (status == STATUS_OK) status = features_file_commit(&file, NULL);
    CHECK(status == STATUS_OK);
}

void curation_support_write_angles(const double *degrees, int64_t n, const char *path)
{
    FeaturesMeta meta = meta_of(NULL, NULL);
    FeaturesFile file;
    float values[16];
    int64_t labels[8] = {0};
    const char *keys[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    CHECK(n <= 8);
    for (int64_t i = 0; i < n; i++) {
        values[2 * i] = (float)cos(degrees[i] * M_PI / 180.0);
        values[2 * i + 1] = (float)sin(degrees[i] * M_PI / 180.0);
    }
    Status status = features_file_create(&file, path, n, 2, 0, 1, &meta, NULL);
    if (status == STATUS_OK) status = features_file_write(&file, 0, n, values, labels, keys, NULL);
    if (status == STATUS_OK) status = features_file_commit(&file, NULL);
    CHECK(status == STATUS_OK);
}

/* synthetic_features.c - see synthetic_features.h. */
#include "features/synthetic_features.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/data_spec.h"
#include "features/features_file.h"
#include "run/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 8192, KEY_BYTES = 25, DRAW_LABEL = 0, DRAW_ROW, DRAW_GROUP, DRAW_CLUSTER, DRAW_VIEW };

static const double MATES = 0.3;                     /* cosine of objects of one cluster */
static const double NEAREST = 0.95, FARTHEST = 0.75; /* of two views that are as near to the object */

/* --- options --- */

typedef struct {
    const char *name;
    int64_t *to;
    int64_t low, high;
} Whole;

static Status set_option(SyntheticFeatures *features, const char *option, size_t length, Error *error)
{
    int64_t seed = -1;
    const Whole wholes[] = {{"rows=", &features->rows, 1, (int64_t)1 << 40},
                            {"columns=", &features->columns, 2, 1 << 16},
                            {"clusters=", &features->clusters, 1, 1 << 20},
                            {"copies=", &features->copies, 1, 1 << 20},
                            {"seed=", &seed, 0, INT64_MAX}};
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        size_t name = strlen(wholes[i].name);
        if (length <= name || strncmp(option, wholes[i].name, name) != 0) continue;
        *wholes[i].to = data_spec_number(option + name, length - name);
        if (*wholes[i].to < wholes[i].low || *wholes[i].to > wholes[i].high)
            return status_fail(error, STATUS_INPUT, "\"%.*s\": expected a whole number from %lld to %lld",
                               (int)length, option, (long long)wholes[i].low, (long long)wholes[i].high);
        if (seed >= 0) features->seed = (uint64_t)seed;
        return STATUS_OK;
    }
    static const char DUPLICATES[] = "duplicates=";
    size_t name = sizeof DUPLICATES - 1;
    if (length <= name || strncmp(option, DUPLICATES, name) != 0)
        return status_fail(error, STATUS_INPUT,
                           "\"%.*s\": expected rows=, columns=, clusters=, duplicates=, copies= or seed=",
                           (int)length, option);
    char *end;
    features->duplicates = strtod(option + name, &end);
    if (end != option + length || !(features->duplicates >= 0 && features->duplicates <= 1))
        return status_fail(error, STATUS_INPUT, "\"%.*s\": expected a share from 0 to 1", (int)length,
                           option);
    return STATUS_OK;
}

Status synthetic_features_parse(SyntheticFeatures *features, const char *options, Error *error)
{
    *features =
        (SyntheticFeatures){.rows = 100000, .columns = 512, .clusters = 1000, .duplicates = 0.3, .copies = 4};
    for (const char *at = options; *at;) {
        size_t length = strcspn(at, ",");
        TRY(set_option(features, at, length, error));
        at += length;
        if (*at == ',') at++;
    }
    return STATUS_OK;
}

/* --- drawing --- */

int64_t synthetic_features_groups(const SyntheticFeatures *features)
{
    int64_t groups = (int64_t)(features->duplicates * (double)features->rows / (double)features->copies);
    return groups > 0 ? groups : 1;
}

int64_t synthetic_features_label(const SyntheticFeatures *features, int64_t row)
{
    Rng rng = rng_at(features->seed, RNG_FEATURES, DRAW_LABEL, (uint64_t)row);
    if (rng_uniform01(&rng) >= features->duplicates) return -1;
    return rng_integer(&rng, 0, synthetic_features_groups(features) - 1);
}

int64_t synthetic_features_objects(const SyntheticFeatures *features)
{
    uint8_t *seen = memory_alloc((size_t)synthetic_features_groups(features));
    int64_t objects = 0;
    for (int64_t row = 0; row < features->rows; row++) {
        int64_t group = synthetic_features_label(features, row);
        objects += group < 0 || !seen[group];
        if (group >= 0) seen[group] = 1;
    }
    memory_free(seen);
    return objects;
}

/* out[d] = near * base + what is missing to unit length, in a direction drawn from rng. base NULL: that
 * alone. */
static void draw_near(Rng *rng, const float *base, double near, float *out, int64_t d)
{
    double squares = 0.0;
    for (int64_t j = 0; j < d; j++) {
        out[j] = (float)rng_normal(rng);
        squares += (double)out[j] * (double)out[j];
    }
    double scale = sqrt((1.0 - near * near) / squares), length = 0.0;
    for (int64_t j = 0; j < d; j++) {
        out[j] = (float)(scale * (double)out[j] + (base ? near * (double)base[j] : 0.0));
        length += (double)out[j] * (double)out[j];
    }
    for (int64_t j = 0; j < d; j++)
        out[j] = (float)((double)out[j] / sqrt(length));
}

float *synthetic_features_centres(const SyntheticFeatures *features)
{
    int64_t d = features->columns;
    float *centres = memory_alloc_array((size_t)(features->clusters * d), sizeof *centres);
    for (int64_t k = 0; k < features->clusters; k++) {
        Rng rng = rng_at(features->seed, RNG_FEATURES, DRAW_CLUSTER, (uint64_t)k);
        draw_near(&rng, NULL, 0.0, centres + k * d, d);
    }
    return centres;
}

static void draw_object(const SyntheticFeatures *features, const float *centres, uint64_t step,
                        int64_t number, float *out)
{
    Rng rng = rng_at(features->seed, RNG_FEATURES, step, (uint64_t)number);
    const float *centre = centres + rng_integer(&rng, 0, features->clusters - 1) * features->columns;
    draw_near(&rng, centre, sqrt(MATES), out, features->columns);
}

void synthetic_features_draw(const SyntheticFeatures *features, const float *centres, int64_t first,
                             int64_t n, float *values)
{
    int64_t d = features->columns;
    float *object = memory_alloc_array((size_t)d, sizeof *object);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = first + i, group = synthetic_features_label(features, row);
        if (group < 0) {
            draw_object(features, centres, DRAW_ROW, row, values + i * d);
            continue;
        }
        Rng rng = rng_at(features->seed, RNG_FEATURES, DRAW_VIEW, (uint64_t)row);
        draw_object(features, centres, DRAW_GROUP, group, object);
        draw_near(&rng, object, sqrt(rng_uniform(&rng, FARTHEST, NEAREST)), values + i * d, d);
    }
    memory_free(object);
}

/* --- writing --- */

typedef struct {
    FeaturesFile file;
    float *values;     /* [BLOCK, columns] */
    int64_t *labels;   /* [BLOCK] */
    char *text;        /* [BLOCK, KEY_BYTES + 1] */
    const char **keys; /* [BLOCK] into text */
} Writing;

static Status write_block(Writing *w, const SyntheticFeatures *features, const float *centres, int64_t first,
                          int64_t n, int threads, Error *error)
{
    enum { PART = 64 };
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t at = 0; at < n; at += PART)
        synthetic_features_draw(features, centres, first + at, n - at < PART ? n - at : PART,
                                w->values + at * features->columns);
    for (int64_t i = 0; i < n; i++) {
        char *key = w->text + i * (KEY_BYTES + 1);
        snprintf(key, KEY_BYTES + 1, "drawn/%013lld", (long long)(first + i));
        w->keys[i] = key;
        w->labels[i] = synthetic_features_label(features, first + i);
    }
    return features_file_write(&w->file, first, n, w->values, w->labels, w->keys, error);
}

static Status write_rows(Writing *w, const SyntheticFeatures *features, int threads, Log *log, Error *error)
{
    float *centres = synthetic_features_centres(features);
    w->values = memory_alloc_array((size_t)(BLOCK * features->columns), sizeof *w->values);
    w->labels = memory_alloc_array(BLOCK, sizeof *w->labels);
    w->text = memory_alloc_array(BLOCK, KEY_BYTES + 1);
    w->keys = memory_alloc_array(BLOCK, sizeof *w->keys);
    Progress progress = progress_begin(log, "features", 0, features->rows, features->rows / 10);
    progress.unit = "rows";
    Status status = STATUS_OK;
    for (int64_t first = 0; first < features->rows && status == STATUS_OK; first += BLOCK) {
        int64_t n = features->rows - first < BLOCK ? features->rows - first : BLOCK;
        status = write_block(w, features, centres, first, n, threads, error);
        progress_update(&progress, first + n, "");
    }
    progress_end(&progress);
    memory_free(centres);
    memory_free(w->values);
    memory_free(w->labels);
    memory_free(w->text);
    memory_free(w->keys);
    return status;
}

Status synthetic_features_write(const SyntheticFeatures *features, const char *path, const char *spec,
                                const char *version, int threads, Log *log, Error *error)
{
    FeaturesMeta meta = {.model = "drawn",
                         .arch = "drawn",
                         .layer = "drawn",
                         .data = spec,
                         .config = "",
                         .version = version,
                         .input_size = 0};
    Writing writing;
    TRY(atomic_file_make_parent(path, error));
    TRY(features_file_create(&writing.file, path, features->rows, features->columns,
                             synthetic_features_groups(features), KEY_BYTES, &meta, error));
    Status status = write_rows(&writing, features, threads, log, error);
    if (status == STATUS_OK) return features_file_commit(&writing.file, error);
    features_file_abandon(&writing.file);
    return status;
}

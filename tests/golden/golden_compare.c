/* golden_compare.c - the comparing half of golden.h, and the tally. */
#include "golden_support.h"

#include <criterion/criterion.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPORTED = 12 };

#define FORMAT_PATH(path, format)                     \
    char path[GOLDEN_MAX_PATH];                       \
    do {                                              \
        va_list arguments_;                           \
        va_start(arguments_, format);                 \
        golden_format_path(path, format, arguments_); \
        va_end(arguments_);                           \
    } while (0)

const char *golden_stem(const Golden *golden)
{
    return golden->stem;
}

Golden *golden_open(const char *file)
{
    hid_t id = H5Fopen(file, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (id < 0) return NULL;
    Golden *golden = calloc(1, sizeof *golden);
    cr_assert(golden != NULL);
    golden->file = id;
    const char *slash = strrchr(file, '/');
    snprintf(golden->stem, sizeof golden->stem, "%s", slash ? slash + 1 : file);
    char *dot = strrchr(golden->stem, '.');
    if (dot) *dot = '\0';
    const char *const *paths = golden_datasets(golden, &golden->entry_count, "%s", "");
    golden->entries = golden_keep(golden, golden->entry_count, sizeof *golden->entries);
    for (int64_t i = 0; i < golden->entry_count; i++) {
        double tolerance;
        golden->entries[i].path = strdup(paths[i]);
        golden->entries[i].required = golden_read_attr(golden, paths[i], "tol_abs", &tolerance);
    }
    return golden;
}

void golden_close(Golden *golden)
{
    for (int64_t i = 0; i < golden->entry_count; i++)
        free(golden->entries[i].path);
    for (int64_t i = 0; i < golden->block_count; i++)
        free(golden->blocks[i]);
    free(golden->blocks);
    H5Fclose(golden->file);
    free(golden);
}

static void append(Golden *golden, const char *line)
{
    GoldenSummary *summary = &golden->summary;
    size_t used = strlen(summary->text);
    if (golden->reported++ < MAX_REPORTED)
        snprintf(summary->text + used, sizeof summary->text - used, "    %s\n", line);
}

void golden_fail(Golden *golden, const char *format, ...)
{
    char line[GOLDEN_MAX_PATH + 128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    golden->summary.failures++;
    append(golden, line);
}

void golden_require(Golden *golden, bool (*required)(const char *path))
{
    for (int64_t i = 0; i < golden->entry_count; i++)
        if (required(golden->entries[i].path)) golden->entries[i].required = true;
}

/* Paths may hold doubled slashes or not exist at all: what cannot be found was not compared. */
static GoldenEntry *find_entry(Golden *golden, const char *path)
{
    for (int64_t i = 0; i < golden->entry_count; i++)
        if (strcmp(golden->entries[i].path, path) == 0) return &golden->entries[i];
    golden_stop(golden, "%s: no such data set to compare with", path);
}

/* Notes an outcome; `detail` says more when it failed. */
static bool settle(Golden *golden, const char *path, double share, const char *detail)
{
    find_entry(golden, path)->compared = true;
    GoldenSummary *summary = &golden->summary;
    bool agreed = share <= 1.0; /* false for NaN */
    if (!(share <= summary->worst) && !isnan(summary->worst)) {
        summary->worst = share;
        snprintf(summary->worst_path, sizeof summary->worst_path, "%s", path);
    }
    if (!agreed) golden_fail(golden, "%s: %s (%.3g of what is allowed)", path, detail, share);
    return agreed;
}

typedef struct {
    const double *stored;
    int64_t count;
} Stored;

static bool counts_agree(Golden *golden, const char *path, int64_t count, Stored *stored)
{
    GoldenShape shape;
    stored->stored = golden_read_f64(golden, &shape, path);
    stored->count = shape.count;
    if (count == shape.count) return true;
    find_entry(golden, path)->compared = true;
    golden_fail(golden, "%s: %lld values, stored are %lld", path, (long long)count, (long long)shape.count);
    return false;
}

/* Values [begin, end) of mine (one of the two pointers) against what is stored. */
static double largest_error(Stored stored, const float *mine32, const double *mine64, int64_t begin,
                            int64_t end, int64_t *where)
{
    double worst = 0.0;
    *where = begin;
    for (int64_t i = begin; i < end; i++) {
        double mine = mine32 ? (double)mine32[i] : mine64[i];
        double error = fabs(mine - stored.stored[i]);
        if (mine == stored.stored[i]) error = 0.0; /* infinities that agree */
        if (error <= worst) continue;
        worst = error;
        *where = i;
        if (isnan(error)) return error;
    }
    return worst;
}

static bool compare_range(Golden *golden, const char *path, Stored stored, const float *mine32,
                          const double *mine64, int64_t begin, int64_t end, double limit)
{
    int64_t where;
    double error = largest_error(stored, mine32, mine64, begin, end, &where);
    double share = error == 0.0 ? 0.0 : error / limit;
    char detail[160];
    double mine = stored.count == 0 ? 0.0 : mine32 ? (double)mine32[where] : mine64[where];
    snprintf(detail, sizeof detail, "[%lld] is %.9g, stored %.9g, off by %.3g, limit %.3g", (long long)where,
             mine, stored.count == 0 ? 0.0 : stored.stored[where], error, limit);
    return settle(golden, path, share, detail);
}

static double tolerance_of(Golden *golden, const char *path, const char *name)
{
    double limit = 0.0;
    if (!golden_read_attr(golden, path, name, &limit)) golden_stop(golden, "%s: has no %s", path, name);
    return limit;
}

bool golden_compare(Golden *golden, const float *mine, int64_t count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    return compare_range(golden, path, stored, mine, NULL, 0, count, tolerance_of(golden, path, "tol_abs"));
}

bool golden_compare_f64(Golden *golden, const double *mine, int64_t count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    return compare_range(golden, path, stored, NULL, mine, 0, count, tolerance_of(golden, path, "tol_abs"));
}

bool golden_compare_within(Golden *golden, const float *mine, int64_t count, double limit, const char *format,
                           ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    return compare_range(golden, path, stored, mine, NULL, 0, count, limit);
}

bool golden_compare_qkv_bias(Golden *golden, const float *mine, int64_t count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    double limit = tolerance_of(golden, path, "tol_abs_qv");
    bool query = compare_range(golden, path, stored, mine, NULL, 0, count / 3, limit);
    bool value = compare_range(golden, path, stored, mine, NULL, 2 * (count / 3), count, limit);
    return query && value;
}

bool golden_compare_u8(Golden *golden, const uint8_t *mine, int64_t count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += (double)mine[i] != stored.stored[i];
    char detail[96];
    snprintf(detail, sizeof detail, "%lld of %lld bytes differ", (long long)wrong, (long long)count);
    return settle(golden, path, wrong == 0 ? 0.0 : INFINITY, detail);
}

bool golden_compare_i64(Golden *golden, const int64_t *mine, int64_t count, const char *format, ...)
{
    FORMAT_PATH(path, format);
    Stored stored;
    if (!counts_agree(golden, path, count, &stored)) return false;
    GoldenShape shape;
    const int64_t *exact = golden_i64(golden, &shape, "%s", path);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++)
        wrong += mine[i] != exact[i];
    char detail[96];
    snprintf(detail, sizeof detail, "%lld of %lld integers differ", (long long)wrong, (long long)count);
    return settle(golden, path, wrong == 0 ? 0.0 : INFINITY, detail);
}

bool golden_judge(Golden *golden, double share, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return settle(golden, path, share, "differs");
}

void golden_summary(Golden *golden, GoldenSummary *summary)
{
    GoldenSummary *own = &golden->summary;
    own->compared = own->total = 0;
    for (int64_t i = 0; i < golden->entry_count; i++) {
        GoldenEntry *entry = &golden->entries[i];
        if (!entry->required) continue;
        own->total++;
        own->compared += entry->compared;
    }
    *summary = *own;
    int64_t missing = 0;
    for (int64_t i = 0; i < golden->entry_count && missing < MAX_REPORTED; i++) {
        const GoldenEntry *entry = &golden->entries[i];
        if (!entry->required || entry->compared) continue;
        size_t used = strlen(summary->text);
        snprintf(summary->text + used, sizeof summary->text - used, "    %s: never compared\n", entry->path);
        missing++;
    }
}

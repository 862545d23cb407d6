/* curation_truth.c - truth files looked up by key. */
#include "curation/curation_truth.h"

#include "base/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A column of paths, sorted. */
typedef struct {
    const char *path;
    int64_t row;
} Entry;

typedef struct {
    const CsvTable *table;
    Entry *entries; /* [table->rows] owned */
} Directory;

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const Entry *)a)->path, ((const Entry *)b)->path);
}

static Status directory_init(Directory *directory, const CsvTable *table, const char *column, Error *error)
{
    int64_t place;
    *directory = (Directory){.table = table};
    TRY(csv_table_column(table, column, &place, error));
    directory->entries = memory_alloc_array((size_t)table->rows + 1, sizeof *directory->entries);
    for (int64_t r = 0; r < table->rows; r++)
        directory->entries[r] = (Entry){csv_table_get(table, r, place), r};
    qsort(directory->entries, (size_t)table->rows, sizeof *directory->entries, compare_entries);
    return STATUS_OK;
}

/* The row of PREFIX + key, -1: none. */
static int64_t directory_find(const Directory *directory, const char *prefix, const char *key)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s", prefix, key);
    Entry wanted = {path, 0};
    const Entry *found =
        bsearch(&wanted, directory->entries, (size_t)directory->table->rows, sizeof wanted, compare_entries);
    return found ? found->row : -1;
}

static Status not_there(const CsvTable *table, const char *prefix, const char *key, Error *error)
{
    return status_fail(error, STATUS_INPUT, "%s: has no line for %s%s", table->path, prefix, key);
}

static Status load_part(CsvTable *table, Directory *directory, const char *folder, const char *name,
                        const char *column, Error *error)
{
    char path[sizeof table->path];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", folder);
    TRY(csv_table_load(table, path, error));
    return directory_init(directory, table, column, error);
}

/* Row by row: level, transform, and the source, which is the group, or for pictures that stand alone a
 * negative number of their own. */
static Status read_pool(CurationTruth *truth, const Directory *directory, const char *prefix,
                        const char *const *keys, Error *error)
{
    int64_t group, transform, level;
    TRY(csv_table_column(&truth->pool, "duplicate_group", &group, error));
    TRY(csv_table_column(&truth->pool, "transform", &transform, error));
    TRY(csv_table_column(&truth->pool, "level", &level, error));
    for (int64_t i = 0; i < truth->count; i++) {
        int64_t row = directory_find(directory, prefix, keys[i]);
        if (row < 0) return not_there(&truth->pool, prefix, keys[i], error);
        TRY(csv_table_integer(&truth->pool, row, level, &truth->level[i], error));
        TRY(csv_table_integer(&truth->pool, row, group, &truth->source[i], error));
        truth->transform[i] = csv_table_get(&truth->pool, row, transform);
        if (truth->source[i] < 0) truth->source[i] = -1 - i;
    }
    return STATUS_OK;
}

typedef struct {
    int64_t source, row;
} SourceRow;

static int compare_sources(const void *a, const void *b)
{
    int64_t x = ((const SourceRow *)a)->source, y = ((const SourceRow *)b)->source;
    return (x > y) - (x < y);
}

/* Sources become 0 .. sources - 1. */
static void number_sources(CurationTruth *truth)
{
    SourceRow *rows = memory_alloc_array((size_t)truth->count + 1, sizeof *rows);
    for (int64_t i = 0; i < truth->count; i++)
        rows[i] = (SourceRow){truth->source[i], i};
    qsort(rows, (size_t)truth->count, sizeof *rows, compare_sources);
    for (int64_t i = 0; i < truth->count; i++) {
        truth->sources += i == 0 || rows[i].source != rows[i - 1].source;
        truth->source[rows[i].row] = truth->sources - 1;
    }
    memory_free(rows);
}

static Status read_leaks(CurationTruth *truth, const char *folder, const char *prefix,
                         const char *const *keys, Error *error)
{
    CsvTable table;
    Directory directory = {0};
    int64_t level;
    Status status = load_part(&table, &directory, folder, "leaks.csv", "pool_path", error);
    if (status == STATUS_OK) status = csv_table_column(&table, "level", &level, error);
    for (int64_t i = 0; i < truth->count && status == STATUS_OK; i++) {
        int64_t row = directory_find(&directory, prefix, keys[i]);
        truth->leak_level[i] = CURATION_TRUTH_NO_LEAK;
        if (row >= 0) status = csv_table_integer(&table, row, level, &truth->leak_level[i], error);
    }
    memory_free(directory.entries);
    csv_table_fini(&table);
    return status;
}

Status curation_truth_load(CurationTruth *truth, const char *folder, const char *prefix,
                           const char *const *keys, int64_t count, Error *error)
{
    size_t n = (size_t)count + 1;
    *truth = (CurationTruth){.count = count,
                             .source = memory_alloc_array(n, sizeof(int64_t)),
                             .level = memory_alloc_array(n, sizeof(int64_t)),
                             .leak_level = memory_alloc_array(n, sizeof(int64_t)),
                             .transform = memory_alloc_array(n, sizeof(char *))};
    Directory directory = {0};
    Status status = load_part(&truth->pool, &directory, folder, "pool.csv", "path", error);
    if (status == STATUS_OK) status = read_pool(truth, &directory, prefix, keys, error);
    memory_free(directory.entries);
    TRY(status);
    number_sources(truth);
    return read_leaks(truth, folder, prefix, keys, error);
}

void curation_truth_fini(CurationTruth *truth)
{
    memory_free(truth->source);
    memory_free(truth->level);
    memory_free(truth->leak_level);
    memory_free(truth->transform);
    csv_table_fini(&truth->pool);
    *truth = (CurationTruth){0};
}

/* Whether "a/b/", of `length` bytes, is the end of a path like "../x/a/b" or "x/a/b/;limit=3". */
static bool ends_in(const char *data, const char *folders, size_t length)
{
    size_t end = strcspn(data, ";");
    while (end > 0 && data[end - 1] == '/')
        end--;
    if (length == 0) return true;
    size_t names = length - 1; /* without the last slash */
    if (names > end || memcmp(data + end - names, folders, names) != 0) return false;
    return names == end || data[end - names - 1] == '/' || data[end - names - 1] == ':';
}

Status curation_truth_prefix(char *prefix, const CsvTable *table, const char *data, const char *key,
                             Error *error)
{
    int64_t column, longest = -1;
    size_t key_length = strlen(key);
    TRY(csv_table_column(table, "path", &column, error));
    for (int64_t r = 0; r < table->rows; r++) {
        const char *path = csv_table_get(table, r, column);
        size_t length = strlen(path);
        if (length < key_length || strcmp(path + length - key_length, key) != 0) continue;
        length -= key_length;
        if (length > 0 && path[length - 1] != '/') continue;
        if (length >= CURATION_TRUTH_PREFIX || !ends_in(data, path, length)) continue;
        if ((int64_t)length <= longest) continue;
        longest = (int64_t)length;
        snprintf(prefix, CURATION_TRUTH_PREFIX, "%.*s", (int)length, path);
    }
    if (longest >= 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: has no line for %s of %s", table->path, key, data);
}

Status curation_truth_labels(CurationLabels *labels, const CsvTable *table, const char *prefix,
                             const char *const *keys, int64_t count, Error *error)
{
    *labels = (CurationLabels){.count = count,
                               .label = memory_alloc_array((size_t)count + 1, sizeof(char *)),
                               .ambiguous = memory_alloc_array((size_t)count + 1, sizeof(int64_t))};
    Directory directory;
    int64_t label, ambiguous;
    TRY(csv_table_column(table, "label", &label, error));
    TRY(csv_table_column(table, "ambiguous", &ambiguous, error));
    TRY(directory_init(&directory, table, "path", error));
    Status status = STATUS_OK;
    for (int64_t i = 0; i < count && status == STATUS_OK; i++) {
        int64_t row = directory_find(&directory, prefix, keys[i]);
        if (row < 0) {
            status = not_there(table, prefix, keys[i], error);
        } else {
            labels->label[i] = csv_table_get(table, row, label);
            status = csv_table_integer(table, row, ambiguous, &labels->ambiguous[i], error);
        }
    }
    memory_free(directory.entries);
    return status;
}

void curation_truth_labels_fini(CurationLabels *labels)
{
    memory_free(labels->label);
    memory_free(labels->ambiguous);
    *labels = (CurationLabels){0};
}

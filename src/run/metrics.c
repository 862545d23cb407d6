/* metrics.c - JSON lines, written without cJSON (no allocation per line) and read with it. */
#include "run/metrics.h"

#include "base/check.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 16384 };

struct Metrics {
    FILE *file;
    char *path;
    char line[LINE_MAX_BYTES];
};

void metrics_line_add(MetricsLine *line, const char *key, double value)
{
    CHECK(line->count < METRICS_KEYS_MAX);
    line->keys[line->count] = key;
    line->values[line->count++] = value;
}

/* Whether `line` is a whole line holding an object; its "iteration" (or -1 without one) goes to `iteration`.
 */
static bool parse_iteration(const char *line, size_t length, int64_t *iteration)
{
    if (length == 0 || line[length - 1] != '\n') return false;
    cJSON *tree = cJSON_ParseWithLength(line, length);
    bool good = cJSON_IsObject(tree);
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(tree, "iteration");
    *iteration = cJSON_IsNumber(number) ? (int64_t)number->valuedouble : -1;
    cJSON_Delete(tree);
    return good;
}

/* Bytes of the file before the first line that must go. Iterations only grow in a file, so that nothing after
 * it is wanted either. */
static long bytes_to_keep(FILE *file, char *line, int64_t first_iteration)
{
    long keep = 0;
    int64_t iteration;
    while (fgets(line, LINE_MAX_BYTES, file)) {
        size_t length = strlen(line);
        if (!parse_iteration(line, length, &iteration) || iteration >= first_iteration) break;
        keep += (long)length;
    }
    return keep;
}

static Status fail(Error *error, const char *path)
{
    return status_fail(error, STATUS_FAILED, "%s: cannot be written: %s", path, strerror(errno));
}

Status metrics_open(Metrics **metrics, const char *path, int64_t first_iteration, Error *error)
{
    *metrics = NULL;
    FILE *file = fopen(path, "a+e");
    if (!file) return fail(error, path);
    Metrics *opened = memory_alloc(sizeof *opened);
    *opened = (Metrics){.file = file, .path = memory_strdup(path)};
    rewind(file);
    long keep = bytes_to_keep(file, opened->line, first_iteration);
    if (fseek(file, 0, SEEK_END) != 0 || ftruncate(fileno(file), keep) != 0) {
        Status status = fail(error, path);
        metrics_close(opened);
        return status;
    }
    *metrics = opened;
    return STATUS_OK;
}

/* The shortest text of 15 to 17 digits that reads back as the same double. */
static int format_number(char *text, size_t size, double value)
{
    if (!isfinite(value)) return snprintf(text, size, "null");
    int length = 0;
    for (int digits = 15; digits <= 17; digits++) {
        length = snprintf(text, size, "%.*g", digits, value);
        double back = 0;
        if (sscanf(text, "%lf", &back) == 1 && back == value) break;
    }
    return length;
}

Status metrics_write(Metrics *metrics, const MetricsLine *line, Error *error)
{
    size_t used = 0;
    for (int i = 0; i < line->count; i++) {
        char number[40];
        format_number(number, sizeof number, line->values[i]);
        int length = snprintf(metrics->line + used, sizeof metrics->line - used, "%s\"%s\": %s",
                              i ? ", " : "{", line->keys[i], number);
        used += (size_t)length;
        CHECK(used + 4 < sizeof metrics->line);
    }
    memcpy(metrics->line + used, line->count ? "}\n" : "{}\n", line->count ? 3 : 4);
    if (fputs(metrics->line, metrics->file) == EOF || fflush(metrics->file) != 0)
        return fail(error, metrics->path);
    return STATUS_OK;
}

void metrics_close(Metrics *metrics)
{
    if (!metrics) return;
    fclose(metrics->file);
    memory_free(metrics->path);
    memory_free(metrics);
}

/* --- reading --- */

static int column_of(MetricsTable *table, const char *key, int64_t capacity)
{
    for (int k = 0; k < table->columns; k++)
        if (strcmp(table->keys[k], key) == 0) return k;
    if (table->columns == METRICS_KEYS_MAX) return -1;
    double *values = memory_alloc_array((size_t)capacity, sizeof *values);
    for (int64_t i = 0; i < capacity; i++)
        values[i] = (double)NAN;
    table->keys[table->columns] = memory_strdup(key);
    table->values[table->columns] = values;
    return table->columns++;
}

static void take_line(MetricsTable *table, const cJSON *tree, int64_t capacity)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, tree)
    {
        int column = column_of(table, item->string, capacity);
        if (column >= 0 && cJSON_IsNumber(item)) table->values[column][table->lines] = item->valuedouble;
    }
    table->lines++;
}

static int64_t count_lines(FILE *file, char *line)
{
    int64_t count = 0;
    while (fgets(line, LINE_MAX_BYTES, file))
        count++;
    rewind(file);
    return count;
}

static Status read_lines(MetricsTable *table, FILE *file, const char *path, char *line, Error *error)
{
    int64_t capacity = count_lines(file, line);
    while (fgets(line, LINE_MAX_BYTES, file)) {
        size_t length = strlen(line);
        if (line[length - 1] != '\n' && feof(file)) break; /* torn by the end of a job */
        cJSON *tree = cJSON_ParseWithLength(line, length);
        bool good = cJSON_IsObject(tree);
        if (good) take_line(table, tree, capacity);
        cJSON_Delete(tree);
        if (!good)
            return status_fail(error, STATUS_INPUT, "%s:%lld: expected one JSON object", path,
                               (long long)table->lines + 1);
    }
    return STATUS_OK;
}

Status metrics_table_read(MetricsTable *table, const char *path, Error *error)
{
    *table = (MetricsTable){0};
    FILE *file = fopen(path, "re");
    if (!file) return status_fail(error, STATUS_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    table->keys = memory_alloc_array(METRICS_KEYS_MAX, sizeof *table->keys);
    table->values = memory_alloc_array(METRICS_KEYS_MAX, sizeof *table->values);
    char *line = memory_alloc(LINE_MAX_BYTES);
    Status status = read_lines(table, file, path, line, error);
    memory_free(line);
    fclose(file);
    if (status != STATUS_OK) metrics_table_fini(table);
    return status;
}

void metrics_table_fini(MetricsTable *table)
{
    for (int k = 0; k < table->columns; k++) {
        memory_free(table->keys[k]);
        memory_free(table->values[k]);
    }
    memory_free(table->keys);
    memory_free(table->values);
    *table = (MetricsTable){0};
}

const double *metrics_table_column(const MetricsTable *table, const char *key)
{
    for (int k = 0; k < table->columns; k++)
        if (strcmp(table->keys[k], key) == 0) return table->values[k];
    return NULL;
}

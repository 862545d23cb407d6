/* ablation_results.c - writing a row's figures, and putting those of several seeds together. */
#include "ablation/ablation_results.h"

#include "base/memory.h"
#include "h5/result_file.h"
#include "run/version.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *ablation_results_path(const char *folder, int row, const char *seed)
{
    size_t size = strlen(folder) + strlen(seed) + 32;
    char *path = memory_alloc(size);
    snprintf(path, size, "%s/row%02d_seed%s.h5", folder, row + 1, seed);
    return path;
}

Status ablation_results_state(const AblationTable *table, int row, const char *seed, const char *folder,
                              AblationState *state, Error *error)
{
    char *path = ablation_results_path(folder, row, seed), digest[ABLATION_DIGEST];
    *state = ABLATION_MISSING;
    Status status = ablation_table_digest(table, row, digest, error);
    if (status == STATUS_OK && access(path, F_OK) == 0) {
        Result result;
        status = result_file_read(path, &result, error);
        if (status == STATUS_OK) *state = strcmp(result.digest, digest) == 0 ? ABLATION_DONE : ABLATION_STALE;
        result_file_fini(&result);
    }
    memory_free(path);
    return status;
}

static const Figure *find(const Result *result, const char *name)
{
    for (int64_t i = 0; i < result->count; i++)
        if (strcmp(result->figures[i].name, name) == 0) return &result->figures[i];
    return NULL;
}

static Status no_figure(const char *path, const Result *result, const char *name, Error *error)
{
    char names[256] = "";
    for (int64_t i = 0; i < result->count; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "",
                 result->figures[i].name);
    return status_fail(error, STATUS_INPUT, "%s: has no figure %s, but %s", path, name, names);
}

/* The value of a column from its evaluation's file. */
static Status take_figure(const AblationTable *table, const AblationColumn *column, const char *const *files,
                          double *value, Error *error)
{
    int e = 0;
    while (strcmp(table->evaluations[e].name, column->of) != 0)
        e++;
    Result result;
    Status status = result_file_read(files[e], &result, error);
    const Figure *figure = status == STATUS_OK ? find(&result, column->figure) : NULL;
    if (figure)
        *value = figure->value;
    else if (status == STATUS_OK)
        status = no_figure(files[e], &result, column->figure, error);
    result_file_fini(&result);
    return status;
}

Status ablation_results_write(const AblationTable *table, int row, const char *seed, const char *folder,
                              const char *const *files, const char *config, Error *error)
{
    char digest[ABLATION_DIGEST], subject[512];
    TRY(ablation_table_digest(table, row, digest, error));
    snprintf(subject, sizeof subject, "%.100s, row %d (%.300s), seed %s", table->name, row + 1,
             table->rows[row].name, seed);
    Figure *figures = memory_alloc_array((size_t)table->column_count, sizeof *figures);
    Status status = STATUS_OK;
    for (int c = 0; c < table->column_count && status == STATUS_OK; c++) {
        const AblationColumn *column = &table->columns[c];
        figures[c] = (Figure){.name = column->name,
                              .unit = column->unit,
                              .published = ablation_table_published(table, row, c),
                              .source = table->source ? table->source : ""};
        status = take_figure(table, column, files, &figures[c].value, error);
    }
    if (status == STATUS_OK) {
        Result result = {.job = "ablate run",
                         .subject = subject,
                         .config = config,
                         .version = version_number(),
                         .digest = digest,
                         .figures = figures,
                         .count = table->column_count};
        char *path = ablation_results_path(folder, row, seed);
        status = result_file_write(path, &result, error);
        memory_free(path);
    }
    memory_free(figures);
    return status;
}

/* --- all of them --- */

/* Sums of one row's seeds, per column. */
typedef struct {
    double sum, squares;
} Sums;

static Status read_seed(const AblationTable *table, const char *path, AblationRowResults *row, Sums *sums,
                        Error *error)
{
    if (access(path, F_OK) != 0) return STATUS_OK;
    Result result;
    Status status = result_file_read(path, &result, error);
    if (status == STATUS_OK && strcmp(result.digest, row->digest) != 0) {
        row->stale++;
    } else if (status == STATUS_OK) {
        row->measured++;
        snprintf(row->version, sizeof row->version, "%s", result.version);
        for (int c = 0; c < table->column_count && status == STATUS_OK; c++) {
            const Figure *figure = find(&result, table->columns[c].name);
            if (!figure) {
                status = no_figure(path, &result, table->columns[c].name, error);
                break;
            }
            sums[c].sum += figure->value;
            sums[c].squares += figure->value * figure->value;
        }
    }
    result_file_fini(&result);
    return status;
}

static void finish_row(const AblationTable *table, const AblationRowResults *other, AblationRowResults *row,
                       const Sums *sums)
{
    double n = row->measured;
    for (int c = 0; c < table->column_count; c++) {
        AblationCell *cell = &row->cells[c];
        *cell = (AblationCell){.seeds = row->measured, .mean = NAN, .spread = NAN, .step = NAN};
        if (row->measured > 0) cell->mean = sums[c].sum / n;
        if (row->measured > 1)
            cell->spread = sqrt(fmax(sums[c].squares - n * cell->mean * cell->mean, 0) / (n - 1));
        if (other) cell->step = cell->mean - other->cells[c].mean;
    }
}

Status ablation_results_load(AblationResults *results, const AblationTable *table, const char *folder,
                             Error *error)
{
    *results = (AblationResults){.rows = memory_alloc_array((size_t)table->row_count, sizeof *results->rows),
                                 .count = table->row_count};
    const AblationRowResults *above = NULL;
    Sums *sums = memory_alloc_array((size_t)table->column_count, sizeof *sums);
    Status status = STATUS_OK;
    for (int r = 0; r < table->row_count && status == STATUS_OK; r++) {
        AblationRowResults *row = &results->rows[r];
        row->cells = memory_alloc_array((size_t)table->column_count, sizeof *row->cells);
        memset(sums, 0, (size_t)table->column_count * sizeof *sums);
        status = ablation_table_digest(table, r, row->digest, error);
        for (int s = 0; s < table->seeds.count && status == STATUS_OK; s++) {
            char *path = ablation_results_path(folder, r, table->seeds.texts[s]);
            status = read_seed(table, path, row, sums, error);
            memory_free(path);
        }
        const char *beside = table->rows[r].beside;
        finish_row(table, beside ? &results->rows[ablation_table_row(table, beside)] : above, row, sums);
        if (!table->rows[r].aside) above = row;
    }
    memory_free(sums);
    return status;
}

void ablation_results_fini(AblationResults *results)
{
    for (int r = 0; r < results->count; r++)
        memory_free(results->rows[r].cells);
    memory_free(results->rows);
    *results = (AblationResults){0};
}

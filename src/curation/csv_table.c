/* csv_table.c - splits the text in place. */
#include "curation/csv_table.h"

#include "base/memory.h"
#include "base/text_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int64_t count_of(const char *text, char wanted, const char *end)
{
    int64_t count = 0;
    for (const char *at = text; at < end; at++)
        count += *at == wanted;
    return count;
}

/* Splits one line into the fields of row `row`, the header being row 0. */
static Status split_line(CsvTable *table, char *line, int64_t row, Error *error)
{
    int64_t fields = count_of(line, ',', line + strlen(line)) + 1;
    if (strchr(line, '"'))
        return status_fail(error, STATUS_INPUT, "%s:%lld: quotes are not expected here", table->path,
                           (long long)row + 1);
    if (fields != table->columns)
        return status_fail(error, STATUS_INPUT, "%s:%lld: %lld fields, expected %lld as in the header",
                           table->path, (long long)row + 1, (long long)fields, (long long)table->columns);
    for (int64_t c = 0; c < fields; c++) {
        table->fields[row * table->columns + c] = line;
        line += strcspn(line, ",");
        *line++ = 0;
    }
    return STATUS_OK;
}

Status csv_table_load(CsvTable *table, const char *path, Error *error)
{
    *table = (CsvTable){0};
    if (strlen(path) >= sizeof table->path)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", path);
    strcpy(table->path, path);
    size_t size = 0;
    TRY(text_file_read(path, TEXT_FILE_MOST, &table->text, &size, error));
    char *line = table->text, *end = table->text + size;
    size_t header = strcspn(line, "\n");
    if (header == 0) return status_fail(error, STATUS_INPUT, "%s: no header line", path);
    int64_t lines = count_of(line, '\n', end) + 1;
    table->columns = count_of(line, ',', line + header) + 1;
    table->fields = memory_alloc_array((size_t)(lines * table->columns), sizeof *table->fields);
    int64_t row = 0;
    while (line < end) {
        size_t length = strcspn(line, "\n");
        line[length] = 0;
        if (length > 0 && line[length - 1] == '\r') line[length - 1] = 0;
        TRY(split_line(table, line, row++, error));
        line += length + 1;
    }
    table->rows = row - 1;
    return STATUS_OK;
}

void csv_table_fini(CsvTable *table)
{
    memory_free(table->fields);
    memory_free(table->text);
    *table = (CsvTable){0};
}

Status csv_table_column(const CsvTable *table, const char *name, int64_t *column, Error *error)
{
    for (int64_t c = 0; c < table->columns; c++)
        if (strcmp(table->fields[c], name) == 0) {
            *column = c;
            return STATUS_OK;
        }
    return status_fail(error, STATUS_INPUT, "%s: no column %s", table->path, name);
}

const char *csv_table_get(const CsvTable *table, int64_t row, int64_t column)
{
    return table->fields[(row + 1) * table->columns + column];
}

Status csv_table_integer(const CsvTable *table, int64_t row, int64_t column, int64_t *value, Error *error)
{
    const char *text = csv_table_get(table, row, column);
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return status_fail(error, STATUS_INPUT, "%s:%lld: %s: '%s' is no whole number", table->path,
                           (long long)row + 2, table->fields[column], text);
    *value = number;
    return STATUS_OK;
}

/* csv_table.h - a small text table with a header line: fields between commas, no quotes.
 *
 * For the truth files of curation benchmarks, whose paths hold neither. The whole file is in memory.
 */
#ifndef DINOBATCH_CURATION_CSV_TABLE_H
#define DINOBATCH_CURATION_CSV_TABLE_H

#include "base/status.h"

#include <stdint.h>

typedef struct {
    char path[1024]; /* of the file, for messages */
    char *text;      /* the file, fields ended by NUL; owned */
    char **fields;   /* [rows + 1, columns] into text, the header first; owned */
    int64_t rows, columns;
} CsvTable;

/* STATUS_INPUT with `FILE:LINE: ...`: no such file, larger than 1 GiB, no header, a line with more or fewer
 * fields than it, a quote. Released by csv_table_fini, also after a failure. Not collective. */
Status csv_table_load(CsvTable *table, const char *path, Error *error);
void csv_table_fini(CsvTable *table);

/* *column of that name. STATUS_INPUT naming file and column if there is none. */
Status csv_table_column(const CsvTable *table, const char *name, int64_t *column, Error *error);

/* The field of a row, 0 <= row < rows; borrowed. */
const char *csv_table_get(const CsvTable *table, int64_t row, int64_t column);

/* The field as a whole number. STATUS_INPUT naming file, line and field. */
Status csv_table_integer(const CsvTable *table, int64_t row, int64_t column, int64_t *value, Error *error);

#endif

/* metrics.h - training_metrics.json: one JSON object per line, one line per iteration.
 *
 * Rank 0 writes, every line is flushed, nothing is allocated per line. NaN and inf are not JSON: they become
 * null. The reader is for plots and tests; it is deliberately not a general JSON reader.
 */
#ifndef DINOBATCH_RUN_METRICS_H
#define DINOBATCH_RUN_METRICS_H

#include "base/status.h"

#include <stdint.h>

enum { METRICS_KEYS_MAX = 64 };

/* Ordered key/value pairs of one line. */
typedef struct {
    int count;
    const char *keys[METRICS_KEYS_MAX]; /* borrowed; no characters that JSON escapes */
    double values[METRICS_KEYS_MAX];
} MetricsLine;

/* Appends a pair; over METRICS_KEYS_MAX is our bug. `line` starts zeroed: `MetricsLine line = {0};` */
void metrics_line_add(MetricsLine *line, const char *key, double value);

typedef struct Metrics Metrics;

/* Opens `path` to append. Lines of `first_iteration` and later, and a torn last line, are cut off, so that a
 * resumed run has every iteration once. STATUS_FAILED naming the file. Owned by the caller. */
Status metrics_open(Metrics **metrics, const char *path, int64_t first_iteration, Error *error);

/* Writes and flushes one line; STATUS_FAILED when the disk says so. */
Status metrics_write(Metrics *metrics, const MetricsLine *line, Error *error);

/* NULL is fine. */
void metrics_close(Metrics *metrics);

/* A metrics file in memory: a column per key that occurs, NaN where a line lacks it or says null. */
typedef struct {
    int64_t lines;
    int columns;
    char **keys;     /* [columns] owned, in order of first appearance */
    double **values; /* [columns][lines] owned */
} MetricsTable;

/* Own storage, released by metrics_table_fini. STATUS_INPUT naming file and line when it is not such a file;
 * a torn last line is ignored. */
Status metrics_table_read(MetricsTable *table, const char *path, Error *error);
void metrics_table_fini(MetricsTable *table);

/* [table->lines] borrowed; NULL when the key does not occur. */
const double *metrics_table_column(const MetricsTable *table, const char *key);

#endif

/* result_file.h - the `result` kind: figures with name, unit, published value and where they come from. */
#ifndef DINOBATCH_H5_RESULT_FILE_H
#define DINOBATCH_H5_RESULT_FILE_H

#include "base/status.h"

#include <stdint.h>

/* One figure; the strings are borrowed when writing, owned by the Result when read. */
typedef struct {
    const char *name; /* "knn_top1_k20" */
    const char *unit; /* "%", "images/s", ... */
    double value;
    double published;   /* the reference's value, or NaN */
    const char *source; /* where the published value stands; "" if none */
} Figure;

/* Which class was taken for which, on one or more data sets. */
typedef struct {
    const double *counts; /* [sets, classes, classes] by truth, then by what was said; NULL: none */
    int64_t sets, classes;
} ResultConfusion;

typedef struct {
    const char *job;     /* "evaluate knn" */
    const char *subject; /* what was measured: a checkpoint or a features file */
    const char *config;  /* resolved configuration, YAML */
    const char *version; /* of the program */
    const char *digest;  /* of the experiment that it belongs to; NULL (read: ""): none */
    const Figure *figures;
    int64_t count;
    ResultConfusion confusion;
} Result;

/* Writes PATH atomically. Not collective: one rank writes. */
Status result_file_write(const char *path, const Result *result, Error *error);

/* Reads PATH; free by result_file_fini. */
Status result_file_read(const char *path, Result *result, Error *error);
void result_file_fini(Result *result);

#endif

/* h5_check.h - is this file one of ours, whole and right? Whatever is in it, the answer is a line, not a
 * crash.
 */
#ifndef DINOBATCH_H5_H5_CHECK_H
#define DINOBATCH_H5_H5_CHECK_H

#include "h5/h5_schema.h"

/* What was found. */
typedef struct {
    char format[48]; /* "dinobatch-checkpoint", ... */
    int64_t version;
    int64_t bytes; /* of the file */
} H5Report;

/* Checks the file against the schema that its `format` attribute names. Runs in a child process, so that a
 * crash or an endless loop inside libhdf5 becomes STATUS_INPUT as well. `kind`: "checkpoint", ... to insist
 * on one, or NULL. Call it from one thread; not collective. */
Status h5_check_file(const char *path, const char *kind, H5CheckDepth depth, H5Report *report, Error *error);

#endif

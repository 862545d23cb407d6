/* h5_check.h - is this file one of ours, whole and right? Whatever is in it, the answer is a line, not a
 * crash.
 *
 * All checks run in a child process, so that a crash or an endless loop inside libhdf5 becomes STATUS_INPUT
 * as well; what it passes, libhdf5 has walked once, and reading it does nothing new but bring bytes, which
 * have checksums. Files that a job is given are opened by h5_check_open, and not by h5_file_open. A child
 * costs one fork and a second look at the names in a file: where there may be thousands of files,
 * h5_check_files looks at all of them in one. None of this is collective.
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

/* Checks the file against the schema that its `format` attribute names. `kind`: "checkpoint", ... to insist
 * on one, or NULL. STATUS_INPUT: one line that names what is wrong. STATUS_FAILED: the check was killed from
 * outside. Without memory for a child it is done here. */
Status h5_check_file(const char *path, const char *kind, H5CheckDepth depth, H5Report *report, Error *error);

/* The structure of files of one kind, by one child, in their order up to the first that is wrong. */
Status h5_check_files(const char *const *paths, int64_t count, const char *kind, Error *error);

/* Checks the structure, and opens the file for reading. Close by h5_file_close. */
Status h5_check_open(H5File *file, const char *path, const char *kind, Error *error);

#endif

/* golden_support.h - what golden_read.c and golden_compare.c share. Checkers include golden.h only. */
#ifndef DINOBATCH_TESTS_GOLDEN_GOLDEN_SUPPORT_H
#define DINOBATCH_TESTS_GOLDEN_GOLDEN_SUPPORT_H

#include "golden.h"

#include <stdarg.h>

enum { GOLDEN_MAX_PATH = 256 };

/* One data set that must be compared, or was. */
typedef struct {
    char *path;
    bool required, compared;
} GoldenEntry;

struct Golden {
    int64_t file; /* HDF5's identifier */
    char stem[64];
    GoldenEntry *entries; /* every data set of the file */
    int64_t entry_count;
    void **blocks; /* memory handed out by readers */
    int64_t block_count, block_room;
    GoldenSummary summary;
    int reported; /* failures written to summary.text */
};

/* printf into path[GOLDEN_MAX_PATH], without a leading slash. */
void golden_format_path(char *path, const char *format, va_list arguments);

/* Zeroed memory that golden_close frees. */
void *golden_keep(Golden *golden, int64_t count, int64_t bytes);

/* Like golden_f64 for a finished path. */
const double *golden_read_f64(Golden *golden, GoldenShape *shape, const char *path);

/* Attribute of a data set as a number; false when there is none. */
bool golden_read_attr(Golden *golden, const char *path, const char *name, double *value);

/* Prints the message and fails the running test. */
_Noreturn void golden_stop(const Golden *golden, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif

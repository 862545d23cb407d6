/* data_spec.h - the text of a data set spec taken apart; data_set.h describes the forms. Private to data/. */
#ifndef DINOBATCH_DATA_DATA_SPEC_H
#define DINOBATCH_DATA_DATA_SPEC_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    DATA_SPEC_FOLDER,
    DATA_SPEC_PAIRS,
    DATA_SPEC_TAR,
    DATA_SPEC_HDF5,
    DATA_SPEC_SYNTHETIC,
    DATA_SPEC_IMAGENET,    /* location: the folder of the split */
    DATA_SPEC_IMAGENET22K, /* location: the root */
} DataSpecKind;

typedef enum {
    DATA_SPEC_STRIDE,
    DATA_SPEC_OFFSET,
    DATA_SPEC_LIMIT,
    DATA_SPEC_PER_CLASS,
    DATA_SPEC_SPREAD
} DataSpecStepKind;

typedef struct {
    DataSpecStepKind kind;
    int64_t value; /* >= 1 */
} DataSpecStep;

enum { DATA_SPEC_MAX_STEPS = 8 };

typedef struct {
    DataSpecKind kind;
    char *location;                          /* path, glob or options; owned */
    DataSpecStep steps[DATA_SPEC_MAX_STEPS]; /* in the order to apply */
    int step_count;
} DataSpec;

/* STATUS_INPUT with one line that quotes the spec. Released by data_spec_fini, also after failure. */
Status data_spec_init(DataSpec *spec, const char *text, Error *error);

void data_spec_fini(DataSpec *spec);

/* A decimal number without sign of at most 18 digits in text[length]; -1: it is none. */
int64_t data_spec_number(const char *text, size_t length);

#endif

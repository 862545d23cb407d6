/* batch.h - what one training step of one rank sees: crops, masks, and where they came from.
 *
 * Filled by loader.h, read by ssl/. All arrays lie in host memory and are owned by the Batch. Samples are
 * ordered by group, then by place in the group: sample s is place s % group_size of global group first_group
 * + s / group_size. It holds no labels: pretraining has none.
 */
#ifndef DINOBATCH_DATA_BATCH_H
#define DINOBATCH_DATA_BATCH_H

#include "base/dtype.h"
#include "device/device.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t step;        /* 0-based iteration that these samples belong to */
    int64_t samples;     /* S = groups * group_size of this rank */
    int64_t group_size;  /* B, train.batch_size_per_gpu */
    int64_t groups;      /* of this rank */
    int64_t first_group; /* global number of this rank's first group */
    int64_t local_count; /* L local crops of each sample, may be 0 */
    int64_t global_size; /* G, pixels */
    int64_t local_size;  /* l, pixels */
    int64_t patches;     /* N of a global crop, (G / patch_size)^2 */
    Dtype pixels;        /* uint8: grey levels, all that the loader makes; fp32: normalised already */
    void *global_crops;  /* [S, 2, 3, G, G] */
    void *local_crops;   /* [S, L, 3, l, l] */
    uint8_t *masks;      /* [S, 2, N] 1 = hidden from the student */
    int64_t *upperbound; /* [groups] rows of the padded iBOT buffer of each group */
    int64_t *indices;    /* [S] data set index of the image really used */
    double wait_seconds; /* time that loader_next() blocked for this batch */
    Device *device;      /* whose host memory the pictures lie in; NULL: plain memory */
    int64_t corrupt;     /* unreadable images that had to be replaced for it */
} Batch;

/* Allocates the arrays of `batch` for the sizes that its caller has filled in (samples to pixels; they must
 * be consistent: samples == groups * group_size), where given in memory that the device reads at full speed.
 * Contents are zero. Released by batch_fini. */
void batch_init(Batch *batch, Device *device);

void batch_fini(Batch *batch);

/* Bytes that the arrays of such a batch take. */
size_t batch_bytes(const Batch *batch);

#endif

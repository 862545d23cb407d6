/* pair_loader.h - pictures with masks for a network that says something of every patch, by threads.
 *
 * A picture is scaled and lies in a frame whose sides are multiples of the patch size; around it is padding,
 * half on each side (notebooks/semantic_segmentation.ipynb, CenterPadding). Training draws the scale, a crop
 * and a flip, and the mask becomes that crop of it by nearest neighbours, pixel for pixel beside the
 * picture's (mmsegmentation's Resize, RandomCrop, RandomFlip, which the reference's configurations name).
 * Tests have whole pictures at several scales, mirrored or not, beside the mask as it is.
 * DEVIATION: a crop is not redrawn when one class fills it (cat_max_ratio); colours stay as they are.
 *
 * Unusable pictures and masks end the pass: STATUS_INPUT, one line that names the file.
 */
#ifndef DINOBATCH_DATA_PAIR_LOADER_H
#define DINOBATCH_DATA_PAIR_LOADER_H

#include "data/data_set.h"

/* How a test sees a picture. */
typedef struct {
    double scale;
    bool mirror;
} PairView;

typedef struct {
    int64_t patch_size;
    uint8_t padding[3]; /* grey levels around a picture */
    int64_t size;       /* shorter side of a picture at scale 1, in pixels; 0: as it is */
    int mask_bits;      /* 8 or 16, what masks must have */
    int64_t classes;    /* masks hold numbers below, or `ignore`; 0: any */
    int64_t ignore;
    bool grayscale; /* pictures are grey: three planes that are the same */
    /* A training: views NULL. */
    double scale[2]; /* log-uniform between */
    int64_t crop;    /* edge in pixels; 0: whole pictures */
    double flip;     /* probability */
    uint64_t seed;
    int64_t batch_size;     /* samples of a step, of all ranks */
    int64_t first, count;   /* this rank's part of them */
    int64_t step, step_end; /* steps [step, step_end) */
    /* A test: pictures [first, first + count) of the set, one after the other. */
    const PairView *views; /* [view_count] borrowed */
    int64_t view_count;
    int num_workers; /* 0: pair_loader_next does the work itself */
} PairLoaderParams;

/* A picture in its frame. Mask pixel (y, x) covers the same share of the picture as of the mask. */
typedef struct {
    int64_t height, width;            /* of the frame */
    int64_t top, left, rows, columns; /* of the picture in it */
    bool mirrored;                    /* the picture, but not its mask */
    uint8_t *planes;                  /* [3, height, width] */
    size_t bytes;                     /* behind planes */
    GrayImage mask;                   /* of a test: with the first view alone */
} PairSample;

typedef struct {
    PairSample *samples; /* [count]: of a step, or the views of a picture */
    int64_t count;
    double wait_seconds;
} PairBatch;

typedef struct PairLoader PairLoader;

/* `set` has masks, is borrowed and outlives the loader. STATUS_FAILED: threads cannot be had. */
Status pair_loader_create(PairLoader **out, const PairLoaderParams *params, const DataSet *set, Error *error);
void pair_loader_destroy(PairLoader *loader);

/* The next batch, in order, or NULL after the last. The loader's memory, in use until release. */
Status pair_loader_next(PairLoader *loader, PairBatch **batch, Error *error);
void pair_loader_release(PairLoader *loader, PairBatch *batch);

#endif

/* eval_loader.h - an ordered pass over a part of a data set with an evaluation transform, by threads.
 *
 * Each picture becomes one image, or one for each view of it (image_views.h), side by side in a batch; a view
 * is made of the decoded picture, and the transform takes it for the whole one.
 *
 * Images that cannot be read or decoded keep their place with valid = 0 and black pixels, and are noted in
 * data_set_corrupt; the pass goes on.
 *
 *     TRY(eval_loader_create(&loader, &params, set, error));
 *     for (;;) {
 *         TRY(eval_loader_next(loader, &batch, error));
 *         if (!batch) break;
 *         ...; eval_loader_release(loader, batch);
 *     }
 */
#ifndef DINOBATCH_DATA_EVAL_LOADER_H
#define DINOBATCH_DATA_EVAL_LOADER_H

#include "base/status.h"
#include "data/data_set.h"
#include "data/image_views.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What becomes of an image. */
typedef enum {
    EVAL_CENTRE,  /* shorter side to resize_size (bicubic), then the centre, crop_size squared: DINOv2's */
    EVAL_SQUARE,  /* all of it to crop_size squared (bilinear), skewed where it is not square: SSCD's way for
                     batches */
    EVAL_SHORTER, /* shorter side to crop_size (bilinear), the longer in proportion: SSCD's other way.
                     DEVIATION: at most EVAL_LONGEST times the shorter one, and skewed beyond, since memory is
                     planned */
    EVAL_WHOLE,   /* all of it to `size` (bicubic), skewed where its shape is another */
    EVAL_NATIVE,  /* all of it at its own size (bicubic), sides rounded to multiples of patch_size; of more
                     than most_patches scaled down to these */
} EvalTransform;

enum { EVAL_LONGEST = 4 };

typedef struct {
    int64_t height, width;
} EvalSize;

typedef struct {
    EvalTransform transform;
    int64_t resize_size, crop_size;   /* pixels; resize_size is for EVAL_CENTRE alone, and not less */
    EvalSize size;                    /* of EVAL_WHOLE */
    int64_t patch_size, most_patches; /* of EVAL_NATIVE */
    int64_t batch_size;               /* pictures */
    int64_t step; /* pictures from the first of a batch to that of the next; 0: batch_size, no less */
    const ImageViews *views; /* of each picture; NULL: the whole alone; borrowed */
    bool upside_down;        /* each picture is turned so before anything else */
    bool grayscale;          /* images are grey: three planes that are the same */
    int64_t first, last;     /* pictures [first, last) of the set, this rank's part; may be empty */
    int num_workers;         /* 0: eval_loader_next does the work itself */
    int64_t prefetch;        /* batches ahead; at least 1 with threads */
} EvalLoaderParams;

/* The size of an image of width x height pixels behind the transform. */
EvalSize eval_loader_size(const EvalLoaderParams *params, int64_t height, int64_t width);

typedef struct {
    int64_t count;   /* n: batch_size pictures, fewer in the last batch, times views */
    uint8_t *images; /* [n] planes [3, height, width] of grey levels, image_bytes apart: crop_size squared,
                        one after the other, but for EVAL_SHORTER and EVAL_NATIVE */
    size_t image_bytes;
    EvalSize *sizes;  /* [n] */
    int64_t *labels;  /* [n] class or -1 */
    int64_t *indices; /* [n] in the data set, ascending; the same for the views of a picture */
    uint8_t *valid;   /* [n] 0: corrupt, the image is black */
    double wait_seconds;
} EvalBatch;

typedef struct EvalLoader EvalLoader;

/* `set` is borrowed and outlives the loader. STATUS_FAILED: threads cannot be had. */
Status eval_loader_create(EvalLoader **out, const EvalLoaderParams *params, const DataSet *set, Error *error);

void eval_loader_destroy(EvalLoader *loader);

/* The next batch, in order, or NULL after the last. The loader's memory, in use until release. */
Status eval_loader_next(EvalLoader *loader, EvalBatch **batch, Error *error);

void eval_loader_release(EvalLoader *loader, EvalBatch *batch);

#endif

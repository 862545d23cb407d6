/* image_shrink.h - encoded pictures made smaller, for data sets that are read again and again.
 *
 * As PIL does it: decoded, bicubic antialiased resize, JPEG of quality 95. A large JPEG is decoded at a
 * smaller scale of the inverse DCT that is still twice the result's (Image.thumbnail with its reducing_gap of
 * 2). It is no part of training on pictures as they are: who shrinks them gives detail away.
 */
#ifndef DINOBATCH_DATA_IMAGE_SHRINK_H
#define DINOBATCH_DATA_IMAGE_SHRINK_H

#include "base/status.h"
#include "data/data_buffer.h"
#include "data/image/image_decode.h"
#include "data/image/image_resize.h"

/* Working memory of one thread; zero-initialised it is empty. */
typedef struct {
    Image image;
    DataBuffer planes;
    ImageResizeScratch resize;
} ImageShrinkScratch;

/* Replaces the encoded picture in `buffer` by one whose shorter side is `side` >= 1 pixels; a picture that is
 * not larger stays, byte by byte. Errors of image_decode, in either case. */
Status image_shrink(DataBuffer *buffer, int64_t side, ImageShrinkScratch *scratch, Error *error);

void image_shrink_scratch_fini(ImageShrinkScratch *scratch);

#endif

/* augment_part.h - the crops of one sample from as little of its picture as they need.
 *
 * DEVIATION: the reference decodes every picture in full. With `data.decode: scaled` a JPEG is decoded once
 * for all crops of a sample, at 4/8, 2/8 or 1/8 of its size where each crop still has as many pixels as its
 * output, and only around the crops. The draws are the same numbers as in the exact mode; where the scale is
 * full the crops are the same bits. The scales between are left out: libjpeg-turbo has no vector code for
 * them, and 7/8, 6/8 and 5/8 are slower than the full size. More than half of a decode is entropy decoding,
 * which no scale saves: so one decode serves all crops, two would cost more than one at full size, and
 * pictures of 500 x 375, which crops of 224 and 96 use up, gain nothing.
 *
 *     AugmentPart plan = augment_part_of(&params, rng);
 *     TRY(image_decode_part(&image, &part, augment_part_choose, &plan, bytes, size, error));
 *     augment_load_part(scratch, &image, &part);
 *     augment_crops(&params, plan.draws, global, local, scratch);
 */
#ifndef DINOBATCH_DATA_AUGMENT_PART_H
#define DINOBATCH_DATA_AUGMENT_PART_H

#include "data/augment.h"

typedef struct {
    const AugmentParams *params; /* borrowed */
    Rng rng;
    AugmentDraw draws[AUGMENT_CROPS_MAX]; /* set by augment_part_choose */
} AugmentPart;

AugmentPart augment_part_of(const AugmentParams *params, Rng rng);

/* An ImageChoosePart of an AugmentPart: draws the crops, and says what they need. */
ImagePart augment_part_choose(void *context, int64_t width, int64_t height);

/* The same for `data.decode: exact`: draws the crops, and wants the whole picture. */
ImagePart augment_part_choose_all(void *context, int64_t width, int64_t height);

#endif

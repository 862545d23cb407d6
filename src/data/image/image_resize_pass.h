/* image_resize_pass.h - the two passes of a resize, in plain C and in vector code. Internal to
 * image_resize.c. */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_RESIZE_PASS_H
#define DINOBATCH_DATA_IMAGE_IMAGE_RESIZE_PASS_H

#include "data/image/image_resize.h"

enum {
    IMAGE_RESIZE_BITS = 32 - 8 - 2, /* of a weight's fraction: 8 for the pixel, 2 for overshoot and sign */
    IMAGE_RESIZE_LANES = 16,        /* outputs of one vector group */
};

/* Rows of pixels, three planes of them. */
typedef struct {
    const uint8_t *data; /* first pixel of the first row */
    int64_t row_stride, plane_stride;
    int64_t rows;
} ImageResizeRows;

/* out[c * plane_stride + r * row_stride + x] for the rows of `in` and axis->outputs columns. Vector code may
 * write up to IMAGE_RESIZE_LANES - 1 bytes more than a row holds. */
typedef struct {
    uint8_t *data;
    int64_t row_stride, plane_stride;
} ImageResizeOut;

/* Whether this build has the vector form (and then `packed` of an axis must be filled by *_pack). */
bool image_resize_vnni_built(void);
void image_resize_vnni_pack_horizontal(ImageResizeAxis *axis);
void image_resize_vnni_pack_vertical(ImageResizeAxis *axis);
void image_resize_vnni_horizontal(const ImageResizeAxis *axis, ImageResizeRows in, ImageResizeOut out);

/* `in` begins at source row axis->first; `columns` are computed and exactly these are written. */
void image_resize_vnni_vertical(const ImageResizeAxis *axis, ImageResizeRows in, int64_t columns,
                                ImageResizeOut out);

/* Grows a block of scratch memory to `bytes`; its content is lost. */
void *image_resize_room(void *block, size_t *have, size_t bytes);

#endif

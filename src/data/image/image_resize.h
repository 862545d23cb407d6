/* image_resize.h - crop, then bicubic or bilinear antialiased resize, bit by bit as PIL does it.
 *
 * Source: PIL's Image.crop().resize(BICUBIC or BILINEAR): a = -0.5, weights in 22-bit fixed point, a
 * horizontal and then a vertical pass, each rounded to 8 bits. (A pass between equal sizes has the weight 1
 * at one pixel, so it changes nothing and needs no special case.) The kernel never sees pixels outside the
 * crop. On processors with AVX-512 VNNI and VBMI it runs on 8-bit dot products, elsewhere in plain C, with
 * the same result. It is not a general resampler: no other filters, no float pictures.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_RESIZE_H
#define DINOBATCH_DATA_IMAGE_IMAGE_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where to read: a box of a picture in planes [3, height, width], IMAGE_PLANES_PADDING readable bytes behind.
 */
typedef struct {
    const uint8_t *planes;
    int64_t picture_height, picture_width;
    int64_t top, left, height, width; /* the box, inside the picture, not empty */
    /* What of the box is resized, in pixels from its corner: for crops that do not begin at a pixel's edge.
     * The kernel still sees the whole box. Span 0: all of it. */
    double inset_top, inset_left, span_height, span_width;
} ImageResizeSource;

typedef enum { IMAGE_RESIZE_BICUBIC, IMAGE_RESIZE_BILINEAR } ImageResizeFilter;

/* What to make: the box scaled to height x width, of which only a window is computed, and that mirrored
 * left to right on request. */
typedef struct {
    int64_t height, width;
    int64_t top, left, rows, columns; /* the window, inside height x width, not empty */
    bool mirror;
    ImageResizeFilter filter;
} ImageResizeTarget;

/* One direction of a resize: for each output, where its taps start and what they weigh. */
typedef struct {
    int64_t outputs, taps; /* taps is a multiple of 4, the surplus weighs 0 */
    int64_t first, count;  /* source positions that have any weight */
    int32_t *start;        /* [outputs rounded up to 16] relative to the source's beginning */
    int32_t *weight;       /* [outputs, taps] 22-bit fixed point */
    uint8_t *packed;       /* the same for vector code (image_resize_vnni.c) */
    double *exact;         /* [taps] */
    size_t start_bytes, weight_bytes, packed_bytes, exact_bytes;
} ImageResizeAxis;

/* Working memory of one thread; zero-initialised it is empty, and it grows as needed. */
typedef struct {
    ImageResizeAxis horizontal, vertical;
    uint8_t *middle; /* rows after the horizontal pass */
    size_t middle_bytes;
    int32_t *sums; /* one output row */
    size_t sums_bytes;
    uint8_t *tile; /* a few source rows, transposed */
    size_t tile_bytes;
    bool portable; /* use plain C even where vector code is built in (tests compare both) */
} ImageResizeScratch;

/* out [3, rows, columns] of the window. */
void image_resize(const ImageResizeSource *source, const ImageResizeTarget *target, uint8_t *out,
                  ImageResizeScratch *scratch);

void image_resize_scratch_fini(ImageResizeScratch *scratch);

#endif

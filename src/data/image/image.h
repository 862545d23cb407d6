/* image.h - a decoded picture: 8-bit RGB, interleaved.
 *
 * Its memory is kept between pictures: whatever fills an Image (image_decode) reuses the block when it is
 * large enough, so that a loader thread that decodes into one Image stops allocating after the largest
 * picture.
 */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_H
#define DINOBATCH_DATA_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is the empty picture: `Image image = {0};` */
typedef struct {
    int64_t width, height;
    uint8_t *rgb;    /* [height, width, 3], owned */
    size_t capacity; /* bytes behind rgb */
} Image;

/* Makes room for width x height pixels, whose values are undefined afterwards. Sizes from input are bounded
 * by the caller. */
void image_reserve(Image *image, int64_t width, int64_t height);

/* Upside down: the last row of pixels becomes the first. */
void image_flip(Image *image);

/* Frees the pixels and leaves the empty picture. */
void image_destroy(Image *image);

#endif

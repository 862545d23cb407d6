/* gray_image.h - a picture with one number a pixel: classes, or depths. Its memory is kept between pictures.
 */
#ifndef DINOBATCH_DATA_IMAGE_GRAY_IMAGE_H
#define DINOBATCH_DATA_IMAGE_GRAY_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is the empty picture. */
typedef struct {
    int64_t width, height;
    int bits;         /* 8 or 16: how many the file had */
    uint16_t *values; /* [height, width], owned */
    size_t capacity;  /* bytes behind values */
} GrayImage;

/* Makes room for width x height numbers, undefined afterwards. Sizes from input are bounded by the caller. */
void gray_image_reserve(GrayImage *image, int64_t width, int64_t height);

void gray_image_destroy(GrayImage *image);

#endif

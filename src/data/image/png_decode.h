/* png_decode.h - PNG to RGB by libpng; use image_decode.h, which tells the format. */
#ifndef DINOBATCH_DATA_IMAGE_PNG_DECODE_H
#define DINOBATCH_DATA_IMAGE_PNG_DECODE_H

#include "base/status.h"
#include "data/image/gray_image.h"
#include "data/image/image.h"

#include <stddef.h>
#include <stdint.h>

/* As image_decode, for bytes that start like a PNG. */
Status png_decode(Image *image, const uint8_t *bytes, size_t size, Error *error);

/* The numbers of a PNG that has one a pixel, any bytes: grey levels without conversion, or palette indices.
 * Of a GrayImage that is zero-initialised, or an earlier one. STATUS_INPUT: damaged, no PNG, colours. */
Status png_decode_gray(GrayImage *image, const uint8_t *bytes, size_t size, Error *error);

/* As image_decode_size. */
Status png_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error);

#endif

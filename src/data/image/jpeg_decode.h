/* jpeg_decode.h - JPEG to RGB by libjpeg-turbo; use image_decode.h, which tells the format. */
#ifndef DINOBATCH_DATA_IMAGE_JPEG_DECODE_H
#define DINOBATCH_DATA_IMAGE_JPEG_DECODE_H

#include "base/status.h"
#include "data/image/image_decode.h"

#include <stddef.h>
#include <stdint.h>

/* As image_decode_part, for bytes that start like a JPEG. */
Status jpeg_decode(Image *image, ImagePart *part, ImageChoosePart *choose, void *context,
                   const uint8_t *bytes, size_t size, Error *error);

/* As image_decode_size. */
Status jpeg_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error);

#endif

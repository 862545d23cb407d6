/* image_encode.h - pixels to PNG or JPEG bytes in memory, for data sets that we write ourselves. */
#ifndef DINOBATCH_DATA_IMAGE_ENCODE_H
#define DINOBATCH_DATA_IMAGE_ENCODE_H

#include "base/status.h"
#include "data/data_buffer.h"

#include <stdint.h>

/* pixels [height, width, channels], channels 1 (gray) or 3 (RGB), as PNG into `buffer`, whose old contents
 * go. STATUS_FAILED when libpng does. Thread-safe. */
Status image_encode_png(DataBuffer *buffer, const uint8_t *pixels, int64_t width, int64_t height,
                        int channels, Error *error);

/* pixels [height, width, 3] as baseline JPEG of quality 1..100, chroma halved both ways. */
Status image_encode_jpeg(DataBuffer *buffer, const uint8_t *pixels, int64_t width, int64_t height,
                         int quality, Error *error);

#endif

/* image_limits.h - which declared picture sizes are believed before any memory is taken for them. */
#ifndef DINOBATCH_DATA_IMAGE_IMAGE_LIMITS_H
#define DINOBATCH_DATA_IMAGE_IMAGE_LIMITS_H

#include "base/status.h"

#include <stdint.h>

enum {
    IMAGE_LIMITS_MAX_PIXELS = 64 << 20, /* 67 Mpixel, 201 MB of RGB: above every photograph in use */
    IMAGE_LIMITS_MAX_SIDE = 65500,      /* libjpeg's own limit, applied to PNG as well */
};

/* Accepts 1..MAX_SIDE on both sides, at most MAX_PIXELS, and at most `plausible_pixels`, which is what the
 * format could hold in as many bytes as the file has. STATUS_INPUT otherwise. */
Status image_limits_check(int64_t width, int64_t height, int64_t plausible_pixels, Error *error);

#endif

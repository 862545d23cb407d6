/* image_limits.c - see the header. */
#include "data/image/image_limits.h"

#include <inttypes.h>

Status image_limits_check(int64_t width, int64_t height, int64_t plausible_pixels, Error *error)
{
    if (width < 1 || height < 1)
        return status_fail(error, STATUS_INPUT, "empty picture of %" PRId64 " x %" PRId64, width, height);
    if (width > IMAGE_LIMITS_MAX_SIDE || height > IMAGE_LIMITS_MAX_SIDE)
        return status_fail(error, STATUS_INPUT,
                           "declares %" PRId64 " x %" PRId64 " pixels, more than %d on a side", width, height,
                           IMAGE_LIMITS_MAX_SIDE);
    int64_t pixels = width * height;
    if (pixels > IMAGE_LIMITS_MAX_PIXELS)
        return status_fail(error, STATUS_INPUT,
                           "declares %" PRId64 " x %" PRId64 " pixels, more than %d in all", width, height,
                           IMAGE_LIMITS_MAX_PIXELS);
    if (pixels > plausible_pixels)
        return status_fail(error, STATUS_INPUT,
                           "declares %" PRId64 " x %" PRId64 " pixels, more than a file of its size can hold",
                           width, height);
    return STATUS_OK;
}

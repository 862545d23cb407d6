/* image_planes.c - see the header. */
#include "data/image/image_planes.h"

size_t image_planes_bytes(int64_t width, int64_t height)
{
    return (size_t)width * (size_t)height * 3 + IMAGE_PLANES_PADDING;
}

void image_planes_split(const uint8_t *restrict rgb, int64_t pixels, uint8_t *restrict planes)
{
    uint8_t *restrict red = planes;
    uint8_t *restrict green = planes + pixels;
    uint8_t *restrict blue = planes + 2 * pixels;
    for (int64_t i = 0; i < pixels; i++) {
        red[i] = rgb[3 * i];
        green[i] = rgb[3 * i + 1];
        blue[i] = rgb[3 * i + 2];
    }
}

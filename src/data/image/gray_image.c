/* gray_image.c - its memory. */
#include "data/image/gray_image.h"

#include "base/check.h"
#include "base/memory.h"

void gray_image_reserve(GrayImage *image, int64_t width, int64_t height)
{
    CHECK(width > 0 && height > 0 && width <= INT32_MAX && height <= INT32_MAX);
    size_t bytes = (size_t)width * (size_t)height * sizeof *image->values;
    if (bytes > image->capacity) {
        memory_free(image->values);
        image->values = memory_alloc(bytes);
        image->capacity = bytes;
    }
    image->width = width;
    image->height = height;
}

void gray_image_destroy(GrayImage *image)
{
    memory_free(image->values);
    *image = (GrayImage){0};
}

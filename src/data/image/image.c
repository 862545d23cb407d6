/* image.c - the memory of a picture. */
#include "data/image/image.h"

#include "base/check.h"
#include "base/memory.h"

void image_reserve(Image *image, int64_t width, int64_t height)
{
    CHECK(width > 0 && height > 0 && width <= INT32_MAX && height <= INT32_MAX);
    size_t bytes = (size_t)width * (size_t)height * 3;
    if (bytes > image->capacity) {
        memory_free(image->rgb);
        image->rgb = memory_alloc(bytes);
        image->capacity = bytes;
    }
    image->width = width;
    image->height = height;
}

void image_destroy(Image *image)
{
    memory_free(image->rgb);
    *image = (Image){0};
}

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

void image_flip(Image *image)
{
    size_t bytes = 3 * (size_t)image->width;
    for (int64_t top = 0, bottom = image->height - 1; top < bottom; top++, bottom--) {
        uint8_t *a = image->rgb + (size_t)top * bytes, *b = image->rgb + (size_t)bottom * bytes;
        for (size_t i = 0; i < bytes; i++) {
            uint8_t swapped = a[i];
            a[i] = b[i];
            b[i] = swapped;
        }
    }
}

void image_destroy(Image *image)
{
    memory_free(image->rgb);
    *image = (Image){0};
}

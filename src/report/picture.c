/* picture.c - see picture.h. */
#include "report/picture.h"

#include "base/atomic_file.h"
#include "base/check.h"
#include "base/memory.h"
#include "data/image_encode.h"

#include <string.h>

void picture_init(Picture *picture, int64_t width, int64_t height)
{
    size_t bytes = (size_t)(width * height * 3);
    *picture = (Picture){.width = width, .height = height, .rgb = memory_alloc(bytes)};
    memset(picture->rgb, 255, bytes);
}

void picture_fini(Picture *picture)
{
    memory_free(picture->rgb);
    *picture = (Picture){0};
}

void picture_paste(Picture *picture, int64_t left, int64_t top, const uint8_t *rgb, int64_t width,
                   int64_t height, int64_t scale)
{
    CHECK(left >= 0 && top >= 0 && left + width * scale <= picture->width &&
          top + height * scale <= picture->height);
    for (int64_t y = 0; y < height * scale; y++) {
        uint8_t *out = picture->rgb + ((top + y) * picture->width + left) * 3;
        const uint8_t *row = rgb + y / scale * width * 3;
        for (int64_t x = 0; x < width * scale; x++, out += 3)
            memcpy(out, row + x / scale * 3, 3);
    }
}

Status picture_write(const Picture *picture, const char *path, Error *error)
{
    DataBuffer buffer = {0};
    Status status = image_encode_png(&buffer, picture->rgb, picture->width, picture->height, 3, error);
    if (status == STATUS_OK) status = atomic_file_write(path, buffer.bytes, buffer.size, error);
    data_buffer_destroy(&buffer);
    return status;
}

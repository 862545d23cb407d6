/* image_decode.c - tells the format and hands over. */
#include "data/image/image_decode.h"

#include "data/image/jpeg_decode.h"
#include "data/image/png_decode.h"

#include <stdbool.h>
#include <string.h>

static bool is_jpeg(const uint8_t *bytes, size_t size)
{
    return size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0;
}

static bool is_png(const uint8_t *bytes, size_t size)
{
    return size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0;
}

static Status unknown_format(size_t size, Error *error)
{
    return status_fail(error, STATUS_INPUT, size == 0 ? "empty file" : "not a JPEG or PNG");
}

Status image_decode(Image *image, const uint8_t *bytes, size_t size, Error *error)
{
    ImagePart whole;
    return image_decode_part(image, &whole, NULL, NULL, bytes, size, error);
}

Status image_decode_part(Image *image, ImagePart *part, ImageChoosePart *choose, void *context,
                         const uint8_t *bytes, size_t size, Error *error)
{
    if (is_jpeg(bytes, size)) return jpeg_decode(image, part, choose, context, bytes, size, error);
    if (!is_png(bytes, size)) return unknown_format(size, error);
    TRY(png_decode(image, bytes, size, error));
    *part = (ImagePart){.eighths = 8, .width = image->width, .height = image->height};
    if (choose) (void)choose(context, image->width, image->height);
    return STATUS_OK;
}

Status image_decode_size(const uint8_t *bytes, size_t size, int64_t *width, int64_t *height, Error *error)
{
    if (is_jpeg(bytes, size)) return jpeg_decode_size(bytes, size, width, height, error);
    if (is_png(bytes, size)) return png_decode_size(bytes, size, width, height, error);
    return unknown_format(size, error);
}

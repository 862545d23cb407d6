/* image_shrink.c - see image_shrink.h. */
#include "data/image_shrink.h"

#include "data/image/image_planes.h"
#include "data/image_encode.h"

enum {
    QUALITY = 95,
    GAP = 2, /* the resize is left to halve the picture itself: the DCT's cut is sharp, and rings */
};

typedef struct {
    int64_t side;          /* wanted */
    int64_t width, height; /* of the picture, once chosen */
} Wanted;

/* The whole picture, as small as it may be decoded. */
static ImagePart choose_scale(void *context, int64_t width, int64_t height)
{
    Wanted *wanted = context;
    int64_t shorter = width < height ? width : height;
    wanted->width = width;
    wanted->height = height;
    int eighths = 1;
    while (eighths < 8 && shorter * eighths < GAP * wanted->side * 8)
        eighths *= 2;
    return (ImagePart){.eighths = eighths, .width = width, .height = height};
}

Status image_shrink(DataBuffer *buffer, int64_t side, ImageShrinkScratch *scratch, Error *error)
{
    Image *image = &scratch->image;
    Wanted wanted = {.side = side};
    ImagePart part;
    TRY(image_decode_part(image, &part, choose_scale, &wanted, buffer->bytes, buffer->size, error));
    int64_t shorter = wanted.width < wanted.height ? wanted.width : wanted.height;
    if (shorter <= side) return STATUS_OK;
    int64_t width = wanted.width * side / shorter, height = wanted.height * side / shorter;
    size_t source_bytes = image_planes_bytes(part.width, part.height);
    data_buffer_resize(&scratch->planes, source_bytes + image_planes_bytes(width, height));
    uint8_t *planes = scratch->planes.bytes, *small = planes + source_bytes;
    image_planes_split(image->rgb, part.width * part.height, planes);
    ImageResizeSource source = {.planes = planes,
                                .picture_height = part.height,
                                .picture_width = part.width,
                                .height = part.height,
                                .width = part.width};
    ImageResizeTarget target = {.height = height, .width = width, .rows = height, .columns = width};
    image_resize(&source, &target, small, &scratch->resize);
    image_reserve(image, width, height);
    for (int64_t i = 0; i < width * height; i++)
        for (int64_t c = 0; c < 3; c++)
            image->rgb[3 * i + c] = small[c * width * height + i];
    return image_encode_jpeg(buffer, image->rgb, width, height, QUALITY, error);
}

void image_shrink_scratch_fini(ImageShrinkScratch *scratch)
{
    image_destroy(&scratch->image);
    data_buffer_destroy(&scratch->planes);
    image_resize_scratch_fini(&scratch->resize);
    *scratch = (ImageShrinkScratch){0};
}

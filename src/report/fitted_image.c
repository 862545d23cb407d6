/* fitted_image.c - see fitted_image.h. */
#include "report/fitted_image.h"

#include "base/check.h"
#include "data/image/image_planes.h"

Status fitted_image_load(FittedImage *fitted, const DataSet *set, int64_t index, Error *error)
{
    return data_set_load_image(set, index, &fitted->image, &fitted->encoded, error);
}

void fitted_image_resize(FittedImage *fitted, int64_t width, int64_t height)
{
    CHECK(width >= 1 && height >= 1);
    const Image *image = &fitted->image;
    size_t source_bytes = image_planes_bytes(image->width, image->height);
    data_buffer_resize(&fitted->planes, source_bytes + image_planes_bytes(width, height));
    uint8_t *planes = fitted->planes.bytes;
    fitted->fitted = planes + source_bytes;
    image_planes_split(image->rgb, image->width * image->height, planes);
    ImageResizeSource source = {.planes = planes,
                                .picture_height = image->height,
                                .picture_width = image->width,
                                .height = image->height,
                                .width = image->width};
    ImageResizeTarget target = {.height = height, .width = width, .rows = height, .columns = width};
    image_resize(&source, &target, fitted->fitted, &fitted->resize);
}

void fitted_image_interleave(uint8_t *rgb, const uint8_t *planes, int64_t width, int64_t height)
{
    int64_t pixels = width * height;
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t c = 0; c < 3; c++)
            rgb[3 * i + c] = planes[c * pixels + i];
}

void fitted_image_fini(FittedImage *fitted)
{
    data_buffer_destroy(&fitted->encoded);
    data_buffer_destroy(&fitted->planes);
    image_destroy(&fitted->image);
    image_resize_scratch_fini(&fitted->resize);
}

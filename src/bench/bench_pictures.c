/* bench_pictures.c - from a data set, or drawn. */
#include "bench/bench_pictures.h"

#include "data/data_set.h"
#include "data/image/image_decode.h"
#include "data/image_encode.h"
#include "data/synthetic_draw.h"

#include <stdio.h>

enum { DRAWN_WIDTH = 500, DRAWN_HEIGHT = 375, DRAWN_QUALITY = 90 }; /* as most pictures of ImageNet */

static Status read_set(BenchPictures *pictures, const char *spec, Error *error)
{
    DataSet *set;
    TRY(data_set_create(&set, spec, error));
    int64_t total = data_set_count(set), count = total < BENCH_PICTURES_MAX ? total : BENCH_PICTURES_MAX;
    Status status = STATUS_OK;
    for (; status == STATUS_OK && pictures->count < count; pictures->count++)
        status =
            data_set_read(set, total * pictures->count / count, &pictures->items[pictures->count], error);
    data_set_destroy(set);
    snprintf(pictures->source, sizeof pictures->source, "%s", spec);
    return status;
}

/* Adds up the sizes. */
static Status measure(BenchPictures *pictures, Error *error)
{
    for (int i = 0; i < pictures->count; i++) {
        const DataBuffer *item = &pictures->items[i];
        int64_t width, height;
        Status status = image_decode_size(item->bytes, item->size, &width, &height, error);
        if (status != STATUS_OK) return status_prefix(error, status, "%s", pictures->source);
        pictures->pixels += (double)width * (double)height;
        pictures->bytes += (double)item->size;
    }
    return STATUS_OK;
}

Status bench_pictures_draw(BenchPictures *pictures, int64_t width, int64_t height, Error *error)
{
    *pictures = (BenchPictures){0};
    SyntheticParams params = synthetic_draw_defaults();
    params.size = width;
    Image image = {0};
    Status status = STATUS_OK;
    for (; status == STATUS_OK && pictures->count < BENCH_PICTURES_MAX; pictures->count++) {
        synthetic_draw_image(&params, pictures->count, &image);
        const uint8_t *middle = image.rgb + (width - height) / 2 * width * 3;
        status =
            image_encode_jpeg(&pictures->items[pictures->count], middle, width, height, DRAWN_QUALITY, error);
    }
    image_destroy(&image);
    snprintf(pictures->source, sizeof pictures->source, "drawn, %lld x %lld, JPEG quality %d",
             (long long)width, (long long)height, DRAWN_QUALITY);
    TRY(status);
    return measure(pictures, error);
}

Status bench_pictures_init(BenchPictures *pictures, const char *spec, Error *error)
{
    if (!spec) return bench_pictures_draw(pictures, DRAWN_WIDTH, DRAWN_HEIGHT, error);
    *pictures = (BenchPictures){0};
    TRY(read_set(pictures, spec, error));
    return measure(pictures, error);
}

void bench_pictures_fini(BenchPictures *pictures)
{
    for (int i = 0; i < BENCH_PICTURES_MAX; i++)
        data_buffer_destroy(&pictures->items[i]);
    *pictures = (BenchPictures){0};
}

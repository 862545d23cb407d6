/* test_image_shrink.c - smaller copies: their size, their content against the exact resize, and what stays as
 * it is; and shards packed with them. */
#include "../support/temp_folder.h"
#include "data/augment.h"
#include "data/data_pack.h"
#include "data/image_encode.h"
#include "data/image_shrink.h"
#include "data/synthetic_draw.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* The upper part of a drawn picture, as JPEG. */
static DataBuffer draw_jpeg(int64_t width, int64_t height)
{
    SyntheticParams params = synthetic_draw_defaults();
    params.size = width;
    Image image = {0};
    DataBuffer bytes = {0};
    synthetic_draw_image(&params, 3, &image);
    cr_assert_eq(image_encode_jpeg(&bytes, image.rgb, width, height, 90, NULL), STATUS_OK);
    image_destroy(&image);
    return bytes;
}

enum { SIDE = 64, PIXELS = SIDE * SIDE };

/* The middle of the picture at SIDE pixels, mean of the channels, in levels. */
static void middle_of(const DataBuffer *bytes, double *gray)
{
    uint8_t levels[3 * PIXELS];
    Image image = {0};
    AugmentScratch *scratch = augment_scratch_create();
    cr_assert_eq(image_decode(&image, bytes->bytes, bytes->size, NULL), STATUS_OK);
    augment_eval(&image, SIDE, SIDE, levels, scratch);
    for (int i = 0; i < PIXELS; i++)
        gray[i] = ((double)levels[i] + (double)levels[PIXELS + i] + (double)levels[2 * PIXELS + i]) / 3;
    augment_scratch_destroy(scratch);
    image_destroy(&image);
}

Test(image_shrink, shorter_side_and_content)
{
    const struct {
        int64_t width, height, small_width, small_height;
    } cases[] = {{401, 300, 85, 64}, {130, 129, 64, 64}, {700, 65, 689, 64}};
    ImageShrinkScratch scratch = {0};
    for (int k = 0; k < 3; k++) {
        static double before[PIXELS], after[PIXELS];
        DataBuffer bytes = draw_jpeg(cases[k].width, cases[k].height);
        Error error = {0};
        int64_t width, height;
        middle_of(&bytes, before);
        cr_assert_eq(image_shrink(&bytes, SIDE, &scratch, &error), STATUS_OK, "%s", error.text);
        cr_assert_eq(image_decode_size(bytes.bytes, bytes.size, &width, &height, &error), STATUS_OK);
        cr_assert(width == cases[k].small_width && height == cases[k].small_height, "%d x %d", (int)width,
                  (int)height);
        middle_of(&bytes, after);
        double off = 0, beside = 0;
        for (int i = 0; i + 1 < PIXELS; i++) {
            off += fabs(before[i] - after[i]) / PIXELS;
            beside += fabs(before[i] - after[i + 1]) / PIXELS;
        }
        cr_expect(off < 3.0 && beside > 1.5 * off, "%d: %g levels, a pixel beside %g", k, off, beside);
        data_buffer_destroy(&bytes);
    }
    image_shrink_scratch_fini(&scratch);
}

Test(image_shrink, what_is_not_larger_stays_and_what_is_broken_is_refused)
{
    ImageShrinkScratch scratch = {0};
    DataBuffer bytes = draw_jpeg(100, SIDE), same = draw_jpeg(100, SIDE);
    cr_assert_eq(image_shrink(&bytes, SIDE, &scratch, NULL), STATUS_OK);
    cr_assert(bytes.size == same.size && memcmp(bytes.bytes, same.bytes, same.size) == 0);
    for (int64_t side = 8; side <= 256; side *= 4) {
        data_buffer_resize(&bytes, same.size / 2);
        memcpy(bytes.bytes, same.bytes, same.size / 2);
        cr_assert_eq(image_shrink(&bytes, side, &scratch, NULL), STATUS_INPUT);
    }
    data_buffer_destroy(&bytes);
    data_buffer_destroy(&same);
    image_shrink_scratch_fini(&scratch);
}

Test(image_shrink, shards_of_smaller_pictures)
{
    TempFolder folder = temp_folder_create();
    DataBuffer large = draw_jpeg(300, 200);
    temp_folder_write_bytes(&folder, "a.jpg", large.bytes, large.size);
    temp_folder_write_bytes(&folder, "b.jpg", large.bytes, large.size / 2);
    char spec[512];
    snprintf(spec, sizeof spec, "folder:%s", folder.path);
    DataSet *set, *shards;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    Comm *comm = comm_self_create();
    DataPackParams params = {.source = spec,
                             .folder = folder.path,
                             .shard_bytes = 1 << 20,
                             .version = "test",
                             .shorter_side = SIDE};
    DataPackResult result;
    cr_assert_eq(data_pack_run(&params, set, comm, &result, &error), STATUS_OK, "%s", error.text);
    cr_assert(result.images == 1 && result.corrupt == 1);
    snprintf(spec, sizeof spec, "hdf5:%s/*.h5", folder.path);
    cr_assert_eq(data_set_create(&shards, spec, &error), STATUS_OK, "%s", error.text);
    Image image = {0};
    cr_assert_eq(data_set_load_image(shards, 0, &image, &large, &error), STATUS_OK, "%s", error.text);
    cr_assert(image.width == 96 && image.height == 64);
    image_destroy(&image);
    data_pack_fini(&result);
    data_set_destroy(set);
    data_set_destroy(shards);
    data_buffer_destroy(&large);
    comm_destroy(comm);
    temp_folder_destroy(&folder);
}

/* test_image_views.c - lists of views, where crops lie, turned pictures, and what the evaluation loader makes
 * of them. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "data/augment.h"
#include "data/eval_loader.h"
#include "data/image/image_color.h"
#include "data/image/image_turn.h"
#include "data/image_encode.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

TestSuite(image_views, .timeout = 20);

/* --- lists --- */

static ImageViews parse(const char *list)
{
    ImageViews views;
    Error error = {0};
    cr_assert_eq(image_views_parse(&views, list, &error), STATUS_OK, "%s", error.text);
    return views;
}

Test(image_views, a_list_is_counted_and_ordered)
{
    ImageViews views = parse("crop:.84:3,mirror");
    cr_expect(views.count == 20 && views.plain == 10);
    cr_expect_str_eq(views.text, "mirror,crop:0.84:3");
    cr_expect(views.view[0].side == 1.0 && views.view[0].degrees == 0.0);
    cr_expect(views.view[6].row == 1 && views.view[6].column == 2 && views.view[6].side == 0.84);
    views = parse("rotate:10,crop:0.5:1,crop:0.25:2");
    cr_expect(views.count == 8 && views.plain == 8);
    cr_expect_str_eq(views.text, "rotate:10,crop:0.5:1,crop:0.25:2");
    cr_expect(views.view[1].degrees == 10.0 && views.view[2].degrees == -10.0);
    cr_expect(views.view[3].side == 0.5 && views.view[3].grid == 1 && views.view[7].column == 1);
    views = parse("mirror");
    cr_expect(views.count == 2 && views.plain == 1);
    cr_expect_str_eq(views.text, "mirror");
    views = image_views_whole();
    cr_expect(views.count == 1 && views.plain == 1 && views.text[0] == '\0');
}

Test(image_views, bad_items_are_quoted)
{
    static const char *const bad[][2] = {
        {"", "\"\": expected mirror"},
        {"mirror,", "\"\": expected mirror"},
        {"mirrors", "\"mirrors\""},
        {"crop:0.5", "\"crop:0.5\": expected crop:SIDE:GRID"},
        {"crop:1:3", "\"crop:1:3\""},
        {"crop:nan:3", "\"crop:nan:3\""},
        {"crop:0.5:0", "\"crop:0.5:0\""},
        {"crop:0.5:11", "GRID from 1 to 10"},
        {"crop:0.5:2x", "\"crop:0.5:2x\""},
        {"mirror,rotate:", "\"rotate:\": expected rotate:DEGREES"},
        {"rotate:-5", "\"rotate:-5\""},
        {"rotate:inf", "\"rotate:inf\""},
        {"crop:0.5:10,crop:0.6:6", "more than 128 views"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ImageViews views;
        Error error = {0};
        cr_expect_eq(image_views_parse(&views, bad[i][0], &error), STATUS_INPUT, "%s", bad[i][0]);
        cr_expect(strstr(error.text, bad[i][1]), "%s: %s", bad[i][0], error.text);
    }
}

Test(image_views, crops_reach_from_edge_to_edge)
{
    ImageViews views = parse("crop:0.84:3,crop:0.5:1");
    int64_t height = 77, width = 201, covered = 0;
    for (int64_t i = 0; i < views.plain; i++) {
        ImageViewBox box = image_views_box(&views.view[i], height, width);
        cr_expect(box.top >= 0 && box.left >= 0 && box.top + box.height <= height &&
                  box.left + box.width <= width);
        if (i == 0) cr_expect(box.height == height && box.width == width);
        if (i >= 1 && i <= 9) {
            cr_expect(box.height == 65 && box.width == 169);
            cr_expect_eq(box.top, (i - 1) / 3 * 6);
            cr_expect_eq(box.left, (i - 1) % 3 * 16);
            covered += box.top + box.height == height && box.left + box.width == width;
        }
        if (i == 10) cr_expect(box.top == 19 && box.height == 39 && box.left == 50 && box.width == 101);
    }
    cr_expect_eq(covered, 1);
    ImageViewBox box = image_views_box(&views.view[10], 1, 1);
    cr_expect(box.height == 1 && box.width == 1 && box.top == 0 && box.left == 0);
}

/* --- turned --- */

static Image picture_of(int64_t width, int64_t height, int kind)
{
    Image image = {0};
    image_reserve(&image, width, height);
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                image.rgb[3 * (y * width + x) + c] =
                    (uint8_t)(kind == 0   ? 90 + c
                              : kind == 1 ? x + 2 * y + c
                                          : (x * 37 + y * 101 + c * 7) % 256);
    return image;
}

/* A plane stays a plane: what is read between pixels is known. */
Test(image_views, a_turned_picture_is_read_where_it_should_be)
{
    Image image = picture_of(80, 50, 1), turned = {0};
    for (int way = -1; way <= 1; way += 2) {
        double angle = way * 20.0 * M_PI / 180.0, c = cos(angle), s = sin(angle);
        image_turn(&image, way * 20.0, &turned);
        double share = fmin(80.0 / (80.0 * c + 50.0 * fabs(s)), 50.0 / (80.0 * fabs(s) + 50.0 * c));
        cr_expect(turned.width == (int64_t)(80.0 * share) && turned.height == (int64_t)(50.0 * share));
        for (int64_t i = 0; i < turned.height; i++)
            for (int64_t j = 0; j < turned.width; j++) {
                double x = (double)j + 0.5 - 0.5 * (double)turned.width,
                       y = (double)i + 0.5 - 0.5 * (double)turned.height;
                double from_x = x * c - y * s + 39.5, from_y = x * s + y * c + 24.5;
                cr_assert(from_x > -0.51 && from_x < 79.51 && from_y > -0.51 && from_y < 49.51, "a corner");
                double value = fmin(fmax(from_x, 0), 79) + 2 * fmin(fmax(from_y, 0), 49) + 2;
                cr_assert_float_eq(turned.rgb[3 * (i * turned.width + j) + 2], value, 0.501);
            }
    }
    image_destroy(&turned);
    image_destroy(&image);
}

Test(image_views, quarter_and_half_turns_move_pixels)
{
    Image image = picture_of(31, 31, 2), turned = {0};
    image_turn(&image, 90.0, &turned); /* counter-clockwise: the right column becomes the top row */
    cr_assert(turned.width == 31 && turned.height == 31);
    for (int64_t y = 0; y < 31; y++)
        for (int64_t x = 0; x < 31; x++)
            cr_assert_arr_eq(turned.rgb + 3 * (y * 31 + x), image.rgb + 3 * (x * 31 + 30 - y), 3);
    image_turn(&image, 180.0, &turned);
    for (int64_t i = 0; i < 31 * 31; i++)
        cr_assert_arr_eq(turned.rgb + 3 * i, image.rgb + 3 * (31 * 31 - 1 - i), 3);
    image_destroy(&image);
    image = picture_of(1, 300, 0);
    image_turn(&image, 45.0, &turned);
    cr_assert(turned.width == 1 && turned.height >= 1 && turned.rgb[2] == 92);
    image_destroy(&turned);
    image_destroy(&image);
}

/* --- the loader --- */

/* Pixels of a box as a picture of its own. */
static Image cut(const Image *image, ImageViewBox box)
{
    Image part = {0};
    image_reserve(&part, box.width, box.height);
    for (int64_t y = 0; y < box.height; y++)
        memcpy(part.rgb + 3 * y * box.width, image->rgb + 3 * ((box.top + y) * image->width + box.left),
               (size_t)(3 * box.width));
    return part;
}

static void mirror_planes(uint8_t *planes, EvalSize size)
{
    for (int64_t row = 0; row < 3 * size.height; row++)
        for (int64_t x = 0, y = size.width - 1; x < y; x++, y--) {
            uint8_t *line = planes + row * size.width, kept = line[x];
            line[x] = line[y];
            line[y] = kept;
        }
}

/* Image `number` of a batch is that picture, transformed, and then mirrored on request. */
static void expect_image(const EvalBatch *batch, int64_t number, EvalTransform transform,
                         const Image *picture, bool mirror, AugmentScratch *scratch)
{
    uint8_t expected[3 * 20 * 20 * EVAL_LONGEST];
    EvalSize size = eval_loader_size(&(EvalLoaderParams){.transform = transform, .crop_size = 20},
                                     picture->height, picture->width);
    if (transform == EVAL_CENTRE)
        augment_eval(picture, 24, 20, expected, scratch);
    else
        augment_resize(picture, size.height, size.width, expected, scratch);
    if (mirror) mirror_planes(expected, size);
    cr_expect(batch->sizes[number].height == size.height && batch->sizes[number].width == size.width);
    const uint8_t *image = batch->images + (size_t)number * batch->image_bytes;
    cr_expect_eq(memcmp(image, expected, (size_t)(3 * size.height * size.width)), 0, "image %lld",
                 (long long)number);
}

static void expect_views(const EvalBatch *batch, int64_t first, EvalTransform transform,
                         const ImageViews *views, const Image *image, AugmentScratch *scratch)
{
    for (int64_t i = 0; i < views->count; i++) {
        const ImageView *view = &views->view[i % views->plain];
        Image turned = {0};
        if (view->degrees != 0.0) image_turn(image, view->degrees, &turned);
        const Image *from = view->degrees != 0.0 ? &turned : image;
        Image part = cut(from, image_views_box(view, from->height, from->width));
        expect_image(batch, first + i, transform, &part, i >= views->plain, scratch);
        image_destroy(&part);
        image_destroy(&turned);
    }
}

Test(image_views, a_loader_makes_all_views_of_each_picture)
{
    enum { PICTURES = 5 };
    TempFolder folder = temp_folder_create();
    for (int i = 0; i < PICTURES; i++) { /* one of them is damaged */
        Image image = picture_of(60 + 9 * i, 50 - 5 * i, 2);
        DataBuffer png = {0};
        char name[] = {(char)('0' + i), '.', 'p', 'n', 'g', '\0'};
        cr_assert_eq(image_encode_png(&png, image.rgb, image.width, image.height, 3, NULL), STATUS_OK);
        temp_folder_write_bytes(&folder, name, png.bytes, i == 3 ? png.size / 2 : png.size);
        data_buffer_destroy(&png);
        image_destroy(&image);
    }
    DataSet *set;
    char spec[200];
    snprintf(spec, sizeof spec, "folder:%s", folder.path);
    cr_assert_eq(data_set_create(&set, spec, NULL), STATUS_OK);
    ImageViews views = parse("mirror,rotate:15,crop:0.6:2");
    AugmentScratch *scratch = augment_scratch_create();
    for (int way = EVAL_CENTRE; way <= EVAL_SHORTER; way++) {
        EvalLoaderParams params = {.transform = (EvalTransform)way,
                                   .resize_size = 24,
                                   .crop_size = 20,
                                   .batch_size = 2,
                                   .views = &views,
                                   .last = PICTURES,
                                   .num_workers = way == EVAL_CENTRE ? 2 : 0,
                                   .prefetch = 2};
        EvalLoader *loader;
        EvalBatch *batch;
        int64_t picture = 0;
        cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
        for (;;) {
            cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
            if (!batch) break;
            cr_assert_eq(batch->count, 14 * (picture < 4 ? 2 : 1));
            for (int64_t first = 0; first < batch->count; first += 14, picture++) {
                for (int64_t i = first; i < first + 14; i++)
                    cr_assert(batch->indices[i] == picture && batch->valid[i] == (picture != 3));
                if (picture == 3) continue;
                Image image = picture_of(60 + 9 * picture, 50 - 5 * picture, 2);
                expect_views(batch, first, (EvalTransform)way, &views, &image, scratch);
                image_destroy(&image);
            }
            eval_loader_release(loader, batch);
        }
        cr_expect_eq(picture, PICTURES);
        eval_loader_destroy(loader);
    }
    augment_scratch_destroy(scratch);
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

/* All images of a set, of [3, 20, 20] each; memory_free. */
static uint8_t *all_images(const DataSet *set, bool grayscale)
{
    enum { PIXELS = 20 * 20 };
    int64_t count = data_set_count(set), at = 0;
    EvalLoaderParams params = {.resize_size = 24,
                               .crop_size = 20,
                               .batch_size = 3,
                               .grayscale = grayscale,
                               .last = count,
                               .prefetch = 1};
    EvalLoader *loader;
    EvalBatch *batch;
    uint8_t *images = memory_alloc((size_t)(count * 3 * PIXELS));
    cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
    for (;;) {
        cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
        if (!batch) break;
        for (int64_t i = 0; i < batch->count; i++, at++)
            memcpy(images + at * 3 * PIXELS, batch->images + (size_t)i * batch->image_bytes, 3 * PIXELS);
        eval_loader_release(loader, batch);
    }
    eval_loader_destroy(loader);
    cr_assert_eq(at, count);
    return images;
}

/* For networks that were trained on grey crops alone: the grey of what the others see. */
Test(image_views, images_may_be_grey)
{
    enum { IMAGES = 7, PIXELS = 20 * 20 };
    DataSet *set;
    cr_assert_eq(data_set_create(&set, "synthetic:classes=3,size=30,count=7,seed=3", NULL), STATUS_OK);
    uint8_t *coloured = all_images(set, false), *grey = all_images(set, true);
    int64_t differs = 0;
    for (int64_t i = 0; i < IMAGES; i++) {
        differs += memcmp(coloured + i * 3 * PIXELS, coloured + (i * 3 + 1) * PIXELS, PIXELS) != 0;
        image_color_grayscale(coloured + i * 3 * PIXELS, PIXELS);
        cr_expect_eq(memcmp(grey + i * 3 * PIXELS, grey + (i * 3 + 1) * PIXELS, PIXELS), 0);
    }
    cr_expect_eq(differs, IMAGES, "pictures without colours prove nothing");
    cr_expect_eq(memcmp(coloured, grey, IMAGES * 3 * PIXELS), 0);
    memory_free(coloured);
    memory_free(grey);
    data_set_destroy(set);
}

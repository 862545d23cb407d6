/* test_loader.c - batches are functions of (seed, step, place) alone: threads, resumption, ranks and corrupt
 * files change nothing else. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "data/block_mask.h"
#include "data/eval_loader.h"
#include "data/image_encode.h"
#include "data/loader.h"
#include "data/sampler.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

TestSuite(loader, .timeout = 20);

static DataSet *open_set(const char *spec)
{
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    return set;
}

/* 3 groups of 2 samples on one rank, crops of 28 and 14 pixels. */
static LoaderParams params_of(int workers, int64_t first_step)
{
    LoaderParams params = {.in_use = 1,
                           .augment = augment_params_default(),
                           .patch_size = 7,
                           .mask_probability = 0.5,
                           .mask_ratio_min = 0.1,
                           .mask_ratio_max = 0.5,
                           .seed = 21,
                           .group_size = 2,
                           .total_groups = 3,
                           .groups = 3,
                           .first_step = first_step,
                           .num_workers = workers,
                           .prefetch = 2};
    params.augment.global[0].size = params.augment.global[1].size = 28;
    params.augment.local.size = 14;
    params.augment.local_count = 3;
    return params;
}

static Loader *start(const LoaderParams *params, const DataSet *set)
{
    Loader *loader;
    Error error = {0};
    cr_assert_eq(loader_create(&loader, params, set, &error), STATUS_OK, "%s", error.text);
    return loader;
}

static Batch *next(Loader *loader)
{
    Batch *batch;
    Error error = {0};
    cr_assert_eq(loader_next(loader, &batch, &error), STATUS_OK, "%s", error.text);
    return batch;
}

/* Pixels [from, from + n) of b are those of a. */
static bool same_pixels(const void *a, const void *b, int64_t from, int64_t n)
{
    return memcmp(a, (const uint8_t *)b + from, (size_t)n) == 0;
}

/* Samples [from, from + count) of `whole` are those of `part`. */
static void expect_same(const Batch *part, const Batch *whole, int64_t from)
{
    int64_t global = 2 * 3 * 28 * 28, local = 3 * 3 * 14 * 14, masks = 2 * 16;
    cr_assert_eq(part->step, whole->step);
    cr_assert(same_pixels(part->global_crops, whole->global_crops, from * global, part->samples * global));
    cr_assert(same_pixels(part->local_crops, whole->local_crops, from * local, part->samples * local));
    cr_assert_eq(memcmp(part->masks, whole->masks + from * masks, (size_t)(part->samples * masks)), 0);
    cr_assert_eq(memcmp(part->indices, whole->indices + from, (size_t)part->samples * 8), 0);
    cr_assert_eq(memcmp(part->upperbound, whole->upperbound + from / 2, (size_t)part->groups * 8), 0);
}

Test(loader, threads_change_nothing)
{
    DataSet *set = open_set("synthetic:classes=4,size=32,count=17");
    Loader *loaders[3];
    static const int workers[] = {0, 1, 3};
    for (int k = 0; k < 3; k++) {
        LoaderParams params = params_of(workers[k], 0);
        loaders[k] = start(&params, set);
    }
    for (int64_t step = 0; step < 8; step++) {
        Batch *batches[3];
        for (int k = 0; k < 3; k++) {
            batches[k] = next(loaders[k]);
            cr_assert_eq(batches[k]->step, step);
            cr_assert_eq(batches[k]->corrupt, 0);
            expect_same(batches[k], batches[0], 0);
        }
        for (int64_t s = 0; s < 6; s++)
            cr_assert_eq(batches[0]->indices[s], sampler_index(17, 21, step * 6 + s));
        for (int k = 0; k < 3; k++)
            loader_release(loaders[k], batches[k]);
    }
    for (int k = 0; k < 3; k++)
        loader_destroy(loaders[k]);
    data_set_destroy(set);
}

Test(loader, a_resumed_run_and_a_part_of_the_groups_see_the_same)
{
    DataSet *set = open_set("synthetic:classes=4,size=32,count=17");
    LoaderParams params = params_of(0, 0), resumed = params_of(2, 3), part = params_of(2, 3);
    part.first_group = 1;
    part.groups = 2;
    Loader *a = start(&params, set), *b = start(&resumed, set), *c = start(&part, set);
    for (int64_t step = 0; step < 3; step++)
        loader_release(a, next(a));
    for (int64_t step = 3; step < 6; step++) {
        Batch *all = next(a), *same = next(b), *last = next(c);
        expect_same(same, all, 0);
        expect_same(last, all, 2);
        loader_release(a, all);
        loader_release(b, same);
        loader_release(c, last);
    }
    loader_destroy(a);
    loader_destroy(b);
    loader_destroy(c);
    data_set_destroy(set);
}

/* Crop-major masks of a group come back as [sample][crop]: the counts agree with drawing the group here. */
Test(loader, masks_belong_to_their_samples)
{
    DataSet *set = open_set("synthetic:size=32,count=9");
    LoaderParams params = params_of(0, 5);
    Loader *loader = start(&params, set);
    Batch *batch = next(loader);
    BlockMaskGrid grid = block_mask_grid(28, 7);
    for (int64_t g = 0; g < 3; g++) {
        uint8_t expected[4 * 16];
        BlockMaskCounts counts =
            block_mask_group(&grid, 4, 0.5, 0.1, 0.5, rng_at(21, RNG_MASK, 5, (uint64_t)g), expected);
        cr_assert_eq(batch->upperbound[g], counts.upperbound);
        for (int64_t s = 0; s < 2; s++)
            for (int64_t c = 0; c < 2; c++)
                cr_assert_eq(
                    memcmp(batch->masks + ((g * 2 + s) * 2 + c) * 16, expected + (c * 2 + s) * 16, 16), 0);
    }
    loader_release(loader, batch);
    loader_destroy(loader);
    data_set_destroy(set);
}

/* A folder of `count` pictures of which those divisible by `every` are damaged. */
static DataSet *damaged_folder(TempFolder *folder, int count, int every)
{
    DataSet *drawn = open_set("synthetic:size=32,count=64");
    DataBuffer bytes = {0};
    *folder = temp_folder_create();
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%03d.png", i);
        cr_assert_eq(data_set_read(drawn, i, &bytes, NULL), STATUS_OK);
        temp_folder_write_bytes(folder, name, bytes.bytes, i % every ? bytes.size : bytes.size / 2);
    }
    data_buffer_destroy(&bytes);
    data_set_destroy(drawn);
    char spec[256];
    snprintf(spec, sizeof spec, "folder:%s", folder->path);
    return open_set(spec);
}

Test(loader, corrupt_images_are_replaced_by_the_next_and_counted)
{
    TempFolder folder;
    DataSet *set = damaged_folder(&folder, 12, 4);
    LoaderParams one = params_of(0, 0), two = params_of(3, 0);
    Loader *a = start(&one, set), *b = start(&two, set);
    for (int64_t step = 0; step < 6; step++) {
        Batch *batch = next(a), *other = next(b);
        expect_same(other, batch, 0);
        int64_t replaced = 0;
        for (int64_t s = 0; s < 6; s++) {
            int64_t wanted = sampler_index(12, 21, step * 6 + s);
            cr_assert_eq(batch->indices[s], wanted % 4 ? wanted : wanted + 1);
            replaced += wanted % 4 == 0;
        }
        cr_assert_eq(batch->corrupt, replaced);
        cr_assert_eq(other->corrupt, replaced);
        loader_release(a, batch);
        loader_release(b, other);
    }
    Log silent = {.silent = true};
    corrupt_list_tell(data_set_corrupt(set), NULL, &silent);
    cr_assert_eq(corrupt_list_total(data_set_corrupt(set)), 3);
    loader_destroy(a);
    loader_destroy(b);
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

Test(loader, nothing_but_corrupt_images_is_an_error)
{
    TempFolder folder;
    DataSet *set = damaged_folder(&folder, 5, 1);
    for (int workers = 0; workers < 3; workers += 2) {
        LoaderParams params = params_of(workers, 0);
        Loader *loader = start(&params, set);
        Batch *batch;
        Error error = {0};
        cr_assert_eq(loader_next(loader, &batch, &error), STATUS_INPUT);
        cr_assert_null(batch);
        cr_assert_not_null(strstr(error.text, "no readable image"), "%s", error.text);
        cr_assert_not_null(strstr(error.text, folder.path), "%s", error.text);
        loader_destroy(loader);
    }
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

Test(loader, prefetching_hides_the_work_and_stops_at_once)
{
    DataSet *set = open_set("synthetic:size=64,count=50");
    LoaderParams params = params_of(2, 0);
    Loader *loader = start(&params, set);
    loader_release(loader, next(loader));
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    Batch *batch = next(loader);
    cr_assert_lt(batch->wait_seconds, 0.05);
    loader_release(loader, batch);
    loader_destroy(loader); /* while both threads are at work */
    data_set_destroy(set);
}

Test(loader, steady_state_allocates_nothing)
{
    DataSet *set = open_set("synthetic:size=64,count=50");
    LoaderParams params = params_of(0, 0);
    Loader *loader = start(&params, set);
    for (int i = 0; i < 3; i++)
        loader_release(loader, next(loader));
    int64_t before = memory_allocation_count();
    for (int i = 0; i < 3; i++)
        loader_release(loader, next(loader));
    cr_assert_eq(memory_allocation_count(), before);
    loader_destroy(loader);
    data_set_destroy(set);
}

/* --- evaluation --- */

static EvalLoaderParams eval_params(int workers, int64_t first, int64_t last)
{
    return (EvalLoaderParams){.resize_size = 24,
                              .crop_size = 20,
                              .batch_size = 4,
                              .first = first,
                              .last = last,
                              .num_workers = workers,
                              .prefetch = 2};
}

Test(loader, an_evaluation_pass_is_ordered_and_complete)
{
    DataSet *set = open_set("synthetic:classes=3,size=32,count=30");
    EvalLoaderParams params = eval_params(2, 3, 13);
    AugmentScratch *scratch = augment_scratch_create();
    Image image = {0};
    DataBuffer buffer = {0};
    EvalLoader *loader;
    EvalBatch *batch;
    uint8_t expected[3 * 20 * 20];
    int64_t index = 3;
    cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
    for (;;) {
        cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
        if (!batch) break;
        cr_assert_eq(batch->count, index < 11 ? 4 : 2);
        for (int64_t i = 0; i < batch->count; i++, index++) {
            cr_assert_eq(batch->indices[i], index);
            cr_assert_eq(batch->labels[i], data_set_label(set, index));
            cr_assert(batch->valid[i]);
            cr_assert_eq(data_set_load_image(set, index, &image, &buffer, NULL), STATUS_OK);
            augment_eval(&image, 24, 20, expected, scratch);
            cr_assert(same_pixels(expected, batch->images, i * 1200, 1200));
        }
        eval_loader_release(loader, batch);
    }
    cr_assert_eq(index, 13);
    eval_loader_destroy(loader);
    params = eval_params(0, 5, 5);
    cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
    cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
    cr_assert_null(batch);
    eval_loader_destroy(loader);
    augment_scratch_destroy(scratch);
    image_destroy(&image);
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
}

/* Pictures of the sizes that SSCD's transforms make, and what torchvision's Resize would call them. */
Test(loader, an_evaluation_pass_keeps_shapes_on_request)
{
    const int64_t shapes[][2] = {{30, 30}, {30, 47}, {61, 20}, {90, 10}};
    const EvalSize expected[] = {{24, 24}, {24, 37}, {73, 24}, {96, 24}}; /* 90 x 10 would be 216 high */
    TempFolder folder = temp_folder_create();
    for (int i = 0; i < 4; i++) {
        uint8_t pixels[3 * 90 * 61];
        memset(pixels, 20 * i, sizeof pixels);
        DataBuffer png = {0};
        cr_assert_eq(image_encode_png(&png, pixels, shapes[i][1], shapes[i][0], 3, NULL), STATUS_OK);
        char name[] = {(char)('0' + i), '.', 'p', 'n', 'g', '\0'};
        temp_folder_write_bytes(&folder, name, png.bytes, png.size);
        data_buffer_destroy(&png);
    }
    char spec[200];
    snprintf(spec, sizeof spec, "folder:%s", folder.path);
    DataSet *set = open_set(spec);
    for (int shorter = 0; shorter < 2; shorter++) {
        EvalLoaderParams params = eval_params(2, 0, 4);
        params.transform = shorter ? EVAL_SHORTER : EVAL_SQUARE;
        params.crop_size = 24;
        EvalLoader *loader;
        EvalBatch *batch;
        cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
        cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
        cr_assert_eq(batch->image_bytes, (size_t)(3 * 24 * 24 * (shorter ? EVAL_LONGEST : 1)));
        for (int i = 0; i < 4; i++) {
            EvalSize size = shorter ? expected[i] : (EvalSize){24, 24};
            const uint8_t *pixels = batch->images + (size_t)i * batch->image_bytes;
            cr_expect(batch->sizes[i].height == size.height && batch->sizes[i].width == size.width,
                      "picture %d: %lld x %lld", i, (long long)batch->sizes[i].height,
                      (long long)batch->sizes[i].width);
            cr_expect(pixels[0] == 20 * i && pixels[3 * size.height * size.width - 1] == 20 * i);
        }
        eval_loader_release(loader, batch);
        eval_loader_destroy(loader);
    }
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

Test(loader, an_evaluation_pass_takes_whole_pictures_of_any_size)
{
    static const int64_t cases[][4] = {{28, 28, 2, 2},     {34, 20, 2, 1},   {35, 21, 3, 2},
                                       {1, 1, 1, 1},       {700, 10, 50, 1}, {1400, 10, 50, 1},
                                       {1400, 1400, 7, 7}, {140, 700, 3, 15}};
    EvalLoaderParams native = {.transform = EVAL_NATIVE, .patch_size = 14, .most_patches = 50};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EvalSize size = eval_loader_size(&native, cases[i][0], cases[i][1]);
        EvalSize turned = eval_loader_size(&native, cases[i][1], cases[i][0]);
        cr_expect(size.height == 14 * cases[i][2] && size.width == 14 * cases[i][3], "%zu: %lld x %lld", i,
                  (long long)size.height, (long long)size.width);
        cr_expect(turned.height == size.width && turned.width == size.height);
    }
    EvalLoaderParams whole = {.transform = EVAL_WHOLE, .size = {70, 28}};
    EvalSize size = eval_loader_size(&whole, 5, 900);
    cr_expect(size.height == 70 && size.width == 28);
}

/* Batches 1, 3, 5 of those of 4 pictures. */
Test(loader, an_evaluation_pass_of_every_other_batch)
{
    DataSet *set = open_set("synthetic:size=32,count=22,seed=5");
    for (int workers = 0; workers < 2; workers++) {
        EvalLoaderParams params = eval_params(workers, 4, 22);
        params.batch_size = 4;
        params.step = 8;
        EvalLoader *loader;
        EvalBatch *batch;
        int64_t seen = 0;
        cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
        for (int64_t first = 4;; first += 8) {
            cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
            if (!batch) break;
            for (int64_t i = 0; i < batch->count; i++)
                cr_expect(batch->indices[i] == first + i && batch->valid[i]);
            seen += batch->count;
            eval_loader_release(loader, batch);
        }
        cr_expect_eq(seen, 4 + 4 + 2);
        eval_loader_destroy(loader);
    }
    data_set_destroy(set);
}

Test(loader, an_evaluation_pass_marks_and_counts_corrupt_images)
{
    TempFolder folder;
    DataSet *set = damaged_folder(&folder, 6, 3);
    for (int workers = 0; workers < 2; workers++) {
        EvalLoaderParams params = eval_params(workers, 0, 6);
        EvalLoader *loader;
        EvalBatch *batch;
        int64_t index = 0;
        cr_assert_eq(eval_loader_create(&loader, &params, set, NULL), STATUS_OK);
        for (;;) {
            cr_assert_eq(eval_loader_next(loader, &batch, NULL), STATUS_OK);
            if (!batch) break;
            for (int64_t i = 0; i < batch->count; i++, index++) {
                cr_assert_eq(batch->valid[i], index % 3 != 0);
                if (!batch->valid[i]) cr_assert_eq(batch->images[i * 1200 + 7], 0);
            }
            eval_loader_release(loader, batch);
        }
        Log silent = {.silent = true};
        cr_assert_eq(corrupt_list_has_news(data_set_corrupt(set)),
                     workers == 0); /* a second pass finds none */
        corrupt_list_tell(data_set_corrupt(set), NULL, &silent);
        cr_assert_eq(corrupt_list_total(data_set_corrupt(set)), 2);
        eval_loader_destroy(loader);
    }
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

/* --- the list of corrupt images --- */

static int64_t tell(CorruptList *list)
{
    Log silent = {.silent = true};
    corrupt_list_tell(list, NULL, &silent);
    cr_assert(!corrupt_list_has_news(list));
    return corrupt_list_total(list);
}

/* What threads found ahead of the batches handed out does not count yet. */
Test(loader, a_corrupt_image_counts_once_when_its_batch_is_there)
{
    CorruptList *list = corrupt_list_create();
    corrupt_list_add(list, 5, 3, "five");
    corrupt_list_add(list, 900, 2, "nine hundred");
    corrupt_list_deliver(list, 1);
    cr_assert_eq(tell(list), 0);
    corrupt_list_deliver(list, 2);
    cr_assert(corrupt_list_has_news(list));
    cr_assert_eq(tell(list), 1);
    corrupt_list_add(list, 900, 0, "nine hundred");
    cr_assert_eq(tell(list), 1);
    corrupt_list_add(list, 5, 2, "five"); /* an earlier batch meets it later */
    corrupt_list_add(list, 1, 9, "one");
    cr_assert_eq(tell(list), 2);
    corrupt_list_deliver(list, 9);
    for (int64_t i = 0; i < 10000; i++) /* more than one message of a rank holds */
        corrupt_list_add(list, 20000 - 2 * i, 4, "many");
    cr_assert_eq(tell(list), 3 + 10000 - 1); /* 900 is one of them */
    corrupt_list_destroy(list);
}

Test(loader, scaled_decode_takes_the_same_images_and_masks)
{
    DataSet *drawn = open_set("synthetic:size=128,count=9");
    TempFolder folder = temp_folder_create();
    DataBuffer bytes = {0};
    Image image = {0};
    for (int i = 0; i < 9; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.jpg", i);
        cr_assert_eq(data_set_load_image(drawn, i, &image, &bytes, NULL), STATUS_OK);
        cr_assert_eq(image_encode_jpeg(&bytes, image.rgb, image.width, image.height, 90, NULL), STATUS_OK);
        temp_folder_write_bytes(&folder, name, bytes.bytes, i == 4 ? bytes.size / 2 : bytes.size);
    }
    char spec[256];
    snprintf(spec, sizeof spec, "folder:%s", folder.path);
    DataSet *set = open_set(spec);
    LoaderParams exact = params_of(0, 0), scaled = params_of(2, 0);
    scaled.scaled_decode = true;
    Loader *a = start(&exact, set), *b = start(&scaled, set);
    double off = 0;
    int64_t count = 2 * 3 * 28 * 28 * 6, steps = 4;
    for (int64_t step = 0; step < steps; step++) {
        Batch *x = next(a), *y = next(b);
        cr_assert_eq(memcmp(x->indices, y->indices, 6 * sizeof *x->indices), 0);
        cr_assert_eq(memcmp(x->masks, y->masks, 6 * 2 * 16), 0);
        cr_assert_eq(x->corrupt, y->corrupt);
        const uint8_t *exact_pixels = x->global_crops, *scaled_pixels = y->global_crops;
        for (int64_t i = 0; i < count; i++)
            off += fabs((double)exact_pixels[i] - (double)scaled_pixels[i]);
        loader_release(a, x);
        loader_release(b, y);
    }
    off /= (double)(count * steps);
    cr_assert(off > 0 && off < 2.8, "%g levels", off); /* a twentieth of ImageNet's standard deviation */
    loader_destroy(a);
    loader_destroy(b);
    data_buffer_destroy(&bytes);
    image_destroy(&image);
    data_set_destroy(drawn);
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

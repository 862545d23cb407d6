/* test_dense.c - segmentation and depth: figures by hand, maps beside a plain computation, gradients by
 * finite differences, pictures and masks beside each other. */
#include "../support/ops_support.h"
#include "../support/pair_folder.h"
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "eval/confusion.h"
#include "eval/dense_maps.h"
#include "eval/dense_task.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { PATCH = 8, WIDTH = 21, HEIGHT = 13 };

/* --- figures --- */

Test(dense, mean_iou_by_hand)
{
    /* Class 2 is in the truth alone, class 3 nowhere. */
    const double table[] = {6, 2, 0, 0, 1, 5, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0};
    ConfusionFigures figures;
    double iou[4];
    confusion_figures(&figures, iou, table, 4);
    cr_expect_float_eq(iou[0], 6.0 / 12.0, 1e-12);
    cr_expect_float_eq(iou[1], 5.0 / 9.0, 1e-12);
    cr_expect_float_eq(iou[2], 0.0, 1e-12);
    cr_expect(isnan(iou[3]));
    cr_expect_float_eq(figures.miou, (6.0 / 12.0 + 5.0 / 9.0) / 3.0, 1e-12);
    cr_expect_float_eq(figures.pixel_accuracy, 11.0 / 18.0, 1e-12);
    cr_expect_float_eq(figures.class_accuracy, (6.0 / 8.0 + 5.0 / 6.0) / 3.0, 1e-12);
    cr_expect_eq(figures.pixels, 18);
}

/* --- maps --- */

static void fill(float *values, int64_t n, uint64_t stream)
{
    Rng rng = rng_at(11, RNG_TEST, stream, 0);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)rng_normal(&rng);
}

/* One value of in[h, w, C] at (y, x) of a grid whose cells have their centres at 0.5, 1.5, ... */
static double plain(const float *in, int64_t h, int64_t w, int64_t C, int64_t c, double y, double x)
{
    y = fmin(fmax(y - 0.5, 0.0), (double)(h - 1));
    x = fmin(fmax(x - 0.5, 0.0), (double)(w - 1));
    int64_t y0 = (int64_t)floor(y), x0 = (int64_t)floor(x);
    int64_t y1 = y0 + 1 < h ? y0 + 1 : y0, x1 = x0 + 1 < w ? x0 + 1 : x0;
    double fy = y - (double)y0, fx = x - (double)x0;
    double top = (1.0 - fx) * (double)in[(y0 * w + x0) * C + c] + fx * (double)in[(y0 * w + x1) * C + c];
    double low = (1.0 - fx) * (double)in[(y1 * w + x0) * C + c] + fx * (double)in[(y1 * w + x1) * C + c];
    return (1.0 - fy) * top + fy * low;
}

/* A frame of 2 x 3 patches; of a whole picture, in the middle. */
static PairSample frame(bool mirrored)
{
    return (PairSample){.height = 16,
                        .width = 24,
                        .top = (16 - HEIGHT) / 2,
                        .left = (24 - WIDTH) / 2,
                        .rows = HEIGHT,
                        .columns = WIDTH,
                        .mirrored = mirrored};
}

Test(dense, maps_are_read_where_pixels_lie_and_back)
{
    enum { C = 3, H = 2, W = 3 };
    float in[H * W * C], row[WIDTH * C], scratch[W * C], back[H * W * C], dout[WIDTH * C];
    fill(in, H * W * C, 1);
    for (int mirrored = 0; mirrored <= 1; mirrored++) {
        PairSample sample = frame(mirrored == 1);
        BilinearMap map = {0};
        double worst = 0.0, one = 0.0, other = 0.0;
        memset(back, 0, sizeof back);
        dense_task_map(&map, &sample, PATCH, 1, HEIGHT, WIDTH, C);
        for (int64_t y = 0; y < HEIGHT; y++) {
            bilinear_map_row(&map, in, y, row, scratch);
            fill(dout, WIDTH * C, 2 + (uint64_t)y);
            for (int64_t x = 0; x < WIDTH; x++)
                for (int64_t c = 0; c < C; c++) {
                    int64_t at = mirrored ? WIDTH - 1 - x : x;
                    double wanted = plain(in, H, W, C, c, ((double)(y + sample.top) + 0.5) / PATCH,
                                          ((double)(at + sample.left) + 0.5) / PATCH);
                    worst = fmax(worst, fabs(wanted - (double)row[x * C + c]));
                    one += (double)row[x * C + c] * (double)dout[x * C + c];
                }
            bilinear_map_row_backward(&map, back, y, dout, scratch);
        }
        for (int64_t i = 0; i < H * W * C; i++)
            other += (double)in[i] * (double)back[i];
        cr_expect_lt(worst, 1e-5);
        cr_expect_float_eq(one, other, 1e-3 * fabs(one), "the transpose: %g, %g", one, other);
        bilinear_axis_fini(&map.y);
        bilinear_axis_fini(&map.x);
    }
}

/* --- losses --- */

static void make_mask(GrayImage *mask, int64_t most, int64_t special, uint64_t stream)
{
    Rng rng = rng_at(12, RNG_TEST, stream, 0);
    gray_image_reserve(mask, WIDTH, HEIGHT);
    for (int64_t i = 0; i < WIDTH * HEIGHT; i++)
        mask->values[i] =
            (uint16_t)(i % 7 == 0 ? special : rng_integer(&rng, special == 0 ? most / 4 : 0, most));
}

static double loss_at(const DenseTask *task, DenseWork *work, const PairSample *sample, const float *map,
                      int64_t n, float *scratch)
{
    memcpy(scratch, map, (size_t)n * sizeof *scratch);
    return task->learn(task, work, PATCH, sample, scratch, 1.0);
}

/* Of every score of the map. */
static void check_gradient(const DenseTask *task, const PairSample *sample, double step, double tolerance)
{
    int64_t n = 2 * 3 * task->channels;
    DenseWork work = {0};
    float *map = memory_alloc_array((size_t)n, sizeof *map), *gradient = memory_alloc_array((size_t)n, 4),
          *scratch = memory_alloc_array((size_t)n, 4);
    fill(map, n, 40);
    memcpy(gradient, map, (size_t)n * sizeof *map);
    double loss = task->learn(task, &work, PATCH, sample, gradient, 3.0);
    cr_expect_float_eq(loss, loss_at(task, &work, sample, map, n, scratch), 1e-9,
                       "the weight is of the gradient alone");
    double largest = 0.0, worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        float old = map[i];
        map[i] = old + (float)step;
        double above = loss_at(task, &work, sample, map, n, scratch);
        map[i] = old - (float)step;
        double below = loss_at(task, &work, sample, map, n, scratch);
        map[i] = old;
        double wanted = 3.0 * (above - below) / (2.0 * step);
        largest = fmax(largest, fabs(wanted));
        worst = fmax(worst, fabs(wanted - (double)gradient[i]));
    }
    cr_expect_gt(largest, 1e-4);
    cr_expect_lt(worst, tolerance * largest, "%g of %g", worst, largest);
    memory_free(map);
    memory_free(gradient);
    memory_free(scratch);
    dense_work_fini(&work);
}

Test(dense, gradients_by_finite_differences)
{
    DenseTask classes = segmentation_task(4, 9), depths = depth_task(0.5, 8.0, 7, 1000.0);
    PairSample sample = frame(false);
    make_mask(&sample.mask, 3, 9, 1);
    check_gradient(&classes, &sample, 1e-2, 2e-3);
    make_mask(&sample.mask, 7500, 0, 2);
    check_gradient(&depths, &sample, 2e-3, 2e-2);
    gray_image_destroy(&sample.mask);
}

Test(dense, pixels_to_be_ignored_count_nowhere)
{
    DenseTask task = segmentation_task(3, 7);
    PairSample sample = frame(false);
    DenseWork work = {0};
    float map[2 * 3 * 3], untouched[2 * 3 * 3], *maps[] = {map};
    double cells[9] = {0};
    fill(map, 18, 3);
    memcpy(untouched, map, sizeof map);
    make_mask(&sample.mask, 0, 0, 3);
    for (int64_t i = 0; i < WIDTH * HEIGHT; i++)
        sample.mask.values[i] = 7;
    task.measure(&task, &work, PATCH, &sample, 1, maps, cells);
    for (int i = 0; i < 9; i++)
        cr_expect_eq(cells[i], 0.0);
    cr_expect_eq(task.learn(&task, &work, PATCH, &sample, map, 1.0), 0.0);
    for (int i = 0; i < 18; i++)
        cr_expect_eq(map[i], 0.0f);

    /* One pixel counts: its loss by hand, over all pixels of the picture. */
    sample.mask.values[5 * WIDTH + 6] = 2;
    double scores[3], sum = 0.0;
    for (int c = 0; c < 3; c++) {
        scores[c] = plain(untouched, 2, 3, 3, c, (5.5 + (double)sample.top) / PATCH,
                          (6.5 + (double)sample.left) / PATCH);
        sum += exp(scores[c]);
    }
    double loss = task.learn(&task, &work, PATCH, &sample, untouched, 1.0);
    cr_expect_float_eq(loss, (log(sum) - scores[2]) / (WIDTH * HEIGHT), 1e-7);
    gray_image_destroy(&sample.mask);
    dense_work_fini(&work);
}

Test(dense, views_are_averaged_and_a_mirrored_one_is_read_backwards)
{
    DenseTask task = segmentation_task(3, 255);
    DenseWork work = {0};
    PairSample views[] = {frame(false), frame(true)};
    float map[18], turned[18], *both[] = {map, turned};
    double one[9] = {0}, two[9] = {0};
    fill(map, 18, 4);
    for (int y = 0; y < 2; y++)
        for (int x = 0; x < 3; x++)
            memcpy(turned + (y * 3 + x) * 3, map + (y * 3 + 2 - x) * 3, 3 * sizeof *map);
    /* A mirrored picture lies 24 - 21 = 1 + 2 pixels from the frame's sides: the other way round. */
    views[1].left = 24 - WIDTH - views[0].left;
    make_mask(&views[0].mask, 2, 1, 5);
    task.measure(&task, &work, PATCH, views, 1, both, one);
    task.measure(&task, &work, PATCH, views, 2, both, two);
    for (int i = 0; i < 9; i++)
        cr_expect_float_eq(one[i], two[i], 1e-9, "cell %d: %g, %g", i, one[i], two[i]);
    gray_image_destroy(&views[0].mask);
    dense_work_fini(&work);
}

Test(dense, depth_figures_by_hand)
{
    /* Two bins: scores (a, b) are the depth 1 + 4 (b + 0.1) / (a + b + 0.2). One score everywhere. */
    DenseTask task = depth_task(1.0, 5.0, 2, 1000.0);
    DenseWork work = {0};
    PairSample sample = frame(false);
    float map[6 * 2], *maps[] = {map};
    double cells[DENSE_DEPTH_CELLS] = {0}, said = 1.0 + 4.0 * 2.1 / 2.2;
    for (int i = 0; i < 6; i++) {
        map[2 * i] = -3.0f; /* as 0 */
        map[2 * i + 1] = 2.0f;
    }
    make_mask(&sample.mask, 0, 0, 6);
    for (int64_t i = 0; i < WIDTH * HEIGHT; i++)
        sample.mask.values[i] = i == 0 ? 4000 : i == 1 ? 2000 : i == 2 ? 6000 : 0; /* the third is too far */
    task.measure(&task, &work, PATCH, &sample, 1, maps, cells);
    DepthFigures figures;
    depth_task_figures(&figures, cells);
    double a = said - 4.0, b = said - 2.0;
    cr_expect_float_eq(figures.rmse, sqrt((a * a + b * b) / 2.0), 1e-5);
    cr_expect_float_eq(figures.abs_rel, (fabs(a) / 4.0 + fabs(b) / 2.0) / 2.0, 1e-5);
    cr_expect_float_eq(figures.delta1, said / 4.0 < 1.25 ? 0.5 : 0.0, 1e-9);
    cr_expect_eq(figures.pixels, 2);
    gray_image_destroy(&sample.mask);
    dense_work_fini(&work);
}

/* --- the probe in parts --- */

Test(dense, a_step_in_blocks_is_a_step)
{
    enum { D = 3, ROWS = 7, CLASSES = 4, BLOCK = 3 };
    static const int64_t last_blocks[] = {1, 2};
    static const double rates[] = {8.0};
    LinearProbeSpec spec = {.embed_dim = D,
                            .classes = CLASSES,
                            .batch_rows = ROWS,
                            .max_iterations = 5,
                            .last_blocks = last_blocks,
                            .learning_rates = rates,
                            .last_blocks_count = 2,
                            .learning_rate_count = 1,
                            .momentum = 0.9,
                            .seed = 3,
                            .tokens_alone = true};
    OpsLimits limits = linear_probe_limits(&spec);
    Ops *ops = ops_support_open(&limits, 1);
    Comm *comm = comm_self_create();
    LinearProbe *whole = linear_probe_create(&spec, ops, comm), *parts;
    spec.batch_rows = BLOCK;
    parts = linear_probe_create(&spec, ops, comm);
    cr_assert_eq(linear_probe_count(whole), 2);
    float first[ROWS * D], second[ROWS * D];
    const float *blocks[] = {first, second};
    fill(first, ROWS * D, 6);
    fill(second, ROWS * D, 7);
    LinearProbeTokens tokens = {.rows = ROWS, .blocks = 2, .class_tokens = blocks};
    DenseMaps maps = dense_maps_of(parts, CLASSES, BLOCK);
    dense_maps_forward(&maps, &tokens);
    linear_probe_predict(whole, &tokens);
    for (int c = 0; c < 2; c++)
        for (int64_t row = 0; row < ROWS; row++)
            for (int k = 0; k < CLASSES; k++) {
                double a = (double)linear_probe_scores(whole, c, row)[k];
                cr_expect_float_eq(a, (double)maps.map[c][row * CLASSES + k], 1e-6);
                maps.map[c][row * CLASSES + k] = (float)(0.1 * (double)(row + k + c)); /* some gradient */
            }
    const float *gradients[] = {maps.map[0], maps.map[1]};
    linear_probe_add_gradient(whole, &tokens, gradients);
    dense_maps_backward(&maps, &tokens);
    /* Learning rates are given for a batch of 256 rows. */
    double losses[] = {1.0, 1.0}, others[] = {1.0, 1.0};
    Error error = {0};
    float *a, *b, *velocity;
    cr_assert_eq(linear_probe_descend(whole, losses, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(linear_probe_descend(parts, others, &error), STATUS_OK, "%s", error.text);
    int64_t n = linear_probe_state(whole, &a, &velocity);
    linear_probe_state(parts, &b, &a);
    for (int64_t i = 0; i < n; i++)
        cr_expect_float_eq((double)velocity[i], (double)a[i], 1e-6, "velocity %lld", (long long)i);
    dense_maps_fini(&maps);
    linear_probe_destroy(whole);
    linear_probe_destroy(parts);
    comm_destroy(comm);
    ops_support_close(ops);
}

/* --- pictures and masks --- */

/* A picture whose red is 20 times its mask. */
static void make_pair(const TempFolder *folder)
{
    uint8_t rgb[WIDTH * HEIGHT * 3];
    uint16_t mask[WIDTH * HEIGHT];
    Rng rng = rng_at(13, RNG_TEST, 0, 0);
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        mask[i] = (uint16_t)rng_integer(&rng, 0, 11);
        rgb[3 * i] = (uint8_t)(20 * mask[i]);
        rgb[3 * i + 1] = rgb[3 * i + 2] = (uint8_t)i;
    }
    cr_assert(pair_folder_make(folder->path, "labels"));
    cr_assert(pair_folder_add_picture(folder->path, "one", rgb, WIDTH, HEIGHT));
    cr_assert(pair_folder_add_gray(folder->path, "labels", "one", mask, WIDTH, HEIGHT, 8));
}

static DataSet *open_pairs(const TempFolder *folder)
{
    DataSet *set;
    Error error = {0};
    char spec[256];
    snprintf(spec, sizeof spec, "pairs:%s", folder->path);
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    cr_assert(data_set_has_masks(set));
    return set;
}

/* Each mask pixel at scale 1 is a twentieth of the red in the frame, and what is around is padding. */
static void check_sample(const PairSample *sample)
{
    int64_t pixels = 0;
    cr_assert(sample->mask.height == sample->rows && sample->mask.width == sample->columns);
    for (int64_t y = 0; y < sample->height; y++)
        for (int64_t x = 0; x < sample->width; x++) {
            int64_t row = y - sample->top, column = x - sample->left;
            int red = sample->planes[y * sample->width + x];
            if (row < 0 || row >= sample->rows || column < 0 || column >= sample->columns) {
                cr_expect_eq(red, 77);
                continue;
            }
            if (sample->mirrored) column = sample->columns - 1 - column;
            cr_expect_eq(red, 20 * sample->mask.values[row * sample->columns + column]);
            pixels++;
        }
    cr_expect_eq(pixels, sample->rows * sample->columns);
}

Test(dense, crops_and_padding_keep_masks_beside_pictures)
{
    TempFolder folder = temp_folder_create();
    make_pair(&folder);
    DataSet *set = open_pairs(&folder);
    Error error = {0};
    PairLoaderParams params = {.patch_size = PATCH,
                               .padding = {77, 77, 77},
                               .mask_bits = 8,
                               .classes = 12,
                               .ignore = 255,
                               .scale = {1.0, 1.0},
                               .crop = 15,
                               .flip = 0.5,
                               .seed = 4,
                               .batch_size = 4,
                               .count = 4,
                               .step_end = 5};
    PairLoader *loader;
    PairBatch *batch;
    cr_assert_eq(pair_loader_create(&loader, &params, set, &error), STATUS_OK, "%s", error.text);
    int64_t lefts = 0, batches = 0;
    for (;; batches++) {
        cr_assert_eq(pair_loader_next(loader, &batch, &error), STATUS_OK, "%s", error.text);
        if (!batch) break;
        for (int64_t i = 0; i < batch->count; i++) {
            const PairSample *sample = &batch->samples[i];
            cr_expect(sample->height == 16 && sample->width == 16 && sample->rows == HEIGHT &&
                      sample->columns == 15);
            check_sample(sample);
            lefts |= (int64_t)1 << sample->mask.values[0];
        }
        pair_loader_release(loader, batch);
    }
    cr_expect_eq(batches, 5);
    cr_expect_neq(lefts & (lefts - 1), 0, "crops differ");
    pair_loader_destroy(loader);

    static const PairView views[] = {{1.0, false}, {1.0, true}, {2.0, false}};
    params.views = views;
    params.view_count = 3;
    params.first = 0;
    params.count = 1;
    cr_assert_eq(pair_loader_create(&loader, &params, set, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(pair_loader_next(loader, &batch, &error), STATUS_OK, "%s", error.text);
    PairSample whole = batch->samples[0];
    cr_expect(whole.height == 16 && whole.width == 24 && whole.top == 1 && whole.left == 1);
    check_sample(&whole);
    PairSample mirrored = batch->samples[1];
    mirrored.mask = whole.mask;
    cr_expect(mirrored.mirrored);
    check_sample(&mirrored);
    cr_expect(batch->samples[2].height == 32 && batch->samples[2].width == 48 &&
              batch->samples[2].rows == 2 * HEIGHT);
    pair_loader_release(loader, batch);
    pair_loader_destroy(loader);
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

Test(dense, numbers_of_16_bits_come_as_they_are)
{
    TempFolder folder = temp_folder_create();
    cr_assert(pair_folder_draw_depth(folder.path, 1, 16, 16, 1));
    DataSet *set = open_pairs(&folder);
    GrayImage depth = {0};
    DataBuffer buffer = {0};
    Error error = {0};
    cr_assert_eq(data_set_load_mask(set, 0, &depth, &buffer, &error), STATUS_OK, "%s", error.text);
    cr_expect(depth.bits == 16 && depth.width == 16 && depth.height == 16);
    int64_t wide = 0;
    for (int i = 0; i < 256; i++) {
        wide += depth.values[i] > 1000;
        cr_expect_lt(depth.values[i], 9001);
    }
    cr_expect_gt(wide, 128);
    cr_expect_eq(depth.values[0], 0, "a corner without depth");
    gray_image_destroy(&depth);
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
    temp_folder_destroy(&folder);
}

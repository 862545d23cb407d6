/* test_patch_pictures.c - pictures of patch features: sizes of whole pictures, colours that mean the same in
 * all of them, foreground, matches between two.
 */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/image_encode.h"
#include "report/patch_matches.h"
#include "report/pca_picture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- loading --- */

/* A red picture. */
static void write_picture(const TempFolder *temp, const char *name, int64_t width, int64_t height, bool cut)
{
    uint8_t *pixels = memory_alloc((size_t)(width * height * 3));
    for (int64_t p = 0; p < width * height; p++)
        pixels[3 * p] = 200;
    DataBuffer bytes = {0};
    cr_assert_eq(image_encode_png(&bytes, pixels, width, height, 3, NULL), STATUS_OK);
    temp_folder_write_bytes(temp, name, bytes.bytes, cut ? bytes.size / 2 : bytes.size);
    data_buffer_destroy(&bytes);
    memory_free(pixels);
}

static DataSet *open_folder(const TempFolder *temp)
{
    char spec[160];
    DataSet *set;
    Error error = {0};
    snprintf(spec, sizeof spec, "folder:%s", temp->path);
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    return set;
}

Test(patch_pictures, keep_their_proportions_in_whole_patches)
{
    static const struct {
        int64_t width, height, grid_width, grid_height;
    } cases[] = {
        {40, 40, 4, 4}, {90, 60, 6, 4}, {60, 100, 4, 7}, {500, 10, 16, 4}, {1, 3, 4, 12},
    };
    enum { CASES = sizeof cases / sizeof *cases, P = 8 };
    TempFolder temp = temp_folder_create();
    for (int i = 0; i < CASES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.png", i);
        write_picture(&temp, name, cases[i].width, cases[i].height, false);
    }
    write_picture(&temp, "2a.png", 40, 40, true);
    DataSet *set = open_folder(&temp);
    Log log = log_create(1);
    PatchPictures pictures;
    PatchPicturesParams params = {.patch_size = P, .size = 30, .drawn = 21, .grayscale = true};
    Error error = {0};
    cr_assert_eq(patch_pictures_load(&pictures, &params, set, &log, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(pictures.count, CASES);
    cr_expect_eq(pictures.cell, 5);
    int64_t patches = 0;
    for (int i = 0; i < CASES; i++) {
        const PatchPicture *one = &pictures.pictures[i];
        cr_expect(one->grid_width == cases[i].grid_width && one->grid_height == cases[i].grid_height,
                  "picture %d: %lld x %lld", i, (long long)one->grid_width, (long long)one->grid_height);
        cr_expect_eq(one->index, i < 3 ? i : i + 1); /* the damaged one is left out */
        cr_expect_eq(one->first, patches);
        patches += one->grid_width * one->grid_height;
        int64_t last = 3 * one->grid_width * one->grid_height * P * P - 1;
        cr_expect(one->input[0] == 60 && one->input[last] == 60, "picture %d: %d", i, one->input[0]);
        cr_expect(one->rgb[0] == 200 && one->rgb[1] == 0);
    }
    cr_expect_eq(pictures.patches, patches);
    patch_pictures_fini(&pictures);
    data_set_destroy(set);
    temp_folder_destroy(&temp);
}

/* --- made up features --- */

enum { H = 6, W = 8, DIM = 10 };

/* Features of pictures without data. */
static PatchPictures made_up(int64_t count, const int64_t (*grids)[2])
{
    PatchPictures pictures = {.count = count,
                              .patch_size = 4,
                              .cell = 3,
                              .d = DIM,
                              .pictures = memory_alloc_array((size_t)count, sizeof(PatchPicture))};
    for (int64_t i = 0; i < count; i++) {
        int64_t patches = grids[i][0] * grids[i][1];
        pictures.pictures[i] = (PatchPicture){.index = i,
                                              .grid_height = grids[i][0],
                                              .grid_width = grids[i][1],
                                              .first = pictures.patches,
                                              .rgb = memory_alloc((size_t)(27 * patches))};
        pictures.patches += patches;
    }
    pictures.tokens = memory_alloc((size_t)(pictures.patches * DIM) * sizeof(float));
    return pictures;
}

static void set_token(PatchPictures *pictures, int64_t patch, const double *values, Rng *rng, double noise)
{
    for (int k = 0; k < DIM; k++)
        pictures->tokens[patch * DIM + k] = (float)(values[k] + noise * rng_normal(rng));
}

/* The object of a picture: 2 x 3 patches in the middle, the left column of one kind, the rest of another. */
static int part_of(int64_t y, int64_t x)
{
    if (y < 2 || y > 3 || x < 2 || x > 4) return 0;
    return x == 2 ? 1 : 2;
}

/* Two pictures, the second upright and of another size, with the same two parts before a background. */
static PatchPictures two_objects(uint64_t seed, double sign)
{
    const int64_t grids[][2] = {{H, W}, {7, 6}};
    PatchPictures pictures = made_up(2, grids);
    double kinds[3][DIM];
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (int k = 0; k < DIM; k++) {
        kinds[0][k] = 1.0;
        kinds[1][k] = 1.0 + sign * (k % 2 ? 3.0 : k % 3);
        kinds[2][k] = 1.0 + sign * (k % 2 ? 3.0 : -(k % 3));
    }
    for (int64_t i = 0; i < 2; i++)
        for (int64_t at = 0; at < grids[i][0] * grids[i][1]; at++)
            set_token(&pictures, pictures.pictures[i].first + at,
                      kinds[part_of(at / grids[i][1], at % grids[i][1])], &rng, 0.05);
    return pictures;
}

static int part_at(const PatchPictures *pictures, int64_t patch)
{
    const PatchPicture *one = &pictures->pictures[patch >= pictures->pictures[1].first];
    int64_t at = patch - one->first;
    return part_of(at / one->grid_width, at % one->grid_width);
}

Test(pca_picture, threshold_separates_two_heaps)
{
    float values[300];
    Rng rng = rng_at(14, RNG_TEST, 0, 0);
    for (int i = 0; i < 300; i++)
        values[i] = (float)((i % 3 ? -4.0 : 5.0) + 0.5 * rng_normal(&rng));
    double threshold = pca_picture_threshold(values, 300);
    cr_expect(threshold > -2.5 && threshold < 3.5, "%g", threshold);
    float same[3] = {2.0f, 2.0f, 2.0f};
    cr_expect(isfinite(pca_picture_threshold(same, 3)));
}

/* Whichever way the features point. */
Test(pca_picture, parts_of_one_kind_have_one_colour_in_all_pictures)
{
    for (int sign = -1; sign <= 1; sign += 2) {
        PatchPictures pictures = two_objects(15, sign);
        PcaOptions options = {0};
        PcaColors colors;
        pca_picture_colors(&colors, &pictures, &options);
        double sums[3] = {0}, counts[3] = {0};
        for (int64_t i = 0; i < pictures.patches; i++) {
            int part = part_at(&pictures, i);
            const uint8_t *rgb = colors.colors + 3 * i;
            cr_expect_eq(colors.foreground[i], part > 0, "patch %lld", (long long)i);
            cr_expect(part > 0 || rgb[0] + rgb[1] + rgb[2] == 0);
            sums[part] += rgb[0];
            counts[part] += 1;
        }
        cr_expect_float_eq(colors.share, 12.0 / (double)pictures.patches, 1e-12);
        cr_expect(fabs(sums[1] / counts[1] - sums[2] / counts[2]) > 150, "%g %g", sums[1], sums[2]);
        for (int64_t i = 0; i < pictures.patches; i++) {
            int part = part_at(&pictures, i);
            if (part > 0) cr_expect_float_eq(colors.colors[3 * i], sums[part] / counts[part], 60);
        }
        cr_expect(colors.explained[0] > 0.9);

        Picture picture;
        pca_picture_draw(&picture, &pictures, &colors, 8);
        cr_expect_eq(picture.width, 8 + 3 * W + 8 + 3 * 6 + 8);
        cr_expect_eq(picture.height, 8 + 2 * 3 * 7 + 4 + 8);
        /* the first picture's map begins below the row of pictures; the corner of its object */
        int64_t x = 8 + 2 * 3, y = 8 + 3 * 7 + 4 + 2 * 3;
        cr_expect_eq(memcmp(picture.rgb + (y * picture.width + x) * 3, colors.colors + (2 * W + 2) * 3, 3),
                     0);
        picture_fini(&picture);
        pca_picture_draw(&picture, &pictures, &colors, 1);
        cr_expect(picture.width == 8 + 3 * W + 8 && picture.height == 8 + 6 * (H + 7) + 8 + 3 * 8);
        picture_fini(&picture);
        pca_picture_colors_fini(&colors);
        patch_pictures_fini(&pictures);
    }
}

Test(pca_picture, side_and_threshold_can_be_chosen)
{
    PatchPictures pictures = two_objects(16, 1);
    PcaColors found, above, below, all, far;
    pca_picture_colors(&found, &pictures, &(PcaOptions){0});
    pca_picture_colors(&above, &pictures, &(PcaOptions){.foreground = PCA_FOREGROUND_ABOVE});
    pca_picture_colors(&below, &pictures, &(PcaOptions){.foreground = PCA_FOREGROUND_BELOW});
    pca_picture_colors(&all, &pictures, &(PcaOptions){.foreground = PCA_FOREGROUND_ALL});
    pca_picture_colors(
        &far, &pictures,
        &(PcaOptions){.foreground = PCA_FOREGROUND_ABOVE, .has_threshold = true, .threshold = 9});
    for (int64_t i = 0; i < pictures.patches; i++) {
        cr_expect_eq(above.foreground[i] + below.foreground[i], 1);
        cr_expect_eq(found.foreground[i], found.above ? above.foreground[i] : below.foreground[i]);
        cr_expect(all.foreground[i] && far.foreground[i]); /* nothing lies there: everything counts */
    }
    PcaColors *const each[] = {&found, &above, &below, &all, &far};
    for (int i = 0; i < 5; i++)
        pca_picture_colors_fini(each[i]);
    patch_pictures_fini(&pictures);
}

/* --- matches --- */

Test(patch_matches, are_mutual_and_kept_apart)
{
    const int64_t grids[][2] = {{4, 5}, {5, 4}};
    PatchPictures pictures = made_up(2, grids);
    Rng rng = rng_at(17, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < 20 * DIM; i++)
        pictures.tokens[i] = (float)rng_normal(&rng);
    /* patch i of the first is patch 19 - i of the second, of another length; 3 has no partner */
    for (int64_t i = 0; i < 20; i++)
        for (int k = 0; k < DIM; k++)
            pictures.tokens[(39 - i) * DIM + k] =
                (float)(1 + i) * (i == 3 ? pictures.tokens[4 * DIM + k] : pictures.tokens[i * DIM + k]);
    PatchMatch matches[20];
    int64_t n = patch_matches_find(matches, &pictures, 0, 1, NULL);
    cr_assert_eq(n, 19);
    for (int64_t i = 0; i < n; i++) {
        cr_expect_neq(matches[i].from, 3);
        /* of patches 15 and 16, which are alike, the lower one is nearer to 4 */
        cr_expect_eq(matches[i].to, matches[i].from == 4 ? 15 : 19 - matches[i].from);
        cr_expect_float_eq((double)matches[i].similarity, 1.0, 1e-6);
        cr_expect(i == 0 || matches[i].similarity <= matches[i - 1].similarity);
    }
    int64_t kept = patch_matches_thin(matches, n, &pictures, 0, 1, 2.0, 5);
    cr_expect(kept >= 3 && kept <= 5);
    for (int64_t i = 0; i < kept; i++)
        for (int64_t j = 0; j < i; j++) {
            double dy = (double)(matches[i].from / 5 - matches[j].from / 5);
            double dx = (double)(matches[i].from % 5 - matches[j].from % 5);
            cr_expect(hypot(dy, dx) >= 2.0);
        }
    uint8_t foreground[40] = {0};
    foreground[7] = foreground[20 + 12] = foreground[9] = 1;
    n = patch_matches_find(matches, &pictures, 0, 1, foreground);
    cr_expect(n == 1 && matches[0].from == 7 && matches[0].to == 12);
    patch_pictures_fini(&pictures);
}

Test(patch_matches, draws_a_line_from_patch_to_patch)
{
    TempFolder temp = temp_folder_create();
    TempPath output = temp_folder_in(&temp, "matches.png");
    const int64_t grids[][2] = {{8, 8}, {8, 8}, {8, 8}};
    PatchPictures pictures = made_up(3, grids);
    pictures.cell = 10;
    for (int64_t i = 0; i < 3; i++) {
        memory_free(pictures.pictures[i].rgb);
        pictures.pictures[i].rgb = memory_alloc(3 * 80 * 80);
    }
    uint8_t foreground[3 * 64] = {0};
    foreground[3 * 8 + 2] = foreground[64 + 3 * 8 + 6] = 1;
    for (int64_t i = 0; i < pictures.patches * DIM; i++)
        pictures.tokens[i] = 1.0f;
    Picture picture;
    PictureOverlay overlay;
    Error error = {0};
    picture_overlay_init(&overlay);
    cr_expect_eq(patch_matches_draw(&picture, &pictures, foreground, 5, &overlay), 1);
    cr_assert(picture.width == 2 * 80 + 24 + 16 && picture.height == 80 + 16, "one pair");
    cr_assert_eq(picture_overlay_finish(&overlay, &picture, output.text, &error), STATUS_OK, "%s",
                 error.text);
    /* from (8 + 25, 8 + 35) to (8 + 80 + 24 + 65, 43), red; black pictures and white paper as they were */
    const struct {
        int64_t x, y;
        int red, green, blue;
    } points[] = {{60, 43, 230, 25, 75},    {100, 43, 230, 25, 75}, {150, 43, 230, 25, 75}, {60, 30, 0, 0, 0},
                  {100, 60, 255, 255, 255}, {20, 43, 0, 0, 0},      {188, 43, 0, 0, 0}};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        const uint8_t *rgb = picture.rgb + (points[i].y * picture.width + points[i].x) * 3;
        cr_expect(abs(rgb[0] - points[i].red) < 60 && abs(rgb[1] - points[i].green) < 60 &&
                      abs(rgb[2] - points[i].blue) < 60,
                  "point %zu: %d %d %d", i, rgb[0], rgb[1], rgb[2]);
    }
    picture_fini(&picture);
    patch_pictures_fini(&pictures);
    temp_folder_destroy(&temp);
}

/* test_synthetic_features.c - drawn descriptors: what their header promises about cosines, and options. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "features/features_file.h"
#include "features/synthetic_features.h"
#include "index/index_rows.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 1500, D = 256 };

Test(synthetic_features, cosines_are_those_of_views_mates_and_strangers)
{
    SyntheticFeatures features;
    Error error = {0};
    cr_assert_eq(synthetic_features_parse(
                     &features, "rows=1500,columns=256,clusters=30,duplicates=0.4,copies=3,seed=9", &error),
                 STATUS_OK, "%s", error.text);
    cr_assert_eq(synthetic_features_groups(&features), 200);
    int64_t objects = 0; /* by comparing all */
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t label = synthetic_features_label(&features, i), j = 0;
        while (j < i && (label < 0 || synthetic_features_label(&features, j) != label))
            j++;
        objects += j == i;
    }
    cr_expect_eq(synthetic_features_objects(&features), objects);
    float *centres = synthetic_features_centres(&features);
    float *rows = memory_alloc_array(ROWS * D, sizeof *rows), again[3 * D];
    synthetic_features_draw(&features, centres, 0, ROWS, rows);
    synthetic_features_draw(&features, centres, 700, 3, again);
    cr_expect_eq(memcmp(again, rows + 700 * D, sizeof again), 0, "a row does not depend on its block");
    int64_t views = 0, pairs = 0, mates = 0, others = 0;
    double lowest = 1.0, highest = -1.0, highest_other = -1.0;
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t label = synthetic_features_label(&features, i);
        views += label >= 0;
        cr_expect_float_eq(index_rows_dot(rows + i * D, rows + i * D, D), 1.0, 1e-5);
        for (int64_t j = 0; j < i; j++) {
            double cosine = index_rows_dot(rows + i * D, rows + j * D, D);
            if (label >= 0 && label == synthetic_features_label(&features, j)) {
                lowest = fmin(lowest, cosine), highest = fmax(highest, cosine);
                pairs++;
                continue;
            }
            highest_other = fmax(highest_other, cosine);
            mates += cosine > 0.2;
            others++;
        }
    }
    cr_expect(views > 520 && views < 680, "%lld", (long long)views);
    cr_expect(pairs > 500 && lowest > 0.65 && highest < 1.0 && highest - lowest > 0.15,
              "%lld pairs, %.3f to %.3f", (long long)pairs, lowest, highest);
    cr_expect(highest_other < 0.55, "%.3f", highest_other);
    cr_expect(mates > others / 60 && mates < others / 20, "%lld of %lld", (long long)mates,
              (long long)others);
    memory_free(rows);
    memory_free(centres);
}

Test(synthetic_features, a_file_holds_what_is_drawn)
{
    TempFolder temp = temp_folder_create();
    TempPath path = temp_folder_in(&temp, "new/drawn.h5");
    SyntheticFeatures features;
    Error error = {0};
    Log log = log_create(1);
    cr_assert_eq(synthetic_features_parse(&features, "rows=9000,columns=4,seed=2", &error), STATUS_OK);
    cr_assert_eq(synthetic_features_write(&features, path.text, "spec", "0", 2, &log, &error), STATUS_OK,
                 "%s", error.text);
    FeaturesFile file;
    cr_assert_eq(features_file_open(&file, path.text, &error), STATUS_OK, "%s", error.text);
    cr_assert(file.n == 9000 && file.d == 4 && file.classes == synthetic_features_groups(&features));
    float *centres = synthetic_features_centres(&features), read[7 * 4], drawn[7 * 4];
    int64_t labels[7];
    char *keys = memory_alloc(7 * (file.key_bytes + 1));
    cr_assert_eq(features_file_read(&file, 8190, 7, read, labels, &error), STATUS_OK); /* over two blocks */
    cr_assert_eq(features_file_read_keys(&file, 8190, 7, keys, &error), STATUS_OK);
    synthetic_features_draw(&features, centres, 8190, 7, drawn);
    cr_expect_eq(memcmp(read, drawn, sizeof read), 0);
    for (int i = 0; i < 7; i++)
        cr_expect_eq(labels[i], synthetic_features_label(&features, 8190 + i));
    cr_expect_str_eq(keys + 2 * (file.key_bytes + 1), "drawn/0000000008192");
    memory_free(keys);
    memory_free(centres);
    features_file_close(&file);
    temp_folder_destroy(&temp);
}

Test(synthetic_features, options_that_are_none_are_refused)
{
    const char *const bad[][2] = {{"rows=0", "\"rows=0\": expected a whole number from 1"},
                                  {"rows=5,size=3", "\"size=3\": expected rows="},
                                  {"duplicates=1.5", "\"duplicates=1.5\": expected a share"},
                                  {"duplicates=x", "a share from 0 to 1"},
                                  {"columns=1", "a whole number from 2 to 65536"},
                                  {"seed=-1", "\"seed=-1\""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        SyntheticFeatures features;
        Error error = {0};
        cr_expect_eq(synthetic_features_parse(&features, bad[i][0], &error), STATUS_INPUT);
        cr_expect(strstr(error.text, bad[i][1]), "%s", error.text);
    }
    SyntheticFeatures features;
    cr_expect_eq(synthetic_features_parse(&features, "", NULL), STATUS_OK);
    cr_expect(features.rows == 100000 && features.columns == 512 && features.duplicates == 0.3);
}

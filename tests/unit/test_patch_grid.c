/* test_patch_grid.c - means over a coarser grid, by hand; and the words of layers. */
#include "features/feature_extractor.h"
#include "features/patch_grid.h"

#include <criterion/criterion.h>
#include <string.h>

Test(patch_grid, cells_are_means_of_what_they_touch)
{
    /* 3 x 3 places of two columns: t and 10 t */
    float tokens[3 * 3 * 2], out[2 * 2 * 2];
    for (int i = 0; i < 9; i++) {
        tokens[2 * i] = (float)i;
        tokens[2 * i + 1] = (float)(10 * i);
    }
    /* 3 into 2: both take the middle row and column: {0 1 3 4}, {1 2 4 5}, {3 4 6 7}, {4 5 7 8} */
    static const float expected[] = {2, 20, 3, 30, 5, 50, 6, 60};
    patch_grid_pool(out, tokens, 1, 3, 3, 2, 2);
    cr_expect_arr_eq(out, expected, sizeof expected);
    patch_grid_pool(out, tokens, 1, 3, 3, 1, 2);
    cr_expect(out[0] == 4.0f && out[1] == 40.0f, "the mean of all");
    float same[3 * 3 * 2];
    patch_grid_pool(same, tokens, 1, 3, 3, 3, 2);
    cr_expect_arr_eq(same, tokens, sizeof same);
}

Test(patch_grid, images_follow_each_other)
{
    /* two pictures of 4 x 4 places, one column */
    float tokens[2 * 16], out[2 * 4];
    for (int i = 0; i < 32; i++)
        tokens[i] = (float)i;
    static const float expected[] = {2.5f, 4.5f, 10.5f, 12.5f, 18.5f, 20.5f, 26.5f, 28.5f};
    patch_grid_pool(out, tokens, 2, 4, 4, 2, 1);
    cr_expect_arr_eq(out, expected, sizeof expected);
    /* 4 into 3: rows {0 1}, {1 2}, {2 3} */
    float three[9];
    patch_grid_pool(three, tokens, 1, 4, 4, 3, 1);
    static const float thirds[] = {2.5f, 3.5f, 4.5f, 6.5f, 7.5f, 8.5f, 10.5f, 11.5f, 12.5f};
    cr_expect_arr_eq(three, thirds, sizeof thirds);
}

Test(patch_grid, the_word_of_a_layer_is_read_and_written)
{
    static const char *const good[] = {"patch", "class_token", "mean_patch", "grid:2:4", "grid:12:16"};
    static const char *const bad[] = {
        "",          "grid",       "grid:",       "grid:2",         "grid:2:",         "grid:0:4",
        "grid:2:0",  "+patch",     "patch+patch", "grid:2:4+patch", "embedding+patch", "grid:-1:4",
        "grid: 2:4", "grid:2:4:1", "grid:2x4",    "embedding",      "grid:2:4 ",       "Class_token"};
    FeatureExtractor row = {0};
    char text[FEATURE_LAYER];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert_eq(feature_extractor_parse_layer(&row, good[i], NULL), STATUS_OK, "%s", good[i]);
        feature_extractor_layer(&row, text);
        cr_expect_str_eq(text, good[i]);
    }
    cr_expect(row.grid.blocks == 12 && row.grid.side == 16 && !row.patches);
    for (int i = 0; i < 3; i++) {
        char both[FEATURE_LAYER];
        snprintf(both, sizeof both, "%s%s", good[i], i ? "+patch" : "");
        cr_assert_eq(feature_extractor_parse_layer(&row, both, NULL), STATUS_OK, "%s", both);
        feature_extractor_layer(&row, text);
        cr_expect(row.patches && strcmp(text, good[i]) == 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error error = {0};
        cr_expect_eq(feature_extractor_parse_layer(&row, bad[i], &error), STATUS_INPUT, "\"%s\"", bad[i]);
        cr_expect_not_null(strstr(error.text, "expected class_token, mean_patch, either"));
    }
}

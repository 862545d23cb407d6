/* test_synthetic.c - the procedural data set keeps what its header promises. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "data/data_set.h"
#include "data/synthetic_draw.h"
#include "data/synthetic_export.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

Test(synthetic, labels_are_balanced_in_every_run_of_classes)
{
    SyntheticParams params = {.classes = 7, .size = 32, .count = 700, .seed = 4};
    int64_t moved = 0;
    for (int64_t run = 0; run < 100; run++) {
        int seen[7] = {0};
        for (int64_t i = 0; i < 7; i++) {
            int64_t label = synthetic_draw_label(&params, run * 7 + i);
            seen[label]++;
            moved += label != i;
        }
        for (int i = 0; i < 7; i++)
            cr_assert_eq(seen[i], 1);
    }
    cr_assert_gt(moved, 400, "the order within a run is random");
}

Test(synthetic, classes_are_distinct_pairs)
{
    for (int64_t classes = 2; classes <= SYNTHETIC_MAX_CLASSES; classes += 7) {
        SyntheticParams params = {.classes = classes, .size = 32, .count = 100};
        char names[SYNTHETIC_MAX_CLASSES][64];
        for (int64_t c = 0; c < classes; c++) {
            synthetic_draw_class_name(&params, c, names[c], sizeof names[c]);
            for (int64_t other = 0; other < c; other++)
                cr_assert_str_neq(names[c], names[other]);
        }
    }
}

Test(synthetic, same_seed_and_index_same_picture)
{
    SyntheticParams params = {.classes = 10, .size = 48, .count = 50, .seed = 8};
    SyntheticParams other = params;
    other.seed = 9;
    Image a = {0}, b = {0}, c = {0};
    for (int64_t i = 0; i < 10; i++) {
        synthetic_draw_image(&params, i, &a);
        synthetic_draw_image(&params, i, &b);
        synthetic_draw_image(&other, i, &c);
        cr_assert_eq(memcmp(a.rgb, b.rgb, 48 * 48 * 3), 0);
        cr_assert_neq(memcmp(a.rgb, c.rgb, 48 * 48 * 3), 0);
    }
    image_destroy(&a);
    image_destroy(&b);
    image_destroy(&c);
}

Test(synthetic, masks_cover_the_object_and_nothing_else)
{
    SyntheticParams params = {.classes = 20, .size = 64, .count = 200, .seed = 1};
    uint8_t mask[64 * 64];
    for (int64_t i = 0; i < 100; i++) {
        uint8_t value = (uint8_t)(synthetic_draw_label(&params, i) + 1);
        synthetic_draw_mask(&params, i, mask);
        int inside = 0;
        for (int p = 0; p < 64 * 64; p++) {
            cr_assert(mask[p] == 0 || mask[p] == value);
            inside += mask[p] != 0;
        }
        cr_assert(inside > 64 * 64 / 50 && inside < 64 * 64 * 7 / 10, "image %ld: %d", (long)i, inside);
    }
}

/* Mean colour of a plain object's pixels has little spread where the mask says "object". */
Test(synthetic, a_mask_lies_on_its_object)
{
    SyntheticParams params = {.classes = 10, .size = 64, .count = 400, .seed = 2};
    Image image = {0};
    uint8_t mask[64 * 64];
    int checked = 0;
    for (int64_t i = 0; i < params.count && checked < 20; i++) {
        char name[64];
        synthetic_draw_class_name(&params, synthetic_draw_label(&params, i), name, sizeof name);
        if (strncmp(name, "plain", 5) != 0) continue;
        synthetic_draw_image(&params, i, &image);
        synthetic_draw_mask(&params, i, mask);
        double spread[2] = {0};
        for (int side = 0; side < 2; side++) {
            double sum = 0, squares = 0, n = 0;
            for (int p = 0; p < 64 * 64; p++)
                if ((mask[p] != 0) == (side == 0)) {
                    double value = image.rgb[3 * p + 1];
                    sum += value;
                    squares += value * value;
                    n++;
                }
            spread[side] = sqrt(squares / n - sum / n * (sum / n));
        }
        cr_assert_lt(spread[0], 45, "image %ld", (long)i);
        checked++;
    }
    cr_assert_eq(checked, 20);
    image_destroy(&image);
}

Test(synthetic, near_duplicates_are_as_many_as_asked_and_look_alike)
{
    SyntheticParams params = {.classes = 10, .size = 32, .count = 2000, .seed = 3, .duplicates = 0.2};
    int64_t duplicates = 0;
    for (int64_t i = 0; i < params.count; i++) {
        SyntheticView view = synthetic_draw_view(&params, i);
        if (view.source == i) continue;
        duplicates++;
        cr_assert_eq(synthetic_draw_view(&params, view.source).source, view.source, "no chains");
        cr_assert_eq(synthetic_draw_label(&params, i), synthetic_draw_label(&params, view.source));
        cr_assert(view.extent >= 0.75f && view.extent <= 0.97f);
        cr_assert(view.left >= 0 && view.left + view.extent <= 1.0001f);
    }
    cr_assert(duplicates > 320 && duplicates < 480, "%ld", (long)duplicates);
    params.duplicates = 0;
    for (int64_t i = 0; i < 100; i++)
        cr_assert_eq(synthetic_draw_view(&params, i).source, i);
}

/* Nearest neighbours in raw pixels (cosine, k = 10) hardly know the class: the nuisances do their work. */
Test(synthetic, raw_pixels_are_a_poor_representation)
{
    enum { BANK = 500, QUERIES = 150, SIZE = 32, D = 3 * SIZE * SIZE, K = 10 };
    SyntheticParams bank = {.classes = 10, .size = SIZE, .count = BANK, .seed = 0};
    SyntheticParams queries = {.classes = 10, .size = SIZE, .count = QUERIES, .seed = 1};
    float *rows = memory_alloc_array((size_t)(BANK + QUERIES) * D, sizeof *rows);
    Image image = {0};
    for (int64_t i = 0; i < BANK + QUERIES; i++) {
        synthetic_draw_image(i < BANK ? &bank : &queries, i < BANK ? i : i - BANK, &image);
        double norm = 0;
        for (int d = 0; d < D; d++)
            norm += (double)image.rgb[d] * image.rgb[d];
        for (int d = 0; d < D; d++)
            rows[i * D + d] = image.rgb[d] / (float)sqrt(norm);
    }
    int right = 0;
    for (int64_t q = 0; q < QUERIES; q++) {
        float best[K];
        int64_t labels[K];
        int votes[10] = {0}, winner = 0;
        for (int k = 0; k < K; k++)
            best[k] = -2;
        for (int64_t b = 0; b < BANK; b++) {
            float s = 0;
            for (int d = 0; d < D; d++)
                s += rows[b * D + d] * rows[(BANK + q) * D + d];
            int lowest = 0;
            for (int k = 1; k < K; k++)
                if (best[k] < best[lowest]) lowest = k;
            if (s > best[lowest]) {
                best[lowest] = s;
                labels[lowest] = synthetic_draw_label(&bank, b);
            }
        }
        for (int k = 0; k < K; k++)
            votes[labels[k]]++;
        for (int c = 1; c < 10; c++)
            if (votes[c] > votes[winner]) winner = c;
        right += winner == synthetic_draw_label(&queries, q);
    }
    cr_assert_lt(right, QUERIES * 30 / 100, "%d of %d", right, QUERIES);
    image_destroy(&image);
    memory_free(rows);
}

Test(synthetic, a_data_set_of_it_draws_and_encodes_the_same_picture)
{
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, "synthetic:classes=4,size=40,count=30,seed=6;stride=2", &error), 0,
                 "%s", error.text);
    cr_assert_eq(data_set_count(set), 15);
    cr_assert_eq(data_set_class_count(set), 4);
    SyntheticParams params = {.classes = 4, .size = 40, .count = 30, .seed = 6};
    Image direct = {0}, loaded = {0};
    DataBuffer buffer = {0};
    for (int64_t i = 0; i < 15; i++) {
        synthetic_draw_image(&params, 2 * i, &direct);
        cr_assert_eq(data_set_load_image(set, i, &loaded, &buffer, &error), 0);
        cr_assert_eq(memcmp(direct.rgb, loaded.rgb, 40 * 40 * 3), 0);
        cr_assert_eq(data_set_label(set, i), synthetic_draw_label(&params, 2 * i));
    }
    image_destroy(&direct);
    image_destroy(&loaded);
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
    static const char *const wrong[] = {"synthetic:classes=1", "synthetic:sized=3", "synthetic:size=9999",
                                        "synthetic:count=0",   "synthetic:seed=-1", "synthetic:duplicates=2",
                                        "synthetic:classes=",  "synthetic:count=5x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(data_set_create(&set, wrong[i], &error), STATUS_INPUT, "%s", wrong[i]);
        cr_assert_null(set);
    }
}

Test(synthetic, written_out_it_reads_back_the_same)
{
    TempFolder folder = temp_folder_create();
    Comm *comm = comm_self_create();
    SyntheticExportParams params = {
        .images = {.classes = 3, .size = 24, .count = 9, .seed = 5, .duplicates = 0.3},
        .folder = folder.path,
        .masks = true};
    Error error = {0};
    cr_assert_eq(synthetic_export_images(&params, comm, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(synthetic_export_truth(&params, &error), STATUS_OK, "%s", error.text);
    char spec[256];
    DataSet *sets[2];
    for (int masks = 0; masks < 2; masks++) {
        snprintf(spec, sizeof spec, "folder:%s/%s", folder.path, masks ? "masks" : "images");
        cr_assert_eq(data_set_create(&sets[masks], spec, &error), STATUS_OK, "%s", error.text);
        cr_assert_eq(data_set_count(sets[masks]), 9);
    }
    char *labels = temp_folder_read(&folder, "labels.csv"),
         *copies = temp_folder_read(&folder, "duplicates.csv");
    Image drawn = {0}, read = {0};
    DataBuffer buffer = {0};
    uint8_t mask[24 * 24];
    for (int64_t i = 0; i < 9; i++) {
        char key[DATA_SET_KEY_MAX], line[DATA_SET_KEY_MAX + 256], name[64];
        int64_t index;
        data_set_key(sets[0], i, key, sizeof key);
        cr_assert_eq(sscanf(strchr(key, '/'), "/%ld.png", &index), 1);
        int64_t label = synthetic_draw_label(&params.images, index);
        synthetic_draw_class_name(&params.images, label, name, sizeof name);
        cr_assert_str_eq(data_set_class_name(sets[0], data_set_label(sets[0], i)), name);
        snprintf(line, sizeof line, "\n%ld,%s,%ld,%s\n", index, key, label, name);
        cr_assert_not_null(strstr(labels, line), "%s", line);
        int64_t source = synthetic_draw_view(&params.images, index).source;
        snprintf(line, sizeof line, "\n%ld,%ld,", index, source);
        cr_assert_eq(strstr(copies, line) != NULL, source != index);
        synthetic_draw_image(&params.images, index, &drawn);
        cr_assert_eq(data_set_load_image(sets[0], i, &read, &buffer, &error), STATUS_OK);
        cr_assert_eq(memcmp(drawn.rgb, read.rgb, 24 * 24 * 3), 0);
        synthetic_draw_mask(&params.images, index, mask);
        cr_assert_eq(data_set_load_image(sets[1], i, &read, &buffer, &error), STATUS_OK);
        for (int p = 0; p < 24 * 24; p++)
            cr_assert_eq(read.rgb[3 * p], mask[p]);
    }
    image_destroy(&drawn);
    image_destroy(&read);
    data_buffer_destroy(&buffer);
    temp_folder_free_text(labels);
    temp_folder_free_text(copies);
    data_set_destroy(sets[0]);
    data_set_destroy(sets[1]);
    comm_destroy(comm);
    temp_folder_destroy(&folder);
}

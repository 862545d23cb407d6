/* test_assembly.c - the parts of putting a data set together: pictures found by their keys, sets chosen from
 * others, the table of what is in them.
 */
#include "base/memory.h"
#include "curation/composition_table.h"
#include "curation/retrieval_file.h"
#include "data/key_search.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static DataSet *open_set(const char *spec)
{
    DataSet *set;
    Error error = {0};
    cr_assert_eq(data_set_create(&set, spec, &error), STATUS_OK, "%s", error.text);
    return set;
}

Test(assembly, pictures_are_found_by_their_keys)
{
    const DataSet *sets[] = {open_set("synthetic:classes=3,size=16,count=40,seed=1;stride=2"),
                             open_set("synthetic:classes=2,size=16,count=41,seed=1;offset=40")};
    char text[4][64];
    const char *keys[] = {text[0], text[1], "nowhere", text[2], text[0]};
    data_set_key(sets[0], 7, text[0], sizeof text[0]);
    data_set_key(sets[1], 0, text[1], sizeof text[1]);
    data_set_key(sets[0], 19, text[2], sizeof text[2]);
    DataPlace places[5];
    Error error = {0};
    cr_assert_eq(key_search_run(places, keys, 5, sets, 2, &error), STATUS_OK, "%s", error.text);
    const DataPlace expected[] = {{0, 7}, {1, 0}, {-1, -1}, {0, 19}, {0, 7}};
    cr_expect_arr_eq(places, expected, sizeof expected);
    cr_expect_eq(key_search_run(places, keys, 0, sets, 2, &error), STATUS_OK);

    const DataSet *twice[] = {sets[0], sets[1], sets[0]};
    cr_expect_eq(key_search_run(places, keys, 2, twice, 3, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "is the key of two pictures: synthetic:"), "%s", error.text);
    cr_expect_eq(key_search_run(places, keys + 1, 2, twice, 3, &error), STATUS_OK,
                 "only keys that are asked");
    data_set_destroy((DataSet *)(uintptr_t)sets[0]);
    data_set_destroy((DataSet *)(uintptr_t)sets[1]);
}

Test(assembly, a_chosen_set_is_pictures_of_others)
{
    const DataSet *sets[] = {open_set("synthetic:classes=3,size=16,count=9,seed=1;stride=2"),
                             open_set("synthetic:classes=2,size=16,count=4,seed=2")};
    const char *prefixes[] = {"pool", "x"};
    const DataPlace places[] = {{1, 3}, {0, 1}, {0, 4}, {1, 0}};
    DataSet *chosen = data_set_create_chosen(sets, prefixes, places, 4);
    cr_assert(data_set_count(chosen) == 4 && data_set_class_count(chosen) == 0);
    DataBuffer got = {0}, expected = {0};
    for (int64_t i = 0; i < 4; i++) {
        const DataSet *from = sets[places[i].set];
        char key[64], original[64], prefixed[80];
        data_set_key(chosen, i, key, sizeof key);
        data_set_key(from, places[i].index, original, sizeof original);
        snprintf(prefixed, sizeof prefixed, "%s/%s", prefixes[places[i].set], original);
        cr_expect_str_eq(key, prefixed);
        data_set_location(chosen, i, key, sizeof key);
        data_set_location(from, places[i].index, original, sizeof original);
        cr_expect_str_eq(key, original);
        cr_expect_eq(data_set_label(chosen, i), -1);
        cr_assert_eq(data_set_read(chosen, i, &got, NULL), STATUS_OK);
        cr_assert_eq(data_set_read(from, places[i].index, &expected, NULL), STATUS_OK);
        cr_assert_eq(got.size, expected.size);
        cr_expect_arr_eq(got.bytes, expected.bytes, got.size);
        data_set_key(chosen, i, key, 4); /* cut, with its end */
        cr_expect(strlen(key) == 3 && strncmp(key, prefixed, 3) == 0);
    }
    data_buffer_destroy(&got);
    data_buffer_destroy(&expected);
    data_set_destroy(chosen);
    data_set_destroy((DataSet *)(uintptr_t)sets[0]);
    data_set_destroy((DataSet *)(uintptr_t)sets[1]);
}

/* The numbers are those of the paper's Table 15 for three of its rows. */
Test(assembly, the_table_says_what_is_in_the_set)
{
    const CompositionRow rows[] = {
        {"ImageNet-22k", "as is", 14197086, 14197086, 14197086, 0, 0},
        {"ImageNet-22k / sample", "sample", 14197086, 56788344, 56788344, 6788344, 0},
        {"Food-101", "cluster", 75750, 21670000, 1000000, 250, 50}};
    cr_expect_eq(composition_table_stored(&rows[2]), 999700);
    char *table = composition_table_markdown(rows, 3);
    cr_expect(
        strstr(table,
               "| Food-101 | cluster | 75,750 | 21,670,000 | 1,000,000 | 250 | 50 | 999,700 | 1.53 % |\n"),
        "%s", table);
    cr_expect(strstr(table,
                     "| total |  | 28,469,922 | 92,655,430 | 71,985,430 | 6,788,594 | 50 | 65,196,786 | "
                     "100.00 % |\n"),
              "%s", table);
    memory_free(table);
    table = composition_table_csv(rows, 3);
    cr_expect(strstr(table, "\nFood-101,cluster,75750,21670000,1000000,250,50,999700,0.015334\n"), "%s",
              table);
    memory_free(table);
    table = composition_table_csv(rows, 0);
    cr_expect(strstr(table, "\ntotal,,0,0,0,0,0,0,0.000000\n"), "%s", table);
    memory_free(table);
}

Test(assembly, inputs_are_paths_by_line)
{
    char text[] = "a.h5\n/b/c d.h5\ne";
    int count;
    const char **paths = retrieval_file_split(text, &count);
    cr_assert_eq(count, 3);
    cr_expect_str_eq(paths[0], "a.h5");
    cr_expect_str_eq(paths[1], "/b/c d.h5");
    cr_expect_str_eq(paths[2], "e");
    memory_free(paths);
}

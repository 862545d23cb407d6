/* test_curate_score.c - duplicates that the real program found, beside those that were planted. */
#include "../support/curation_support.h"
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 240, D = 96, LIMIT_SECONDS = 60 };

static TempFolder temp;

static void set_up(void)
{
    temp = temp_folder_create();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_score, .init = set_up, .fini = tear_down, .timeout = 120);

/* truth/: the planted groups; row 0 is said to be alone with `alone`, so that its group is wrong by one. */
static void write_truth(const CurationSupportData *data, bool alone)
{
    char *text = NULL;
    size_t size;
    FILE *pool = open_memstream(&text, &size);
    fprintf(pool, "path,duplicate_group,transform,level\n");
    for (int64_t i = 0; i < ROWS; i++)
        fprintf(pool, "pool/row %lld,%lld,exact,0\n", (long long)i,
                (long long)(alone && i == 0 ? -1 : curation_support_group(data, i)));
    fclose(pool);
    temp_folder_write(&temp, "pool.csv", text);
    free(text);
    temp_folder_write(&temp, "leaks.csv", "pool_path,level\npool/row 3,0\n");
}

/* curate score --json, as a tree. */
static cJSON *score(void)
{
    TempPath pool = temp_folder_in(&temp, "pool.h5"), dedup = temp_folder_in(&temp, "dedup.h5");
    ProcessResult result = process_run_dinobatch(2,
                                                 WORDS("curate", "score", "--features", pool.text, "--truth",
                                                       temp.path, "--dedup", dedup.text, "--exclude",
                                                       dedup.text, "--output-dir", temp.path, "--json"),
                                                 LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    char *line = strrchr(result.out, '{');
    cJSON *tree = line ? cJSON_Parse(line) : NULL;
    cr_assert(tree, "%s", result.out);
    process_result_fini(&result);
    return tree;
}

static double value(const cJSON *tree, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(tree, name);
    cr_assert(item, "%s", name);
    return item->valuedouble;
}

Test(curate_score, planted_groups_are_found_and_a_wrong_one_is_seen)
{
    CurationSupportData data = curation_support_data(0, ROWS, D);
    TempPath pool = temp_folder_in(&temp, "pool.h5");
    curation_support_write(&data, pool.text);
    ProcessResult result = process_run_dinobatch(
        1, WORDS("curate", "dedup", "--features", pool.text, "--output-dir", temp.path), LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);

    write_truth(&data, false);
    cJSON *tree = score();
    cr_expect_float_eq(value(tree, "group_f1"), 1, 1e-12);
    cr_expect_float_eq(value(tree, "redundancy_removed"), 1, 1e-12);
    cr_expect_float_eq(value(tree, "sources_lost"), 0, 1e-12);
    cr_expect_float_eq(value(tree, "leak_recall"), 0, 1e-12, "nothing was excluded");
    cJSON_Delete(tree);

    write_truth(&data, true);
    tree = score();
    cr_expect(value(tree, "group_precision") < 1 && value(tree, "group_precision") > 0.9);
    cr_expect_float_eq(value(tree, "group_recall"), 1, 1e-12);
    cJSON_Delete(tree);
}

Test(curate_score, what_it_is_not_given_is_named)
{
    CurationSupportData data = curation_support_data(0, ROWS, D);
    TempPath pool = temp_folder_in(&temp, "pool.h5");
    curation_support_write(&data, pool.text);
    ProcessResult result = process_run_dinobatch(
        0, WORDS("curate", "score", "--features", pool.text, "--output-dir", temp.path), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "needs --truth DIR and --dedup FILE"), "%s", result.err);
    process_result_fini(&result);
    result = process_run_dinobatch(0,
                                   WORDS("curate", "score", "--features", pool.text, "--truth", temp.path,
                                         "--dedup", pool.text, "--output-dir", temp.path),
                                   LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "pool.h5"), "%s", result.err);
    process_result_fini(&result);
}

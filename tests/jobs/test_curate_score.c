/* test_curate_score.c - what the real program found, beside what was planted. */
#include "../support/curate_steps.h"
#include "../support/curation_support.h"

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
    cr_expect(strstr(result.err, "needs --truth DIR, and --dedup FILE or --retrieved FILE"), "%s",
              result.err);
    process_result_fini(&result);
    result = process_run_dinobatch(0,
                                   WORDS("curate", "score", "--features", pool.text, "--truth", temp.path,
                                         "--dedup", pool.text, "--output-dir", temp.path),
                                   LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "pool.h5"), "%s", result.err);
    process_result_fini(&result);
}

/* Pool pictures at 0 to 180 degrees, the second of them ambiguous; a dog at 2 degrees, a ship at 92. */
static void write_labelled(TempPath *pool, TempPath *queries)
{
    temp_folder_write(
        &temp, "labels.csv",
        "path,set,source,class,label,ambiguous\n"
        "pool/0.jpg,pool,small,dog,dog,0\npool/1.jpg,pool,photo,wolf,dog,1\n"
        "pool/2.jpg,pool,small,cat,cat,0\npool/3.jpg,pool,small,ship,ship,0\n"
        "pool/4.jpg,pool,small,dog,dog,0\npool/5.jpg,pool,small,cat,cat,0\n"
        "curated/A/1.jpg,curated/A,small,dog,dog,0\ncurated/A/2.jpg,curated/A,small,ship,ship,0\n"
        "curated/B/1.jpg,curated/B,small,cat,cat,0\n");
    *pool = curate_steps_write_keys(&temp, "pool.h5", (double[]){0, 10, 20, 90, 100, 180}, 6, "folder:pool",
                                    WORDS("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"));
    *queries = curate_steps_write_keys(&temp, "queries.h5", (double[]){2, 92}, 2,
                                       "folder:/x/curated/A/;limit=2", WORDS("1.jpg", "2.jpg"));
}

Test(curate_score, retrieval_is_scored_by_what_pictures_show)
{
    TempPath pool, queries, clusters = temp_folder_in(&temp, "out/cluster.h5");
    write_labelled(&pool, &queries);
#define LABELLED "--features", pool.text, "--queries", queries.text
    curate_steps_run_well(&temp, 0, "cluster", "out", WORDS("--features", pool.text, "curation.cluster.k=1"));
    curate_steps_run_well(
        &temp, 0, "retrieve", "out",
        WORDS(LABELLED, "--name", "a", "curation.retrieve.mode=sample", "curation.retrieve.neighbours=5"));
    curate_steps_run_well(
        &temp, 0, "retrieve", "out",
        WORDS(LABELLED, "--name", "c", "--clusters", clusters.text, "curation.retrieve.min_queries=1"));
    curate_steps_run_well(&temp, 0, "retrieve", "out",
                          WORDS(LABELLED, "--name", "r", "curation.retrieve.mode=sample",
                                "curation.retrieve.neighbours=5", "curation.retrieve.collisions=remove"));
    TempPath a = temp_folder_in(&temp, "out/retrieve_a.h5"), c = temp_folder_in(&temp, "out/retrieve_c.h5");
    TempPath r = temp_folder_in(&temp, "out/retrieve_r.h5"), scores = temp_folder_in(&temp, "out/scores.h5");
    ProcessResult result =
        curate_steps_run(&temp, 2, "score", "out",
                         WORDS("--features", pool.text, "--truth", temp.path, "--retrieved", a.text,
                               "--retrieved", c.text, "--retrieved", r.text, "--json"));
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cJSON *tree = cJSON_Parse(strrchr(result.out, '{'));
    cr_assert(tree, "%s", result.out);
    /* The dog finds 0, (1), 2, 3, 4: right, wrong, of the set, right; the ship 3, 4, 2, (1), 5: right, of the
     * set, wrong, wrong. */
    cr_expect_float_eq(value(tree, "a_class_precision@1"), 1, 1e-12);
    cr_expect_float_eq(value(tree, "a_set_precision@1"), 1, 1e-12);
    cr_expect_float_eq(value(tree, "a_class_precision@4"), 3 / 8.0, 1e-12);
    cr_expect_float_eq(value(tree, "a_set_precision@4"), 5 / 8.0, 1e-12);
    cr_expect_null(cJSON_GetObjectItem(tree, "a_set_precision@10"), "there are 5 neighbours");
    cr_expect_float_eq(value(tree, "a_of_set"), 5 / 8.0, 1e-12);
    cr_expect_null(cJSON_GetObjectItem(tree, "c_set_precision@1"));
    cr_expect_float_eq(value(tree, "c_of_set"), 3 / 5.0, 1e-12, "all pictures of the only cluster");
    cr_expect_null(cJSON_GetObjectItem(tree, "r_set_precision@1"), "the ship may have lost its nearest");
    cr_expect_float_eq(value(tree, "r_of_set"), 3 / 5.0, 1e-12);
    cr_expect(strstr(result.out, "a_set_precision@4            0.6250  of 8"), "%s", result.out);
    cJSON_Delete(tree);
    process_result_fini(&result);
    result = process_run_dinobatch(0, WORDS("validate", scores.text), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);

    temp_folder_write(&temp, "labels.csv", "path,label,ambiguous\npool/0.jpg,dog,0\n");
    curate_steps_expect_refused(&temp, "score",
                                WORDS("--features", pool.text, "--truth", temp.path, "--retrieved", a.text),
                                "has no line for pool/1.jpg");
    curate_steps_expect_refused(
        &temp, "score",
        WORDS("--features", pool.text, "--truth", temp.path, "--retrieved", a.text, "--exclude", a.text),
        "--exclude FILE needs --dedup FILE");
}

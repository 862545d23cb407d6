/* Scores of a curation against a planted truth, worked by hand. */
#include "curation/curation_scores.h"

#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <string.h>

/* a b c: one source; d e: another; f alone; g alone, made from an evaluation picture. */
static void write_truth(const TempFolder *folder)
{
    temp_folder_write(folder, "pool.csv",
                      "path,duplicate_group,transform,level,width,height,bytes\n"
                      "pool/a.jpg,0,original,-1,1,1,1\npool/b.jpg,0,jpeg47+crop0.84r,2,1,1,1\n"
                      "pool/c.jpg,0,exact,0,1,1,1\npool/d.jpg,7,original,-1,1,1,1\n"
                      "pool/e.jpg,7,chain:hflip>jpeg50,1,1,1,1\npool/f.jpg,-1,original,-1,1,1,1\n"
                      "pool/g.jpg,-1,jpeg30,1,1,1,1\n");
    temp_folder_write(folder, "leaks.csv",
                      "pool_path,eval_path,transform,level\npool/g.jpg,eval/1.jpg,jpeg30,1\n");
    temp_folder_write(folder, "labels.csv",
                      "path,set,source,class,label,ambiguous\npool/a.jpg,pool,small,dog,dog,0\n"
                      "pool/b.jpg,pool,small,dog,dog,1\npool/c.jpg,pool,small,cat,cat,0\n"
                      "q/x.jpg,q,small,dog,dog,0\nq/y.jpg,q,small,ship,ship,0\n");
}

static const char *const KEYS[] = {"a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg"};
enum { ROWS = 7 };

Test(curation_scores, by_hand)
{
    TempFolder folder = temp_folder_create();
    write_truth(&folder);
    Error error = {0};
    CurationTruth truth;
    cr_assert_eq(curation_truth_load(&truth, folder.path, "pool/", KEYS, ROWS, &error), STATUS_OK, "%s",
                 error.text);
    cr_expect_eq(truth.sources, 4);

    /* a and b are found, c is not; d, e and f are taken for one. */
    GroupScores groups;
    curation_scores_groups(&groups, &truth, (const int64_t[ROWS]){0, 0, 2, 3, 3, 3, 6});
    cr_expect_float_eq(groups.precision, (1 + 1 + 0.5 + 0.5 + 0) / 5, 1e-12);
    cr_expect_float_eq(groups.recall, (0.5 + 0.5 + 0 + 1 + 1) / 5, 1e-12);
    cr_expect_float_eq(groups.f1, 2 * 0.6 * 0.6 / 1.2, 1e-12);
    cr_expect(groups.linked[0].found == 0 && groups.linked[0].of == 1);
    cr_expect(groups.linked[1].found == 1 && groups.linked[1].of == 2);
    cr_expect(groups.linked[2].found == 1 && groups.linked[2].of == 1);
    cr_assert_eq(groups.kinds, 4);
    cr_expect_str_eq(groups.kind[0].kind, "chain");
    cr_expect(groups.kind[0].linked.found == 1 && groups.kind[0].linked.of == 1);
    cr_expect_str_eq(groups.kind[3].kind, "jpeg");
    cr_expect(groups.kind[3].linked.found == 1 && groups.kind[3].linked.of == 2);

    /* Three rows were too many; b and c stay beside each other, f is lost. */
    KeptScores kept;
    curation_scores_kept(&kept, &truth, (const uint8_t[ROWS]){0, 1, 1, 1, 0, 0, 1});
    cr_expect_float_eq(kept.redundancy_removed, 1 - 1 / 3.0, 1e-12);
    cr_expect_float_eq(kept.sources_lost, 0.25, 1e-12);

    LeakScores leaks;
    curation_scores_leaks(&leaks, &truth, (const uint8_t[ROWS]){0, 0, 0, 0, 0, 1, 1});
    cr_expect_float_eq(curation_scores_share(leaks.recall), 1, 0);
    cr_expect_float_eq(curation_scores_share(leaks.precision), 0.5, 0);
    cr_expect(leaks.wrongly_removed.found == 1 && leaks.wrongly_removed.of == 6);
    curation_truth_fini(&truth);
    temp_folder_destroy(&folder);
}

Test(curation_scores, retrieval_passes_over_ambiguous_pictures_and_counts_missing_answers)
{
    TempFolder folder = temp_folder_create();
    write_truth(&folder);
    Error error = {0};
    CsvTable table;
    CurationLabels pool, queries;
    cr_assert_eq(csv_table_load(&table, temp_folder_in(&folder, "labels.csv").text, &error), STATUS_OK, "%s",
                 error.text);
    cr_assert_eq(curation_truth_labels(&pool, &table, "pool/", KEYS, 3, &error), STATUS_OK);
    static const char *const names[] = {"x.jpg", "y.jpg"};
    cr_assert_eq(curation_truth_labels(&queries, &table, "q/", names, 2, &error), STATUS_OK);
    /* The dog finds b (ambiguous), a, c; the ship finds a, and nothing else. */
    RetrievalScore scores[2];
    curation_scores_retrieval(scores, (const int64_t[]){1, 2}, 2, &queries, &pool,
                              (const int64_t[]){1, 0, 2, 0, -1, -1}, 3);
    cr_expect_float_eq(scores[0].class_precision, 0.5, 1e-12);
    cr_expect_float_eq(scores[0].set_precision, 1, 1e-12);
    cr_expect_float_eq(scores[1].class_precision, 0.25, 1e-12);
    cr_expect_float_eq(scores[1].set_precision, 0.5, 1e-12);
    curation_truth_labels_fini(&pool);
    curation_truth_labels_fini(&queries);
    csv_table_fini(&table);
    temp_folder_destroy(&folder);
}

Test(curation_scores, unusable_truth_is_named)
{
    static const struct {
        const char *pool, *says;
    } cases[] = {
        {"", "no header line"},
        {"path,duplicate_group,transform\n", "no column level"},
        {"path,duplicate_group,transform,level\npool/a.jpg,0,exact\n", ":2: 3 fields, expected 4"},
        {"path,duplicate_group,transform,level\n\"pool/a.jpg\",0,exact,0\n", ":2: quotes"},
        {"path,duplicate_group,transform,level\npool/a.jpg,0,exact,x\n", ":2: level: 'x' is no whole number"},
        {"path,duplicate_group,transform,level\npool/b.jpg,0,exact,0\n", "no line for pool/a.jpg"},
    };
    TempFolder folder = temp_folder_create();
    write_truth(&folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        temp_folder_write(&folder, "pool.csv", cases[i].pool);
        CurationTruth truth;
        Error error = {0};
        cr_expect_eq(curation_truth_load(&truth, folder.path, "pool/", KEYS, 1, &error), STATUS_INPUT);
        cr_expect(strstr(error.text, cases[i].says), "case %zu: %s", i, error.text);
        curation_truth_fini(&truth);
    }
    temp_folder_destroy(&folder);
}

Test(curation_scores, folders_of_a_query_set_are_found_in_its_spec)
{
    static const struct {
        const char *data, *key, *prefix; /* NULL: none */
    } cases[] = {
        {"folder:/x/curated/A", "1.jpg", "curated/A/"},
        {"folder:curated/A//;limit=3", "1.jpg", "curated/A/"},
        {"folder:/x/B", "1.jpg", "B/"},
        {"folder:/x/aB", "1.jpg", NULL},
        {"folder:B", "1.jpg", "B/"},
        {"folder:/x/curated/B", "1.jpg", "curated/B/"}, /* longer than B/ */
        {"tar:all.tar", "B/1.jpg", ""},
        {"folder:/x/curated/A", "2.jpg", NULL},
        {"folder:/x/curated/A", ".jpg", NULL},
    };
    TempFolder folder = temp_folder_create();
    temp_folder_write(&folder, "labels.csv", "path,label\ncurated/A/1.jpg,a\nB/1.jpg,b\ncurated/B/1.jpg,b\n");
    Error error = {0};
    CsvTable table;
    cr_assert_eq(csv_table_load(&table, temp_folder_in(&folder, "labels.csv").text, &error), STATUS_OK, "%s",
                 error.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char prefix[CURATION_TRUTH_PREFIX] = "?";
        Status status = curation_truth_prefix(prefix, &table, cases[i].data, cases[i].key, &error);
        cr_expect_eq(status, cases[i].prefix ? STATUS_OK : STATUS_INPUT, "case %zu", i);
        if (cases[i].prefix) cr_expect_str_eq(prefix, cases[i].prefix, "case %zu: %s", i, prefix);
    }
    csv_table_fini(&table);
    temp_folder_destroy(&folder);
}

/* test_retrieval.c - mean average precision: a ground truth worked by hand, brute force, ties, bad truths. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "eval/eval_retrieval.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 512, KEY = 16 };

/* A features file of n rows whose keys are PREFIX0, PREFIX1, ... */
static void write_features(const char *path, const float *values, const int64_t *labels, int64_t n, int64_t d,
                           int64_t classes, const char *prefix)
{
    FeaturesFile file;
    Error error = {0};
    FeaturesMeta meta = {.model = "m",
                         .arch = "vit_custom",
                         .layer = "class_token",
                         .data = "synthetic:",
                         .config = "",
                         .version = "0",
                         .input_size = 8};
    cr_assert_eq(features_file_create(&file, path, n, d, classes, KEY, &meta, &error), STATUS_OK, "%s",
                 error.text);
    char(*keys)[KEY] = malloc((size_t)n * sizeof *keys);
    const char **names = malloc((size_t)n * sizeof *names);
    for (int64_t i = 0; i < n; i++) {
        snprintf(keys[i], KEY, "%s%lld", prefix, (long long)i);
        names[i] = keys[i];
    }
    cr_assert_eq(features_file_write(&file, 0, n, values, labels, names, &error), STATUS_OK, "%s",
                 error.text);
    free(names);
    free(keys);
    cr_assert_eq(features_file_commit(&file, &error), STATUS_OK, "%s", error.text);
}

typedef struct {
    TempFolder folder;
    char database_path[TEXT], queries_path[TEXT], truth_path[TEXT];
    RetrievalSet database, queries;
    Comm *comm;
    Error error;
} Fixture;

static void setup(Fixture *f)
{
    *f = (Fixture){.folder = temp_folder_create(), .comm = comm_self_create()};
    snprintf(f->database_path, TEXT, "%s/database.h5", f->folder.path);
    snprintf(f->queries_path, TEXT, "%s/queries.h5", f->folder.path);
    snprintf(f->truth_path, TEXT, "%s/truth.json", f->folder.path);
}

static void open_sets(Fixture *f)
{
    cr_assert_eq(retrieval_set_open(&f->database, f->database_path, f->comm, &f->error), STATUS_OK, "%s",
                 f->error.text);
    cr_assert_eq(retrieval_set_open(&f->queries, f->queries_path, f->comm, &f->error), STATUS_OK, "%s",
                 f->error.text);
}

static void teardown(Fixture *f)
{
    retrieval_set_fini(&f->database);
    retrieval_set_fini(&f->queries);
    comm_destroy(f->comm);
    temp_folder_destroy(&f->folder);
}

static void write_truth(const Fixture *f, const char *text)
{
    temp_folder_write(&f->folder, "truth.json", text);
}

static Status run_truth(Fixture *f, EvalRetrievalResult *result)
{
    RetrievalTruth truth;
    Status status = retrieval_truth_load(&truth, f->truth_path, &f->error);
    if (status == STATUS_OK)
        status = eval_retrieval_run(&f->database, &f->queries, &truth, false, 2, f->comm, result, &f->error);
    retrieval_truth_fini(&truth);
    return status;
}

/* Eight rows, the query's angle to row i growing with i: their order is their number. The second query, of
 * the opposite direction, sees them the other way round. */
static void make_fan(Fixture *f)
{
    enum { N = 8 };
    float rows[N][2], queries[3][2] = {{2.0f, 0.0f}, {-0.5f, 0.0f}, {0.0f, 1.0f}};
    int64_t labels[N] = {0, 1, 0, 1, 1, 0, 1, 1}, query_labels[3] = {0, 1, 0};
    for (int i = 0; i < N; i++) {
        double angle = 0.2 + 0.3 * i;
        rows[i][0] = (float)((i + 1) * cos(angle));
        rows[i][1] = (float)((i + 1) * sin(angle));
    }
    write_features(f->database_path, &rows[0][0], labels, N, 2, 2, "d");
    write_features(f->queries_path, &queries[0][0], query_labels, 3, 2, 2, "q");
    open_sets(f);
}

Test(retrieval, settings_of_a_truth_worked_by_hand)
{
    Fixture f;
    setup(&f);
    make_fan(&f);
    write_truth(&f,
                "{\"queries\": ["
                "{\"query\": \"q0\", \"box\": [1, 2, 3, 4], \"easy\": [\"d4\", \"d1\"], \"hard\": [\"d2\"],"
                " \"junk\": [\"d0\", \"d3\"]},"
                "{\"query\": \"q1\", \"hard\": [\"d7\"], \"junk\": [\"d6\"]}]}");
    EvalRetrievalResult result;
    cr_assert_eq(run_truth(&f, &result), STATUS_OK, "%s", f.error.text);
    cr_assert_eq(result.count, 3);
    const RetrievalScore *easy = &result.scores[0], *medium = &result.scores[1], *hard = &result.scores[2];
    cr_expect_str_eq(easy->setting, "easy");
    cr_expect_str_eq(hard->setting, "hard");

    /* q0 without d0, d2, d3: d1 d4 d5 d6 d7; q1 has no easy picture */
    cr_expect_eq(easy->queries, 1);
    cr_expect_eq(easy->positives, 2);
    cr_expect_float_eq(easy->map, 1.0, 1e-12);
    /* q0 without d0, d3: d1 d2 d4 d5 ..., all three first; q1 without d6: d7 first */
    cr_expect_eq(medium->queries, 2);
    cr_expect_eq(medium->positives, 4);
    cr_expect_float_eq(medium->map, 1.0, 1e-12);
    /* q0 without d0, d1, d3, d4: d2 first */
    cr_expect_eq(hard->queries, 2);
    cr_expect_float_eq(hard->map, 1.0, 1e-12);

    /* q0: d1 d2 d4 d5 d7, d7 at place 4 behind three negatives where all but d6 stand; q1: d7 d5 ... d0 */
    write_truth(&f, "{\"queries\": ["
                    "{\"query\": \"q0\", \"easy\": [\"d7\", \"d2\"], \"hard\": [\"d4\"], \"junk\": [\"d6\"]},"
                    "{\"query\": \"q1\", \"easy\": [\"d0\"]}, {\"query\": \"q2\", \"junk\": [\"d0\"]}]}");
    cr_assert_eq(run_truth(&f, &result), STATUS_OK, "%s", f.error.text);
    /* q0, easy, d4 and d6 gone: d0 d1 d2 d3 d5 d7: places 2, 5; q1: place 7 */
    double q0 = ((0.0 / 2 + 1.0 / 3) / 2 + (1.0 / 5 + 2.0 / 6) / 2) / 2, q1 = (0.0 / 7 + 1.0 / 8) / 2;
    cr_expect_float_eq(easy->map, (q0 + q1) / 2, 1e-12);
    cr_expect_float_eq(easy->precision[0], 0.0, 1e-12);
    cr_expect_float_eq(easy->precision[1], (1.0 / 5 + 0.0) / 2, 1e-12);
    cr_expect_float_eq(easy->precision[2], (2.0 / 6 + 1.0 / 8) / 2, 1e-12);
    /* medium, d6 gone: d0 d1 d2 d3 d4 d5 d7: places 2, 4, 6 */
    q0 = ((0.0 / 2 + 1.0 / 3) / 2 + (1.0 / 4 + 2.0 / 5) / 2 + (2.0 / 6 + 3.0 / 7) / 2) / 3;
    cr_expect_float_eq(medium->map, (q0 + q1) / 2, 1e-12);
    /* hard, d2, d6, d7 gone: d0 d1 d3 d4: place 3; q1 has none */
    cr_expect_eq(hard->queries, 1);
    cr_expect_float_eq(hard->map, (0.0 / 3 + 1.0 / 4) / 2, 1e-12);
    teardown(&f);
}

Test(retrieval, a_setting_without_positives_has_no_mean)
{
    Fixture f;
    setup(&f);
    make_fan(&f);
    write_truth(&f, "{\"queries\": [{\"query\": \"q2\", \"easy\": [\"d0\"]}]}");
    EvalRetrievalResult result;
    cr_assert_eq(run_truth(&f, &result), STATUS_OK, "%s", f.error.text);
    cr_expect_eq(result.scores[0].queries, 1);
    cr_expect_eq(result.scores[2].queries, 0);
    cr_expect(isnan(result.scores[2].map));
    teardown(&f);
}

Test(retrieval, classes_worked_by_hand_and_the_own_picture)
{
    Fixture f;
    setup(&f);
    make_fan(&f);
    EvalRetrievalResult result;
    cr_assert_eq(eval_retrieval_run(&f.database, &f.queries, NULL, false, 2, f.comm, &result, &f.error),
                 STATUS_OK, "%s", f.error.text);
    cr_assert_eq(result.count, 1);
    /* q0, class 0: places 0, 2, 5; q1, class 1, from the other end: 0, 1, 3, 4, 6; q2 (angle pi / 2 = 1.571):
     * row 5 (1.7) first, then 4 (1.4), 6 (2.0), 3 (1.1), 7 (2.3), 2 (0.8), 1, 0: places 0, 5, 7 */
    double q0 = (1.0 + 2.0 / 3 + 3.0 / 6) / 3, q1 = (1.0 + 1.0 + 3.0 / 4 + 4.0 / 5 + 5.0 / 7) / 5;
    double q2 = (1.0 + 2.0 / 6 + 3.0 / 8) / 3;
    cr_expect_float_eq(result.scores[0].map, (q0 + q1 + q2) / 3, 1e-12);
    cr_expect_eq(result.scores[0].positives, 11);
    /* the database asks itself: its own picture would always come first */
    cr_assert_eq(eval_retrieval_run(&f.database, &f.database, NULL, true, 2, f.comm, &result, &f.error),
                 STATUS_OK, "%s", f.error.text);
    cr_expect_eq(result.scores[0].queries, 8);
    cr_expect_eq(result.scores[0].positives, 3 * 2 + 5 * 4);
    cr_expect_lt(result.scores[0].precision[0], 0.99);
    cr_assert_eq(eval_retrieval_run(&f.database, &f.database, NULL, false, 2, f.comm, &result, &f.error),
                 STATUS_OK, "%s", f.error.text);
    cr_expect_float_eq(result.scores[0].precision[0], 1.0, 1e-12);
    teardown(&f);
}

/* --- against brute force --- */

typedef struct {
    double similarity;
    int64_t row;
} Candidate;

static int nearest_first(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->similarity != y->similarity) return x->similarity < y->similarity ? 1 : -1;
    return x->row < y->row ? -1 : 1;
}

/* Mean over the queries, by sorting whole databases. */
static double brute_force(const float *bank, const int64_t *labels, int64_t n, const float *queries,
                          const int64_t *query_labels, int64_t m, int64_t d)
{
    Candidate *all = malloc((size_t)n * sizeof *all);
    double sum = 0.0;
    int64_t counted = 0;
    for (int64_t q = 0; q < m; q++) {
        for (int64_t i = 0; i < n; i++) {
            double dot = 0.0, a = 0.0, b = 0.0;
            for (int64_t j = 0; j < d; j++) {
                double x = (double)bank[i * d + j], y = (double)queries[q * d + j];
                dot += x * y;
                a += x * x;
                b += y * y;
            }
            all[i] = (Candidate){dot / sqrt(a * b), i};
        }
        qsort(all, (size_t)n, sizeof *all, nearest_first);
        double precision = 0.0;
        int64_t found = 0;
        for (int64_t i = 0; i < n; i++)
            if (labels[all[i].row] == query_labels[q]) precision += (double)++found / (double)(i + 1);
        if (found > 0) {
            sum += precision / (double)found;
            counted++;
        }
    }
    free(all);
    return sum / (double)counted;
}

Test(retrieval, classes_are_those_of_brute_force)
{
    /* more rows and queries than a block holds; the last class of the queries is not in the database */
    enum { N = 2600, M = 150, D = 21, CLASSES = 6 };
    float *bank = malloc(N * D * sizeof *bank), *queries = malloc(M * D * sizeof *queries);
    int64_t labels[N], query_labels[M];
    Rng rng = rng_at(5, RNG_TEST, 0, 7);
    for (int64_t i = 0; i < N; i++) {
        labels[i] = rng_integer(&rng, 0, CLASSES - 2);
        for (int64_t j = 0; j < D; j++)
            bank[i * D + j] = (float)(rng_normal(&rng) + (j == labels[i] ? 1.5 : 0.0));
    }
    for (int64_t i = 0; i < M; i++) {
        query_labels[i] = i % CLASSES;
        for (int64_t j = 0; j < D; j++)
            queries[i * D + j] = (float)(rng_normal(&rng) + (j == query_labels[i] ? 1.5 : 0.0));
    }
    Fixture f;
    setup(&f);
    write_features(f.database_path, bank, labels, N, D, CLASSES, "d");
    write_features(f.queries_path, queries, query_labels, M, D, CLASSES, "q");
    open_sets(&f);
    EvalRetrievalResult result;
    cr_assert_eq(eval_retrieval_run(&f.database, &f.queries, NULL, false, 2, f.comm, &result, &f.error),
                 STATUS_OK, "%s", f.error.text);
    double want = brute_force(bank, labels, N, queries, query_labels, M, D);
    cr_expect_gt(want, 0.25);
    cr_expect_lt(want, 0.9);
    cr_expect_eq(result.scores[0].queries, M - M / CLASSES);
    /* two rows as near as a rounding of fp32 may stand the other way round */
    cr_expect_float_eq(result.scores[0].map, want, 1e-6, "%.9g, brute force %.9g", result.scores[0].map,
                       want);
    free(bank);
    free(queries);
    teardown(&f);
}

Test(retrieval, of_equal_rows_the_lower_comes_first)
{
    /* rows 0 .. 1499 and the same again: every positive has a negative as near */
    enum { HALF = 1500, D = 13 };
    static float rows[2 * HALF * D];
    static int64_t labels[2 * HALF];
    Rng rng = rng_at(6, RNG_TEST, 0, 8);
    for (int64_t i = 0; i < HALF * D; i++)
        rows[i] = (float)rng_normal(&rng);
    memcpy(rows + HALF * D, rows, sizeof rows / 2);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < 2 * HALF; i++)
            labels[i] = (i < HALF) == (pass == 0);
        int64_t query_label = 1;
        Fixture f;
        setup(&f);
        write_features(f.database_path, rows, labels, 2 * HALF, D, 2, "d");
        write_features(f.queries_path, rows + 77 * D, &query_label, 1, D, 2, "q");
        open_sets(&f);
        EvalRetrievalResult result;
        cr_assert_eq(eval_retrieval_run(&f.database, &f.queries, NULL, false, 2, f.comm, &result, &f.error),
                     STATUS_OK, "%s", f.error.text);
        /* positives at 0, 2, 4, ... or at 1, 3, 5, ... */
        double want = 0.0;
        for (int64_t i = 0; i < HALF; i++)
            want += (double)(i + 1) / (double)(2 * i + 1 + pass) / HALF;
        cr_expect_float_eq(result.scores[0].map, want, 1e-12, "pass %d: %.12g, want %.12g", pass,
                           result.scores[0].map, want);
        teardown(&f);
    }
}

/* --- what is refused --- */

Test(retrieval, truths_that_do_not_fit_are_refused_with_a_line)
{
    Fixture f;
    setup(&f);
    make_fan(&f);
    const struct {
        const char *text, *said;
    } cases[] = {
        {"", "not JSON"},
        {"{\"queries\": []} x", "not JSON"},
        {"[]", "\"queries\""},
        {"{\"queries\": []}", "\"queries\""},
        {"{\"queries\": [{\"easy\": []}]}", "queries[0]"},
        {"{\"queries\": [7]}", "queries[0]"},
        {"{\"queries\": [{\"query\": \"q0\", \"esay\": []}]}", "esay"},
        {"{\"queries\": [{\"query\": \"q0\", \"easy\": \"d0\"}]}", "not a list"},
        {"{\"queries\": [{\"query\": \"q0\", \"easy\": [3]}]}", "not a string"},
        {"{\"queries\": [{\"query\": \"q9\"}]}", "'q9' is not in"},
        {"{\"queries\": [{\"query\": \"q0\", \"junk\": [\"d1\", \"d8\"]}]}", "'d8' is not in"},
        {"{\"queries\": [{\"query\": \"q0\", \"easy\": [\"d1\"], \"junk\": [\"d1\"]}]}", "twice"},
        {"{\"queries\": [{\"query\": \"q0\"}, {\"query\": \"q0\"}]}", "'q0' is listed twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EvalRetrievalResult result;
        write_truth(&f, cases[i].text);
        cr_expect_eq(run_truth(&f, &result), STATUS_INPUT, "case %zu", i);
        cr_expect(strstr(f.error.text, cases[i].said) && strstr(f.error.text, f.truth_path), "case %zu: %s",
                  i, f.error.text);
    }
    teardown(&f);
}

Test(retrieval, a_key_of_two_rows_and_rows_without_label_are_refused)
{
    Fixture f;
    setup(&f);
    make_fan(&f);
    retrieval_set_fini(&f.database);
    float rows[2][2] = {{1.0f, 0.0f}, {0.0f, 1.0f}};
    int64_t labels[2] = {0, -1};
    FeaturesFile file;
    FeaturesMeta meta = {.model = "m",
                         .arch = "vit_custom",
                         .layer = "class_token",
                         .data = "synthetic:",
                         .config = "",
                         .version = "0",
                         .input_size = 8};
    const char *keys[] = {"same", "same"};
    cr_assert_eq(features_file_create(&file, f.database_path, 2, 2, 2, 8, &meta, &f.error), STATUS_OK);
    cr_assert_eq(features_file_write(&file, 0, 2, &rows[0][0], labels, keys, &f.error), STATUS_OK);
    cr_assert_eq(features_file_commit(&file, &f.error), STATUS_OK);
    cr_assert_eq(retrieval_set_open(&f.database, f.database_path, f.comm, &f.error), STATUS_OK);
    write_truth(&f, "{\"queries\": [{\"query\": \"q0\", \"easy\": [\"same\"]}]}");
    EvalRetrievalResult result;
    cr_expect_eq(run_truth(&f, &result), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "2 rows have the key 'same'"), "%s", f.error.text);
    cr_expect_eq(eval_retrieval_run(&f.database, &f.queries, NULL, false, 1, f.comm, &result, &f.error),
                 STATUS_INPUT);
    cr_expect(strstr(f.error.text, "row 1 has no label"), "%s", f.error.text);
    teardown(&f);
}

Test(retrieval, selections_of_one_data_set_are_the_same_data)
{
    cr_expect(retrieval_set_same_data("folder:a;limit=3", "folder:a"));
    cr_expect(retrieval_set_same_data("folder:a;stride=2", "folder:a;offset=1;stride=2"));
    cr_expect_not(retrieval_set_same_data("folder:a", "folder:ab"));
    cr_expect_not(retrieval_set_same_data("folder:train", "folder:tests"));
}

/* test_feature_source.c - several features files as one set of rows, with and without an earlier /keep, and
 * what is refused; curation files, state, and the least of pools.
 */
#include "../support/curation_support.h"
#include "../support/ops_support.h"
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "curation/deduplicate.h"
#include "curation/duplicate_keys.h"
#include "curation/exclude.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { A = 1300, B = 40, C = 700, ROWS = A + B + C, D = 12 };

static TempFolder temp;
static Comm *comm;
static TempPath files[3];
static const char *paths[3];

/* Three files; the first is longer than what is read at a time. */
static void set_up(void)
{
    temp = temp_folder_create();
    comm = comm_self_create();
    const int64_t first[] = {0, A, A + B}, count[] = {A, B, C};
    for (int i = 0; i < 3; i++) {
        files[i] = temp_folder_in(&temp, "%c.h5", 'a' + i);
        paths[i] = files[i].text;
        CurationSupportData data = curation_support_data(first[i], count[i], D);
        curation_support_write(&data, paths[i]);
    }
}

static void tear_down(void)
{
    comm_destroy(comm);
    temp_folder_destroy(&temp);
}

TestSuite(feature_source, .init = set_up, .fini = tear_down, .timeout = 60);

static float *all_rows(void)
{
    CurationSupportData data = curation_support_data(0, ROWS, D);
    float *values = memory_alloc_array(ROWS * D, sizeof *values);
    curation_support_fill(&data, values);
    return values;
}

/* Rows [first, first + n) of the set and their keys, against the pool rows that they should be. */
static void expect_rows(const FeatureSource *source, int64_t first, int64_t n, const int64_t *pool_rows)
{
    float *expected = all_rows(), *values = memory_alloc_array((size_t)(n * D), sizeof *values);
    size_t room = source->key_bytes + 1;
    char *keys = memory_alloc_array((size_t)n, room), key[64], one[64];
    Error error = {0};
    cr_assert_eq(index_rows_read(&source->rows, first, n, INDEX_ROWS_RAW, values, &error), STATUS_OK, "%s",
                 error.text);
    cr_assert_eq(feature_source_read_keys(source, first, n, keys, &error), STATUS_OK, "%s", error.text);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pool_rows[first + i];
        cr_assert_eq(feature_source_pool_row(source, first + i), row);
        cr_assert_arr_eq(values + i * D, expected + row * D, D * sizeof *values);
        snprintf(key, sizeof key, "row %lld", (long long)row);
        cr_assert_str_eq(keys + (size_t)i * room, key);
        cr_assert_eq(feature_source_read_key(source, row, one, NULL), STATUS_OK);
        cr_assert_str_eq(one, key);
    }
    memory_free(keys);
    memory_free(values);
    memory_free(expected);
}

Test(feature_source, files_are_one_set)
{
    FeatureSource source;
    Error error = {0};
    cr_assert_eq(feature_source_open(&source, paths, 3, NULL, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect(source.rows.total == ROWS && source.rows.count == ROWS && source.pool_rows == ROWS);
    cr_expect(source.pool_first == 0 && source.pool_count == ROWS && source.rows.d == D);
    int64_t same[ROWS];
    for (int64_t i = 0; i < ROWS; i++)
        same[i] = i;
    expect_rows(&source, 0, ROWS, same);
    expect_rows(&source, A - 5, B + 11, same); /* of all three */
    expect_rows(&source, ROWS - 1, 1, same);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_SET, comm, &error), STATUS_OK, "%s",
                 error.text);
    int64_t row;
    const FeaturesFile *file = feature_source_file(&source, A + B, &row);
    cr_expect(file == &source.files[2] && row == 0);
    file = feature_source_file(&source, A + B - 1, &row);
    cr_expect(file == &source.files[1] && row == B - 1);
    uint64_t digest = source.digest;
    feature_source_close(&source);
    const char *turned[] = {paths[0], paths[2], paths[1]};
    cr_assert_eq(feature_source_open(&source, turned, 3, NULL, comm, &error), STATUS_OK);
    cr_expect_neq(source.digest, digest, "another order is another pool");
    feature_source_close(&source);
}

/* A curation file with that /keep [n]. */
static void write_keep(const char *path, const FeatureSource *source, const uint8_t *keep, int64_t n)
{
    CurationMeta meta = {"dedup", source->inputs, source->digest, source->key_digest, "", "0"};
    CurationFile file;
    Error error = {0};
    curation_file_create(&file, path, n, &meta, comm);
    curation_file_put_double(&file, "threshold", 0.25);
    curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, n);
    cr_assert_eq(curation_file_commit(&file, &error), STATUS_OK, "%s", error.text);
}

static Status open_kept(FeatureSource *source, const char *keep, Error *error)
{
    return feature_source_open(source, paths, 3, keep, comm, error);
}

Test(feature_source, rows_that_were_kept_are_the_set)
{
    FeatureSource source;
    Error error = {0};
    TempPath path = temp_folder_in(&temp, "keep.h5");
    cr_assert_eq(open_kept(&source, NULL, &error), STATUS_OK);
    uint8_t keep[ROWS] = {0};
    int64_t pool_rows[ROWS], n = 0;
    for (int64_t i = 0; i < ROWS; i++) { /* dense, then with gaps wider than what is read at a time */
        keep[i] = i < 300 ? i % 3 != 1 : i > 1700 && i % 2 == 0;
        if (keep[i]) pool_rows[n++] = i;
    }
    write_keep(path.text, &source, keep, ROWS);
    uint64_t whole = source.set_digest;
    feature_source_close(&source);
    cr_assert_eq(open_kept(&source, path.text, &error), STATUS_OK, "%s", error.text);
    cr_assert(source.rows.total == n && source.rows.count == n && source.pool_rows == ROWS);
    cr_expect(source.pool_first == 0 && source.pool_count == ROWS && source.set_digest != whole);
    expect_rows(&source, 0, n, pool_rows);
    expect_rows(&source, 150, 100, pool_rows);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_SET, comm, &error), STATUS_OK, "%s",
                 error.text);

    write_keep(path.text, &source, keep, ROWS - 1);
    feature_source_close(&source);
    cr_expect_eq(open_kept(&source, path.text, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "decides about 2039 rows"), "%s", error.text);
    source.key_digest++;
    write_keep(path.text, &source, keep, ROWS);
    feature_source_close(&source);
    cr_expect_eq(open_kept(&source, path.text, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "decides about other pictures"), "%s", error.text);
    feature_source_close(&source);
}

Test(feature_source, none_kept_is_refused)
{
    FeatureSource source;
    Error error = {0};
    TempPath path = temp_folder_in(&temp, "keep.h5");
    cr_assert_eq(open_kept(&source, NULL, &error), STATUS_OK);
    uint8_t keep[ROWS] = {0};
    write_keep(path.text, &source, keep, ROWS);
    feature_source_close(&source);
    cr_expect_eq(open_kept(&source, path.text, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "no rows are kept by"), "%s", error.text);
    feature_source_close(&source);
    cr_expect_eq(open_kept(&source, paths[0], &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "a.h5"), "%s", error.text);
    feature_source_close(&source);
}

/* --- what is refused --- */

/* A second file that is not like the first. */
static void expect_other(const CurationSupportData *data, const char *part)
{
    TempPath bad = temp_folder_in(&temp, "bad.h5");
    curation_support_write(data, bad.text);
    const char *both[] = {paths[0], bad.text};
    FeatureSource source, other;
    Error error = {0};
    cr_expect_eq(feature_source_open(&source, both, 2, NULL, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, part) && strstr(error.text, "a.h5") && strstr(error.text, "bad.h5"),
              "\"%s\" is not in: %s", part, error.text);
    feature_source_close(&source);
    Log log = log_create(1);
    cr_assert_eq(feature_source_open(&source, both, 1, NULL, comm, &error), STATUS_OK);
    cr_assert_eq(feature_source_open(&other, both + 1, 1, NULL, comm, &error), STATUS_OK);
    cr_expect_eq(feature_source_check_same(&source, &other, &log, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, part), "%s", error.text);
    cr_expect_eq(feature_source_check_same(&source, &source, &log, &error), STATUS_OK);
    feature_source_close(&other);
    feature_source_close(&source);
}

Test(feature_source, other_features_are_refused)
{
    CurationSupportData data = curation_support_data(A, 9, D + 1);
    expect_other(&data, "of 13");
    data = curation_support_data(A, 9, D), data.model = "x/n.h5";
    expect_other(&data, "model 'm.h5' and 'x/n.h5'");
    data = curation_support_data(A, 9, D), data.arch = "vit_large";
    expect_other(&data, "arch 'sscd_resnet50' and 'vit_large'");
    FeatureSource source;
    Error error = {0};
    const char *missing[] = {paths[0], "/nowhere/x.h5"};
    cr_expect_eq(feature_source_open(&source, missing, 2, NULL, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "/nowhere/x.h5"), "%s", error.text);
    feature_source_close(&source);
    data = curation_support_data(0, 0, D);
    TempPath bad = temp_folder_in(&temp, "bad.h5");
    curation_support_write(&data, bad.text);
    const char *empty[] = {bad.text, paths[1]};
    cr_expect_eq(feature_source_open(&source, empty, 1, NULL, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "bad.h5: no rows"), "%s", error.text);
    feature_source_close(&source);
    cr_expect_eq(feature_source_open(&source, empty, 2, NULL, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect_eq(source.rows.total, B);
    feature_source_close(&source);
}

Test(feature_source, bad_rows_are_named_by_file_and_row)
{
    CurationSupportData data = curation_support_data(ROWS, 60, D);
    data.nan_row = 7, data.zero_row = 20;
    TempPath bad = temp_folder_in(&temp, "bad.h5");
    curation_support_write(&data, bad.text);
    const char *both[] = {paths[1], bad.text};
    FeatureSource source;
    Error error = {0};
    float values[60 * D];
    cr_assert_eq(feature_source_open(&source, both, 2, NULL, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect_eq(index_rows_read(&source.rows, B - 3, 60, INDEX_ROWS_RAW, values, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "bad.h5: row 7 holds a number that is not finite"), "%s", error.text);
    IndexRows part = index_rows_part(&source.rows, B + 10, 40);
    cr_expect_eq(index_rows_read(&part, 5, 30, INDEX_ROWS_UNIT, values, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "bad.h5: row 20 is zero"), "%s", error.text);
    cr_expect_eq(index_rows_read(&part, 5, 30, INDEX_ROWS_RAW, values, &error), STATUS_OK);
    feature_source_close(&source);
}

Test(feature_source, a_key_of_two_rows_is_refused)
{
    CurationSupportData data = curation_support_data(A, 30, D);
    data.same_key = 11;
    TempPath bad = temp_folder_in(&temp, "bad.h5");
    curation_support_write(&data, bad.text);
    const char *alone[] = {bad.text}, *twice[] = {paths[0], paths[2], paths[0]};
    FeatureSource source;
    Error error = {0};
    cr_assert_eq(feature_source_open(&source, alone, 1, NULL, comm, &error), STATUS_OK);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_SET, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "'row 1300' is the key of two rows: row 0 of") &&
                  strstr(error.text, "row 11 of"),
              "%s", error.text);
    feature_source_close(&source);
    cr_assert_eq(feature_source_open(&source, twice, 3, NULL, comm, &error), STATUS_OK);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_SET, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "is the key of two rows"), "%s", error.text);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_FILE, comm, &error), STATUS_OK);
    feature_source_close(&source);
    cr_assert_eq(feature_source_open(&source, alone, 1, NULL, comm, &error), STATUS_OK);
    cr_expect_eq(duplicate_keys_check(&source, DUPLICATE_KEYS_IN_FILE, comm, &error), STATUS_INPUT);
    feature_source_close(&source);
}

/* --- curation files --- */

Test(feature_source, a_curation_file_reads_as_it_was_written)
{
    FeatureSource source;
    Error error = {0};
    TempPath path = temp_folder_in(&temp, "new/keep.h5"); /* the folder is made */
    cr_assert_eq(open_kept(&source, NULL, &error), STATUS_OK);
    CurationMeta meta = {"cluster", source.inputs, source.digest, source.key_digest, "a: 1", "0"};
    CurationFile file;
    int64_t assignment[5] = {4, 3, 2, 1, 0};
    float centroids[] = {1, 2, 3, 4, 5, 6};
    curation_file_create(&file, path.text, 5, &meta, comm);
    curation_file_put_text(&file, "index", "Flat");
    curation_file_put_int(&file, "clusters", 3);
    curation_file_put_rows(&file, "/assignment", H5_TYPE_I64, assignment, 5);
    curation_file_put_table(&file, "/centroids", centroids, 3, 2);
    cr_assert_eq(curation_file_commit(&file, &error), STATUS_OK, "%s", error.text);
    CurationInput input;
    cr_assert_eq(curation_file_open(&input, path.text, "/assignment", &error), STATUS_OK, "%s", error.text);
    int64_t read[3], clusters, k, d;
    float *table;
    cr_expect(input.n == 5 && input.digest == source.digest);
    cr_expect_eq(curation_file_read(&input, "/assignment", H5_TYPE_I64, 1, 3, read, &error), STATUS_OK);
    cr_expect(read[0] == 3 && read[2] == 1);
    cr_expect_eq(curation_file_read_int(&input, "clusters", &clusters, &error), STATUS_OK);
    cr_expect_eq(clusters, 3);
    cr_expect_eq(curation_file_read_int(&input, "absent", &clusters, &error), STATUS_INPUT);
    cr_assert_eq(curation_file_read_table(&input, "/centroids", &table, &k, &d, &error), STATUS_OK);
    cr_expect(k == 3 && d == 2 && memcmp(table, centroids, sizeof centroids) == 0);
    memory_free(table);
    curation_file_close(&input);
    cr_expect_eq(curation_file_open(&input, path.text, "/keep", &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "/keep"), "%s", error.text);
    /* a folder stands in its place */
    TempPath taken = temp_folder_in(&temp, "new");
    curation_file_create(&file, taken.text, 5, &meta, comm);
    curation_file_put_rows(&file, "/assignment", H5_TYPE_I64, assignment, 5);
    cr_expect_eq(curation_file_commit(&file, &error), STATUS_FAILED);
    cr_expect(strstr(error.text, "/new"), "%s", error.text);
    feature_source_close(&source);
}

/* --- steps --- */

typedef struct {
    Config config;
    char *text;
    Log log;
    Ops *ops;
    CurationRun run;
} Setting;

static void begin(Setting *s)
{
    OpsLimits limits = shard_index_limits(D);
    config_init(&s->config);
    s->text = config_dump(&s->config);
    s->log = log_create(1);
    s->ops = ops_support_open(&limits, 1);
    s->run = (CurationRun){.config = &s->config,
                           .config_text = s->text,
                           .folder = temp.path,
                           .resume = true,
                           .ops = s->ops,
                           .comm = comm,
                           .log = &s->log};
}

static void end(Setting *s)
{
    ops_support_close(s->ops);
    memory_free(s->text);
    config_fini(&s->config);
}

Test(feature_source, one_row_has_no_duplicates)
{
    Setting s;
    begin(&s);
    CurationSupportData data = curation_support_data(ROWS, 1, D);
    TempPath one = temp_folder_in(&temp, "one.h5");
    curation_support_write(&data, one.text);
    const char *alone[] = {one.text};
    FeatureSource pool, references;
    Error error = {0};
    cr_assert_eq(feature_source_open(&pool, alone, 1, NULL, comm, &error), STATUS_OK);
    cr_assert_eq(feature_source_open(&references, paths, 1, NULL, comm, &error), STATUS_OK);
    Deduplication deduplication;
    cr_assert_eq(deduplicate_run(&deduplication, &pool, &s.run, &error), STATUS_OK, "%s", error.text);
    cr_expect(deduplication.kept == 1 && deduplication.groups == 0 && deduplication.largest == 1);
    cr_expect(deduplication.neighbours == 0 && deduplication.edges == 0);
    Exclusion exclusion;
    s.config.curation.exclude.threshold = 0.999;
    cr_assert_eq(exclude_run(&exclusion, &pool, NULL, &references, &s.run, &error), STATUS_OK, "%s",
                 error.text);
    cr_expect(exclusion.kept == 1 && exclusion.references == A);
    s.config.curation.exclude.threshold = -1.0;
    cr_assert_eq(exclude_run(&exclusion, &pool, NULL, &references, &s.run, &error), STATUS_OK);
    cr_expect_eq(exclusion.kept, 0);
    feature_source_close(&references);
    feature_source_close(&pool);
    end(&s);
}

/* A reference at 0 degrees, a row at 40 that is like it, one at 80 that is like that one, one like none. */
Test(feature_source, links_within_the_pool_count_where_they_are_asked_for)
{
    Setting s;
    begin(&s);
    TempPath a = temp_folder_in(&temp, "pool.h5"), b = temp_folder_in(&temp, "references.h5");
    curation_support_write_angles((double[]){200.0, 80.0, 40.0}, 3, a.text);
    curation_support_write_angles((double[]){300.0, 0.0}, 2, b.text);
    const char *of_pool[] = {a.text}, *of_references[] = {b.text};
    FeatureSource pool, references;
    Error error = {0};
    cr_assert_eq(feature_source_open(&pool, of_pool, 1, NULL, comm, &error), STATUS_OK);
    cr_assert_eq(feature_source_open(&references, of_references, 1, NULL, comm, &error), STATUS_OK);
    for (int none = 0; none < 2; none++) {
        Exclusion result;
        s.config.curation.exclude.threshold = 0.6;
        s.config.curation.exclude.links = none ? CONFIG_LINKS_NONE : CONFIG_LINKS_POOL;
        cr_assert_eq(exclude_run(&result, &pool, NULL, &references, &s.run, &error), STATUS_OK, "%s",
                     error.text);
        cr_expect(result.direct == 1 && result.kept == (none ? 2 : 1));
        CurationInput input;
        int64_t reference[3];
        float similarity[3];
        cr_assert_eq(curation_file_open(&input, result.path, "/reference", &error), STATUS_OK);
        cr_assert_eq(curation_file_read(&input, "/reference", H5_TYPE_I64, 0, 3, reference, &error),
                     STATUS_OK);
        cr_assert_eq(curation_file_read(&input, "/similarity", H5_TYPE_F32, 0, 3, similarity, &error),
                     STATUS_OK);
        cr_expect(reference[0] == -1 && reference[1] == -1 && reference[2] == 1);
        cr_expect_float_eq(similarity[2], 0.7660444f, 1e-6);
        curation_file_close(&input);
    }
    feature_source_close(&references);
    feature_source_close(&pool);
    end(&s);
}

Test(feature_source, a_state_of_other_settings_is_not_taken_up)
{
    TempPath path = temp_folder_in(&temp, "x.partial.h5");
    int64_t labels[3] = {0, 0, 2}, other[3];
    CurationState state = {.path = path.text,
                           .meta = {"dedup", "a", 7, 8, "", "0"},
                           .total = 3,
                           .count = 3,
                           .arrays = {{"/label", H5_TYPE_I64, labels, 0, CURATION_OWN_ROW}},
                           .array_count = 1,
                           .numbers = {{"edges", 5}},
                           .number_count = 1};
    Log log = log_create(1);
    Error error = {0};
    bool found;
    cr_assert_eq(curation_state_restore(&state, true, &found, comm, &log, &error), STATUS_OK);
    cr_expect(!found);
    cr_assert_eq(curation_state_pause(&state, comm, &log, &error), STATUS_OK); /* every 0 minutes */
    state.arrays[0].mine = other;
    state.numbers[0].value = 0;
    cr_assert_eq(curation_state_restore(&state, true, &found, comm, &log, &error), STATUS_OK);
    cr_expect(found && state.numbers[0].value == 5 && memcmp(labels, other, sizeof labels) == 0);
    cr_assert_eq(curation_state_restore(&state, false, &found, comm, &log, &error), STATUS_OK);
    cr_expect(!found);
    state.meta.digest++;
    cr_assert_eq(curation_state_restore(&state, true, &found, comm, &log, &error), STATUS_OK);
    cr_expect(!found);
    temp_folder_write(&temp, "x.partial.h5", "damaged");
    cr_assert_eq(curation_state_restore(&state, true, &found, comm, &log, &error), STATUS_OK);
    cr_expect(!found);
    curation_state_remove(&state, comm);
    cr_expect_neq(access(path.text, F_OK), 0);
}

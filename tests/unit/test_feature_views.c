/* test_feature_views.c - features files with several views of each picture: who sees which rows, what is
 * alike by views, and what an earlier step kept where another model's features follow.
 */
#include "../support/curation_support.h"
#include "../support/ops_support.h"
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "curation/deduplicate.h"
#include "curation/duplicate_keys.h"
#include "curation/exclude.h"
#include "h5/h5_attribute.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { A = 700, B = 350, PICTURES = A + B, VIEWS = 3, D = 4 };

static TempFolder temp;
static Comm *comm;
static float values[PICTURES * VIEWS * D];
static const char *paths[2];
static TempPath files[2];

#define LIST "mirror,crop:0.84:1"

static void write_files(const char *const names[2], const char *model, int64_t first_key)
{
    for (int i = 0; i < 2; i++) {
        CurationSupportViews data = {.values = values + i * A * VIEWS * D,
                                     .first = first_key + i * A,
                                     .n = i ? B : A,
                                     .views = VIEWS,
                                     .d = D,
                                     .list = LIST,
                                     .model = model};
        curation_support_write_views(&data, names[i]);
    }
}

static void set_up(void)
{
    temp = temp_folder_create();
    comm = comm_self_create();
    for (int64_t i = 0; i < PICTURES * VIEWS * D; i++) {
        Rng rng = rng_at(11, RNG_TEST, 950, (uint64_t)i);
        values[i] = (float)rng_normal(&rng);
    }
    for (int i = 0; i < 2; i++) {
        files[i] = temp_folder_in(&temp, "%c.h5", 'a' + i);
        paths[i] = files[i].text;
    }
    write_files(paths, NULL, 0);
}

static void tear_down(void)
{
    comm_destroy(comm);
    temp_folder_destroy(&temp);
}

TestSuite(feature_views, .init = set_up, .fini = tear_down, .timeout = 60);

/* --- rows --- */

/* The set is the pictures of these pool rows. */
static void expect_set(const FeatureSource *source, const int64_t *pool_rows, int64_t n)
{
    cr_assert(source->views == VIEWS && source->pool_rows == PICTURES && source->rows.total == n);
    cr_assert(source->rows.count == n && source->view_rows.total == n * VIEWS);
    float *rows = memory_alloc_array((size_t)(n * VIEWS * D), sizeof *rows);
    Error error = {0};
    cr_assert_eq(index_rows_read(&source->rows, 0, n, INDEX_ROWS_RAW, rows, &error), STATUS_OK, "%s",
                 error.text);
    for (int64_t i = 0; i < n; i++)
        cr_assert_arr_eq(rows + i * D, values + pool_rows[i] * VIEWS * D, D * sizeof *rows);
    int64_t first = 301, count = n * VIEWS - first - 5; /* neither at a picture's edge */
    cr_assert_eq(index_rows_read(&source->view_rows, first, count, INDEX_ROWS_RAW, rows, &error), STATUS_OK);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = pool_rows[(first + i) / VIEWS] * VIEWS + (first + i) % VIEWS;
        cr_assert_arr_eq(rows + i * D, values + row * D, D * sizeof *rows);
    }
    char *keys = memory_alloc_array((size_t)n, source->key_bytes + 1), key[64];
    cr_assert_eq(feature_source_read_keys(source, 0, n, keys, &error), STATUS_OK, "%s", error.text);
    for (int64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "row %lld", (long long)pool_rows[i]);
        cr_assert_str_eq(keys + (size_t)i * (source->key_bytes + 1), key);
    }
    cr_expect_eq(duplicate_keys_check(source, DUPLICATE_KEYS_IN_SET, comm, &error), STATUS_OK, "%s",
                 error.text);
    memory_free(keys);
    memory_free(rows);
}

static TempPath write_keep(const FeatureSource *source, const uint8_t *keep)
{
    TempPath path = temp_folder_in(&temp, "keep.h5");
    CurationMeta meta = {"dedup", source->inputs, source->digest, source->key_digest, "", "0"};
    CurationFile file;
    Error error = {0};
    curation_file_create(&file, path.text, source->pool_rows, &meta, comm);
    curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, source->pool_rows);
    cr_assert_eq(curation_file_commit(&file, &error), STATUS_OK, "%s", error.text);
    return path;
}

/* Every row, and with --keep those that stay: dense, then with gaps. */
static int64_t draw_keep(uint8_t *keep, int64_t *pool_rows)
{
    int64_t n = 0;
    for (int64_t i = 0; i < PICTURES; i++) {
        keep[i] = i < 300 ? i % 4 != 1 : i > 640 && i % 3 == 0;
        if (keep[i]) pool_rows[n++] = i;
    }
    return n;
}

Test(feature_views, rows_are_pictures_and_views_are_seen_by_who_asks)
{
    FeatureSource source;
    Error error = {0};
    uint8_t keep[PICTURES];
    int64_t pool_rows[PICTURES], n;
    cr_assert_eq(feature_source_open(&source, paths, 2, NULL, comm, &error), STATUS_OK, "%s", error.text);
    for (int64_t i = 0; i < PICTURES; i++)
        pool_rows[i] = i;
    expect_set(&source, pool_rows, PICTURES);
    int64_t row;
    const FeaturesFile *file = feature_source_file(&source, A + 7, &row);
    cr_expect(file == &source.files[1] && row == 7 && file->n == B * VIEWS);
    n = draw_keep(keep, pool_rows);
    TempPath kept = write_keep(&source, keep);
    feature_source_close(&source);
    cr_assert_eq(feature_source_open(&source, paths, 2, kept.text, comm, &error), STATUS_OK, "%s",
                 error.text);
    expect_set(&source, pool_rows, n);
    feature_source_close(&source);
}

Test(feature_views, a_bad_view_is_named_by_its_row_of_the_file)
{
    values[(A + 9) * VIEWS * D + 2 * D] = NAN; /* picture 9 of the second file, view 2 */
    write_files(paths, NULL, 0);
    FeatureSource source;
    Error error = {0};
    float rows[20 * VIEWS * D];
    cr_assert_eq(feature_source_open(&source, paths, 2, NULL, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect_eq(index_rows_read(&source.rows, A, 20, INDEX_ROWS_UNIT, rows, &error), STATUS_OK);
    cr_expect_eq(index_rows_read(&source.view_rows, A * VIEWS, 20 * VIEWS, INDEX_ROWS_UNIT, rows, &error),
                 STATUS_INPUT);
    cr_expect(strstr(error.text, "b.h5: row 29 holds a number that is not finite"), "%s", error.text);
    feature_source_close(&source);
}

/* --- other views, other models --- */

Test(feature_views, other_views_are_refused_where_they_are_compared)
{
    TempPath other = temp_folder_in(&temp, "other.h5");
    CurationSupportViews data = {
        .values = values, .first = A, .n = 30, .views = VIEWS, .d = D, .list = "crop:0.5:1,mirror"};
    for (int plain = 0; plain < 2; plain++) {
        if (plain) data.list = NULL, data.views = 1;
        curation_support_write_views(&data, other.text);
        FeatureSource a, b;
        Error error = {0};
        const char *both[] = {paths[0], other.text};
        cr_expect_eq(feature_source_open(&a, both, 2, NULL, comm, &error), STATUS_INPUT);
        cr_expect(strstr(error.text, "a.h5 and ") && strstr(error.text, "views '" LIST "' and '"), "%s",
                  error.text);
        feature_source_close(&a);
        cr_assert_eq(feature_source_open(&a, both, 1, NULL, comm, &error), STATUS_OK);
        cr_assert_eq(feature_source_open(&b, both + 1, 1, NULL, comm, &error), STATUS_OK);
        Log log = log_create(1);
        cr_expect_eq(feature_source_check_same(&a, &b, &log, &error), STATUS_OK, "of one model");
        cr_expect_eq(feature_source_check_views(&a, &b, &error), STATUS_INPUT);
        cr_expect(strstr(error.text, "other.h5") && strstr(error.text, plain ? "and ''" : "and 'crop:0.5:1"),
                  "%s", error.text);
        cr_expect_eq(feature_source_check_views(&a, &a, &error), STATUS_OK);
        feature_source_close(&a);
        feature_source_close(&b);
    }
}

Test(feature_views, a_file_that_contradicts_itself_is_refused)
{
    FeaturesFile file;
    FeaturesMeta meta = {.model = "m", .arch = "a", .layer = "l", .data = "d", .config = "", .version = "0"};
    TempPath path = temp_folder_in(&temp, "odd.h5");
    Error error = {0};
    cr_assert_eq(features_file_create(&file, path.text, 4, 1, 0, 1, &meta, &error), STATUS_OK);
    const char *keys[] = {"a", "a", "b", "b"};
    int64_t labels[4] = {0};
    cr_assert_eq(features_file_write(&file, 0, 4, values, labels, keys, &error), STATUS_OK);
    cr_assert_eq(h5_attribute_write_int(&file.file, "/", "views", 3, &error), STATUS_OK);
    cr_assert_eq(h5_attribute_write_text(&file.file, "/", "view_list", LIST, &error), STATUS_OK);
    cr_assert_eq(features_file_commit(&file, &error), STATUS_OK);
    cr_expect_eq(features_file_open(&file, path.text, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "odd.h5: 4 rows are not pictures of 3 views each"), "%s", error.text);
    cr_assert_eq(features_file_open(&file, paths[0], &error), STATUS_OK, "%s", error.text);
    cr_expect(file.meta.views == VIEWS && file.n == A * VIEWS);
    cr_expect_str_eq(file.meta.view_list, LIST);
    features_file_close(&file);
}

/* What was kept by one model's features with views is kept of another's without; not of other pictures. */
Test(feature_views, what_was_kept_holds_for_another_models_features)
{
    FeatureSource source;
    Error error = {0};
    uint8_t keep[PICTURES];
    int64_t pool_rows[PICTURES], n = draw_keep(keep, pool_rows);
    cr_assert_eq(feature_source_open(&source, paths, 2, NULL, comm, &error), STATUS_OK);
    TempPath kept = write_keep(&source, keep), one = temp_folder_in(&temp, "vit.h5");
    uint64_t digest = source.digest, key_digest = source.key_digest;
    feature_source_close(&source);
    /* all in one file, of other columns */
    CurationSupportViews data = {.values = values, .n = PICTURES, .views = 1, .d = D + 1, .model = "vit.h5"};
    curation_support_write_views(&data, one.text);
    const char *vit[] = {one.text};
    cr_assert_eq(feature_source_open(&source, vit, 1, kept.text, comm, &error), STATUS_OK, "%s", error.text);
    cr_expect(source.rows.total == n && source.key_digest == key_digest && source.digest != digest);
    for (int64_t i = 0; i < n; i++)
        cr_assert_eq(feature_source_pool_row(&source, i), pool_rows[i]);
    feature_source_close(&source);
    data.first = 1;
    curation_support_write_views(&data, one.text);
    cr_expect_eq(feature_source_open(&source, vit, 1, kept.text, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "keep.h5 decides about other pictures than those of") &&
                  strstr(error.text, "vit.h5"),
              "%s", error.text);
    feature_source_close(&source);
    /* the same keys in another order */
    const char *turned[] = {paths[1], paths[0]};
    cr_expect_eq(feature_source_open(&source, turned, 2, kept.text, comm, &error), STATUS_INPUT);
    cr_expect(source.key_digest != key_digest);
    feature_source_close(&source);
}

Test(feature_views, pictures_upside_down_are_not_mixed_with_others)
{
    TempPath turned = temp_folder_in(&temp, "turned.h5");
    CurationSupportViews data = {
        .values = values, .n = 30, .views = VIEWS, .d = D, .list = LIST, .upside_down = true};
    curation_support_write_views(&data, turned.text);
    const char *both[] = {paths[0], turned.text};
    FeatureSource source;
    Error error = {0};
    cr_expect_eq(feature_source_open(&source, both, 2, NULL, comm, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "turned.h5 is of pictures upside down, ") &&
                  strstr(error.text, "a.h5 is not"),
              "%s", error.text);
    feature_source_close(&source);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(feature_source_open(&source, both + i, 1, NULL, comm, &error), STATUS_OK, "%s",
                     error.text);
        cr_expect_eq(source.upside_down, i == 1);
        cr_expect_eq(feature_source_check_upright(&source, i == 0, &error), STATUS_OK);
        cr_expect_eq(feature_source_check_upright(&source, i == 1, &error), STATUS_INPUT);
        cr_expect(strstr(error.text, i ? "turned.h5 is of pictures upside down" : "a.h5: probes are"), "%s",
                  error.text);
        feature_source_close(&source);
    }
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

/* Pictures whose views are directions in a plane at these angles: degrees[n][VIEWS]. */
static void open_angles(FeatureSource *source, const char *name, const double (*degrees)[VIEWS], int64_t n)
{
    float rows[8 * VIEWS * 2];
    TempPath path = temp_folder_in(&temp, "%s", name);
    const char *alone[] = {path.text};
    Error error = {0};
    for (int64_t i = 0; i < n * VIEWS; i++) {
        rows[2 * i] = (float)cos(degrees[i / VIEWS][i % VIEWS] * M_PI / 180.0);
        rows[2 * i + 1] = (float)sin(degrees[i / VIEWS][i % VIEWS] * M_PI / 180.0);
    }
    CurationSupportViews data = {.values = rows, .n = n, .views = VIEWS, .d = 2, .list = LIST};
    curation_support_write_views(&data, path.text);
    cr_assert_eq(feature_source_open(source, alone, 1, NULL, comm, &error), STATUS_OK, "%s", error.text);
}

/* Two views that are alike link nothing; a view that is like a whole picture does, whichever has it. */
Test(feature_views, a_view_links_two_pictures)
{
    Setting s;
    begin(&s);
    s.config.curation.dedup.threshold = 0.9;
    FeatureSource pool;
    Error error = {0};
    open_angles(&pool, "pool.h5",
                (const double[][VIEWS]){{0, 45, 45}, {90, 180, 2}, {180, 45, 140}, {270, 140, 140}}, 4);
    Deduplication result;
    cr_assert_eq(deduplicate_run(&result, &pool, &s.run, &error), STATUS_OK, "%s", error.text);
    /* 1 - 0 by its last view, 1 - 2 by the other one; 3 has nothing */
    cr_expect(result.rows == 4 && result.edges == 2 && result.groups == 1 && result.largest == 3 &&
              result.kept == 2 && result.neighbours == 3);
    CurationInput input;
    int64_t group[4];
    cr_assert_eq(curation_file_open(&input, result.path, "/group", &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(curation_file_read(&input, "/group", H5_TYPE_I64, 0, 4, group, &error), STATUS_OK);
    cr_expect(input.n == 4 && group[0] == 0 && group[1] == 0 && group[2] == 0 && group[3] == 3);
    curation_file_close(&input);
    feature_source_close(&pool);
    end(&s);
}

Test(feature_views, views_of_either_side_exclude)
{
    Setting s;
    begin(&s);
    s.config.curation.exclude.threshold = 0.9;
    s.config.curation.exclude.links = CONFIG_LINKS_NONE;
    FeatureSource pool, references;
    Error error = {0};
    open_angles(&pool, "pool.h5",
                (const double[][VIEWS]){{0, 60, 60}, {120, 60, 181}, {240, 120, 60}, {300, 120, 120}}, 4);
    open_angles(&references, "references.h5", (const double[][VIEWS]){{180, 30, 30}, {90, 30, 299}}, 2);
    Exclusion result;
    cr_assert_eq(exclude_run(&result, &pool, NULL, &references, &s.run, &error), STATUS_OK, "%s", error.text);
    cr_expect(result.rows == 4 && result.references == 2 && result.direct == 2 && result.kept == 2);
    CurationInput input;
    int64_t reference[4];
    float similarity[4];
    cr_assert_eq(curation_file_open(&input, result.path, "/reference", &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(curation_file_read(&input, "/reference", H5_TYPE_I64, 0, 4, reference, &error), STATUS_OK);
    cr_assert_eq(curation_file_read(&input, "/similarity", H5_TYPE_F32, 0, 4, similarity, &error), STATUS_OK);
    cr_expect(reference[0] == -1 && reference[1] == 0 && reference[2] == -1 && reference[3] == 1);
    cr_expect_float_eq(similarity[1], cos(M_PI / 180.0), 1e-6); /* its view */
    cr_expect_float_eq(similarity[3], cos(M_PI / 180.0), 1e-6); /* the reference's */
    curation_file_close(&input);
    feature_source_close(&references);
    feature_source_close(&pool);
    end(&s);
}

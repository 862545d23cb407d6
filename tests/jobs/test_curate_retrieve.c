/* test_curate_retrieve.c - retrieval by the real program: neighbours and clusters that a hand can check,
 * ranks that agree, a run that was killed, and what is refused.
 */
#include "../support/curate_steps.h"
#include "../support/curation_support.h"

#include "base/memory.h"
#include "curation/curation_file.h"
#include "curation/feature_source.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static TempFolder temp;

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_retrieve, .init = set_up, .fini = tear_down, .timeout = 180);

/* --- files --- */

/* A file by which only the rows with keep[i] stay. */
static TempPath write_keep(const char *name, const char *features, const uint8_t *keep)
{
    TempPath path = temp_folder_in(&temp, "%s", name);
    Comm *comm = comm_self_create();
    FeatureSource source;
    Error error = {0};
    cr_assert_eq(feature_source_open(&source, &features, 1, NULL, comm, &error), STATUS_OK, "%s", error.text);
    CurationMeta meta = {.step = "dedup",
                         .inputs = features,
                         .digest = source.digest,
                         .key_digest = source.key_digest,
                         .config = "",
                         .version = "0"};
    CurationFile file;
    curation_file_create(&file, path.text, source.pool_rows, &meta, comm);
    curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, source.pool_rows);
    cr_assert_eq(curation_file_commit(&file, &error), STATUS_OK, "%s", error.text);
    feature_source_close(&source);
    comm_destroy(comm);
    return path;
}

/* Clusters made by hand: centroids at `degrees`, rows as `assignment` says. */
static TempPath write_clusters(const char *name, const char *features, const double *degrees, int64_t k,
                               const int64_t *assignment)
{
    TempPath path = temp_folder_in(&temp, "%s", name);
    Comm *comm = comm_self_create();
    FeatureSource source;
    Error error = {0};
    cr_assert_eq(feature_source_open(&source, &features, 1, NULL, comm, &error), STATUS_OK, "%s", error.text);
    CurationMeta meta = {.step = "cluster",
                         .inputs = features,
                         .digest = source.digest,
                         .key_digest = source.key_digest,
                         .config = "",
                         .version = "0"};
    float *centroids = memory_alloc_array((size_t)k, 2 * sizeof *centroids);
    for (int64_t c = 0; c < k; c++) {
        centroids[2 * c] = (float)cos(degrees[c] * M_PI / 180.0);
        centroids[2 * c + 1] = (float)sin(degrees[c] * M_PI / 180.0);
    }
    CurationFile file;
    curation_file_create(&file, path.text, source.pool_rows, &meta, comm);
    curation_file_put_int(&file, "spherical", 1);
    curation_file_put_table(&file, "/centroids", centroids, k, 2);
    curation_file_put_rows(&file, "/assignment", H5_TYPE_I64, assignment, source.pool_rows);
    cr_assert_eq(curation_file_commit(&file, &error), STATUS_OK, "%s", error.text);
    memory_free(centroids);
    feature_source_close(&source);
    comm_destroy(comm);
    return path;
}

/* --- neighbours --- */

typedef struct {
    int64_t row, query, neighbour;
    double degrees; /* between the two */
    int first;
} Expected;

static void expect_pictures(const char *out, const char *name, const Expected *expected, int64_t n)
{
    RetrievalFile file = curate_steps_read_retrieval(&temp, out, name);
    cr_assert_eq(file.n, n, "%lld pictures", (long long)file.n);
    cr_expect_not(file.is_cluster);
    for (int64_t i = 0; i < n; i++) {
        cr_expect_eq(file.row[i], expected[i].row, "%lld", (long long)i);
        cr_expect_eq(file.query[i], expected[i].query, "%lld", (long long)i);
        cr_expect_eq(file.neighbour[i], expected[i].neighbour, "%lld", (long long)i);
        cr_expect_eq(file.first[i], expected[i].first, "%lld", (long long)i);
        cr_expect_float_eq((double)file.similarity[i], cos(expected[i].degrees * M_PI / 180.0), 1e-6);
    }
    retrieval_file_fini(&file);
}

#define SAMPLE "curation.retrieve.mode=sample", "curation.retrieve.neighbours=2"

Test(curate_retrieve, neighbours_are_those_a_hand_finds)
{
    TempPath pool = curate_steps_write_angles(&temp, "pool.h5",
                                              (double[]){0, 10, 20, 90, 95, 180, 185, 270, 45}, 9, NULL);
    TempPath queries = curate_steps_write_angles(&temp, "queries.h5", (double[]){1, 4, 91}, 3, NULL);
#define BOTH "--features", pool.text, "--queries", queries.text, "--name", "a"
    curate_steps_run_well(&temp, 0, "retrieve", "kept", WORDS(BOTH, SAMPLE));
    expect_pictures("kept", "a",
                    (Expected[]){{0, 0, 0, 1, 1},
                                 {1, 0, 1, 9, 0},
                                 {0, 1, 0, 4, 0},
                                 {1, 1, 1, 6, 1},
                                 {3, 2, 0, 1, 1},
                                 {4, 2, 1, 4, 1}},
                    6);
    curate_steps_run_well(&temp, 3, "retrieve", "removed",
                          WORDS(BOTH, SAMPLE, "curation.retrieve.collisions=remove"));
    expect_pictures("removed", "a",
                    (Expected[]){{0, 0, 0, 1, 1}, {1, 1, 1, 6, 1}, {3, 2, 0, 1, 1}, {4, 2, 1, 4, 1}}, 4);
    RetrievalFile file = curate_steps_read_retrieval(&temp, "removed", "a");
    cr_expect(file.retrieved == 6 && file.collisions == 2 && file.query_rows == 3 && file.pool_rows == 9);
    retrieval_file_fini(&file);

    TempPath keep = write_keep("keep.h5", pool.text, (uint8_t[]){0, 1, 1, 0, 1, 1, 1, 1, 1});
    curate_steps_run_well(&temp, 2, "retrieve", "some", WORDS(BOTH, SAMPLE, "--keep", keep.text));
    expect_pictures("some", "a",
                    (Expected[]){{1, 0, 0, 9, 0},
                                 {2, 0, 1, 19, 0},
                                 {1, 1, 0, 6, 1},
                                 {2, 1, 1, 16, 1},
                                 {4, 2, 0, 4, 1},
                                 {8, 2, 1, 46, 1}},
                    6);
    ProcessResult result = curate_steps_run(
        &temp, 0, "retrieve", "all",
        WORDS(BOTH, "curation.retrieve.mode=sample", "curation.retrieve.neighbours=50", "--json"));
    cr_expect(strstr(result.out, "\"retrieved\":27,\"collisions\":18,\"kept\":27}"), "%s", result.out);
    cr_expect(strstr(result.err, "9 rows is all there are"), "%s", result.err);
    process_result_fini(&result);
#undef BOTH
}

/* --- clusters --- */

enum { NEAR = 20, UP = 15, FAR = 5, POOL = NEAR + UP + FAR };

/* Rows around 0, 90 and 180 degrees; 4 queries at the first, 3 at the second. */
typedef struct {
    TempPath pool, queries, clusters;
} Clustered;

static Clustered write_clustered(void)
{
    double degrees[POOL];
    int64_t assignment[POOL];
    for (int64_t i = 0; i < POOL; i++) {
        assignment[i] = i % 8 == 7 ? 2 : i % 2;
        degrees[i] = 90.0 * (double)assignment[i] + (double)i / 10.0;
    }
    Clustered c = {.pool = curate_steps_write_angles(&temp, "pool.h5", degrees, POOL, NULL)};
    c.queries = curate_steps_write_angles(&temp, "queries.h5", (double[]){-3, 91, 0, 88, 5, 90, 2}, 7, NULL);
    c.clusters = write_clusters("clusters.h5", c.pool.text, (double[]){0, 90, 180}, 3, assignment);
    return c;
}

/* Of cluster c there are wanted[c] different rows, `n` in all, in ascending order. */
static void expect_clusters(const char *out, int64_t n, const int64_t *wanted, int64_t retrieved)
{
    RetrievalFile file = curate_steps_read_retrieval(&temp, out, "b");
    const int64_t clusters[] = {0, 1, 0, 1, 0, 1, 0};
    int64_t found[3] = {0};
    cr_assert(file.is_cluster && file.query_rows == 7);
    cr_expect_arr_eq(file.query_cluster, clusters, sizeof clusters);
    cr_assert_eq(file.n, n, "%lld pictures", (long long)file.n);
    cr_expect(file.retrieved == retrieved && file.collisions == 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = file.row[i], cluster = row % 8 == 7 ? 2 : row % 2;
        cr_expect(i == 0 || row > file.row[i - 1]);
        cr_expect(file.cluster[i] == cluster && file.first[i] == 1 && file.query[i] == -1);
        cr_expect_float_eq((double)file.similarity[i], cos((double)row / 10.0 * M_PI / 180.0), 1e-6);
        found[cluster]++;
    }
    for (int c = 0; c < 3 && wanted; c++)
        cr_expect_eq(found[c], wanted[c], "cluster %d: %lld", c, (long long)found[c]);
    cr_expect_eq(found[2], 0);
    retrieval_file_fini(&file);
}

Test(curate_retrieve, clusters_with_enough_queries_give_their_quota)
{
    Clustered c = write_clustered();
#define CLUSTERED \
    "--features", c.pool.text, "--queries", c.queries.text, "--name", "b", "--clusters", c.clusters.text
    curate_steps_run_well(&temp, 0, "retrieve", "quota", WORDS(CLUSTERED, "curation.retrieve.per_cluster=8"));
    expect_clusters("quota", 8, (int64_t[]){8, 0, 0}, 8); /* 4 queries are more than 3, 3 are not */
    curate_steps_run_well(
        &temp, 2, "retrieve", "both",
        WORDS(CLUSTERED, "curation.retrieve.per_cluster=8", "curation.retrieve.min_queries=2"));
    expect_clusters("both", 16, (int64_t[]){8, 8, 0}, 16);
    curate_steps_run_well(&temp, 3, "retrieve", "all", WORDS(CLUSTERED, "curation.retrieve.min_queries=2"));
    expect_clusters("all", 35, (int64_t[]){20, 15, 0}, 35);
    curate_steps_run_well(&temp, 4, "retrieve", "cap",
                          WORDS(CLUSTERED, "curation.retrieve.min_queries=2", "curation.retrieve.cap=12"));
    expect_clusters("cap", 12, NULL, 35);
    ProcessResult result = curate_steps_run(&temp, 0, "retrieve", "none",
                                            WORDS(CLUSTERED, "curation.retrieve.min_queries=4", "--json"));
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    cr_expect(strstr(result.err, "nothing is brought in"), "%s", result.err);
    process_result_fini(&result);
    expect_clusters("none", 0, (int64_t[]){0, 0, 0}, 0);
    curate_steps_run_well(&temp, 0, "retrieve", "large", WORDS(CLUSTERED, "curation.retrieve.switch_size=6"));
    RetrievalFile file = curate_steps_read_retrieval(&temp, "large", "b");
    cr_expect(!file.is_cluster && file.n == 28, "7 queries are more than 6: by neighbours");
    retrieval_file_fini(&file);
}

/* --- ranks --- */

static void expect_same_array(const void *a, const void *b, size_t bytes, const char *what)
{
    cr_expect_eq(memcmp(a, b, bytes), 0, "%s differs", what);
}

static void expect_same_retrieval(const char *out, const char *other, const char *name)
{
    RetrievalFile a = curate_steps_read_retrieval(&temp, out, name),
                  b = curate_steps_read_retrieval(&temp, other, name);
    cr_assert(a.n == b.n && a.retrieved == b.retrieved && a.collisions == b.collisions && a.n > 100);
    size_t n = (size_t)a.n;
    expect_same_array(a.row, b.row, n * sizeof *a.row, "row");
    expect_same_array(a.query, b.query, n * sizeof *a.query, "query");
    expect_same_array(a.neighbour, b.neighbour, n * sizeof *a.neighbour, "neighbour");
    expect_same_array(a.similarity, b.similarity, n * sizeof *a.similarity, "similarity");
    expect_same_array(a.first, b.first, n, "first");
    retrieval_file_fini(&a);
    retrieval_file_fini(&b);
    cr_expect_neq(access(temp_folder_in(&temp, "%s/retrieve_%s.partial.h5", out, name).text, F_OK), 0);
}

/* A pool of 800 rows and 90 queries of the same groups. */
static void write_planted(TempPath *pool, TempPath *queries)
{
    CurationSupportData data = curation_support_data(0, 800, 24);
    *pool = temp_folder_in(&temp, "pool.h5");
    *queries = temp_folder_in(&temp, "queries.h5");
    curation_support_write(&data, pool->text);
    data = curation_support_data(800, 90, 24);
    curation_support_write(&data, queries->text);
}

Test(curate_retrieve, any_ranks_bring_in_the_same)
{
    TempPath pool, queries, clusters = temp_folder_in(&temp, "c/cluster.h5");
    write_planted(&pool, &queries);
    curate_steps_run_well(
        &temp, 2, "cluster", "c",
        WORDS("--features", pool.text, "curation.cluster.k=12", "curation.cluster.iterations=5"));
#define SETS "--features", pool.text, "--queries", queries.text, "--clusters", clusters.text
    for (int ranks = 1; ranks <= 4; ranks++) {
        char out[8];
        snprintf(out, sizeof out, "r%d", ranks);
        curate_steps_run_well(
            &temp, ranks, "retrieve", out,
            WORDS(SETS, "--name", "s", "curation.retrieve.mode=sample", "curation.block_queries=17"));
        curate_steps_run_well(
            &temp, ranks, "retrieve", out,
            WORDS(SETS, "--name", "c", "curation.retrieve.per_cluster=30", "curation.retrieve.cap=150"));
        if (ranks == 1) continue;
        expect_same_retrieval(out, "r1", "s");
        expect_same_retrieval(out, "r1", "c");
    }
}

/* --- killed --- */

/* Another number of ranks takes it up. */
Test(curate_retrieve, a_killed_retrieval_goes_on)
{
    TempPath pool, queries;
    write_planted(&pool, &queries);
#define RETRIEVE \
    "--features", pool.text, "--queries", queries.text, "--name", "s", "curation.retrieve.mode=sample"
    curate_steps_run_well(&temp, 0, "retrieve", "whole", WORDS(RETRIEVE));
    curate_steps_kill(&temp, "retrieve", "killed", "retrieve 3/90",
                      WORDS(RETRIEVE, "curation.save_minutes=0", "curation.block_queries=1"));
    curate_steps_go_on(&temp, 3, "retrieve", "killed", WORDS(RETRIEVE));
    expect_same_retrieval("killed", "whole", "s");
}

/* --- what is refused --- */

Test(curate_retrieve, bad_input_is_refused_with_one_line)
{
    Clustered c = write_clustered();
    TempPath none = curate_steps_write_angles(&temp, "none.h5", (double[]){0}, 0, NULL);
    TempPath other = curate_steps_write_angles(&temp, "other.h5", (double[]){0, 1, 2}, 3, NULL);
    TempPath wide = temp_folder_in(&temp, "wide.h5");
    CurationSupportData data = curation_support_data(0, 30, 24);
    curation_support_write(&data, wide.text);
#define POOL_AND(queries) "--features", c.pool.text, "--queries", queries
    curate_steps_expect_refused(&temp, "retrieve", WORDS(POOL_AND(c.queries.text)), "needs --name NAME");
    curate_steps_expect_refused(&temp, "retrieve", WORDS(POOL_AND(c.queries.text), "--name", "a/b"),
                                "--name a/b: expected letters");
    curate_steps_expect_refused(&temp, "retrieve", WORDS(POOL_AND(none.text), "--name", "a"),
                                "none.h5: no rows");
    curate_steps_expect_refused(&temp, "retrieve", WORDS(POOL_AND(wide.text), "--name", "a"), "wide.h5");
    curate_steps_expect_refused(&temp, "retrieve", WORDS(POOL_AND(c.queries.text), "--name", "a"),
                                "give --clusters FILE");
    curate_steps_expect_refused(&temp, "retrieve",
                                WORDS("--features", other.text, "--queries", c.queries.text, "--name", "a",
                                      "--clusters", c.clusters.text),
                                "clusters of other features than");
    uint8_t keep[POOL];
    int64_t assignment[POOL];
    for (int i = 0; i < POOL; i++) {
        keep[i] = i != 3;
        assignment[i] = i == 3 ? -1 : i % 3;
    }
    TempPath file = write_keep("keep.h5", c.pool.text, keep);
    TempPath some = write_clusters("some.h5", c.pool.text, (double[]){0, 90, 180}, 3, assignment);
    curate_steps_expect_refused(&temp, "retrieve",
                                WORDS(POOL_AND(c.queries.text), "--name", "a", "--clusters", some.text),
                                "row 3 is in no cluster");
    curate_steps_run_well(
        &temp, 0, "retrieve", "fine",
        WORDS(POOL_AND(c.queries.text), "--name", "a", "--clusters", some.text, "--keep", file.text));
}

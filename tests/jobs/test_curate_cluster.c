/* test_curate_cluster.c - clusters of a pool by the real program: what ranks come to, runs that were stopped
 * or killed, and what is refused.
 */
#include "../support/curate_steps.h"
#include "../support/curation_support.h"

#include "base/memory.h"
#include "curation/curation_file.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
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

TestSuite(curate_cluster, .init = set_up, .fini = tear_down, .timeout = 180);

enum { K = 12, ROWS = 800, D = 24 };

static TempPath write_planted(void)
{
    CurationSupportData data = curation_support_data(0, ROWS, D);
    TempPath pool = temp_folder_in(&temp, "pool.h5");
    curation_support_write(&data, pool.text);
    return pool;
}

typedef struct {
    float *centroids; /* [K, D] */
    int64_t assignment[ROWS];
    uint8_t keep[ROWS];
} Clusters;

static Clusters read_clusters(const char *out)
{
    Clusters c;
    CurationInput input;
    Error error = {0};
    int64_t k, d;
    TempPath path = temp_folder_in(&temp, "%s/cluster.h5", out);
    Status status = curation_file_open(&input, path.text, "/assignment", &error);
    if (status == STATUS_OK)
        status = curation_file_read(&input, "/assignment", H5_TYPE_I64, 0, ROWS, c.assignment, &error);
    if (status == STATUS_OK)
        status = curation_file_read(&input, "/keep", H5_TYPE_U8, 0, ROWS, c.keep, &error);
    if (status == STATUS_OK)
        status = curation_file_read_table(&input, "/centroids", &c.centroids, &k, &d, &error);
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
    cr_assert(k == K && d == D);
    curation_file_close(&input);
    return c;
}

static void expect_same_clusters(const char *out, const char *other)
{
    Clusters a = read_clusters(out), b = read_clusters(other);
    cr_expect_eq(memcmp(a.centroids, b.centroids, K * D * sizeof(float)), 0, "centroids differ");
    cr_expect_eq(memcmp(a.assignment, b.assignment, sizeof a.assignment), 0, "assignment differs");
    cr_expect_eq(memcmp(a.keep, b.keep, sizeof a.keep), 0, "sample differs");
    int64_t sampled = 0, share[K] = {0};
    for (int64_t i = 0; i < ROWS; i++) {
        sampled += a.keep[i];
        share[a.assignment[i]] += a.keep[i];
    }
    cr_expect_eq(sampled, 60);
    for (int64_t c = 0; c < K; c++)
        cr_expect(share[c] <= 20, "cluster %lld gives %lld", (long long)c, (long long)share[c]);
    memory_free(a.centroids);
    memory_free(b.centroids);
    cr_expect_neq(access(temp_folder_in(&temp, "%s/cluster.partial.h5", out).text, F_OK), 0);
}

Test(curate_cluster, killed_clusters_go_on)
{
    TempPath pool = write_planted();
#define CLUSTER                                                                         \
    "--features", pool.text, "curation.cluster.k=12", "curation.cluster.iterations=40", \
        "curation.cluster.batch_rows=300", "curation.cluster.levels=[3]", "curation.cluster.sample=60"
    curate_steps_run_well(&temp, 0, "cluster", "whole", WORDS(CLUSTER));
    curate_steps_kill(&temp, "cluster", "killed", "cluster 3/40", WORDS(CLUSTER, "curation.save_minutes=0"));
    curate_steps_go_on(&temp, 0, "cluster", "killed", WORDS(CLUSTER));
    expect_same_clusters("killed", "whole");

    Process process =
        curate_steps_start(&temp, 0, "cluster", "stopped", WORDS(CLUSTER, "curation.save_minutes=0"));
    cr_assert(process_wait_for_error_text(&process, "cluster 2/40", CURATE_STEPS_SECONDS));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, CURATE_STEPS_SECONDS);
    cr_assert_eq(result.exit_status, 75, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
    curate_steps_go_on(&temp, 0, "cluster", "stopped", WORDS(CLUSTER));
    expect_same_clusters("stopped", "whole");
}

/* Sums of many rows are rounded by ranks in their own ways; 4 directions far apart leave no doubt. */
Test(curate_cluster, any_ranks_find_clusters_that_a_hand_finds)
{
    enum { N = 40 };
    double degrees[N];
    for (int i = 0; i < N; i++)
        degrees[i] = 90.0 * (i % 4) + i / 10.0;
    TempPath pool = curate_steps_write_angles(&temp, "pool.h5", degrees, N, NULL);
    for (int ranks = 1; ranks <= 4; ranks++) {
        char out[8];
        snprintf(out, sizeof out, "r%d", ranks);
        curate_steps_run_well(&temp, ranks, "cluster", out,
                              WORDS("--features", pool.text, "curation.cluster.k=4",
                                    "curation.cluster.iterations=8", "curation.cluster.init=plus_plus"));
        CurationInput input;
        Error error = {0};
        int64_t assignment[N], k, d;
        float *centroids;
        TempPath path = temp_folder_in(&temp, "%s/cluster.h5", out);
        cr_assert_eq(curation_file_open(&input, path.text, "/assignment", &error), STATUS_OK, "%s",
                     error.text);
        cr_assert_eq(curation_file_read(&input, "/assignment", H5_TYPE_I64, 0, N, assignment, &error),
                     STATUS_OK);
        cr_assert_eq(curation_file_read_table(&input, "/centroids", &centroids, &k, &d, &error), STATUS_OK);
        curation_file_close(&input);
        cr_assert(k == 4 && d == 2);
        for (int i = 0; i < N; i++) {
            const float *centroid = centroids + 2 * assignment[i];
            double angle = atan2((double)centroid[1], (double)centroid[0]) * 180 / M_PI;
            double mean = 90.0 * (i % 4) + (i % 4 + 18) / 10.0; /* of i % 4, i % 4 + 4, ..., + 36 */
            cr_expect_eq(assignment[i], assignment[i % 4], "row %d", i);
            cr_expect_float_eq(remainder(angle - mean, 360), 0, 1e-3, "row %d: %g", i, angle);
        }
        memory_free(centroids);
    }
}

Test(curate_cluster, bad_input_is_refused_with_one_line)
{
    TempPath pool = curate_steps_write_angles(&temp, "pool.h5", (double[]){0, 10, 20, 90, 95}, 5, NULL);
    TempPath none = curate_steps_write_angles(&temp, "none.h5", NULL, 0, NULL);
    curate_steps_expect_refused(&temp, "cluster", WORDS("--features", pool.text),
                                "100000 clusters of 5 rows");
    curate_steps_expect_refused(&temp, "cluster", WORDS("--features", none.text), "none.h5: no rows");
    curate_steps_expect_refused(
        &temp, "cluster",
        WORDS("--features", pool.text, "curation.cluster.k=4", "curation.cluster.levels=[4]"),
        "4 does not come below 4");
    curate_steps_expect_refused(
        &temp, "cluster", WORDS("--features", pool.text, "curation.cluster.k=4", "curation.cluster.sample=6"),
        "6 of 5 rows");
}

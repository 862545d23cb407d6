/* test_kmeans.c - k-means beside Faiss's, and what it does when rows are few, equal or bad. */
#include "../support/index_support.h"
#include "../support/ops_support.h"
#include "base/memory.h"
#include "index/balanced_sample.h"
#include "index/faiss_shim.h"
#include "index/shard_index.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { N = 6000, D = 32 };

typedef struct {
    Comm *comm;
    Ops *ops;
    IndexRows rows;
    Error error;
} Fixture;

static Fixture fixture_create(IndexSupportData data, int64_t n, int threads)
{
    Fixture f = {.comm = comm_self_create()};
    OpsLimits limits = shard_index_limits(data.d);
    f.ops = ops_support_open(&limits, threads);
    f.rows = index_support_rows(&data, "rows.h5", n, f.comm);
    return f;
}

static void fixture_destroy(Fixture *f)
{
    memory_free(f->rows.context);
    ops_support_close(f->ops);
    comm_destroy(f->comm);
}

static void iterate(Fixture *f, KmeansState *state, const KmeansOptions *options, int64_t until)
{
    while (state->iteration < until)
        cr_assert_eq(kmeans_iterate(state, &f->rows, options, f->ops, f->comm, &f->error), STATUS_OK, "%s",
                     f->error.text);
}

static double inertia_of(Fixture *f, const KmeansState *state, const KmeansOptions *options)
{
    int32_t *assignment = memory_alloc_array((size_t)f->rows.count, sizeof *assignment);
    double inertia = 0.0;
    cr_assert_eq(
        kmeans_assign(state, &f->rows, options, assignment, NULL, &inertia, f->ops, f->comm, &f->error),
        STATUS_OK);
    memory_free(assignment);
    return inertia;
}

static double run(Fixture *f, const KmeansOptions *options, int64_t iterations)
{
    KmeansState state;
    cr_assert_eq(kmeans_start(&state, &f->rows, options, f->ops, f->comm, &f->error), STATUS_OK, "%s",
                 f->error.text);
    iterate(f, &state, options, iterations);
    double inertia = inertia_of(f, &state, options);
    kmeans_fini(&state);
    return inertia;
}

/* Mean inertia over seeds, Faiss's too, with the same rows, clusters and iterations. */
static void compare(bool spherical, int64_t k)
{
    enum { SEEDS = 5, ITERATIONS = 20 };
    Fixture f = fixture_create((IndexSupportData){.d = D, .clusters = 200, .spread = 1.0, .seed = 4}, N, 1);
    float *values = memory_alloc_array(N * D, sizeof *values);
    cr_assert_eq(index_rows_read(&f.rows, 0, N, spherical ? INDEX_ROWS_UNIT : INDEX_ROWS_RAW, values, NULL),
                 STATUS_OK);
    double ours = 0.0, faiss = 0.0, plus_plus = 0.0;
    KmeansState peer;
    kmeans_restore(&peer, k, D);
    for (int seed = 0; seed < SEEDS; seed++) {
        KmeansOptions options = {.k = k, .spherical = spherical, .seed = (uint64_t)seed};
        ours += run(&f, &options, ITERATIONS);
        cr_assert_eq(
            faiss_shim_kmeans(peer.centroids, k, values, N, D, ITERATIONS, spherical, seed + 1, 1, &f.error),
            STATUS_OK, "%s", f.error.text);
        faiss += inertia_of(&f, &peer, &options);
        options.init = KMEANS_INIT_PLUS_PLUS;
        plus_plus += run(&f, &options, ITERATIONS);
    }
    cr_expect(ours < 1.01 * faiss, "k %lld: ours %.1f, Faiss %.1f", (long long)k, ours, faiss);
    cr_expect(ours > 0.95 * faiss, "the same thing is measured");
    cr_expect(plus_plus < 1.01 * ours, "k-means++ %.1f, rows %.1f", plus_plus, ours);
    kmeans_fini(&peer);
    memory_free(values);
    fixture_destroy(&f);
}

Test(kmeans, inertia_is_that_of_faiss)
{
    compare(false, 100);
    compare(true, 100);
}

Test(kmeans, centroids_are_means_and_inertia_falls)
{
    Fixture f = fixture_create((IndexSupportData){.d = 8, .clusters = 5, .spread = 0.4, .seed = 8}, 500, 1);
    KmeansOptions options = {.k = 7, .seed = 3};
    KmeansState state;
    cr_assert_eq(kmeans_start(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_OK);
    double before = INFINITY;
    for (int64_t i = 1; i <= 30; i++) {
        iterate(&f, &state, &options, i);
        cr_expect_leq(state.inertia, before * (1.0 + 1e-6));
        before = state.inertia;
    }
    int32_t assignment[500];
    float distances[500];
    double inertia, naive = 0.0, means[7 * 8] = {0}, counts[7] = {0};
    cr_assert_eq(
        kmeans_assign(&state, &f.rows, &options, assignment, distances, &inertia, f.ops, f.comm, &f.error),
        STATUS_OK);
    const float *values = f.rows.context;
    for (int i = 0; i < 500; i++) {
        double nearest = INFINITY;
        for (int c = 0; c < 7; c++) {
            double distance = 0.0;
            for (int j = 0; j < 8; j++)
                distance += pow((double)values[i * 8 + j] - (double)state.centroids[c * 8 + j], 2);
            nearest = fmin(nearest, distance);
        }
        cr_expect_float_eq(distances[i], nearest, 1e-4);
        naive += nearest;
        counts[assignment[i]]++;
        for (int j = 0; j < 8; j++)
            means[assignment[i] * 8 + j] += (double)values[i * 8 + j];
    }
    cr_expect_float_eq(inertia, naive, 1e-4 * naive);
    for (int c = 0; c < 7; c++)
        for (int j = 0; j < 8; j++)
            cr_expect_float_eq(state.centroids[c * 8 + j], means[c * 8 + j] / counts[c], 1e-4);
    kmeans_fini(&state);
    fixture_destroy(&f);
}

static void copy_state(KmeansState *to, const KmeansState *from)
{
    kmeans_restore(to, from->k, from->d);
    memcpy(to->centroids, from->centroids, (size_t)(from->k * from->d) * sizeof(float));
    memcpy(to->weights, from->weights, (size_t)from->k * sizeof(double));
    to->iteration = from->iteration;
}

static void resume(int64_t batch_rows)
{
    IndexSupportData data = {.d = D, .clusters = 50, .spread = 1.0, .seed = 4};
    Fixture f = fixture_create(data, N, 1), g = fixture_create(data, N, 2);
    KmeansOptions options = {.k = 60, .spherical = true, .batch_rows = batch_rows, .seed = 6};
    KmeansState whole, first, second;
    cr_assert_eq(kmeans_start(&whole, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_OK);
    cr_assert_eq(kmeans_start(&first, &g.rows, &options, f.ops, g.comm, &g.error), STATUS_OK);
    iterate(&f, &whole, &options, 9);
    iterate(&f, &first, &options, 4);
    copy_state(&second, &first);
    iterate(&f, &second, &options, 9);
    cr_expect_eq(memcmp(whole.centroids, second.centroids, (size_t)(60 * D) * sizeof(float)), 0);
    cr_expect_eq(memcmp(whole.weights, second.weights, 60 * sizeof(double)), 0);
    double length = index_rows_dot(whole.centroids, whole.centroids, D);
    cr_expect_float_eq(length, 1.0, 1e-6);
    kmeans_fini(&whole);
    kmeans_fini(&first);
    kmeans_fini(&second);
    fixture_destroy(&f);
    fixture_destroy(&g);
}

Test(kmeans, a_run_that_goes_on_is_the_same_run)
{
    resume(0);
    resume(1000);
}

Test(kmeans, mini_batches_come_near)
{
    Fixture f = fixture_create((IndexSupportData){.d = D, .clusters = 200, .spread = 1.0, .seed = 4}, N, 1);
    KmeansOptions options = {.k = 50, .seed = 6};
    double full = run(&f, &options, 20);
    options.batch_rows = N / 10;
    double batches = run(&f, &options, 60), few = run(&f, &options, 1);
    cr_expect(batches < 1.05 * full, "full %.1f, mini-batches %.1f", full, batches);
    cr_expect(few > batches);
    fixture_destroy(&f);
}

Test(kmeans, empty_clusters_split_the_largest)
{
    /* all rows but five equal: most of the first centroids are the same row */
    enum { ROWS = 200 };
    Fixture f = fixture_create((IndexSupportData){.d = 4, .clusters = 1, .spread = 1.0, .seed = 1}, ROWS, 1);
    float *values = f.rows.context;
    for (int i = 5; i < ROWS; i++)
        memcpy(values + i * 4, values + 4 * 4, 4 * sizeof *values);
    for (int i = 0; i < 4; i++)
        values[i * 4] += 100.0f * (float)(i + 1); /* far from all others */
    for (int init = 0; init < 2; init++) {
        KmeansOptions options = {.k = 6, .init = (KmeansInit)init, .seed = 2};
        KmeansState state;
        cr_assert_eq(kmeans_start(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_OK);
        iterate(&f, &state, &options, 1);
        cr_expect_geq(state.split, 1);
        double sum = 0.0;
        for (int c = 0; c < 6; c++) {
            cr_expect_gt(state.weights[c], 0.0);
            sum += state.weights[c];
        }
        cr_expect_eq(sum, ROWS);
        iterate(&f, &state, &options, 10);
        for (int i = 0; i < 6 * 4; i++)
            cr_expect(isfinite(state.centroids[i]));
        kmeans_fini(&state);
    }
    fixture_destroy(&f);
}

Test(kmeans, bad_rows_and_too_many_clusters_are_named)
{
    Fixture f = fixture_create((IndexSupportData){.d = 8, .clusters = 5, .spread = 1.0, .seed = 1}, 100, 1);
    float *values = f.rows.context;
    KmeansState state;
    KmeansOptions options = {.k = 101};
    cr_expect_eq(kmeans_start(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "rows.h5: 101 clusters of 100 rows"), "%s", f.error.text);
    options = (KmeansOptions){.k = 3, .spherical = true};
    cr_assert_eq(kmeans_start(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_OK);
    memset(values + 77 * 8, 0, 8 * sizeof *values);
    cr_expect_eq(kmeans_iterate(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "rows.h5: row 77 is zero"), "%s", f.error.text);
    values[42 * 8 + 3] = NAN;
    cr_expect_eq(kmeans_iterate(&state, &f.rows, &options, f.ops, f.comm, &f.error), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "rows.h5: row 42 holds"), "%s", f.error.text);
    cr_expect_eq(state.iteration, 0);
    kmeans_fini(&state);
    fixture_destroy(&f);
}

/* --- the tree and its sample --- */

Test(balanced_sample, shares_are_even_and_used_up)
{
    Rng rng = rng_at(2, RNG_TEST, 0, 0);
    for (int trial = 0; trial < 300; trial++) {
        int64_t room[12], quota[12], n = rng_integer(&rng, 1, 12), total = 0, sum = 0, most = 0;
        for (int64_t i = 0; i < n; i++)
            total += room[i] = rng_integer(&rng, 0, 20);
        int64_t share = rng_integer(&rng, 0, 150);
        balanced_sample_deal(quota, room, n, share);
        for (int64_t i = 0; i < n; i++) {
            cr_expect(quota[i] >= 0 && quota[i] <= room[i]);
            sum += quota[i];
            most = quota[i] > most ? quota[i] : most;
        }
        cr_expect_eq(sum, share < total ? share : total);
        for (int64_t i = 0; i < n; i++) /* who gets less than another by two has no more */
            cr_expect(quota[i] >= most - 1 || quota[i] == room[i]);
    }
}

Test(balanced_sample, a_tree_flattens_an_uneven_set)
{
    /* nine of ten rows are one blob, the rest eight others */
    enum { ROWS = 3000, BLOBS = 9, TARGET = 270 };
    Fixture f = fixture_create((IndexSupportData){.d = 16, .clusters = 1, .spread = 0.3, .seed = 1}, ROWS, 1);
    float *values = f.rows.context;
    for (int i = 0; i < ROWS; i++) {
        int blob = i % 10 ? 0 : 1 + i / 10 % (BLOBS - 1);
        for (int j = 0; j < 16; j++)
            values[i * 16 + j] += j == blob ? 12.0f : 0.0f;
    }
    HierarchicalKmeans tree;
    KmeansOptions options = {.init = KMEANS_INIT_PLUS_PLUS, .seed = 1};
    int64_t sizes[] = {60, BLOBS}, quota[60], per_blob[BLOBS] = {0}, kept = 0;
    uint8_t keep[ROWS], again[ROWS];
    cr_assert_eq(hierarchical_kmeans_run(&tree, &f.rows, sizes, 2, 20, &options, f.ops, f.comm, &f.error),
                 STATUS_OK, "%s", f.error.text);
    balanced_sample_quota(&tree, TARGET, quota);
    balanced_sample_draw(keep, &f.rows, tree.assignment, quota, 60, 5, f.comm);
    for (int i = 0; i < ROWS; i++) {
        kept += keep[i];
        per_blob[i % 10 ? 0 : 1 + i / 10 % (BLOBS - 1)] += keep[i];
    }
    cr_expect_eq(kept, TARGET);
    for (int b = 0; b < BLOBS; b++)
        cr_expect(per_blob[b] >= 15 && per_blob[b] <= 90, "blob %d: %lld of %d", b, (long long)per_blob[b],
                  TARGET);
    balanced_sample_draw(again, &f.rows, tree.assignment, quota, 60, 6, f.comm);
    cr_expect_neq(memcmp(keep, again, ROWS), 0, "another seed, other rows");
    hierarchical_kmeans_fini(&tree);
    sizes[1] = 60;
    cr_expect_eq(hierarchical_kmeans_run(&tree, &f.rows, sizes, 2, 1, &options, f.ops, f.comm, &f.error),
                 STATUS_INPUT);
    hierarchical_kmeans_fini(&tree);
    fixture_destroy(&f);
}

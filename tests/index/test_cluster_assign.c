/* test_cluster_assign.c - nearest centroids against all distances in fp64. */
#include "../support/index_support.h"
#include "../support/ops_support.h"
#include "base/memory.h"
#include "index/cluster_assign.h"
#include "index/shard_index.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { ROWS = 300 };

typedef struct {
    int64_t d, k;
    float *rows, *centroids; /* [ROWS, d], [k, d] owned */
    int32_t assignment[ROWS];
    float distances[ROWS];
} Case;

static Case case_create(int64_t d, int64_t k)
{
    Case c = {.d = d, .k = k};
    c.rows = memory_alloc_array((size_t)(ROWS * d), sizeof *c.rows);
    c.centroids = memory_alloc_array((size_t)(k * d), sizeof *c.centroids);
    index_support_fill(&(IndexSupportData){.d = d, .clusters = 50, .spread = 0.8, .seed = 5}, 0, ROWS,
                       c.rows);
    index_support_fill(&(IndexSupportData){.d = d, .clusters = 50, .spread = 0.8, .seed = 5}, 1000, k,
                       c.centroids);
    return c;
}

static void case_destroy(Case *c)
{
    memory_free(c->rows);
    memory_free(c->centroids);
}

/* In blocks of `block` rows. */
static void run(Case *c, int threads, int64_t block)
{
    OpsLimits limits = shard_index_limits(c->d);
    Ops *ops = ops_support_open(&limits, threads);
    ClusterAssign assign;
    cluster_assign_init(&assign, c->centroids, c->k, c->d, ops);
    for (int64_t i = 0; i < ROWS; i += block)
        cluster_assign_block(&assign, c->assignment + i, c->distances + i, c->rows + i * c->d,
                             ROWS - i < block ? ROWS - i : block);
    cluster_assign_fini(&assign);
    ops_support_close(ops);
}

static double distance(const Case *c, int64_t row, int64_t centroid)
{
    double sum = 0;
    for (int64_t j = 0; j < c->d; j++)
        sum += pow((double)c->rows[row * c->d + j] - (double)c->centroids[centroid * c->d + j], 2);
    return sum;
}

static void expect_nearest(int64_t d, int64_t k)
{
    Case c = case_create(d, k);
    run(&c, 2, ROWS);
    for (int64_t i = 0; i < ROWS; i++) {
        double nearest = INFINITY;
        for (int64_t j = 0; j < k; j++)
            nearest = fmin(nearest, distance(&c, i, j));
        cr_assert(c.assignment[i] >= 0 && c.assignment[i] < k);
        double tolerance = 1e-5 * (double)d;
        cr_expect_float_eq(distance(&c, i, c.assignment[i]), nearest, tolerance);
        cr_expect_float_eq(c.distances[i], nearest, tolerance);
    }
    case_destroy(&c);
}

/* Numbers of columns and centroids that fill what is laid out at a time, and that do not. */
Test(cluster_assign, finds_the_nearest)
{
    expect_nearest(1, 1);
    expect_nearest(5, 63);
    expect_nearest(16, 64);
    expect_nearest(37, 130);
    expect_nearest(24, 1024);
    expect_nearest(37, 2500);
}

Test(cluster_assign, does_not_depend_on_blocks_and_threads)
{
    Case whole = case_create(37, 1500), pieces = case_create(37, 1500);
    run(&whole, 1, ROWS);
    run(&pieces, 3, 7);
    cr_expect_eq(memcmp(whole.assignment, pieces.assignment, sizeof whole.assignment), 0);
    cr_expect_eq(memcmp(whole.distances, pieces.distances, sizeof whole.distances), 0);
    case_destroy(&whole);
    case_destroy(&pieces);
}

Test(cluster_assign, equal_centroids_go_to_the_lower_one)
{
    enum { K = 1100, FIRST = 40 };
    Case c = case_create(20, K);
    for (int64_t j = FIRST; j < K; j++) /* in the same panel, in others, in what is laid out next */
        memcpy(c.centroids + j * c.d, c.centroids + j % FIRST * c.d, (size_t)c.d * sizeof *c.centroids);
    run(&c, 1, ROWS);
    for (int64_t i = 0; i < ROWS; i++)
        cr_expect_lt(c.assignment[i], FIRST);
    memcpy(c.rows, c.centroids, (size_t)c.d * sizeof *c.rows);
    run(&c, 1, ROWS);
    cr_expect_eq(c.assignment[0], 0);
    cr_expect_float_eq(c.distances[0], 0.0, 1e-4);
    case_destroy(&c);
}

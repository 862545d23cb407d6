/* test_knn.c - the weighted vote against brute force in fp64, ties, and what is refused. */
#include "../support/ops_support.h"
#include "eval/knn.h"

#include "base/memory.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t n, d, classes;
    float *values;
    int64_t *labels;
} Set;

/* Rows scattered around one centre per class. */
static Set make_set(int64_t n, int64_t d, int64_t classes, uint64_t seed)
{
    Set set = {.n = n, .d = d, .classes = classes};
    set.values = memory_alloc_array((size_t)(n * d), sizeof *set.values);
    set.labels = memory_alloc_array((size_t)n, sizeof *set.labels);
    Rng rng = rng_at(seed, RNG_TEST, 0, 1);
    for (int64_t i = 0; i < n; i++) {
        set.labels[i] = rng_integer(&rng, 0, classes - 1);
        Rng centre = rng_at(99, RNG_TEST, 1, (uint64_t)set.labels[i]);
        for (int64_t j = 0; j < d; j++)
            set.values[i * d + j] = (float)(rng_normal(&centre) + 2.0 * rng_normal(&rng));
    }
    return set;
}

static void free_set(Set *set)
{
    memory_free(set->values);
    memory_free(set->labels);
}

static KnnRows rows_of(const Set *set)
{
    return (KnnRows){.count = set->n, .d = set->d, .values = set->values, .labels = set->labels};
}

typedef struct {
    double similarity;
    int64_t index;
} Candidate;

static int nearest_first(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->similarity != y->similarity) return x->similarity < y->similarity ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

/* votes[classes] of query q by definition. */
static void brute_force(const Set *bank, const Set *queries, int64_t q, int64_t max_k, int64_t k,
                        double temperature, double *votes)
{
    Candidate *all = malloc((size_t)bank->n * sizeof *all);
    for (int64_t i = 0; i < bank->n; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < bank->d; j++)
            sum += (double)bank->values[i * bank->d + j] * (double)queries->values[q * bank->d + j];
        all[i] = (Candidate){sum, i};
    }
    qsort(all, (size_t)bank->n, sizeof *all, nearest_first);
    double total = 0.0;
    for (int64_t c = 0; c < bank->classes; c++)
        votes[c] = 0.0;
    for (int64_t i = 0; i < max_k; i++) {
        double weight = exp((all[i].similarity - all[0].similarity) / temperature);
        total += weight;
        if (i < k) votes[bank->labels[all[i].index]] += weight;
    }
    for (int64_t c = 0; c < bank->classes; c++)
        votes[c] /= total;
    free(all);
}

typedef struct {
    Ops *ops;
    Comm *comm;
    Error error;
} Fixture;

static Fixture fixture(int64_t d)
{
    OpsLimits limits = knn_limits(d);
    return (Fixture){.ops = ops_support_open(&limits, 2), .comm = comm_self_create()};
}

static void teardown(Fixture *f)
{
    ops_support_close(f->ops);
    comm_destroy(f->comm);
}

Test(knn, votes_are_those_of_brute_force)
{
    /* more bank rows and queries than one block holds, and not a multiple of anything */
    enum { D = 19, CLASSES = 7, K = 40, QUERIES = 300 };
    Set bank = make_set(4500, D, CLASSES, 1), queries = make_set(QUERIES, D, CLASSES, 2);
    Fixture f = fixture(D);
    cr_assert_eq(knn_normalize(f.ops, bank.values, bank.n, D, &f.error), STATUS_OK);
    cr_assert_eq(knn_normalize(f.ops, queries.values, queries.n, D, &f.error), STATUS_OK);
    KnnRows bank_rows = rows_of(&bank), query_rows = rows_of(&queries);
    KnnNeighbour *found = malloc(QUERIES * K * sizeof *found);
    cr_assert_eq(knn_search(found, f.ops, f.comm, &bank_rows, &query_rows, K, &f.error), STATUS_OK);
    int64_t ks[] = {1, 10, K};
    for (int i = 0; i < 3; i++) {
        float votes[QUERIES * CLASSES];
        double want[CLASSES], worst = 0.0;
        knn_votes(votes, found, QUERIES, K, ks[i], CLASSES, 0.07);
        for (int64_t q = 0; q < QUERIES; q++) {
            brute_force(&bank, &queries, q, K, ks[i], 0.07, want);
            for (int64_t c = 0; c < CLASSES; c++)
                worst = fmax(worst, fabs(want[c] - (double)votes[q * CLASSES + c]));
        }
        cr_expect_lt(worst, 1e-4, "k = %lld: worst vote differs by %g", (long long)ks[i], worst);
    }
    free(found);
    free_set(&bank);
    free_set(&queries);
    teardown(&f);
}

Test(knn, neighbours_are_sorted_and_equal_ones_by_number)
{
    /* every row occurs three times, far apart */
    enum { D = 5, HALF = 900, N = 3 * HALF, K = 9 };
    Set bank = make_set(N, D, 3, 3);
    for (int64_t copy = 1; copy < 3; copy++)
        memcpy(bank.values + copy * HALF * D, bank.values, HALF * D * sizeof(float));
    Fixture f = fixture(D);
    cr_assert_eq(knn_normalize(f.ops, bank.values, N, D, &f.error), STATUS_OK);
    KnnRows rows = rows_of(&bank), queries = rows;
    queries.count = 50;
    KnnNeighbour found[50 * K];
    cr_assert_eq(knn_search(found, f.ops, f.comm, &rows, &queries, K, &f.error), STATUS_OK);
    for (int64_t q = 0; q < 50; q++) {
        const KnnNeighbour *list = found + q * K;
        for (int64_t i = 0; i < 3; i++)
            cr_expect_eq(list[i].index, q + i * HALF, "query %lld: neighbour %lld is row %lld", (long long)q,
                         (long long)i, (long long)list[i].index);
        for (int64_t i = 1; i < K; i++) {
            bool ordered =
                list[i - 1].similarity > list[i].similarity ||
                (list[i - 1].similarity == list[i].similarity && list[i - 1].index < list[i].index);
            cr_expect(ordered, "query %lld, place %lld", (long long)q, (long long)i);
        }
        for (int64_t i = 0; i < K; i++)
            cr_expect_eq(list[i].label, bank.labels[list[i].index]);
    }
    free_set(&bank);
    teardown(&f);
}

Test(knn, more_neighbours_than_rows_is_refused)
{
    Set bank = make_set(12, 4, 2, 4);
    Fixture f = fixture(4);
    KnnRows rows = rows_of(&bank);
    KnnNeighbour found[12 * 13];
    cr_expect_eq(knn_search(found, f.ops, f.comm, &rows, &rows, 13, &f.error), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "13") && strstr(f.error.text, "12"), "%s", f.error.text);
    cr_expect_eq(knn_search(found, f.ops, f.comm, &rows, &rows, 12, &f.error), STATUS_OK);
    KnnRows none = rows;
    none.count = 0;
    cr_expect_eq(knn_search(found, f.ops, f.comm, &rows, &none, 12, &f.error), STATUS_OK);
    free_set(&bank);
    teardown(&f);
}

Test(knn, numbers_that_are_not_finite_are_refused)
{
    Set set = make_set(5000, 6, 2, 5);
    Fixture f = fixture(6);
    memset(set.values + 4321 * 6, 0, 6 * sizeof(float));
    cr_expect_eq(knn_normalize(f.ops, set.values, set.n, 6, &f.error), STATUS_OK, "a zero row is no error");
    for (int64_t j = 0; j < 6; j++)
        cr_expect_eq(set.values[4321 * 6 + j], 0.0f);
    set.values[4999 * 6 + 5] = NAN;
    cr_expect_eq(knn_normalize(f.ops, set.values, set.n, 6, &f.error), STATUS_INPUT);
    cr_expect(strstr(f.error.text, "4999"), "%s", f.error.text);
    free_set(&set);
    teardown(&f);
}

Test(knn, an_infinite_temperature_is_the_majority)
{
    KnnNeighbour list[5] = {{0.9f, 2, 0}, {0.8f, 1, 1}, {0.3f, 1, 2}, {0.2f, 0, 3}, {0.1f, 0, 4}};
    float votes[3];
    knn_votes(votes, list, 1, 5, 5, 3, (double)INFINITY);
    cr_expect_float_eq(votes[0], 0.4f, 1e-6f);
    cr_expect_float_eq(votes[1], 0.4f, 1e-6f);
    cr_expect_float_eq(votes[2], 0.2f, 1e-6f);
    cr_expect_eq(knn_predict(votes, 3), 0, "the lower class of equals");
    knn_votes(votes, list, 1, 5, 3, 3, (double)INFINITY);
    cr_expect_eq(knn_predict(votes, 3), 1);
}

Test(knn, accuracies_count_what_they_say)
{
    enum { CLASSES = 7 };
    /* row 0 right, row 1 third, row 2 sixth of equals, row 3 without a vote, row 4 of a class nobody knows */
    float votes[5][CLASSES] = {{0.5f, 0.1f, 0, 0, 0.4f, 0, 0},
                               {0.5f, 0.1f, 0, 0, 0.4f, 0, 0},
                               {0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0},
                               {0, 1.0f, 0, 0, 0, 0, 0},
                               {0, 1.0f, 0, 0, 0, 0, 0}};
    int64_t labels[5] = {0, 1, 5, 2, CLASSES};
    Comm *comm = comm_self_create();
    KnnScore score;
    knn_score(&score, comm, &votes[0][0], labels, 5, CLASSES);
    cr_expect_eq(score.queries, 5);
    cr_expect_float_eq(score.top1, 1.0 / 5, 1e-12);
    cr_expect_float_eq(score.top5, 2.0 / 5, 1e-12);
    cr_expect_float_eq(score.top1_per_class, 1.0 / 5, 1e-12, "five classes have a query");
    knn_score(&score, comm, NULL, NULL, 0, CLASSES);
    cr_expect_eq(score.top1, 0.0);
    comm_destroy(comm);
}

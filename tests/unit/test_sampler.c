/* test_sampler.c - every epoch is a permutation, epochs and seeds differ, and no index is favoured. */
#include "data/sampler.h"

#include "base/memory.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(sampler, every_epoch_is_a_permutation)
{
    uint8_t seen[2000];
    for (int64_t n = 1; n <= 2000; n += n < 70 ? 1 : 37) {
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            for (int64_t p = 0; p < n; p++) {
                int64_t index = sampler_index(n, 17, epoch * n + p);
                cr_assert(index >= 0 && index < n && !seen[index], "n %ld place %ld", (long)n, (long)p);
                seen[index] = 1;
            }
        }
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

Test(sampler, large_sets_give_distinct_indices)
{
    enum { DRAWS = 50000 };
    int64_t *drawn = memory_alloc_array(DRAWS, sizeof *drawn);
    Rng rng = rng_at(3, RNG_TEST, 0, 0);
    for (int round = 0; round < 4; round++) {
        int64_t n = rng_integer(&rng, DRAWS, (int64_t)1 << (20 + 13 * round));
        int64_t first = rng_integer(&rng, 0, n - DRAWS);
        for (int64_t p = 0; p < DRAWS; p++) {
            drawn[p] = sampler_index(n, 99, 5 * n + first + p);
            cr_assert(drawn[p] >= 0 && drawn[p] < n);
        }
        qsort(drawn, DRAWS, sizeof *drawn, by_value);
        for (int64_t p = 1; p < DRAWS; p++)
            cr_assert_neq(drawn[p - 1], drawn[p], "n %ld", (long)n);
    }
    memory_free(drawn);
}

/* Chi-squared of `counts` against even odds, in standard deviations from its mean. */
static double chi_deviation(const int64_t *counts, int64_t cells, double expected)
{
    double chi = 0;
    for (int64_t i = 0; i < cells; i++)
        chi += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    return (chi - (double)(cells - 1)) / sqrt(2.0 * (double)(cells - 1));
}

Test(sampler, first_place_and_first_pair_are_uniform_over_epochs)
{
    enum { N = 13, EPOCHS = 40000 };
    int64_t singles[N] = {0}, pairs[N * N] = {0}, cells[N * (N - 1)];
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t first = sampler_index(N, 5, epoch * N), second = sampler_index(N, 5, epoch * N + 1);
        singles[first]++;
        pairs[first * N + second]++;
    }
    int used = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (i != j) cells[used++] = pairs[i * N + j];
    cr_assert_lt(fabs(chi_deviation(singles, N, (double)EPOCHS / N)), 5);
    cr_assert_lt(fabs(chi_deviation(cells, used, (double)EPOCHS / used)), 5);
}

Test(sampler, early_places_spread_over_a_large_set)
{
    enum { CELLS = 64, DRAWS = 64000 };
    int64_t counts[CELLS] = {0}, n = 1000003;
    for (int64_t p = 0; p < DRAWS; p++)
        counts[sampler_index(n, 11, p) * CELLS / n]++;
    cr_assert_lt(fabs(chi_deviation(counts, CELLS, (double)DRAWS / CELLS)), 5);
}

Test(sampler, seeds_and_epochs_give_other_orders)
{
    int64_t n = 1000, same_seed = 0, same_epoch = 0;
    for (int64_t p = 0; p < n; p++) {
        same_seed += sampler_index(n, 1, p) == sampler_index(n, 2, p);
        same_epoch += sampler_index(n, 1, p) == sampler_index(n, 1, p + n);
    }
    cr_assert_lt(same_seed, 10);
    cr_assert_lt(same_epoch, 10);
}

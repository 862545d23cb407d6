/* test_few_rows.c - so many rows of each class, other ones for another seed. */
#include "eval/few_rows.h"

#include <criterion/criterion.h>
#include <string.h>

enum { N = 100, CLASSES = 4 };

static void make_labels(int64_t labels[N])
{
    for (int64_t i = 0; i < N; i++)
        labels[i] = i < 3 ? 3 : (i * 7) % 3; /* class 3 has three rows */
}

static void count_picked(int64_t counts[CLASSES], const uint8_t picked[N], const int64_t labels[N])
{
    memset(counts, 0, CLASSES * sizeof *counts);
    for (int64_t i = 0; i < N; i++)
        counts[labels[i]] += picked[i];
}

Test(few_rows, each_class_has_so_many_or_all_it_has)
{
    int64_t labels[N], counts[CLASSES], times[N] = {0};
    uint8_t picked[N], first[N];
    make_labels(labels);
    int differ = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        few_rows_pick(picked, labels, N, CLASSES, 8, seed);
        count_picked(counts, picked, labels);
        cr_assert(counts[0] == 8 && counts[1] == 8 && counts[2] == 8 && counts[3] == 3);
        if (seed == 0) memcpy(first, picked, N);
        differ += memcmp(first, picked, N) != 0;
        for (int64_t i = 0; i < N; i++)
            times[i] += picked[i];
    }
    cr_expect_eq(differ, 199);
    /* 8 of 32 or 33 rows, 200 times: 50, give or take 6 */
    for (int64_t i = 3; i < N; i++)
        cr_expect(times[i] > 20 && times[i] < 80, "row %lld is picked %lld times", (long long)i,
                  (long long)times[i]);
    few_rows_pick(picked, labels, N, CLASSES, 8, 0);
    cr_expect_eq(memcmp(first, picked, N), 0);
}

/* test_index_rows.c - rows in blocks: dealing, reading, drawing; lists of neighbours. */
#include "../support/index_support.h"
#include "base/memory.h"
#include "base/rng.h"
#include "index/neighbour_list.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(index_rows, ranges_cover_all_ids)
{
    const int64_t totals[] = {0, 1, 3, 7, 100, 1000000007};
    for (size_t t = 0; t < sizeof totals / sizeof *totals; t++)
        for (int size = 1; size < 9; size++) {
            cr_assert_eq(index_range_first(totals[t], 0, size), 0);
            cr_assert_eq(index_range_first(totals[t], size, size), totals[t]);
            for (int r = 0; r < size; r++) {
                int64_t first = index_range_first(totals[t], r, size);
                int64_t end = index_range_first(totals[t], r + 1, size);
                if (first == end) continue;
                cr_assert_eq(index_range_owner(totals[t], first, size), r);
                cr_assert_eq(index_range_owner(totals[t], end - 1, size), r);
            }
        }
}

Test(index_rows, unit_rows_do_not_depend_on_blocks)
{
    enum { N = 40, D = 37 };
    IndexSupportData data = {.d = D, .clusters = 5, .spread = 1.0, .seed = 3};
    float values[N * D], whole[N * D], pieces[N * D];
    index_support_fill(&data, 0, N, values);
    IndexRows rows = index_rows_memory("rows", values, N, D);
    Error error = {0};
    cr_assert_eq(index_rows_read(&rows, 0, N, INDEX_ROWS_UNIT, whole, &error), STATUS_OK);
    for (int64_t i = 0; i < N; i += 7)
        cr_assert_eq(
            index_rows_read(&rows, i, i + 7 < N ? 7 : N - i, INDEX_ROWS_UNIT, pieces + i * D, &error),
            STATUS_OK);
    cr_assert_eq(memcmp(whole, pieces, sizeof whole), 0);
    for (int64_t i = 0; i < N; i++) {
        cr_expect_float_eq(index_rows_dot(whole + i * D, whole + i * D, D), 1.0, 1e-6);
        for (int64_t j = 0; j < i; j++) {
            double naive = 0.0;
            for (int64_t c = 0; c < D; c++)
                naive += (double)whole[i * D + c] * (double)whole[j * D + c];
            double ours = index_rows_dot(whole + i * D, whole + j * D, D);
            cr_expect_float_eq(ours, naive, 1e-14);
            cr_expect_eq(ours, index_rows_dot(whole + j * D, whole + i * D, D));
        }
    }
}

static void expect_message(float bad, bool whole_row, IndexRowsForm form, const char *text)
{
    float values[6 * 4], out[6 * 4];
    for (int i = 0; i < 24; i++)
        values[i] = (float)(i + 1);
    for (int j = 0; j < (whole_row ? 4 : 1); j++)
        values[3 * 4 + j] = bad;
    IndexRows rows = index_rows_memory("pool.h5", values, 6, 4);
    rows.first = 100;
    Error error = {0};
    Status status = index_rows_read(&rows, 0, 6, form, out, &error);
    cr_expect_eq(status, text ? STATUS_INPUT : STATUS_OK);
    if (text) cr_expect(strstr(error.text, text), "%s", error.text);
}

Test(index_rows, names_the_bad_row)
{
    expect_message(NAN, false, INDEX_ROWS_RAW, "pool.h5: row 103 holds a number that is not finite");
    expect_message(-INFINITY, false, INDEX_ROWS_UNIT, "pool.h5: row 103 holds");
    expect_message(0.0f, true, INDEX_ROWS_UNIT, "pool.h5: row 103 is zero");
    expect_message(0.0f, true, INDEX_ROWS_RAW, NULL);
    expect_message(1e-30f, true, INDEX_ROWS_UNIT, NULL);
    expect_message(3e38f, true, INDEX_ROWS_UNIT, NULL);
}

Test(index_rows, samples_are_distinct_and_even)
{
    enum { TOTAL = 1000, M = 333 };
    int64_t ids[M], again[M];
    int64_t halves[2] = {0};
    for (uint64_t step = 0; step < 20; step++) {
        index_rows_sample(ids, M, TOTAL, 5, step);
        for (int i = 0; i < M; i++) {
            cr_assert(ids[i] >= 0 && ids[i] < TOTAL && (i == 0 || ids[i] > ids[i - 1]));
            halves[ids[i] % 2]++;
        }
    }
    cr_expect(llabs(halves[0] - halves[1]) < 400, "%lld even, %lld odd", (long long)halves[0],
              (long long)halves[1]);
    index_rows_sample(again, M, TOTAL, 5, 19);
    cr_expect_eq(memcmp(ids, again, sizeof ids), 0);
    index_rows_sample(ids, M, M, 5, 0);
    for (int i = 0; i < M; i++)
        cr_expect_eq(ids[i], i);
}

Test(index_rows, neighbour_lists_keep_the_first_by_similarity_and_id)
{
    enum { K = 5, N = 60, PARTS = 3 };
    Neighbour all[N], lists[PARTS * K], merged[K];
    int64_t heads[PARTS];
    Rng rng = rng_at(1, RNG_TEST, 0, 0);
    for (int part = 0; part < PARTS; part++)
        neighbour_list_clear(lists + part * K, K);
    for (int i = 0; i < N; i++) {
        all[i] = (Neighbour){.id = N - i, .similarity = (float)rng_integer(&rng, 0, 6)};
        neighbour_list_offer(lists + i % PARTS * K, K, all[i]);
    }
    neighbour_list_sort(all, N);
    for (int part = 0; part < PARTS; part++)
        neighbour_list_sort(lists + part * K, K);
    neighbour_list_merge(merged, K, lists, K, PARTS, heads);
    for (int i = 0; i < K; i++)
        cr_expect(merged[i].id == all[i].id && merged[i].similarity == all[i].similarity);
    for (int i = 1; i < N; i++)
        cr_expect(all[i - 1].similarity > all[i].similarity ||
                  (all[i - 1].similarity == all[i].similarity && all[i - 1].id < all[i].id));
}

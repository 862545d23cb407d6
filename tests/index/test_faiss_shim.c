/* test_faiss_shim.c - Faiss through C: its exceptions as statuses, its answers as numbers. */
#include "../support/index_support.h"
#include "base/memory.h"
#include "index/faiss_shim.h"

#include <criterion/criterion.h>
#include <string.h>

enum { N = 3000, D = 32, K = 5 };

static float *unit_rows(void)
{
    static const IndexSupportData data = {.d = D, .clusters = 40, .spread = 0.5, .seed = 9};
    float *values = memory_alloc_array(N * D, sizeof *values),
          *unit = memory_alloc_array(N * D, sizeof *unit);
    index_support_fill(&data, 0, N, values);
    IndexRows rows = index_rows_memory("rows", values, N, D);
    cr_assert_eq(index_rows_read(&rows, 0, N, INDEX_ROWS_UNIT, unit, NULL), STATUS_OK);
    memory_free(values);
    return unit;
}

static FaissIndex *filled(const char *factory, const float *rows)
{
    Error error = {0};
    FaissIndex *index = NULL;
    cr_assert_eq(faiss_shim_create(&index, D, factory, &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(faiss_shim_train(index, N, rows, 1, &error), STATUS_OK, "%s", error.text);
    int64_t *lists = memory_alloc_array(N, sizeof *lists);
    int64_t *counts = memory_alloc_array((size_t)faiss_shim_lists(index) + 1, sizeof *counts);
    cr_assert_eq(faiss_shim_assign(index, N, rows, lists, 1, &error), STATUS_OK);
    for (int64_t i = 0; i < N; i++)
        counts[lists[i]]++;
    cr_assert_eq(faiss_shim_reserve(index, counts, &error), STATUS_OK);
    for (int64_t first = 0; first < N; first += 1000) /* ids are the callers', but for Flat */
        cr_assert_eq(faiss_shim_add(index, 1000, rows + first * D, first, lists + first, 1, &error),
                     STATUS_OK);
    cr_expect_eq(faiss_shim_rows(index), N);
    memory_free(lists);
    memory_free(counts);
    return index;
}

static void search(FaissIndex *index, const float *rows, int64_t nprobe, float *similarities, int64_t *ids)
{
    Error error = {0};
    cr_assert_eq(faiss_shim_search(index, N, rows, K, nprobe, similarities, ids, 1, &error), STATUS_OK, "%s",
                 error.text);
}

/* The share of `ids` that the other search has, too. */
static double recall(const int64_t *ids, const int64_t *truth)
{
    int64_t found = 0;
    for (int64_t q = 0; q < N; q++)
        for (int64_t i = 0; i < K; i++)
            for (int64_t j = 0; j < K; j++)
                found += ids[q * K + i] == truth[q * K + j];
    return (double)found / (N * K);
}

Test(faiss_shim, lists_find_what_flat_search_finds)
{
    float *rows = unit_rows(), similarities[2][N * K];
    int64_t truth[N * K], ids[N * K];
    FaissIndex *flat = filled("Flat", rows), *lists = filled("IVF32,Flat", rows);
    cr_expect(faiss_shim_is_exact(flat) && faiss_shim_is_exact(lists));
    search(flat, rows, 0, similarities[0], truth);
    search(lists, rows, 32, similarities[1], ids);
    cr_expect_geq(recall(ids, truth), 0.9999);
    for (int64_t i = 0; i < N * K; i++)
        cr_expect_float_eq(similarities[0][i], similarities[1][i], 1e-5f);
    search(lists, rows, 4, similarities[1], ids);
    cr_expect_geq(recall(ids, truth), 0.8);
    faiss_shim_destroy(flat);
    faiss_shim_destroy(lists);
    memory_free(rows);
}

Test(faiss_shim, codes_take_less_memory_and_survive_packing)
{
    float *rows = unit_rows(), similarities[2][N * K];
    int64_t ids[2][N * K];
    FaissIndex *flat = filled("IVF16,Flat", rows), *codes = filled("IVF16,PQ8", rows), *copy = NULL;
    cr_expect(!faiss_shim_is_exact(codes));
    cr_expect_geq(faiss_shim_bytes(flat), (size_t)N * (D * 4 + 8));
    cr_expect_lt(faiss_shim_bytes(flat), (size_t)N * (D * 4 + 8) + 16 * D * 4 + 1);
    cr_expect_lt(faiss_shim_bytes(codes), (size_t)N * 16 + (16 + 256) * D * 4 + 200000);
    Error error = {0};
    void *bytes = NULL;
    size_t size = 0;
    cr_assert_eq(faiss_shim_pack(codes, &bytes, &size, &error), STATUS_OK);
    cr_assert_eq(faiss_shim_unpack(&copy, bytes, size, &error), STATUS_OK, "%s", error.text);
    search(codes, rows, 8, similarities[0], ids[0]);
    search(copy, rows, 8, similarities[1], ids[1]);
    cr_expect_eq(memcmp(ids[0], ids[1], sizeof ids[0]), 0);
    faiss_shim_destroy(copy);
    cr_expect_eq(faiss_shim_unpack(&copy, bytes, size / 2, &error), STATUS_FAILED);
    cr_expect(strstr(error.text, "Faiss, unpacking"), "%s", error.text);
    memory_free(bytes);
    faiss_shim_destroy(flat);
    faiss_shim_destroy(codes);
    memory_free(rows);
}

Test(faiss_shim, what_faiss_throws_is_a_status)
{
    static const char *const wrong[] = {"IVF",       "Falt", "IVF16,PQ5", "HNSW32", "OPQ8,IVF16,PQ8",
                                        "IVF0,Flat", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Error error = {0};
        FaissIndex *index = NULL;
        cr_expect_eq(faiss_shim_create(&index, D, wrong[i], &error), STATUS_INPUT, "%s", wrong[i]);
        cr_expect(strstr(error.text, wrong[i]) && !index, "%s: %s", wrong[i], error.text);
    }
    float *rows = unit_rows();
    Error error = {0};
    FaissIndex *index = NULL;
    cr_assert_eq(faiss_shim_create(&index, D, "IVF64,Flat", &error), STATUS_OK);
    cr_expect_eq(faiss_shim_train(index, 63, rows, 1, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "64 inverted lists cannot be learnt from 63 rows"), "%s", error.text);
    cr_expect_eq(faiss_shim_to_gpu(index, 1, &error), STATUS_INPUT);
    cr_expect(strstr(error.text, "FAISS_GPU=1"), "%s", error.text);
    faiss_shim_destroy(index);
    cr_assert_eq(faiss_shim_create(&index, D, "IVF4,PQ8", &error), STATUS_OK);
    cr_expect_eq(faiss_shim_train(index, 100, rows, 1, &error), STATUS_INPUT, "256 codes from 100 rows");
    faiss_shim_destroy(index);
    memory_free(rows);
}

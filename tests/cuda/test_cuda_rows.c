/* test_cuda_rows.c - moving rows and changing their type on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { ACT_COUNT = 3 };

/* fp32 results and copies have the CPU's bits, but the CPU keeps fp16 as fp32. */
static void expect_moved(Twin *twin, TwinTensor got, Dtype to)
{
    if (to == DTYPE_F16)
        TWIN_CLOSE(twin, got, 5e-4);
    else
        TWIN_EQUAL(twin, got);
}

Test(cuda_rows, gather_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    const int64_t sizes[][3] = {{0, 5, 24},     {1, 1, 24},    {5, 40, 1000},
                                {777, 100, 33}, {40, 41, 384}, {9, 3, 1536}};
    for (int s = 0; s < 6 * 9; s++) {
        Dtype from = ACTS[s % 3], to = ACTS[s / 3 % 3];
        int64_t n = sizes[s / 9][0], N = sizes[s / 9][1], D = sizes[s / 9][2];
        if (from != to && from != DTYPE_F32 && to != DTYPE_F32) from = DTYPE_F32;
        TwinTensor x = twin_normal(twin, from, N, D, 1.0), y = twin_poison(twin, to, n, D);
        TwinTensor all = twin_poison(twin, to, N, D), rows = twin_integers(twin, n, 0, N - 1);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->gather_rows(ops, y.on[side], x.on[side], rows.on[side]);
            ops->gather_rows(ops, all.on[side], x.on[side], tensor_none());
        }
        expect_moved(twin, y, to);
        expect_moved(twin, all, to);
    }
    twin_destroy(twin);
}

static void scatter_case(Twin *twin, TwinTensor rows, int64_t n, int64_t N, int64_t D, Dtype act)
{
    TwinTensor x = twin_normal(twin, DTYPE_F32, N, D, 1.0), y = twin_normal(twin, act, n, D, 1.0);
    TwinTensor again = twin_copy(twin, x);
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->scatter_add_rows(ops, x.on[side], y.on[side], rows.on[side]);
    }
    if (act == DTYPE_F16)
        TWIN_CLOSE(twin, x, TWIN_F32);
    else
        TWIN_EQUAL(twin, x); /* the same additions in the same order */
    twin->cuda->scatter_add_rows(twin->cuda, again.device, y.device, rows.device);
    TWIN_SAME_BITS(twin, x, again);
    cr_expect_eq(twin->cuda->scratch->used, 0);
}

Test(cuda_rows, scatter_adds_in_order)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 100);
    const int64_t sizes[][3] = {{0, 5, 24},    {1, 1, 24},    {5, 40, 1000},
                                {77, 100, 33}, {40, 41, 384}, {9, 30, 1536}};
    for (int s = 0; s < 6; s++) {
        int64_t n = sizes[s][0], N = sizes[s][1], D = sizes[s][2];
        Dtype act = ACTS[s % ACT_COUNT];
        scatter_case(twin, twin_distinct(twin, n, N), n, N, D, act);
        scatter_case(twin, twin_none(), N, N, D, act);
        scatter_case(twin, twin_integers(twin, n, 0, N - 1), n, N, D, act);
    }
    twin_destroy(twin);
}

/* Few targets for many rows: far repeats, and rows that nobody adds to. */
Test(cuda_rows, scatter_adds_repeats)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 200);
    scatter_case(twin, twin_integers(twin, 300, 0, 6), 300, 9, 33, DTYPE_F32);
    scatter_case(twin, twin_integers(twin, 300, 0, 6), 300, 9, 96, DTYPE_BF16);
    scatter_case(twin, twin_integers(twin, 257, 4, 4), 257, 9, 24, DTYPE_BF16);
    twin_destroy(twin);
}

Test(cuda_rows, cast_is_the_cpus)
{
    TWIN_REQUIRE();
    const int64_t counts[] = {0, 1, 5, 777, 4096, 10001};
    Twin *twin = twin_create(NULL, 300);
    for (int s = 0; s < 6 * 9; s++) {
        Dtype from = ACTS[s % 3], to = ACTS[s / 3 % 3];
        int64_t n = counts[s / 9];
        if (from != to && from != DTYPE_F32 && to != DTYPE_F32) continue;
        TwinTensor in = twin_normal_1d(twin, from, n + 2, 1.0), out = twin_poison_1d(twin, to, n + 2);
        for (int shift = 0; shift < 2; shift++) { /* aligned, and not */
            TwinTensor source = twin_rows(in, shift, n), target = twin_rows(out, shift, n);
            for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
                Ops *ops = twin_ops(twin, side);
                ops->cast(ops, target.on[side], source.on[side]);
            }
            expect_moved(twin, target, to);
        }
    }
    twin_destroy(twin);
}

/* Between the two 16-bit types, which the CPU's fp16 cannot show. */
Test(cuda_rows, cast_between_16_bit_types)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 400);
    TwinTensor in = twin_uniform_1d(twin, DTYPE_BF16, 1003, -8.0, 8.0),
               half = twin_poison_1d(twin, DTYPE_F16, 1003);
    TwinTensor back = twin_poison_1d(twin, DTYPE_BF16, 1003);
    twin->cuda->cast(twin->cuda, half.device, in.device);
    twin->cuda->cast(twin->cuda, back.device, half.device);
    cr_expect_lt(twin_error_to(twin, half, twin_values(twin, in, TWIN_HOST)), 1e-7); /* 8 bits fit into 11 */
    cr_expect_lt(twin_error_to(twin, back, twin_values(twin, in, TWIN_HOST)), 1e-7);
    twin_destroy(twin);
}

Test(cuda_rows, zero_is_zero)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 500);
    const Dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64, DTYPE_I32};
    for (int t = 0; t < 5; t++) {
        TwinTensor x = twin_poison_1d(twin, types[t], 777);
        TwinTensor part = twin_rows(x, 3, 700);
        twin->cuda->zero(twin->cuda, part.device);
        twin->cuda->zero(twin->cuda, twin_rows(x, 3, 0).device);
        const double *got = twin_values(twin, x, TWIN_DEVICE);
        for (int64_t i = 0; i < 777; i++)
            cr_assert((got[i] == 0.0) == (i >= 3 && i < 703), "type %d, element %d", t, (int)i);
    }
    twin_destroy(twin);
}

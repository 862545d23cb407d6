/* test_cuda_sums.c - the figures of a step on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

Test(cuda_sums, group_sums_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    const int64_t sizes[][2] = {{0, 3}, {1, 1}, {5, 9}, {777, 4}, {5000, 1}};
    for (int s = 0; s < 5 * 2; s++) {
        int64_t n = sizes[s / 2][0], G = sizes[s / 2][1];
        TwinTensor values = twin_normal_1d(twin, DTYPE_F32, n, 1.0),
                   sums = twin_normal_1d(twin, DTYPE_F64, G, 1.0);
        TwinTensor weights = s & 1 ? twin_uniform_1d(twin, DTYPE_F32, n, 0.0, 1.0) : twin_none();
        TwinTensor groups = twin_integers(twin, n, -1, G - 1), again = twin_copy(twin, sums);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->group_sums(ops, sums.on[side], values.on[side], weights.on[side], groups.on[side], 0.37);
        }
        TWIN_CLOSE(twin, sums, 1e-12);
        twin->cuda->group_sums(twin->cuda, again.device, values.device, weights.device, groups.device, 0.37);
        TWIN_SAME_BITS(twin, sums, again);
    }
    twin_destroy(twin);
}

Test(cuda_sums, direction_sums_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 30);
    const int64_t sizes[][2] = {{0, 24}, {1, 33}, {5, 1000}, {777, 24}, {64, 384}};
    for (int s = 0; s < 5; s++) {
        int64_t n = sizes[s][0], D = sizes[s][1];
        TwinTensor x = twin_normal(twin, DTYPE_F32, n, D, 2.0),
                   sums = twin_normal(twin, DTYPE_F64, 2, D, 1.0);
        for (int64_t j = 0; n > 1 && j < D; j++) /* a row of zeros has no direction */
            twin_set(x, D + j, 0.0);
        twin_upload(twin, x);
        TwinTensor again = twin_copy(twin, sums);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->direction_sums(ops, sums.on[side], x.on[side]);
        }
        TWIN_CLOSE(twin, sums, 1e-12);
        twin->cuda->direction_sums(twin->cuda, again.device, x.device);
        TWIN_SAME_BITS(twin, sums, again);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}

Test(cuda_sums, count_positive_is_the_cpus)
{
    TWIN_REQUIRE();
    const int64_t counts[] = {0, 1, 5, 777, 20001};
    Twin *twin = twin_create(NULL, 50);
    for (int s = 0; s < 5; s++) {
        TwinTensor x = twin_normal_1d(twin, DTYPE_F32, counts[s], 1.0),
                   count = twin_poison_1d(twin, DTYPE_F64, 1);
        for (int64_t i = 0; i < counts[s]; i += 3)
            twin_set(x, i, i % 2 ? 0.0 : -0.0);
        twin_upload(twin, x);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->count_positive(ops, count.on[side], x.on[side]);
        }
        TWIN_EQUAL(twin, count);
    }
    twin_destroy(twin);
}

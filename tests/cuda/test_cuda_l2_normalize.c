/* test_cuda_l2_normalize.c - rows scaled to unit length on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

static const float EPS = 1e-12f;
static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
static const int64_t SIZES[][2] = {{0, 24},   {1, 24},   {5, 256},  {777, 33},
                                   {40, 384}, {9, 1000}, {3, 1536}, {17, 2}};
enum { ACT_COUNT = 3, SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

Test(cuda_l2_normalize, both_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    for (int s = 0; s < SIZE_COUNT * ACT_COUNT; s++) {
        Dtype act = ACTS[s % ACT_COUNT];
        int64_t n = SIZES[s / ACT_COUNT][0], d = SIZES[s / ACT_COUNT][1];
        TwinTensor x = twin_normal(twin, act, n, d, 3.0), y = twin_poison(twin, DTYPE_F32, n, d);
        TwinTensor norms = twin_poison_1d(twin, DTYPE_F32, n), dy = twin_normal(twin, DTYPE_F32, n, d, 1.0);
        TwinTensor dx = twin_poison(twin, act, n, d), again = twin_poison(twin, act, n, d);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->l2_normalize_forward(ops, y.on[side], norms.on[side], x.on[side], EPS);
            ops->l2_normalize_backward(ops, dx.on[side], dy.on[side], y.on[side], norms.on[side], EPS);
        }
        TWIN_CLOSE(twin, y, 1e-6);
        TWIN_CLOSE(twin, norms, 1e-6);
        TWIN_CLOSE(twin, dx, act == DTYPE_F32 ? 2e-6 : twin_bound(act));
        twin->cuda->l2_normalize_backward(twin->cuda, again.device, dy.device, y.device, norms.device, EPS);
        TWIN_SAME_BITS(twin, dx, again);
    }
    twin_destroy(twin);
}

/* Rows of zeros, and shorter than eps: the divisor is eps, and the direction is kept. */
Test(cuda_l2_normalize, short_rows)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 90);
    TwinTensor x = twin_normal(twin, DTYPE_F32, 4, 24, 1.0), y = twin_poison(twin, DTYPE_F32, 4, 24);
    TwinTensor norms = twin_poison_1d(twin, DTYPE_F32, 4), dx = twin_poison(twin, DTYPE_F32, 4, 24);
    TwinTensor dy = twin_normal(twin, DTYPE_F32, 4, 24, 1e-6);
    for (int64_t j = 0; j < 24; j++) {
        twin_set(x, j, 0.0);
        twin_set(x, 24 + j, 1e-14 * twin_get(x, 24 + j));
        twin_set(x, 48 + j, 1e-22 * twin_get(x, 48 + j)); /* squares below fp32's smallest */
    }
    twin_upload(twin, x);
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->l2_normalize_forward(ops, y.on[side], norms.on[side], x.on[side], EPS);
        ops->l2_normalize_backward(ops, dx.on[side], dy.on[side], y.on[side], norms.on[side], EPS);
    }
    for (int64_t i = 0; i < 4; i++) {
        TWIN_CLOSE(twin, twin_rows(y, i, 1), 1e-6);
        TWIN_CLOSE(twin, twin_rows(dx, i, 1), 2e-6);
        TWIN_CLOSE(twin, twin_rows(norms, i, 1), 1e-6);
    }
    twin_destroy(twin);
}

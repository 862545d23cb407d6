/* test_cuda_swiglu.c - the SwiGLU gate on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
static const int64_t SIZES[][2] = {{0, 24}, {1, 24}, {5, 1000}, {777, 33}, {40, 96}, {9, 1536}, {17, 1}};
enum { ACT_COUNT = 3, SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

Test(cuda_swiglu, both_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 1);
    for (int s = 0; s < SIZE_COUNT * ACT_COUNT; s++) {
        Dtype act = ACTS[s % ACT_COUNT];
        int64_t n = SIZES[s / ACT_COUNT][0], h = SIZES[s / ACT_COUNT][1];
        TwinTensor x12 = twin_normal(twin, act, n, 2 * h, 3.0), dy = twin_normal(twin, act, n, h, 1.0);
        TwinTensor y = twin_poison(twin, act, n, h), dx12 = twin_poison(twin, act, n, 2 * h);
        TwinTensor dx12_again = twin_poison(twin, act, n, 2 * h), y_again = twin_poison(twin, act, n, h);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->swiglu_forward(ops, y.on[side], x12.on[side]);
            ops->swiglu_backward(ops, dx12.on[side], y_again.on[side], dy.on[side], x12.on[side]);
        }
        double bound = act == DTYPE_F32 ? 2e-6 : twin_bound(act);
        TWIN_CLOSE(twin, y, bound);
        TWIN_CLOSE(twin, dx12, bound);
        TWIN_SAME_BITS(twin, y_again, y);
        /* y may be dy */
        twin->cuda->swiglu_backward(twin->cuda, dx12_again.device, dy.device, dy.device, x12.device);
        TWIN_SAME_BITS(twin, dx12, dx12_again);
        TWIN_SAME_BITS(twin, dy, y);
    }
    twin_destroy(twin);
}

/* Where e^-x overflows or vanishes. */
Test(cuda_swiglu, far_gates)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 2);
    const float gates[] = {-1e4f, -200.0f, -89.0f, -80.0f, 80.0f, 89.0f, 200.0f, 1e4f};
    TwinTensor x12 = twin_zeros(twin, DTYPE_F32, 1, 16), y = twin_poison(twin, DTYPE_F32, 1, 8);
    TwinTensor dx12 = twin_poison(twin, DTYPE_F32, 1, 16), dy = twin_uniform(twin, DTYPE_F32, 1, 8, 1.0, 2.0);
    for (int64_t j = 0; j < 8; j++) {
        twin_set(x12, j, gates[j]);
        twin_set(x12, 8 + j, 1.0);
    }
    twin_upload(twin, x12);
    twin->cuda->swiglu_forward(twin->cuda, y.device, x12.device);
    twin->cuda->swiglu_backward(twin->cuda, dx12.device, y.device, dy.device, x12.device);
    const double *got = twin_values(twin, y, TWIN_DEVICE), *slope = twin_values(twin, dx12, TWIN_DEVICE);
    for (int j = 0; j < 8; j++) {
        double want = gates[j] > 0 ? (double)gates[j] : 0.0, d = twin_get(dy, j);
        cr_expect_float_eq(got[j], want, 1e-6 * (1.0 + want));
        cr_expect_float_eq(slope[j], gates[j] > 0 ? d : 0.0, 1e-5);
        cr_expect_float_eq(slope[8 + j], d * want, 1e-6 * (1.0 + d * want));
    }
    twin_destroy(twin);
}

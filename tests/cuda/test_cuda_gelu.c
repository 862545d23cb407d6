/* test_cuda_gelu.c - GELU on a GPU against the CPU, in place and not, aligned and not. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
static const int64_t COUNTS[] = {0, 1, 5, 777, 4096, 20011};
enum { ACT_COUNT = 3, COUNT_COUNT = sizeof COUNTS / sizeof *COUNTS };

/* y by the forward pass, again by the backward pass. */
static void run(Twin *twin, TwinTensor y, TwinTensor dx, TwinTensor again, TwinTensor dy, TwinTensor x,
                TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->gelu_backward(ops, dx.on[side], again.on[side], dy.on[side], x.on[side]);
        ops->gelu_forward(ops, y.on[side], x.on[side]);
    }
}

Test(cuda_gelu, both_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 1);
    for (int s = 0; s < COUNT_COUNT * ACT_COUNT; s++) {
        Dtype act = ACTS[s % ACT_COUNT];
        int64_t n = COUNTS[s / ACT_COUNT];
        TwinTensor x = twin_normal_1d(twin, act, n, 3.0), dy = twin_normal_1d(twin, act, n, 1.0);
        TwinTensor y = twin_poison_1d(twin, act, n), dx = twin_poison_1d(twin, act, n);
        TwinTensor again = twin_poison_1d(twin, act, n);
        run(twin, y, dx, again, dy, x, TWIN_HOST);
        double bound = act == DTYPE_F32 ? 2e-6 : twin_bound(act);
        TWIN_CLOSE(twin, y, bound);
        TWIN_CLOSE(twin, dx, bound);
        TWIN_SAME_BITS(twin, again, y);

        TwinTensor x_in_place = twin_copy(twin, x), dx_in_place = twin_copy(twin, dy);
        TwinTensor y_in_place = twin_copy(twin, dy);
        run(twin, y, dx_in_place, again, dx_in_place, x, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, dx_in_place, dx);
        run(twin, x_in_place, dx_in_place, y_in_place, y_in_place, x_in_place, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, x_in_place, y);
        TWIN_SAME_BITS(twin, dx_in_place, dx);
        TWIN_SAME_BITS(twin, y_in_place, y);
    }
    twin_destroy(twin);
}

/* Far out, where erf is +-1 and the density 0, and what is not finite. */
Test(cuda_gelu, tails)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 2);
    const float values[] = {0.0f,  -0.0f,  1e-30f, 4.0f,  -4.0f, 5.6f, -5.6f,
                            12.0f, -12.0f, 1e4f,   -1e4f, NAN,   1e-3f};
    enum { COUNT = sizeof values / sizeof *values };
    TwinTensor x = twin_f32(twin, COUNT, values), y = twin_poison_1d(twin, DTYPE_F32, COUNT);
    TwinTensor dx = twin_poison_1d(twin, DTYPE_F32, COUNT), ones = twin_zeros_1d(twin, DTYPE_F32, COUNT);
    TwinTensor again = twin_poison_1d(twin, DTYPE_F32, COUNT);
    for (int64_t i = 0; i < COUNT; i++)
        twin_set(ones, i, 1.0);
    twin_upload(twin, ones);
    run(twin, y, dx, again, ones, x, TWIN_DEVICE);
    TWIN_SAME_BITS(twin, again, y);
    const double *got = twin_values(twin, y, TWIN_DEVICE), *slope = twin_values(twin, dx, TWIN_DEVICE);
    for (int i = 0; i < COUNT; i++) {
        double v = (double)values[i], cdf = 0.5 * erfc(-v * sqrt(0.5));
        double density = exp(-0.5 * v * v) / sqrt(2.0 * acos(-1.0));
        if (isnan(v)) {
            cr_expect(isnan(got[i]) && isnan(slope[i]));
            continue;
        }
        cr_expect_float_eq(got[i], v * cdf, 2e-7 * (1.0 + fabs(v)), "gelu(%g) = %g", v, got[i]);
        cr_expect_float_eq(slope[i], cdf + v * density, 1e-6, "gelu'(%g) = %g", v, slope[i]);
    }
    twin_destroy(twin);
}

Test(cuda_gelu, any_address)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 3);
    for (int a = 0; a < ACT_COUNT; a++) {
        TwinTensor x = twin_normal_1d(twin, ACTS[a], 1001, 2.0), y = twin_poison_1d(twin, ACTS[a], 1001);
        TwinTensor dx = twin_poison_1d(twin, ACTS[a], 1001), again = twin_poison_1d(twin, ACTS[a], 1001);
        run(twin, twin_rows(y, 1, 999), twin_rows(dx, 1, 999), twin_rows(again, 1, 999), twin_rows(x, 2, 999),
            twin_rows(x, 1, 999), TWIN_HOST);
        TWIN_SAME_BITS(twin, twin_rows(again, 1, 999), twin_rows(y, 1, 999));
        TWIN_CLOSE(twin, twin_rows(y, 1, 999), twin_bound(ACTS[a]));
        TWIN_CLOSE(twin, twin_rows(dx, 1, 999), twin_bound(ACTS[a]));
        cr_expect(isnan(twin_values(twin, y, TWIN_DEVICE)[0]) &&
                  isnan(twin_values(twin, y, TWIN_DEVICE)[1000]));
    }
    twin_destroy(twin);
}

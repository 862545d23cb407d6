/* l2_normalize against plain fp64 formulas: both element types, short and zero rows, gradients. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const float EPS = 1e-12f;

/* fp64 rows of x / max(|x|, eps); norms may be NULL. */
static double *unit_rows(OpsFixture *f, Tensor x, double *norms)
{
    int64_t n = x.shape[0], d = x.shape[1];
    double *y = ops_support_f64(f, x);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < d; j++)
            sum += y[i * d + j] * y[i * d + j];
        if (norms) norms[i] = sqrt(sum);
        for (int64_t j = 0; j < d; j++)
            y[i * d + j] /= fmax(sqrt(sum), (double)EPS);
    }
    return y;
}

Test(l2_normalize, forward_agrees_with_the_formula)
{
    const int64_t shapes[][2] = {{1, 1}, {5, 7}, {33, 256}, {200, 129}, {0, 16}};
    OpsFixture f = ops_support_create(2, 31);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int half = 0; half < 2; half++) {
            int64_t n = shapes[s][0], d = shapes[s][1];
            Tensor x = ops_support_normal(&f, half ? DTYPE_BF16 : DTYPE_F32, n, d, 3.0);
            Tensor y = ops_support_poison(&f, DTYPE_F32, n, d),
                   norms = ops_support_poison_1d(&f, DTYPE_F32, n);
            double *want_norms = ops_support_f64_zeros(&f, n);
            double *want = unit_rows(&f, x, want_norms);
            f.ops->l2_normalize_forward(f.ops, y, norms, x, EPS);
            cr_assert_lt(ops_support_error(y, want), 2e-7);
            cr_assert_lt(ops_support_error(norms, want_norms), 2e-7);
        }
    ops_support_destroy(&f);
}

/* Padding rows are exactly zero; rows whose squares underflow in fp32 keep their direction. */
Test(l2_normalize, zero_and_tiny_rows)
{
    OpsFixture f = ops_support_create(1, 32);
    Tensor x = ops_support_zeros(&f, DTYPE_F32, 3, 4), y = ops_support_poison(&f, DTYPE_F32, 3, 4);
    Tensor norms = ops_support_poison_1d(&f, DTYPE_F32, 3);
    for (int64_t j = 0; j < 4; j++) {
        ops_support_set(x, 4 + j, 1e-25);
        ops_support_set(x, 8 + j, 2e-12);
    }
    f.ops->l2_normalize_forward(f.ops, y, norms, x, EPS);
    for (int64_t j = 0; j < 4; j++) {
        cr_assert_eq(ops_support_get(y, j), 0.0);
        cr_assert_float_eq(ops_support_get(y, 4 + j), 1e-13, 1e-19);
        cr_assert_float_eq(ops_support_get(y, 8 + j), 0.5, 1e-6);
    }

    Tensor dy = ops_support_zeros(&f, DTYPE_F32, 3, 4), dx = ops_support_poison(&f, DTYPE_F32, 3, 4);
    f.ops->l2_normalize_backward(f.ops, dx, dy, y, norms, EPS);
    for (int64_t i = 0; i < 12; i++)
        cr_assert_eq(ops_support_get(dx, i), 0.0, "no gradient in, none out");
    ops_support_set(dy, 4, 1.0);
    f.ops->l2_normalize_backward(f.ops, dx, dy, y, norms, EPS);
    cr_assert_float_eq(ops_support_get(dx, 4), 1e12, 1e6, "below eps the divisor is a constant");
    cr_assert_eq(ops_support_get(dx, 5), 0.0);
    ops_support_destroy(&f);
}

Test(l2_normalize, backward_agrees_with_finite_differences)
{
    OpsFixture f = ops_support_create(2, 33);
    enum { N = 37, D = 65 };
    Tensor x = ops_support_normal(&f, DTYPE_F32, N, D, 1.0),
           dy = ops_support_normal(&f, DTYPE_F32, N, D, 1.0);
    Tensor y = ops_support_poison(&f, DTYPE_F32, N, D), norms = ops_support_poison_1d(&f, DTYPE_F32, N);
    f.ops->l2_normalize_forward(f.ops, y, norms, x, EPS);
    Tensor dx = ops_support_poison(&f, DTYPE_F32, N, D);
    f.ops->l2_normalize_backward(f.ops, dx, dy, y, norms, EPS);

    double *step = ops_support_f64(&f, ops_support_normal(&f, DTYPE_F32, N, D, 1.0)), want = 0.0, h = 1e-3;
    for (int side = -1; side <= 1; side += 2) {
        Tensor moved = ops_support_copy(&f, x, DTYPE_F32);
        for (int64_t i = 0; i < N * D; i++)
            ops_support_set(moved, i, ops_support_get(x, i) + side * h * step[i]);
        double *unit = unit_rows(&f, moved, NULL);
        want += side * ops_support_dot(dy, unit) / (2.0 * h);
    }
    double got = ops_support_dot(dx, step);
    cr_assert_float_eq(got, want, 2e-4 * fabs(want) + 1e-4, "%g, finite differences %g", got, want);

    Tensor rounded = ops_support_poison(&f, DTYPE_BF16, N, D);
    f.ops->l2_normalize_backward(f.ops, rounded, dy, y, norms, EPS);
    cr_assert_lt(ops_support_error(rounded, ops_support_f64(&f, dx)), OPS_SUPPORT_BF16);
    ops_support_destroy(&f);
}

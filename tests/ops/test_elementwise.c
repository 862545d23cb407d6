/* test_elementwise.c - GELU and SwiGLU against libm in fp64, gradients against differences of that. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static double naive_gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

static double naive_silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double slope(double (*function)(double), double x)
{
    return (function(x + 1e-4) - function(x - 1e-4)) / 2e-4;
}

static double limit_of(Dtype dtype)
{
    return dtype == DTYPE_BF16 ? OPS_SUPPORT_BF16 : 1e-6;
}

/* -12 .. 12 in small steps, so that both tails and the middle are met, in [rows, columns]. */
static Tensor sweep(OpsFixture *f, Dtype dtype, int64_t rows, int64_t columns)
{
    Tensor x = ops_support_poison(f, dtype, rows, columns);
    for (int64_t i = 0; i < rows * columns; i++)
        ops_support_set(x, i, -12.0 + 24.0 * (double)i / (double)(rows * columns - 1));
    return x;
}

static void check_gelu(OpsFixture *f, Dtype dtype, int64_t rows, int64_t columns)
{
    ArenaMark mark = arena_mark(&f->arena);
    int64_t count = rows * columns;
    Tensor x = sweep(f, dtype, rows, columns), dy = ops_support_normal(f, dtype, rows, columns, 1.0);
    Tensor y = ops_support_poison(f, dtype, rows, columns), dx = ops_support_poison(f, dtype, rows, columns);
    Tensor again = ops_support_poison(f, dtype, rows, columns);
    f->ops->gelu_forward(f->ops, y, x);
    f->ops->gelu_backward(f->ops, dx, again, dy, x);
    cr_expect(ops_support_equal(again, y), "y made again differs");
    double *want = ops_support_f64_zeros(f, count), *want_dx = ops_support_f64_zeros(f, count);
    for (int64_t i = 0; i < count; i++) {
        want[i] = naive_gelu(ops_support_get(x, i));
        want_dx[i] = ops_support_get(dy, i) * slope(naive_gelu, ops_support_get(x, i));
    }
    cr_expect_lt(ops_support_error(y, want), limit_of(dtype), "y error %g", ops_support_error(y, want));
    cr_expect_lt(ops_support_error(dx, want_dx), limit_of(dtype), "dx error %g",
                 ops_support_error(dx, want_dx));

    Tensor dy_copy = ops_support_copy(f, dy, dtype);
    f->ops->gelu_backward(f->ops, dy, again, dy, x); /* dx may be dy */
    cr_expect(ops_support_equal(dy, dx));
    f->ops->gelu_backward(f->ops, dy, dy_copy, dy_copy, x); /* y may be dy */
    cr_expect(ops_support_equal(dy, dx) && ops_support_equal(dy_copy, y));
    f->ops->gelu_forward(f->ops, x, x); /* y may be x */
    cr_expect(ops_support_equal(x, y));
    arena_reset(&f->arena, mark);
}

Test(elementwise, gelu)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, 1);
        for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            check_gelu(&f, (Dtype)dtype, 1, 2);
            check_gelu(&f, (Dtype)dtype, 3, 171);
            check_gelu(&f, (Dtype)dtype, 101, 513);
        }
        ops_support_destroy(&f);
    }
}

/* Near zero and far out each value is right by itself, not only against the largest. */
Test(elementwise, gelu_relative_accuracy)
{
    OpsFixture f = ops_support_create(1, 2);
    const double points[] = {1e-30, -1e-30, 1e-4, -1e-4, 0.5, -0.5, 1.0, -1.0, 2.5, 4.0, 6.0, 50.0, 1e10};
    enum { COUNT = sizeof points / sizeof *points };
    Tensor x = ops_support_poison_1d(&f, DTYPE_F32, COUNT), y = ops_support_poison_1d(&f, DTYPE_F32, COUNT);
    for (int i = 0; i < COUNT; i++)
        ops_support_set(x, i, points[i]);
    f.ops->gelu_forward(f.ops, y, x);
    for (int i = 0; i < COUNT; i++) {
        double want = naive_gelu(ops_support_get(x, i));
        cr_expect_lt(fabs(ops_support_get(y, i) - want), 6e-7 * fabs(want), "at %g", points[i]);
    }
    ops_support_destroy(&f);
}

Test(elementwise, nan_is_not_hidden)
{
    OpsFixture f = ops_support_create(1, 2);
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Tensor x = ops_support_normal(&f, (Dtype)dtype, 2, 40, 1.0),
               y = ops_support_zeros(&f, (Dtype)dtype, 2, 40);
        Tensor half = ops_support_zeros(&f, (Dtype)dtype, 2, 20);
        ops_support_set(x, 5, NAN);
        f.ops->gelu_forward(f.ops, y, x);
        cr_expect(isnan(ops_support_get(y, 5)) && !isnan(ops_support_get(y, 6)));
        f.ops->swiglu_forward(f.ops, half, x);
        cr_expect(isnan(ops_support_get(half, 5)) && !isnan(ops_support_get(half, 6)));
    }
    ops_support_destroy(&f);
}

static void check_swiglu(OpsFixture *f, Dtype dtype, int64_t n, int64_t h)
{
    ArenaMark mark = arena_mark(&f->arena);
    Tensor x12 = ops_support_normal(f, dtype, n, 2 * h, 3.0), dy = ops_support_normal(f, dtype, n, h, 1.0);
    Tensor y = ops_support_poison(f, dtype, n, h), dx12 = ops_support_poison(f, dtype, n, 2 * h);
    f->ops->swiglu_forward(f->ops, y, x12);
    Tensor in_place = ops_support_copy(f, dy, dtype);
    f->ops->swiglu_backward(f->ops, dx12, in_place, in_place, x12); /* y may be dy */
    cr_expect(ops_support_equal(in_place, y), "y made again differs");
    double *want = ops_support_f64_zeros(f, n * h), *want_dx = ops_support_f64_zeros(f, 2 * n * h);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < h; j++) {
            double gate = ops_support_get(x12, 2 * i * h + j),
                   value = ops_support_get(x12, 2 * i * h + h + j);
            double d = ops_support_get(dy, i * h + j);
            want[i * h + j] = naive_silu(gate) * value;
            want_dx[2 * i * h + j] = d * value * slope(naive_silu, gate);
            want_dx[2 * i * h + h + j] = d * naive_silu(gate);
        }
    cr_expect_lt(ops_support_error(y, want), limit_of(dtype), "y error %g", ops_support_error(y, want));
    cr_expect_lt(ops_support_error(dx12, want_dx), limit_of(dtype), "dx error %g",
                 ops_support_error(dx12, want_dx));
    arena_reset(&f->arena, mark);
}

Test(elementwise, swiglu)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, 3);
        for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            check_swiglu(&f, (Dtype)dtype, 1, 1);
            check_swiglu(&f, (Dtype)dtype, 5, 88);
            check_swiglu(&f, (Dtype)dtype, 70, 700);
        }
        ops_support_destroy(&f);
    }
}

/* A gate of -200 closes, +200 passes the value on: no NaN from exp's ends. */
Test(elementwise, swiglu_saturates)
{
    OpsFixture f = ops_support_create(1, 4);
    Tensor x12 = ops_support_zeros(&f, DTYPE_F32, 1, 4), y = ops_support_poison(&f, DTYPE_F32, 1, 2);
    Tensor dy = ops_support_zeros(&f, DTYPE_F32, 1, 2), dx12 = ops_support_poison(&f, DTYPE_F32, 1, 4);
    const double values[] = {-200.0, 200.0, 3.0, 3.0};
    for (int i = 0; i < 4; i++)
        ops_support_set(x12, i, values[i]);
    ops_support_set(dy, 0, 1.0);
    ops_support_set(dy, 1, 1.0);
    f.ops->swiglu_forward(f.ops, y, x12);
    f.ops->swiglu_backward(f.ops, dx12, y, dy, x12);
    cr_expect_float_eq(ops_support_get(y, 0), 0.0, 1e-30);
    cr_expect_float_eq(ops_support_get(y, 1), 600.0, 1e-3);
    const double gradients[] = {0.0, 3.0, 0.0, 200.0};
    for (int i = 0; i < 4; i++)
        cr_expect_float_eq(ops_support_get(dx12, i), gradients[i], 1e-4, "entry %d", i);
    ops_support_destroy(&f);
}

Test(elementwise, nothing_to_do)
{
    OpsFixture f = ops_support_create(2, 5);
    Tensor empty = ops_support_poison(&f, DTYPE_F32, 0, 8), wide = ops_support_poison(&f, DTYPE_F32, 0, 16);
    f.ops->gelu_forward(f.ops, empty, empty);
    f.ops->gelu_backward(f.ops, empty, empty, empty, empty);
    f.ops->swiglu_forward(f.ops, empty, wide);
    f.ops->swiglu_backward(f.ops, wide, empty, empty, wide);
    f.ops->cast(f.ops, empty, empty);
    ops_support_destroy(&f);
}

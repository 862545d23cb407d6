/* adamw, ema and sum_squares against fp64 over several steps. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const int64_t COUNTS[] = {1, 17, 1000, 40001};
enum { COUNT_COUNT = sizeof COUNTS / sizeof *COUNTS, STEPS = 5 };

/* One element in fp64. */
static void reference_step(double *p, double *m, double *v, double g, const AdamwStep *s)
{
    double beta1 = s->beta1, beta2 = s->beta2, slope = g * (double)s->gradient_scale;
    *m = beta1 * *m + (1.0 - beta1) * slope;
    *v = beta2 * *v + (1.0 - beta2) * slope * slope;
    *p *= 1.0 - (double)s->lr * (double)s->weight_decay;
    *p -= (double)s->lr / (double)s->correction1 * *m / (sqrt(*v / (double)s->correction2) + (double)s->eps);
}

Test(optimizer, adamw_agrees_with_the_formula)
{
    OpsFixture f = ops_support_create(2, 71);
    for (int c = 0; c < COUNT_COUNT; c++) {
        int64_t n = COUNTS[c];
        Tensor p = ops_support_normal_1d(&f, DTYPE_F32, n, 1.0),
               zeros = ops_support_zeros(&f, DTYPE_F32, 2, n);
        Tensor m = tensor_1d(tensor_f32(zeros), DTYPE_F32, n);
        Tensor v = tensor_1d(tensor_f32(zeros) + n, DTYPE_F32, n);
        double *want_p = ops_support_f64(&f, p), *want_m = ops_support_f64_zeros(&f, n);
        double *want_v = ops_support_f64_zeros(&f, n);
        for (int step = 1; step <= STEPS; step++) {
            Tensor g = ops_support_normal_1d(&f, DTYPE_F32, n, 0.1);
            ops_support_set(g, n / 2, step == 1 ? 0.0 : 1e-12); /* eps matters here */
            AdamwStep s = {.lr = 0.01f * (float)step,
                           .weight_decay = 0.04f,
                           .beta1 = 0.9f,
                           .beta2 = 0.99f,
                           .eps = 1e-8f,
                           .gradient_scale = 0.7f};
            s.correction1 = 1.0f - powf(0.9f, (float)step);
            s.correction2 = 1.0f - powf(0.99f, (float)step);
            f.ops->adamw(f.ops, p, m, v, g, s);
            for (int64_t i = 0; i < n; i++)
                reference_step(&want_p[i], &want_m[i], &want_v[i], ops_support_get(g, i), &s);
        }
        cr_expect_lt(ops_support_error(p, want_p), 1e-6, "p, n=%ld", n);
        cr_expect_lt(ops_support_error(m, want_m), 1e-6, "m, n=%ld", n);
        cr_expect_lt(ops_support_error(v, want_v), 1e-6, "v, n=%ld", n);
    }
    ops_support_destroy(&f);
}

/* A frozen layer: lr 0 leaves the parameter alone, moments go on. */
Test(optimizer, adamw_without_rate_moves_moments_only)
{
    OpsFixture f = ops_support_create(2, 72);
    Tensor p = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0),
           g = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0);
    Tensor m = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0), v = ops_support_copy(&f, m, DTYPE_F32);
    Tensor before = ops_support_copy(&f, p, DTYPE_F32), before_m = ops_support_copy(&f, m, DTYPE_F32);
    for (int64_t i = 0; i < 99; i++)
        ops_support_set(v, i, fabs(ops_support_get(v, i)));
    AdamwStep s = {.weight_decay = 0.4f,
                   .beta1 = 0.9f,
                   .beta2 = 0.999f,
                   .eps = 1e-8f,
                   .correction1 = 0.1f,
                   .correction2 = 0.001f,
                   .gradient_scale = 1.0f};
    f.ops->adamw(f.ops, p, m, v, g, s);
    cr_assert(ops_support_equal(p, before));
    cr_assert_not(ops_support_equal(m, before_m));
    f.ops->adamw(f.ops, tensor_rows(p, 0, 0), tensor_rows(m, 0, 0), tensor_rows(v, 0, 0),
                 tensor_rows(g, 0, 0), s);
    ops_support_destroy(&f);
}

Test(optimizer, ema_agrees_with_the_formula)
{
    OpsFixture f = ops_support_create(2, 73);
    const double momenta[] = {0.0, 0.5, 0.992, 0.99999, 1.0};
    for (int c = 0; c < COUNT_COUNT; c++)
        for (size_t k = 0; k < sizeof momenta / sizeof *momenta; k++) {
            int64_t n = COUNTS[c];
            Tensor average = ops_support_normal_1d(&f, DTYPE_F32, n, 1.0);
            Tensor value = ops_support_normal_1d(&f, DTYPE_F32, n, 1.0);
            double *want = ops_support_f64(&f, average);
            for (int64_t i = 0; i < n; i++)
                want[i] = momenta[k] * want[i] + (1.0 - momenta[k]) * ops_support_get(value, i);
            f.ops->ema(f.ops, average, value, momenta[k]);
            bool exact = momenta[k] == 0.0 || momenta[k] == 1.0;
            cr_expect_leq(ops_support_error(average, want), exact ? 0.0 : 1.5e-7);
        }
    ops_support_destroy(&f);
}

Test(optimizer, sum_squares_agrees_and_never_hides_a_bad_element)
{
    OpsFixture f = ops_support_create(2, 74);
    const int64_t counts[] = {0, 1, 4095, 4096, 4097, 40001, 1500000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int64_t n = counts[c];
        Tensor x = ops_support_normal_1d(&f, DTYPE_F32, n, 3.0);
        double want = 0.0, got = NAN;
        for (int64_t i = 0; i < n; i++)
            want += ops_support_get(x, i) * ops_support_get(x, i);
        f.ops->sum_squares(f.ops, &got, x);
        cr_assert_float_eq(got, want, 1e-12 * want, "n=%ld: %.17g, want %.17g", n, got, want);
        const double bad[] = {NAN, INFINITY, -INFINITY};
        for (int k = 0; k < 3 && n > 0; k++) {
            ops_support_set(x, n - 1 - k % n, bad[k]);
            f.ops->sum_squares(f.ops, &got, x);
            cr_assert(!isfinite(got));
            ops_support_set(x, n - 1 - k % n, 0.0);
        }
        if (n > 0) ops_support_set(x, n / 2, 3e38); /* its square overflows fp32 */
        f.ops->sum_squares(f.ops, &got, x);
        cr_assert(isfinite(got));
    }
    ops_support_destroy(&f);
}

Test(optimizer, same_bits_on_any_number_of_threads)
{
    OpsFixture keep = ops_support_create(1, 75);
    Tensor x = ops_support_normal_1d(&keep, DTYPE_F32, 123457, 1.0);
    double first = 0.0;
    for (int threads = 1; threads <= 4; threads++) {
        OpsFixture f = ops_support_create(threads, 75);
        double sum;
        f.ops->sum_squares(f.ops, &sum, x);
        if (threads == 1) first = sum;
        cr_assert_eq(sum, first);
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}

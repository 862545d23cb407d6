/* The update of a step against fp64: norms, the decision, AdamW, moving averages. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const int64_t COUNTS[] = {1, 17, 1000, 40001};
enum { COUNT_COUNT = sizeof COUNTS / sizeof *COUNTS, STEPS = 5 };

/* Coefficients of a step in fp64. */
typedef struct {
    double lr, weight_decay, beta1, beta2, eps, correction1, correction2, factor;
} Step;

/* One element in fp64. */
static void reference_step(double *p, double *m, double *v, double g, const Step *s)
{
    double slope = g * s->factor;
    *m = s->beta1 * *m + (1.0 - s->beta1) * slope;
    *v = s->beta2 * *v + (1.0 - s->beta2) * slope * slope;
    *p *= 1.0 - s->lr * s->weight_decay;
    *p -= s->lr / s->correction1 * *m / (sqrt(*v / s->correction2) + s->eps);
}

static Tensor fp64(OpsFixture *f, int64_t n, const double *values)
{
    double *memory = ops_support_f64_zeros(f, n);
    for (int64_t i = 0; i < n && values; i++)
        memory[i] = values[i];
    return tensor_1d(memory, DTYPE_F64, n);
}

/* Segments [bounds[2 s], bounds[2 s + 1]) in modules 0, 1, 2, 0 .., multipliers 1. */
static OpsSegments segments_of(OpsFixture *f, int64_t count, const int64_t *bounds)
{
    OpsSegments s = {.count = count};
    s.bounds = tensor_1d(ops_support_f64_zeros(f, 2 * count), DTYPE_I64, 2 * count);
    s.module = ops_support_poison_1d(f, DTYPE_I32, count);
    s.rate = ops_support_poison_1d(f, DTYPE_I32, count);
    s.lr_multiplier = fp64(f, count, NULL);
    s.wd_multiplier = fp64(f, count, NULL);
    for (int64_t i = 0; i < count; i++) {
        ((int64_t *)s.bounds.data)[2 * i] = bounds[2 * i];
        ((int64_t *)s.bounds.data)[2 * i + 1] = bounds[2 * i + 1];
        tensor_i32(s.module)[i] = (int32_t)(i % OPS_MODULES);
        tensor_i32(s.rate)[i] = OPS_RATE_OTHER;
        tensor_f64(s.lr_multiplier)[i] = tensor_f64(s.wd_multiplier)[i] = 1.0;
    }
    return s;
}

/* What step_control would leave for a finite step. */
static Tensor control_of(OpsFixture *f, const Step *s)
{
    Tensor control = fp64(f, CONTROL_COUNT, NULL);
    double *c = tensor_f64(control);
    c[CONTROL_LOSS_SCALE] = c[CONTROL_FINITE] = 1.0;
    c[CONTROL_CORRECTION1] = s->correction1;
    c[CONTROL_CORRECTION2] = s->correction2;
    for (int m = 0; m < OPS_MODULES; m++)
        c[CONTROL_FACTOR + m] = s->factor * (m + 1);
    return control;
}

static AdamwUpdate update_of(OpsFixture *f, const Step *s, OpsSegments segments, Tensor p, Tensor m, Tensor v,
                             Tensor g)
{
    return (AdamwUpdate){.params = p,
                         .exp_avg = m,
                         .exp_avg_sq = v,
                         .grads = g,
                         .segments = segments,
                         .control = control_of(f, s),
                         .lr = {s->lr, s->lr / 8, s->lr / 4},
                         .weight_decay = s->weight_decay,
                         .beta1 = s->beta1,
                         .beta2 = s->beta2,
                         .eps = s->eps};
}

/* Segments with coefficients of their own, and gaps between them that nothing may touch. */
Test(optimizer, adamw_agrees_with_the_formula)
{
    OpsFixture f = ops_support_create(2, 71);
    for (int c = 0; c < COUNT_COUNT; c++) {
        int64_t n = COUNTS[c], third = n / 3,
                bounds[] = {0, third, third + third / 8, 2 * third, 2 * third, n};
        OpsSegments segments = segments_of(&f, 3, bounds);
        tensor_f64(segments.lr_multiplier)[1] = 0.3;
        tensor_f64(segments.wd_multiplier)[1] = 0.0;
        tensor_i32(segments.rate)[2] = OPS_RATE_LAST_LAYER;
        Tensor p = ops_support_normal_1d(&f, DTYPE_F32, n, 1.0),
               zeros = ops_support_zeros(&f, DTYPE_F32, 2, n);
        Tensor m = tensor_1d(tensor_f32(zeros), DTYPE_F32, n);
        Tensor v = tensor_1d(tensor_f32(zeros) + n, DTYPE_F32, n);
        double *want_p = ops_support_f64(&f, p), *want_m = ops_support_f64_zeros(&f, n);
        double *want_v = ops_support_f64_zeros(&f, n);
        for (int step = 1; step <= STEPS; step++) {
            Tensor g = ops_support_normal_1d(&f, DTYPE_F32, n, 0.1);
            ops_support_set(g, n / 2, step == 1 ? 0.0 : 1e-12); /* eps matters here */
            Step s = {.lr = 0.01 * step,
                      .weight_decay = 0.04,
                      .beta1 = 0.9,
                      .beta2 = 0.99,
                      .eps = 1e-8,
                      .factor = 0.7};
            s.correction1 = 1.0 - pow(0.9, step);
            s.correction2 = 1.0 - pow(0.99, step);
            AdamwUpdate update = update_of(&f, &s, segments, p, m, v, g);
            f.ops->adamw(f.ops, &update);
            for (int k = 0; k < 3; k++) {
                Step own = s;
                own.lr = (k == 2 ? s.lr / 8 : s.lr) * (k == 1 ? 0.3 : 1.0);
                own.weight_decay = k == 1 ? 0.0 : s.weight_decay;
                own.factor = s.factor * (k + 1);
                for (int64_t i = bounds[2 * k]; i < bounds[2 * k + 1]; i++)
                    reference_step(&want_p[i], &want_m[i], &want_v[i], ops_support_get(g, i), &own);
            }
        }
        cr_expect_lt(ops_support_error(p, want_p), 1e-6, "p, n=%ld", n);
        cr_expect_lt(ops_support_error(m, want_m), 1e-6, "m, n=%ld", n);
        cr_expect_lt(ops_support_error(v, want_v), 1e-6, "v, n=%ld", n);
    }
    ops_support_destroy(&f);
}

/* A frozen layer: lr 0 leaves the parameter alone, moments go on. A step that is not finite moves nothing. */
Test(optimizer, adamw_without_rate_moves_moments_only_and_nothing_in_a_bad_step)
{
    OpsFixture f = ops_support_create(2, 72);
    Tensor p = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0),
           g = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0);
    Tensor m = ops_support_normal_1d(&f, DTYPE_F32, 99, 1.0), v = ops_support_copy(&f, m, DTYPE_F32);
    Tensor before = ops_support_copy(&f, p, DTYPE_F32), before_m = ops_support_copy(&f, m, DTYPE_F32);
    for (int64_t i = 0; i < 99; i++)
        ops_support_set(v, i, fabs(ops_support_get(v, i)));
    Step s = {.weight_decay = 0.4,
              .beta1 = 0.9,
              .beta2 = 0.999,
              .eps = 1e-8,
              .correction1 = 0.1,
              .correction2 = 0.001,
              .factor = 1.0};
    AdamwUpdate update = update_of(&f, &s, segments_of(&f, 1, (const int64_t[]){0, 99}), p, m, v, g);
    tensor_f64(update.control)[CONTROL_FINITE] = 0.0;
    f.ops->adamw(f.ops, &update);
    cr_assert(ops_support_equal(m, before_m));
    tensor_f64(update.control)[CONTROL_FINITE] = 1.0;
    f.ops->adamw(f.ops, &update);
    cr_assert(ops_support_equal(p, before));
    cr_assert_not(ops_support_equal(m, before_m));
    ops_support_destroy(&f);
}

Test(optimizer, step_control_clips_each_module_and_counts_steps)
{
    OpsFixture f = ops_support_create(1, 76);
    const int64_t bounds[] = {0, 2, 2, 4, 4, 6, 6, 8};
    OpsSegments segments = segments_of(&f, 4, bounds);
    Tensor control = fp64(&f, CONTROL_COUNT, NULL), losses = fp64(&f, 2, (const double[]){1.0, 2.0});
    Tensor squares = fp64(&f, 4, (const double[]){16.0, 1.0, 400.0, 9.0});
    double *c = tensor_f64(control);
    c[CONTROL_LOSS_SCALE] = 1.0;
    StepControl rule = {.clip_grad = 4.0, .beta1 = 0.9, .beta2 = 0.99};
    for (int step = 1; step <= 3; step++) {
        f.ops->step_control(f.ops, control, losses, squares, &segments, &rule);
        cr_expect_eq(c[CONTROL_STEPS], step);
        cr_expect_float_eq(c[CONTROL_CORRECTION1], 1.0 - pow(0.9, step), 1e-15);
        cr_expect_float_eq(c[CONTROL_CORRECTION2], 1.0 - pow(0.99, step), 1e-15);
    }
    cr_expect(c[CONTROL_FINITE] == 1.0 && c[CONTROL_LOSS_SCALE] == 1.0);
    cr_expect_float_eq(c[CONTROL_NORM], 5.0, 1e-12); /* segments 0 and 3 */
    cr_expect_float_eq(c[CONTROL_FACTOR], 4.0 / (5.0 + 1e-6), 1e-12);
    cr_expect_float_eq(c[CONTROL_FACTOR + 1], 1.0, 0);
    cr_expect_float_eq(c[CONTROL_FACTOR + 2], 0.2, 1e-7);
    rule.clip_grad = 0.0;
    f.ops->step_control(f.ops, control, losses, squares, &segments, &rule);
    cr_expect_float_eq(c[CONTROL_FACTOR + 2], 1.0, 0);
    ops_support_destroy(&f);
}

Test(optimizer, step_control_refuses_what_is_not_finite_and_adapts_the_loss_scale)
{
    OpsFixture f = ops_support_create(1, 77);
    OpsSegments segments = segments_of(&f, 2, (const int64_t[]){0, 2, 2, 4});
    Tensor control = fp64(&f, CONTROL_COUNT, NULL), loss = fp64(&f, 1, (const double[]){1.0});
    Tensor squares = fp64(&f, 2, (const double[]){64.0, 4.0});
    double *c = tensor_f64(control);
    c[CONTROL_LOSS_SCALE] = 8.0;
    StepControl rule = {.beta1 = 0.9, .beta2 = 0.99, .scaled = true};
    f.ops->step_control(f.ops, control, loss, squares, &segments, &rule);
    cr_expect(c[CONTROL_NORM] == 1.0 && c[CONTROL_FACTOR] == 0.125 && c[CONTROL_GROWTH] == 1.0);
    const double bad[] = {NAN, INFINITY};
    for (int k = 0; k < 2; k++) {
        tensor_f64(k ? loss : squares)[0] = bad[k];
        double steps = c[CONTROL_STEPS], scale = c[CONTROL_LOSS_SCALE];
        f.ops->step_control(f.ops, control, loss, squares, &segments, &rule);
        cr_expect(c[CONTROL_FINITE] == 0.0 && c[CONTROL_STEPS] == steps);
        cr_expect(c[CONTROL_LOSS_SCALE] == scale / 2 && c[CONTROL_GROWTH] == 0.0);
        tensor_f64(k ? loss : squares)[0] = 1.0;
    }
    for (int step = 0; step < 2000; step++)
        f.ops->step_control(f.ops, control, loss, squares, &segments, &rule);
    cr_expect(c[CONTROL_LOSS_SCALE] == 4.0 && c[CONTROL_GROWTH] == 0.0, "%g", c[CONTROL_LOSS_SCALE]);
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
            f.ops->ema(f.ops, average, value, momenta[k], tensor_none());
            bool exact = momenta[k] == 0.0 || momenta[k] == 1.0;
            cr_expect_leq(ops_support_error(average, want), exact ? 0.0 : 1.5e-7);
        }
    ops_support_destroy(&f);
}

Test(optimizer, a_bad_step_moves_no_average_and_is_taken_back)
{
    OpsFixture f = ops_support_create(1, 78);
    Tensor control = fp64(&f, CONTROL_COUNT, NULL), value = ops_support_normal_1d(&f, DTYPE_F32, 33, 1.0);
    Tensor average = ops_support_normal_1d(&f, DTYPE_F32, 33, 1.0),
           before = ops_support_copy(&f, average, DTYPE_F32);
    f.ops->ema(f.ops, average, value, 0.5, control);
    cr_expect(ops_support_equal(average, before));
    f.ops->take_back(f.ops, value, before, control);
    cr_expect(ops_support_equal(value, before));
    tensor_f64(control)[CONTROL_FINITE] = 1.0;
    ops_support_set(value, 3, 9.0);
    f.ops->take_back(f.ops, value, before, control);
    cr_expect_eq(ops_support_get(value, 3), 9.0);
    f.ops->ema(f.ops, average, value, 0.5, control);
    cr_expect_not(ops_support_equal(average, before));
    ops_support_destroy(&f);
}

static double squares_of(OpsFixture *f, Tensor x)
{
    int64_t n = tensor_count(x);
    double result = NAN;
    OpsSegments segments = segments_of(f, 1, (const int64_t[]){0, n});
    f->ops->segment_squares(f->ops, tensor_1d(&result, DTYPE_F64, 1), x, &segments);
    return result;
}

Test(optimizer, segment_squares_agree_and_never_hide_a_bad_element)
{
    OpsFixture f = ops_support_create(2, 74);
    const int64_t counts[] = {0, 1, 4095, 4096, 4097, 40001, 1500000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int64_t n = counts[c];
        Tensor x = ops_support_normal_1d(&f, DTYPE_F32, n, 3.0);
        double want = 0.0, got;
        for (int64_t i = 0; i < n; i++)
            want += ops_support_get(x, i) * ops_support_get(x, i);
        got = squares_of(&f, x);
        cr_assert_float_eq(got, want, 1e-12 * want, "n=%ld: %.17g, want %.17g", n, got, want);
        const double bad[] = {NAN, INFINITY, -INFINITY};
        for (int k = 0; k < 3 && n > 0; k++) {
            ops_support_set(x, n - 1 - k % n, bad[k]);
            cr_assert(!isfinite(squares_of(&f, x)));
            ops_support_set(x, n - 1 - k % n, 0.0);
        }
        if (n > 0) ops_support_set(x, n / 2, 3e38); /* its square overflows fp32 */
        cr_assert(isfinite(squares_of(&f, x)));
    }
    Tensor x = ops_support_normal_1d(&f, DTYPE_F32, 100, 1.0), squares = fp64(&f, 2, NULL);
    OpsSegments parts = segments_of(&f, 2, (const int64_t[]){3, 50, 60, 60});
    f.ops->segment_squares(f.ops, squares, x, &parts);
    cr_expect_float_eq(tensor_f64(squares)[0], squares_of(&f, tensor_rows(x, 3, 47)), 1e-12);
    cr_expect_eq(tensor_f64(squares)[1], 0.0);
    ops_support_destroy(&f);
}

Test(optimizer, same_bits_on_any_number_of_threads)
{
    OpsFixture keep = ops_support_create(1, 75);
    Tensor x = ops_support_normal_1d(&keep, DTYPE_F32, 123457, 1.0);
    double first = 0.0;
    for (int threads = 1; threads <= 4; threads++) {
        OpsFixture f = ops_support_create(threads, 75);
        double sum = squares_of(&f, x);
        if (threads == 1) first = sum;
        cr_assert_eq(sum, first);
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}

/* koleo against plain fp64 formulas: neighbours, ties, duplicates, gradients. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const double EPS = 1e-8;

/* The loss in fp64 with neighbours given, or found (nearest[0] = -1). */
static double loss_of(const double *x, int64_t n, int64_t D, int32_t *nearest, double *work)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int64_t d = 0; d < D; d++)
            sum += x[i * D + d] * x[i * D + d];
        for (int64_t d = 0; d < D; d++)
            work[i * D + d] = x[i * D + d] / fmax(sqrt(sum), EPS);
    }
    double loss = 0.0;
    bool search = nearest[0] < 0;
    for (int64_t i = 0; i < n; i++) {
        double best = -INFINITY, distance = 0.0;
        for (int64_t j = 0; search && j < n; j++) {
            double dot = 0.0;
            for (int64_t d = 0; d < D; d++)
                dot += work[i * D + d] * work[j * D + d];
            if (j == i || dot <= best) continue;
            best = dot;
            nearest[i] = (int32_t)j;
        }
        for (int64_t d = 0; d < D; d++)
            distance += pow(work[i * D + d] - work[nearest[i] * D + d] + EPS, 2.0);
        loss -= log(sqrt(distance) + EPS) / (double)n;
    }
    return loss;
}

/* <dx, step> against central differences of the fp64 loss with the neighbours held. */
static void check_gradient(OpsFixture *f, Tensor dx, Tensor x, int32_t *nearest, double weight, double h)
{
    int64_t n = x.shape[0], D = x.shape[1];
    double *step = ops_support_f64(f, ops_support_normal(f, DTYPE_F32, n, D, 1.0));
    double *work = ops_support_f64_zeros(f, n * D), want = 0.0;
    for (int side = -1; side <= 1; side += 2) {
        double *moved = ops_support_f64(f, x);
        for (int64_t i = 0; i < n * D; i++)
            moved[i] += side * h * step[i];
        want += side * weight * loss_of(moved, n, D, nearest, work) / (2.0 * h);
    }
    double got = ops_support_dot(dx, step);
    cr_expect_float_eq(got, want, 1e-4 * fabs(want) + 1e-6, "%g, finite differences %g", got, want);
}

/* `*value` becomes 0 and is handed out as what a loss is added to. */
static Tensor zero_sum(double *value)
{
    *value = 0.0;
    return tensor_1d(value, DTYPE_F64, 1);
}

Test(koleo, loss_neighbours_and_gradient_agree_with_the_formula)
{
    /* around the 64 rows of a block */
    const int64_t shapes[][2] = {{2, 8}, {3, 2}, {7, 5}, {33, 24}, {63, 48}, {64, 48}, {65, 48}, {150, 129}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        OpsFixture f = ops_support_create(2, 41 + s);
        int64_t n = shapes[s][0], D = shapes[s][1];
        Tensor x = ops_support_normal(&f, DTYPE_F32, n, D, 2.0), dx = ops_support_poison(&f, DTYPE_F32, n, D);
        Tensor nearest = ops_support_poison_1d(&f, DTYPE_I32, n),
               want = ops_support_poison_1d(&f, DTYPE_I32, n);
        double loss, *work = ops_support_f64_zeros(&f, n * D);
        f.ops->koleo(f.ops, zero_sum(&loss), nearest, dx, x, 0.7, tensor_none());
        double want_loss = 0.7 * loss_of(ops_support_f64(&f, x), n, D, tensor_i32(want), work);
        cr_expect_float_eq(loss, want_loss, 1e-6 * fabs(want_loss) + 1e-9, "n=%ld: %.9g, want %.9g", n, loss,
                           want_loss);
        cr_expect(ops_support_equal(nearest, want), "neighbours, n=%ld", n);
        check_gradient(&f, dx, x, tensor_i32(nearest), 0.7, 1e-6);

        double again;
        f.ops->koleo(f.ops, zero_sum(&again), nearest, tensor_none(), x, 0.7, tensor_none());
        cr_expect_eq(loss, again);
        cr_expect_eq(f.ops->scratch->used, 0);
        ops_support_destroy(&f);
    }
}

Test(koleo, too_few_rows_have_no_loss)
{
    OpsFixture f = ops_support_create(2, 42);
    for (int64_t n = 0; n < 2; n++) {
        Tensor x = ops_support_normal(&f, DTYPE_F32, n, 8, 1.0), dx = ops_support_poison(&f, DTYPE_F32, n, 8);
        Tensor nearest = ops_support_poison_1d(&f, DTYPE_I32, n);
        double loss = NAN;
        f.ops->koleo(f.ops, zero_sum(&loss), nearest, dx, x, 1.0, tensor_none());
        cr_assert_eq(loss, 0.0);
        for (int64_t i = 0; i < n * 8; i++)
            cr_assert_eq(ops_support_get(dx, i), 0.0);
        if (n == 1) cr_assert_eq(tensor_i32(nearest)[0], -1);
    }
    ops_support_destroy(&f);
}

/* Identical rows: distance 1e-8 sqrt(D), a huge gradient that cancels between the two, nothing infinite. */
Test(koleo, duplicates_and_zero_rows_stay_finite)
{
    OpsFixture f = ops_support_create(2, 43);
    Tensor x = ops_support_normal(&f, DTYPE_F32, 6, 16, 1.0), dx = ops_support_poison(&f, DTYPE_F32, 6, 16);
    for (int64_t d = 0; d < 16; d++) {
        ops_support_set(x, 2 * 16 + d, ops_support_get(x, d));
        ops_support_set(x, 5 * 16 + d, 0.0);
    }
    Tensor nearest = ops_support_poison_1d(&f, DTYPE_I32, 6), want = ops_support_poison_1d(&f, DTYPE_I32, 6);
    double loss, *work = ops_support_f64_zeros(&f, 6 * 16);
    f.ops->koleo(f.ops, zero_sum(&loss), nearest, dx, x, 1.0, tensor_none());
    double want_loss = loss_of(ops_support_f64(&f, x), 6, 16, tensor_i32(want), work);
    cr_assert_float_eq(loss, want_loss, 1e-6);
    cr_assert(ops_support_equal(nearest, want));
    cr_assert_eq(tensor_i32(nearest)[0], 2);
    cr_assert_eq(tensor_i32(nearest)[2], 0);
    for (int64_t i = 0; i < 6 * 16; i++)
        cr_assert(isfinite(ops_support_get(dx, i)));
    ops_support_destroy(&f);
}

Test(koleo, equal_neighbours_go_to_the_lowest_index)
{
    OpsFixture f = ops_support_create(2, 44);
    Tensor x = ops_support_zeros(&f, DTYPE_F32, 5, 5);
    for (int64_t i = 0; i < 5; i++)
        ops_support_set(x, i * 5 + i, 1.0); /* all dot products are 0 */
    Tensor nearest = ops_support_poison_1d(&f, DTYPE_I32, 5);
    double loss;
    f.ops->koleo(f.ops, zero_sum(&loss), nearest, tensor_none(), x, 1.0, tensor_none());
    cr_assert_eq(tensor_i32(nearest)[0], 1);
    for (int i = 1; i < 5; i++)
        cr_assert_eq(tensor_i32(nearest)[i], 0);
    cr_assert_float_eq(loss, -log(sqrt(2.0) + EPS), 1e-7);
    ops_support_destroy(&f);
}

Test(koleo, same_bits_on_any_number_of_threads)
{
    OpsFixture keep = ops_support_create(1, 45);
    Tensor x = ops_support_normal(&keep, DTYPE_F32, 200, 64, 1.0), first = tensor_none();
    double first_loss = 0.0;
    for (int threads = 1; threads <= 3; threads++) {
        OpsFixture f = ops_support_create(threads, 45);
        Tensor dx = ops_support_poison(&keep, DTYPE_F32, 200, 64);
        double loss;
        f.ops->koleo(f.ops, zero_sum(&loss), ops_support_poison_1d(&keep, DTYPE_I32, 200), dx, x, 1.0,
                     tensor_none());
        if (threads == 1) first = dx;
        if (threads == 1) first_loss = loss;
        cr_assert_eq(loss, first_loss);
        cr_assert(ops_support_equal(dx, first));
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}

Test(koleo, value_is_added_and_the_loss_scale_is_the_gradients_alone)
{
    OpsFixture f = ops_support_create(2, 46);
    Tensor x = ops_support_normal(&f, DTYPE_F32, 9, 12, 1.0),
           nearest = ops_support_poison_1d(&f, DTYPE_I32, 9);
    Tensor dx = ops_support_poison(&f, DTYPE_F32, 9, 12), scaled = ops_support_poison(&f, DTYPE_F32, 9, 12);
    double once, more = 5.0, scale = 64.0;
    f.ops->koleo(f.ops, zero_sum(&once), nearest, dx, x, 0.3, tensor_none());
    f.ops->koleo(f.ops, tensor_1d(&more, DTYPE_F64, 1), nearest, scaled, x, 0.3,
                 tensor_1d(&scale, DTYPE_F64, 1));
    cr_expect_float_eq(more, 5.0 + once, 1e-12);
    double *want = ops_support_f64(&f, dx);
    for (int i = 0; i < 9 * 12; i++)
        want[i] *= scale;
    cr_expect_lt(ops_support_error(scaled, want), 1e-6);
    ops_support_destroy(&f);
}

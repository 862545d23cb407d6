/* Operations on the weight-normed last layer: scores, norms, centre, Sinkhorn-Knopp and cross-entropy,
 * against plain fp64 formulas on whole matrices. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* fp64 [n, K] = (x . v^T) * scale */
static double *scores_of(OpsFixture *f, Tensor x, Tensor v, Tensor scale)
{
    int64_t n = x.shape[0], d = x.shape[1], K = v.shape[0];
    double *s = ops_support_f64_zeros(f, n * K);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < K; k++) {
            double sum = 0.0;
            for (int64_t j = 0; j < d; j++)
                sum += ops_support_get(x, i * d + j) * ops_support_get(v, k * d + j);
            s[i * K + k] = sum * ops_support_get(scale, k);
        }
    return s;
}

/* Rows of exp(z) / sum exp(z), z = s / temp + bias, in place. */
static void softmax_rows(double *s, int64_t n, int64_t K, double temp, Tensor bias)
{
    for (int64_t i = 0; i < n; i++) {
        double *row = s + i * K, maximum = -INFINITY, sum = 0.0;
        for (int64_t k = 0; k < K; k++) {
            row[k] = row[k] / temp + (tensor_given(bias) ? ops_support_get(bias, k) : 0.0);
            maximum = fmax(maximum, row[k]);
        }
        for (int64_t k = 0; k < K; k++)
            sum += row[k] = exp(row[k] - maximum);
        for (int64_t k = 0; k < K; k++)
            row[k] /= sum;
    }
}

/* log sum exp of n numbers that lie `stride` apart */
static double log_sum_exp(const double *z, int64_t n, int64_t stride)
{
    double maximum = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        maximum = fmax(maximum, z[i * stride]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(z[i * stride] - maximum);
    return maximum + log(sum);
}

/* The textbook iteration on a stored matrix, by logarithms. */
static void sinkhorn_rows(double *s, int64_t n, int64_t K, double temp, int iterations)
{
    for (int64_t i = 0; i < n * K; i++)
        s[i] /= temp;
    for (int round = 0; round < iterations; round++) {
        for (int64_t k = 0; k < K; k++) {
            double sum = log_sum_exp(s + k, n, K);
            for (int64_t i = 0; i < n; i++)
                s[i * K + k] -= sum;
        }
        for (int64_t i = 0; i < n; i++) {
            double sum = log_sum_exp(s + i * K, K, 1);
            for (int64_t k = 0; k < K; k++)
                s[i * K + k] -= sum;
        }
    }
    for (int64_t i = 0; i < n * K; i++)
        s[i] = exp(s[i]);
}

/* Unit rows, as the bottleneck hands them out. */
static Tensor unit_rows(OpsFixture *f, int64_t n, int64_t d)
{
    Tensor raw = ops_support_normal(f, DTYPE_F32, n, d, 1.0), y = ops_support_poison(f, DTYPE_F32, n, d);
    f->ops->l2_normalize_forward(f->ops, y, ops_support_poison_1d(f, DTYPE_F32, n), raw, 1e-12f);
    return y;
}

Test(prototypes, scale_and_scores_agree_with_plain_formulas)
{
    const int64_t shapes[][3] = {{7, 64, 5}, {1, 1, 1}, {33, 1000, 24}, {40, 2050, 16}, {3, 4096, 9}};
    OpsFixture f = ops_support_create(2, 11);
    const Ops *ops = f.ops;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int64_t n = shapes[s][0], K = shapes[s][1], d = shapes[s][2];
        Tensor x = ops_support_normal(&f, DTYPE_F32, n, d, 1.0);
        Tensor v = ops_support_normal(&f, DTYPE_F32, K, d, 1.0);
        Tensor g = ops_support_normal_1d(&f, DTYPE_F32, K, 2.0);
        Tensor scale = ops_support_poison_1d(&f, DTYPE_F32, K);
        Tensor scores = ops_support_poison(&f, DTYPE_F32, n, K);
        ops->prototype_scale(ops, scale, v, g);
        double *want = ops_support_f64_zeros(&f, K);
        for (int64_t k = 0; k < K; k++) {
            double sum = 0.0;
            for (int64_t j = 0; j < d; j++)
                sum += pow(ops_support_get(v, k * d + j), 2.0);
            want[k] = ops_support_get(g, k) / sqrt(sum);
        }
        cr_assert_lt(ops_support_error(scale, want), OPS_SUPPORT_F32);
        ops->prototype_scores(ops, scores, x, v, scale);
        cr_assert_lt(ops_support_error(scores, scores_of(&f, x, v, scale)), OPS_SUPPORT_F32);
    }
    ops->prototype_scores(ops, ops_support_zeros(&f, DTYPE_F32, 0, 8), ops_support_zeros(&f, DTYPE_F32, 0, 4),
                          ops_support_normal(&f, DTYPE_F32, 8, 4, 1.0),
                          ops_support_normal_1d(&f, DTYPE_F32, 8, 1.0));
    cr_assert_eq(ops->scratch->used, 0);
    ops_support_destroy(&f);
}

/* <C, g v / |v|> in fp64 */
static double weight_norm_loss(Tensor v, Tensor g, const double *C, int64_t K, int64_t d, const double *step,
                               const double *step_g, double h)
{
    double loss = 0.0;
    for (int64_t k = 0; k < K; k++) {
        double norm = 0.0, along = 0.0;
        for (int64_t j = 0; j < d; j++) {
            double value = ops_support_get(v, k * d + j) + h * step[k * d + j];
            norm += value * value;
            along += value * C[k * d + j];
        }
        loss += (ops_support_get(g, k) + h * step_g[k]) * along / sqrt(norm);
    }
    return loss;
}

Test(prototypes, weight_norm_backward_agrees_with_finite_differences)
{
    OpsFixture f = ops_support_create(2, 12);
    enum { K = 257, D = 19 };
    Tensor v = ops_support_normal(&f, DTYPE_F32, K, D, 0.7), g = ops_support_normal_1d(&f, DTYPE_F32, K, 1.0);
    Tensor dv = ops_support_normal(&f, DTYPE_F32, K, D, 1.0);
    Tensor dg = ops_support_normal_1d(&f, DTYPE_F32, K, 1.0);
    double *C = ops_support_f64(&f, dv), *dg_before = ops_support_f64(&f, dg);
    double *step = ops_support_f64(&f, ops_support_normal(&f, DTYPE_F32, K, D, 1.0));
    double *step_g = ops_support_f64(&f, ops_support_normal_1d(&f, DTYPE_F32, K, 1.0));
    f.ops->weight_norm_backward(f.ops, dv, dg, v, g);
    double h = 1e-5, got = ops_support_dot(dv, step) + ops_support_dot(dg, step_g);
    for (int64_t k = 0; k < K; k++)
        got -= dg_before[k] * step_g[k]; /* dg is added to what was there */
    double want = (weight_norm_loss(v, g, C, K, D, step, step_g, h) -
                   weight_norm_loss(v, g, C, K, D, step, step_g, -h)) /
                  (2.0 * h);
    cr_assert_float_eq(got, want, 1e-5 * fabs(want) + 1e-4, "%g, finite differences %g", got, want);
    ops_support_destroy(&f);
}

Test(prototypes, center_is_the_weighted_sum_of_scores)
{
    const int64_t shapes[][3] = {{9, 64, 5}, {0, 70, 8}, {130, 1000, 24}};
    OpsFixture f = ops_support_create(2, 13);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        int64_t n = shapes[s][0], K = shapes[s][1], d = shapes[s][2];
        Tensor x = unit_rows(&f, n, d), v = ops_support_normal(&f, DTYPE_F32, K, d, 1.0);
        Tensor scale = ops_support_normal_1d(&f, DTYPE_F32, K, 1.0);
        Tensor weight = ops_support_normal_1d(&f, DTYPE_F32, n, 1.0);
        Tensor sum = ops_support_poison_1d(&f, DTYPE_F32, K);
        f.ops->prototype_center(f.ops, sum, x, v, scale, weight);
        double *scores = scores_of(&f, x, v, scale), *want = ops_support_f64_zeros(&f, K);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < K; k++)
                want[k] += ops_support_get(weight, i) * scores[i * K + k];
        cr_assert_lt(ops_support_error(sum, want), OPS_SUPPORT_F32);
        cr_assert_eq(f.ops->scratch->used, 0);
    }
    ops_support_destroy(&f);
}

/* Largest difference between the targets that a bias gives and the textbook's. */
static double sinkhorn_error(OpsFixture *f, int64_t n, int64_t K, int64_t d, float temp, int iterations,
                             double scale_std)
{
    ArenaMark mark = arena_mark(&f->arena);
    Comm *comm = comm_self_create();
    Tensor x = unit_rows(f, n, d), v = ops_support_normal(f, DTYPE_F32, K, d, 1.0);
    Tensor scale = ops_support_normal_1d(f, DTYPE_F32, K, scale_std);
    Tensor bias = ops_support_poison_1d(f, DTYPE_F32, K);
    f->ops->prototype_sinkhorn(f->ops, bias, x, v, scale, temp, iterations, comm);
    double *got = scores_of(f, x, v, scale), *want = scores_of(f, x, v, scale), worst = 0.0;
    softmax_rows(got, n, K, (double)temp, bias);
    sinkhorn_rows(want, n, K, (double)temp, iterations);
    for (int64_t i = 0; i < n * K; i++) {
        double error = fabs(got[i] - want[i]);
        worst = error <= worst ? worst : error; /* a NaN sticks */
    }
    for (int64_t k = 0; k < K; k++)
        cr_assert(isfinite(ops_support_get(bias, k)));
    cr_assert_eq(f->ops->scratch->used, 0);
    comm_destroy(comm);
    arena_reset(&f->arena, mark);
    return worst;
}

Test(prototypes, sinkhorn_agrees_with_the_textbook_iteration)
{
    OpsFixture f = ops_support_create(2, 14);
    cr_expect_lt(sinkhorn_error(&f, 12, 64, 8, 0.07f, 3, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 1, 65, 8, 0.04f, 3, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 37, 1000, 16, 0.05f, 3, 0.1), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 9, 2500, 16, 0.05f, 3, 0.1), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 30, 96, 8, 0.07f, 1, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 30, 96, 8, 0.07f, 7, 0.3), 1e-5);
    /* one row below, at and above what one block holds, and several blocks */
    cr_expect_lt(sinkhorn_error(&f, 511, 33, 4, 0.07f, 3, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 512, 33, 4, 0.07f, 3, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 513, 33, 4, 0.07f, 3, 0.3), 1e-5);
    cr_expect_lt(sinkhorn_error(&f, 1300, 130, 4, 0.07f, 3, 0.3), 1e-5);
    ops_support_destroy(&f);
}

/* Scores far outside the range of exp in fp32: z reaches about +-1000. */
Test(prototypes, sinkhorn_survives_scores_that_overflow_exp)
{
    OpsFixture f = ops_support_create(2, 15);
    cr_expect_lt(sinkhorn_error(&f, 24, 64, 8, 0.05f, 3, 15.0), 2e-3);
    ops_support_destroy(&f);
}

Test(prototypes, sinkhorn_without_any_row_gives_a_finite_bias)
{
    OpsFixture f = ops_support_create(2, 16);
    cr_expect_eq(sinkhorn_error(&f, 0, 100, 8, 0.05f, 3, 1.0), 0.0);
    ops_support_destroy(&f);
}

/* prototype_cross_entropy: losses, gradients and figures against plain fp64 formulas on whole matrices. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* What the operation should give, in fp64. */
typedef struct {
    double *loss, *d_student, *d_student_w, *usage;
    double entropy_sum;
    int64_t pair_count;
} Expected;

/* fp64 logarithm of the softmax of (x[row] . v^T) * scale / temp + bias. */
static void log_softmax_row(double *out, Tensor x, int64_t row, Tensor v, Tensor scale, double temp,
                            Tensor bias)
{
    int64_t d = v.shape[1], K = v.shape[0];
    double maximum = -INFINITY, sum = 0.0;
    for (int64_t k = 0; k < K; k++) {
        double score = 0.0;
        for (int64_t j = 0; j < d; j++)
            score += ops_support_get(x, row * d + j) * ops_support_get(v, k * d + j);
        out[k] = score * ops_support_get(scale, k) / temp;
        if (tensor_given(bias)) out[k] += ops_support_get(bias, k);
        maximum = fmax(maximum, out[k]);
    }
    for (int64_t k = 0; k < K; k++)
        sum += exp(out[k] - maximum);
    for (int64_t k = 0; k < K; k++)
        out[k] -= maximum + log(sum);
}

/* One (student row, target) pair: p, q are the logarithms of the two softmax rows. */
static void add_pair(Expected *e, const PrototypeCrossEntropy *a, int64_t i, const double *p, const double *q)
{
    int64_t K = a->student_v.shape[0], d = a->student_v.shape[1], top = 0;
    double weight = ops_support_get(a->row_weight, i) / (double)a->student_temp;
    for (int64_t k = 0; k < K; k++) {
        double slope = weight * (exp(p[k]) - exp(q[k])), scale = ops_support_get(a->student_scale, k);
        e->loss[i] -= exp(q[k]) * p[k];
        e->entropy_sum -= exp(q[k]) * q[k];
        if (q[k] > q[top]) top = k;
        for (int64_t j = 0; j < d; j++) {
            e->d_student[i * d + j] += slope * scale * ops_support_get(a->student_v, k * d + j);
            e->d_student_w[k * d + j] += slope * ops_support_get(a->student, i * d + j);
        }
    }
    e->usage[top] += 1.0;
    e->pair_count++;
}

static Expected expect(OpsFixture *f, const PrototypeCrossEntropy *a)
{
    int64_t n = a->student.shape[0], K = a->student_v.shape[0], d = a->student_v.shape[1];
    int64_t targets = a->targets.shape[1];
    Expected e = {.loss = ops_support_f64_zeros(f, n),
                  .d_student = ops_support_f64_zeros(f, n * d),
                  .d_student_w = ops_support_f64_zeros(f, K * d),
                  .usage = ops_support_f64_zeros(f, K)};
    double *p = ops_support_f64_zeros(f, K), *q = ops_support_f64_zeros(f, K);
    for (int64_t i = 0; i < n; i++) {
        log_softmax_row(p, a->student, i, a->student_v, a->student_scale, (double)a->student_temp,
                        tensor_none());
        for (int64_t t = 0; t < targets; t++) {
            int32_t row = tensor_i32(a->targets)[i * targets + t];
            if (row < 0) continue;
            log_softmax_row(q, a->teacher, row, a->teacher_v, a->teacher_scale, (double)a->teacher_temp,
                            a->teacher_bias);
            add_pair(&e, a, i, p, q);
        }
    }
    return e;
}

static Tensor unit_rows(OpsFixture *f, int64_t n, int64_t d)
{
    Tensor raw = ops_support_normal(f, DTYPE_F32, n, d, 1.0), y = ops_support_poison(f, DTYPE_F32, n, d);
    f->ops->l2_normalize_forward(f->ops, y, ops_support_poison_1d(f, DTYPE_F32, n), raw, 1e-12f);
    return y;
}

/* n student rows against t of m teacher rows each, every one random, results poisoned or zero. */
static PrototypeCrossEntropy random_case(OpsFixture *f, int64_t n, int64_t m, int64_t t, int64_t K, int64_t d)
{
    PrototypeCrossEntropy a = {.student_temp = 0.1f, .teacher_temp = 0.05f};
    a.student = unit_rows(f, n, d);
    a.teacher = unit_rows(f, m, d);
    a.student_v = ops_support_normal(f, DTYPE_F32, K, d, 1.0);
    a.teacher_v = ops_support_normal(f, DTYPE_F32, K, d, 1.0);
    a.student_scale = ops_support_normal_1d(f, DTYPE_F32, K, 0.3);
    a.teacher_scale = ops_support_normal_1d(f, DTYPE_F32, K, 0.3);
    a.teacher_bias = ops_support_normal_1d(f, DTYPE_F32, K, 1.0);
    a.row_weight = ops_support_normal_1d(f, DTYPE_F32, n, 1.0);
    a.targets = ops_support_poison(f, DTYPE_I32, n, t);
    for (int64_t i = 0; i < n * t; i++)
        tensor_i32(a.targets)[i] = (int32_t)rng_integer(&f->rng, 0, m - 1);
    a.loss = ops_support_poison_1d(f, DTYPE_F32, n);
    a.d_student = ops_support_poison(f, DTYPE_F32, n, d);
    a.d_student_w = ops_support_zeros(f, DTYPE_F32, K, d);
    a.usage = tensor_1d(ops_support_zeros(f, DTYPE_F32, 1, K).data, DTYPE_F32, K);
    a.entropy = tensor_1d(ops_support_f64_zeros(f, 2), DTYPE_F64, 2);
    return a;
}

static void run_and_compare(OpsFixture *f, PrototypeCrossEntropy *a)
{
    int64_t n = a->student.shape[0], K = a->student_v.shape[0];
    Expected want = expect(f, a);
    f->ops->prototype_cross_entropy(f->ops, a);
    cr_expect_lt(ops_support_error(a->loss, want.loss), OPS_SUPPORT_F32, "loss n=%ld K=%ld", n, K);
    cr_expect_lt(ops_support_error(a->d_student, want.d_student), 1e-5, "d_student n=%ld K=%ld", n, K);
    cr_expect_lt(ops_support_error(a->d_student_w, want.d_student_w), 1e-5, "d_student_w n=%ld K=%ld", n, K);
    cr_expect_eq(ops_support_error(a->usage, want.usage), 0.0, "usage n=%ld K=%ld", n, K);
    cr_expect_float_eq(tensor_f64(a->entropy)[0], want.entropy_sum, 1e-5 * want.entropy_sum + 1e-6);
    cr_expect_eq(tensor_f64(a->entropy)[1], (double)want.pair_count);
    cr_expect_eq(f->ops->scratch->used, 0);
}

Test(prototype_cross_entropy, agrees_with_plain_formulas)
{
    /* n, m, targets, K, d, d of the teacher; a block holds 256 rows at these K */
    const int64_t shapes[][6] = {{6, 6, 1, 64, 8, 8},      {1, 1, 1, 1, 1, 1},     {5, 12, 3, 65, 7, 7},
                                 {20, 9, 2, 1000, 24, 40}, {12, 7, 2, 2500, 6, 6}, {255, 20, 1, 96, 4, 3},
                                 {256, 256, 1, 64, 4, 9},  {257, 30, 1, 33, 4, 4}, {300, 600, 2, 40, 4, 4}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        OpsFixture f = ops_support_create(2, 21 + s);
        const int64_t *c = shapes[s];
        PrototypeCrossEntropy a = random_case(&f, c[0], c[1], c[2], c[3], c[4]);
        a.teacher = unit_rows(&f, c[1], c[5]);
        a.teacher_v = ops_support_normal(&f, DTYPE_F32, c[3], c[5], 1.0);
        run_and_compare(&f, &a);
        ops_support_destroy(&f);
    }
}

/* Large K leaves few rows to a block: 16 here. */
Test(prototype_cross_entropy, agrees_when_a_block_holds_few_rows)
{
    OpsFixture f = ops_support_create(1, 22);
    OpsLimits limits = {.rows = 64,
                        .width = 8,
                        .max_seqlen = 4,
                        .prototypes = 300000,
                        .bottleneck = 2,
                        .group_rows = 4,
                        .head_dim = 4};
    ops_support_close(f.ops);
    f.ops = ops_support_open(&limits, 2);
    PrototypeCrossEntropy a = random_case(&f, 18, 20, 2, 300000, 2);
    run_and_compare(&f, &a);
    ops_support_destroy(&f);
}

/* 600 distinct teacher rows for 200 student rows: a block is full of teachers before it is full of students.
 */
Test(prototype_cross_entropy, agrees_when_teacher_rows_fill_a_block_first)
{
    OpsFixture f = ops_support_create(2, 29);
    PrototypeCrossEntropy a = random_case(&f, 200, 600, 3, 70, 5);
    for (int32_t i = 0; i < 600; i++)
        tensor_i32(a.targets)[i] = 599 - i;
    run_and_compare(&f, &a);
    ops_support_destroy(&f);
}

Test(prototype_cross_entropy, rows_without_targets_cost_nothing)
{
    OpsFixture f = ops_support_create(2, 23);
    PrototypeCrossEntropy a = random_case(&f, 9, 5, 2, 130, 6);
    int32_t *targets = tensor_i32(a.targets);
    targets[0] = -1;                  /* row 0: its second target only */
    targets[2 * 3] = targets[7] = -1; /* row 3: none */
    targets[2 * 8 + 1] = -1;          /* row 8: its first only */
    run_and_compare(&f, &a);
    cr_assert_eq(ops_support_get(a.loss, 3), 0.0);
    for (int64_t j = 0; j < 6; j++)
        cr_assert_eq(ops_support_get(a.d_student, 3 * 6 + j), 0.0);

    for (int64_t i = 0; i < 18; i++)
        targets[i] = -1;
    Tensor before = ops_support_copy(&f, a.d_student_w, DTYPE_F32);
    f.ops->prototype_cross_entropy(f.ops, &a);
    for (int64_t i = 0; i < 9; i++)
        cr_assert_eq(ops_support_get(a.loss, i), 0.0);
    cr_assert(ops_support_equal(a.d_student_w, before));
    ops_support_destroy(&f);
}

/* sum_i weight_i loss_i of the operation itself, after a step of h along the directions. */
static double moved_loss(OpsFixture *f, PrototypeCrossEntropy a, const double *step, const double *step_w,
                         double h)
{
    int64_t n = a.student.shape[0], d = a.student_v.shape[1], K = a.student_v.shape[0];
    a.student = ops_support_copy(f, a.student, DTYPE_F32);
    a.student_v = ops_support_copy(f, a.student_v, DTYPE_F32);
    Tensor one = ops_support_copy(f, a.student_scale, DTYPE_F32);
    for (int64_t i = 0; i < n * d; i++)
        ops_support_set(a.student, i, ops_support_get(a.student, i) + h * step[i]);
    for (int64_t k = 0; k < K; k++) {
        ops_support_set(one, k, 1.0); /* W itself */
        for (int64_t j = k * d; j < (k + 1) * d; j++)
            ops_support_set(a.student_v, j,
                            ops_support_get(a.student_v, j) * ops_support_get(a.student_scale, k) +
                                h * step_w[j]);
    }
    a.student_scale = one;
    a.d_student = a.d_student_w = tensor_none();
    f->ops->prototype_cross_entropy(f->ops, &a);
    double loss = 0.0;
    for (int64_t i = 0; i < n; i++)
        loss += ops_support_get(a.row_weight, i) * ops_support_get(a.loss, i);
    return loss;
}

Test(prototype_cross_entropy, gradients_agree_with_finite_differences)
{
    OpsFixture f = ops_support_create(2, 24);
    PrototypeCrossEntropy a = random_case(&f, 11, 6, 2, 90, 12);
    f.ops->prototype_cross_entropy(f.ops, &a);
    double *step = ops_support_f64(&f, ops_support_normal(&f, DTYPE_F32, 11, 12, 1.0));
    double *step_w = ops_support_f64(&f, ops_support_normal(&f, DTYPE_F32, 90, 12, 1.0)), h = 2e-3;
    double got = ops_support_dot(a.d_student, step) + ops_support_dot(a.d_student_w, step_w);
    double want = (moved_loss(&f, a, step, step_w, h) - moved_loss(&f, a, step, step_w, -h)) / (2.0 * h);
    cr_assert_float_eq(got, want, 3e-3 * fabs(want), "%g, finite differences %g", got, want);
    ops_support_destroy(&f);
}

Test(prototype_cross_entropy, gradient_of_the_prototypes_is_added)
{
    OpsFixture f = ops_support_create(2, 25);
    PrototypeCrossEntropy a = random_case(&f, 10, 10, 1, 64, 8);
    f.ops->prototype_cross_entropy(f.ops, &a);
    double *once = ops_support_f64(&f, a.d_student_w);
    f.ops->prototype_cross_entropy(f.ops, &a);
    for (int64_t i = 0; i < 64 * 8; i++)
        once[i] *= 2.0;
    cr_assert_lt(ops_support_error(a.d_student_w, once), 1e-6);
    cr_assert_eq(tensor_f64(a.entropy)[1], 20);
    ops_support_destroy(&f);
}

Test(prototype_cross_entropy, scores_beyond_the_range_of_exp_stay_finite)
{
    OpsFixture f = ops_support_create(2, 26);
    PrototypeCrossEntropy a = random_case(&f, 8, 8, 1, 200, 8);
    for (int64_t k = 0; k < 200; k++)
        ops_support_set(a.student_scale, k, 30.0 * ops_support_get(a.student_scale, k));
    Expected want = expect(&f, &a);
    f.ops->prototype_cross_entropy(f.ops, &a);
    cr_assert_lt(ops_support_error(a.loss, want.loss), 1e-4);
    cr_assert_lt(ops_support_error(a.d_student, want.d_student), 1e-3);
    ops_support_destroy(&f);
}

Test(prototype_cross_entropy, the_loss_scale_is_the_gradients_alone)
{
    OpsFixture f = ops_support_create(2, 29);
    PrototypeCrossEntropy a = random_case(&f, 12, 10, 2, 70, 8);
    double scale = 32.0;
    f.ops->prototype_cross_entropy(f.ops, &a);
    double *loss = ops_support_f64(&f, a.loss), *dx = ops_support_f64(&f, a.d_student);
    double *dw = ops_support_f64(&f, a.d_student_w);
    a.loss_scale = tensor_1d(&scale, DTYPE_F64, 1);
    a.d_student_w = ops_support_zeros(&f, DTYPE_F32, 70, 8);
    f.ops->prototype_cross_entropy(f.ops, &a);
    for (int i = 0; i < 12 * 8; i++)
        dx[i] *= scale;
    for (int i = 0; i < 70 * 8; i++)
        dw[i] *= scale;
    cr_expect_eq(ops_support_error(a.loss, loss), 0.0);
    cr_expect_lt(ops_support_error(a.d_student, dx), 1e-6);
    cr_expect_lt(ops_support_error(a.d_student_w, dw), 1e-6);
    ops_support_destroy(&f);
}

Test(prototype_cross_entropy, nothing_happens_without_rows)
{
    OpsFixture f = ops_support_create(2, 27);
    PrototypeCrossEntropy a = random_case(&f, 3, 3, 1, 64, 8);
    a.student = tensor_rows(a.student, 0, 0);
    a.targets = tensor_rows(a.targets, 0, 0);
    a.loss = tensor_rows(a.loss, 0, 0);
    a.d_student = tensor_rows(a.d_student, 0, 0);
    a.row_weight = tensor_rows(a.row_weight, 0, 0);
    f.ops->prototype_cross_entropy(f.ops, &a);
    cr_assert_eq(tensor_f64(a.entropy)[1], 0);
    cr_assert_eq(ops_support_get(a.d_student_w, 5), 0.0);
    ops_support_destroy(&f);
}

/* Also independent of the number of threads: cuts depend on shapes alone. */
Test(prototype_cross_entropy, same_bits_on_any_number_of_threads)
{
    Tensor first = tensor_none(), first_w = tensor_none(), first_bias = tensor_none();
    OpsFixture keep = ops_support_create(1, 0);
    for (int run = 0; run < 4; run++) {
        OpsFixture f = ops_support_create(run == 0 ? 1 : run, 28);
        Comm *comm = comm_self_create();
        PrototypeCrossEntropy a = random_case(&f, 70, 40, 2, 3000, 16);
        f.ops->prototype_sinkhorn(f.ops, a.teacher_bias, a.teacher, a.teacher_v, a.teacher_scale,
                                  a.teacher_temp, 3, comm);
        f.ops->prototype_cross_entropy(f.ops, &a);
        if (run == 0) {
            first = ops_support_copy(&keep, a.d_student, DTYPE_F32);
            first_w = ops_support_copy(&keep, a.d_student_w, DTYPE_F32);
            first_bias = ops_support_copy(&keep, a.teacher_bias, DTYPE_F32);
        }
        cr_assert(ops_support_equal(a.d_student, first), "run %d", run);
        cr_assert(ops_support_equal(a.d_student_w, first_w), "run %d", run);
        cr_assert(ops_support_equal(a.teacher_bias, first_bias), "run %d", run);
        comm_destroy(comm);
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}

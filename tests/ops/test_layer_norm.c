/* test_layer_norm.c - layer normalisation against fp64, its gradients against differences of that. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const float EPS = 1e-6f;

typedef struct {
    int64_t n, N, D; /* n rows of N */
    bool selected;   /* by an index; else n = N */
} Size;

static const Size SIZES[] = {{1, 1, 4, false},      {5, 5, 48, false},    {7, 20, 33, true},
                             {40, 40, 384, false},  {200, 300, 96, true}, {3, 9, 1100, true},
                             {130, 130, 515, false}};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

typedef struct {
    Tensor x, w, b, rows, y, stats, dy;
} Problem;

static Problem problem_of(OpsFixture *f, const Size *s, Dtype dtype)
{
    Problem p = {.x = ops_support_normal(f, DTYPE_F32, s->N, s->D, 2.0),
                 .w = ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0),
                 .b = ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0),
                 .rows = s->selected ? ops_support_distinct(f, s->n, s->N) : tensor_none(),
                 .y = ops_support_poison(f, dtype, s->n, s->D),
                 .stats = ops_support_poison(f, DTYPE_F32, s->n, 2),
                 .dy = ops_support_normal(f, dtype, s->n, s->D, 1.0)};
    return p;
}

static int64_t row_of(const Problem *p, int64_t i)
{
    return tensor_given(p->rows) ? tensor_i32(p->rows)[i] : i;
}

/* y of one row, fp64. */
static void naive_row(double *y, const double *x, const double *w, const double *b, int64_t D, double *stats)
{
    double mean = 0.0, variance = 0.0;
    for (int64_t j = 0; j < D; j++)
        mean += x[j] / (double)D;
    for (int64_t j = 0; j < D; j++)
        variance += (x[j] - mean) * (x[j] - mean) / (double)D;
    double rstd = 1.0 / sqrt(variance + (double)EPS);
    for (int64_t j = 0; j < D; j++)
        y[j] = (x[j] - mean) * rstd * w[j] + b[j];
    if (stats) {
        stats[0] = mean;
        stats[1] = rstd;
    }
}

static void check_forward(OpsFixture *f, const Size *s, Dtype dtype)
{
    ArenaMark mark = arena_mark(&f->arena);
    Problem p = problem_of(f, s, dtype);
    f->ops->layer_norm_forward(f->ops, p.y, p.stats, tensor_none(), p.x, p.rows, p.w, p.b, EPS);
    double *x = ops_support_f64(f, p.x), *w = ops_support_f64(f, p.w), *b = ops_support_f64(f, p.b);
    double *y = ops_support_f64_zeros(f, s->n * s->D), *stats = ops_support_f64_zeros(f, 2 * s->n);
    for (int64_t i = 0; i < s->n; i++)
        naive_row(y + i * s->D, x + row_of(&p, i) * s->D, w, b, s->D, stats + 2 * i);
    double limit = dtype == DTYPE_BF16 ? OPS_SUPPORT_BF16 : 2e-6;
    cr_expect_lt(ops_support_error(p.y, y), limit, "D %d: y error %g", (int)s->D, ops_support_error(p.y, y));
    cr_expect_lt(ops_support_error(p.stats, stats), 2e-6);
    arena_reset(&f->arena, mark);
}

/* dx of row i by central differences of <dy, y>. */
static void difference_row(double *dx, const Problem *p, int64_t i, double *x, const double *w,
                           const double *b, double *y, int64_t D)
{
    double *row = x + row_of(p, i) * D;
    const double step = 1e-4;
    for (int64_t j = 0; j < D; j++) {
        double at = row[j], loss[2];
        for (int side = 0; side < 2; side++) {
            row[j] = side ? at - step : at + step;
            naive_row(y, row, w, b, D, NULL);
            loss[side] = 0.0;
            for (int64_t k = 0; k < D; k++)
                loss[side] += y[k] * ops_support_get(p->dy, i * D + k);
        }
        row[j] = at;
        dx[row_of(p, i) * D + j] += (loss[0] - loss[1]) / (2.0 * step);
    }
}

static void check_backward(OpsFixture *f, const Size *s, Dtype dtype)
{
    ArenaMark mark = arena_mark(&f->arena);
    Problem p = problem_of(f, s, dtype);
    Tensor dx = ops_support_normal(f, DTYPE_F32, s->N, s->D, 1.0);
    Tensor dw = ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0),
           db = ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0);
    double *want_x = ops_support_f64(f, dx), *want_w = ops_support_f64(f, dw),
           *want_b = ops_support_f64(f, db);
    Tensor kept = ops_support_poison(f, dtype, s->n, s->D), again = ops_support_poison(f, dtype, s->n, s->D);
    f->ops->layer_norm_forward(f->ops, p.y, p.stats, kept, p.x, p.rows, p.w, p.b, EPS);
    f->ops->layer_norm_backward(f->ops, dx, dw, db, again, p.dy, kept, p.rows, p.stats, p.w, p.b);
    cr_expect(ops_support_equal(again, p.y), "D %d: y made again differs", (int)s->D);

    double *x = ops_support_f64(f, p.x), *w = ops_support_f64(f, p.w), *y = ops_support_f64_zeros(f, s->D);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < s->D; j++)
            x[row_of(&p, i) * s->D + j] = ops_support_get(kept, i * s->D + j);
    double *ones = ops_support_f64_zeros(f, s->D), *zeros = ops_support_f64_zeros(f, s->D);
    for (int64_t j = 0; j < s->D; j++)
        ones[j] = 1.0;
    for (int64_t i = 0; i < s->n; i++) {
        difference_row(want_x, &p, i, x, w, zeros, y, s->D);
        naive_row(y, x + row_of(&p, i) * s->D, ones, zeros, s->D, NULL);
        for (int64_t j = 0; j < s->D; j++) {
            want_w[j] += y[j] * ops_support_get(p.dy, i * s->D + j);
            want_b[j] += ops_support_get(p.dy, i * s->D + j);
        }
    }
    cr_expect_lt(ops_support_error(dx, want_x), OPS_SUPPORT_F32, "D %d: dx error %g", (int)s->D,
                 ops_support_error(dx, want_x));
    cr_expect_lt(ops_support_error(dw, want_w), OPS_SUPPORT_F32, "D %d: dw error %g", (int)s->D,
                 ops_support_error(dw, want_w));
    cr_expect_lt(ops_support_error(db, want_b), OPS_SUPPORT_F32, "D %d: db error %g", (int)s->D,
                 ops_support_error(db, want_b));
    arena_reset(&f->arena, mark);
}

Test(layer_norm, forward)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, 1);
        for (int i = 0; i < SIZE_COUNT; i++) {
            check_forward(&f, &SIZES[i], DTYPE_F32);
            check_forward(&f, &SIZES[i], DTYPE_BF16);
        }
        ops_support_destroy(&f);
    }
}

/* dy and the kept rows are exact in either type and all else is fp32: one limit serves both. */
Test(layer_norm, backward)
{
    OpsFixture f = ops_support_create(2, 2);
    for (int i = 0; i < 5; i++) {
        check_backward(&f, &SIZES[i], DTYPE_F32);
        check_backward(&f, &SIZES[i], DTYPE_BF16);
    }
    ops_support_destroy(&f);
}

/* A common offset of 1000 leaves three digits less in x, and must not cost more than that. */
Test(layer_norm, large_offset)
{
    OpsFixture f = ops_support_create(1, 3);
    const Size s = {4, 4, 256, false};
    Problem p = problem_of(&f, &s, DTYPE_F32);
    for (int64_t i = 0; i < s.n * s.D; i++)
        ops_support_set(p.x, i, ops_support_get(p.x, i) + 1000.0);
    f.ops->layer_norm_forward(f.ops, p.y, p.stats, tensor_none(), p.x, p.rows, p.w, p.b, EPS);
    double *x = ops_support_f64(&f, p.x), *w = ops_support_f64(&f, p.w), *b = ops_support_f64(&f, p.b);
    double *y = ops_support_f64_zeros(&f, s.n * s.D);
    for (int64_t i = 0; i < s.n; i++)
        naive_row(y + i * s.D, x + i * s.D, w, b, s.D, NULL);
    cr_expect_lt(ops_support_error(p.y, y), 1e-4, "error %g", ops_support_error(p.y, y));
    ops_support_destroy(&f);
}

Test(layer_norm, constant_row_gives_the_bias)
{
    OpsFixture f = ops_support_create(1, 3);
    const Size s = {2, 2, 100, false};
    Problem p = problem_of(&f, &s, DTYPE_F32);
    for (int64_t i = 0; i < s.n * s.D; i++)
        ops_support_set(p.x, i, 3.0);
    f.ops->layer_norm_forward(f.ops, p.y, p.stats, tensor_none(), p.x, p.rows, p.w, p.b, EPS);
    for (int64_t i = 0; i < s.n * s.D; i++)
        cr_assert_float_eq(ops_support_get(p.y, i), ops_support_get(p.b, i % s.D), 1e-3);
    ops_support_destroy(&f);
}

Test(layer_norm, no_rows)
{
    OpsFixture f = ops_support_create(2, 4);
    const Size s = {0, 6, 10, true};
    Problem p = problem_of(&f, &s, DTYPE_F32);
    Tensor dx = ops_support_normal(&f, DTYPE_F32, 6, 10, 1.0),
           dx_before = ops_support_copy(&f, dx, DTYPE_F32);
    Tensor dw = ops_support_normal_1d(&f, DTYPE_F32, 10, 1.0),
           dw_before = ops_support_copy(&f, dw, DTYPE_F32);
    f.ops->layer_norm_forward(f.ops, p.y, p.stats, tensor_none(), p.x, p.rows, p.w, p.b, EPS);
    f.ops->layer_norm_backward(f.ops, dx, dw, dw, p.y, p.dy, p.x, p.rows, p.stats, p.w, p.b);
    cr_expect(ops_support_equal(dx, dx_before) && ops_support_equal(dw, dw_before));
    ops_support_destroy(&f);
}

Test(layer_norm, same_bits_again)
{
    Tensor dw[2], dx[2];
    OpsFixture f[2];
    const Size s = {300, 400, 96, true};
    for (int run = 0; run < 2; run++) {
        f[run] = ops_support_create(2, 5);
        Problem p = problem_of(&f[run], &s, DTYPE_F32);
        dx[run] = ops_support_zeros(&f[run], DTYPE_F32, s.N, s.D);
        dw[run] = ops_support_zeros(&f[run], DTYPE_F32, 2, s.D);
        Tensor w_part = tensor_rows(dw[run], 0, 1), b_part = tensor_rows(dw[run], 1, 1);
        f[run].ops->layer_norm_forward(f[run].ops, p.y, p.stats, tensor_none(), p.x, p.rows, p.w, p.b, EPS);
        f[run].ops->layer_norm_backward(f[run].ops, dx[run], w_part, b_part, tensor_none(), p.dy, p.x, p.rows,
                                        p.stats, p.w, tensor_none());
    }
    cr_expect(ops_support_equal(dx[0], dx[1]) && ops_support_equal(dw[0], dw[1]));
    ops_support_destroy(&f[0]);
    ops_support_destroy(&f[1]);
}

/* What it keeps are the rows in y's type, and y and stats are those of what it keeps. */
static void check_kept(OpsFixture *f, Dtype dtype, int64_t N, int64_t D)
{
    Tensor x = ops_support_normal(f, DTYPE_F32, 2 * N, D, 1.0), rows = ops_support_distinct(f, N, 2 * N);
    Tensor w = ops_support_normal_1d(f, DTYPE_F32, D, 1.0), b = ops_support_normal_1d(f, DTYPE_F32, D, 1.0);
    Tensor y = ops_support_poison(f, dtype, N, D), stats = ops_support_poison(f, DTYPE_F32, N, 2);
    Tensor kept = ops_support_poison(f, dtype, N, D), want = ops_support_poison(f, dtype, N, D);
    Tensor plain = ops_support_poison(f, dtype, N, D), plain_stats = ops_support_poison(f, DTYPE_F32, N, 2);
    f->ops->layer_norm_forward(f->ops, y, stats, kept, x, rows, w, b, EPS);
    f->ops->gather_rows(f->ops, want, x, rows);
    Tensor back = ops_support_copy(f, want, DTYPE_F32);
    f->ops->layer_norm_forward(f->ops, plain, plain_stats, tensor_none(), back, tensor_none(), w, b, EPS);
    cr_expect(ops_support_equal(kept, want));
    cr_expect(ops_support_equal(y, plain) && ops_support_equal(stats, plain_stats));
}

Test(layer_norm, keeps_a_copy_of_the_rows_and_works_on_that)
{
    OpsFixture f = ops_support_create(2, 36);
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        check_kept(&f, (Dtype)dtype, 9, 40);
        check_kept(&f, (Dtype)dtype, 61, 1100);
    }
    ops_support_destroy(&f);
}

Test(layer_norm, backward_takes_the_kept_rows_as_well)
{
    enum { N = 9, D = 40 };
    OpsFixture f = ops_support_create(2, 37);
    Tensor x = ops_support_normal(&f, DTYPE_F32, 20, D, 1.0), rows = ops_support_distinct(&f, N, 20);
    Tensor w = ops_support_normal_1d(&f, DTYPE_F32, D, 1.0),
           dy = ops_support_normal(&f, DTYPE_F32, N, D, 1.0);
    Tensor y = ops_support_poison(&f, DTYPE_F32, N, D), stats = ops_support_poison(&f, DTYPE_F32, N, 2);
    Tensor kept = ops_support_poison(&f, DTYPE_F32, N, D), dx[2], dw[2], db[2];
    f.ops->layer_norm_forward(f.ops, y, stats, kept, x, rows, w, w, 1e-6f);
    for (int k = 0; k < 2; k++) {
        dx[k] = ops_support_zeros(&f, DTYPE_F32, 20, D);
        dw[k] = tensor_1d(ops_support_zeros(&f, DTYPE_F32, 1, D).data, DTYPE_F32, D);
        db[k] = tensor_1d(ops_support_zeros(&f, DTYPE_F32, 1, D).data, DTYPE_F32, D);
        f.ops->layer_norm_backward(f.ops, dx[k], dw[k], db[k], tensor_none(), dy, k ? kept : x, rows, stats,
                                   w, tensor_none());
    }
    cr_expect(ops_support_equal(dx[0], dx[1]) && ops_support_equal(dw[0], dw[1]) &&
              ops_support_equal(db[0], db[1]));
    ops_support_destroy(&f);
}

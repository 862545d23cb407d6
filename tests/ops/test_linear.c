/* test_linear.c - fully connected layers against sums in fp64, for every mix of types. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct {
    int64_t n, k, m;
} Size;

static const Size SIZES[] = {{1, 1, 1},     {24, 24, 24},  {70, 20, 1100}, {7, 5, 3},
                             {65, 48, 144}, {33, 17, 130}, {2, 384, 40},   {200, 96, 31},
                             {40, 64, 300}, {5, 588, 24},  {1030, 20, 9},  {2500, 8, 16}};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

/* out[n, m] = x[n, k] . w^T (w[m, k]), fp64. */
static double *naive_product(OpsFixture *f, Tensor x, Tensor w)
{
    int64_t n = x.shape[0], k = x.shape[1], m = w.shape[0];
    const double *a = ops_support_f64(f, x), *b = ops_support_f64(f, w);
    double *out = ops_support_f64_zeros(f, n * m);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t l = 0; l < k; l++)
                out[i * m + j] += a[i * k + l] * b[j * k + l];
    return out;
}

static Tensor transposed(OpsFixture *f, Tensor t)
{
    Tensor out = ops_support_poison(f, t.dtype, t.shape[1], t.shape[0]);
    for (int64_t i = 0; i < t.shape[0]; i++)
        for (int64_t j = 0; j < t.shape[1]; j++)
            ops_support_set(out, j * t.shape[0] + i, ops_support_get(t, i * t.shape[1] + j));
    return out;
}

static double limit_of(Dtype act, Dtype mat)
{
    return act == DTYPE_BF16 || mat == DTYPE_BF16 ? OPS_SUPPORT_BF16 : OPS_SUPPORT_F32;
}

static void check_forward(OpsFixture *f, const Size *s, Dtype act, Dtype mat, bool with_bias)
{
    ArenaMark mark = arena_mark(&f->arena);
    Tensor x = ops_support_normal(f, act, s->n, s->k, 1.0), w = ops_support_normal(f, mat, s->m, s->k, 0.3);
    Tensor b = with_bias ? ops_support_normal_1d(f, DTYPE_F32, s->m, 1.0) : tensor_none();
    Tensor y = ops_support_poison(f, act, s->n, s->m);
    f->ops->linear_forward(f->ops, y, x, w, b);
    double *want = naive_product(f, x, w);
    for (int64_t i = 0; with_bias && i < s->n * s->m; i++)
        want[i] += ops_support_get(b, i % s->m);
    cr_expect_lt(ops_support_error(y, want), limit_of(act, mat), "n %d k %d m %d types %d %d: error %g",
                 (int)s->n, (int)s->k, (int)s->m, act, mat, ops_support_error(y, want));
    arena_reset(&f->arena, mark);
}

static void check_backward_input(OpsFixture *f, const Size *s, Dtype act, Dtype mat)
{
    ArenaMark mark = arena_mark(&f->arena);
    Tensor dy = ops_support_normal(f, act, s->n, s->m, 1.0), w = ops_support_normal(f, mat, s->m, s->k, 0.3);
    Tensor dx = ops_support_poison(f, act, s->n, s->k);
    f->ops->linear_backward_input(f->ops, dx, dy, w);
    double *want = naive_product(f, dy, transposed(f, w));
    cr_expect_lt(ops_support_error(dx, want), limit_of(act, mat), "n %d k %d m %d types %d %d: error %g",
                 (int)s->n, (int)s->k, (int)s->m, act, mat, ops_support_error(dx, want));
    arena_reset(&f->arena, mark);
}

static void check_backward_weight(OpsFixture *f, const Size *s, Dtype act, bool with_bias)
{
    ArenaMark mark = arena_mark(&f->arena);
    Tensor dy = ops_support_normal(f, act, s->n, s->m, 1.0), x = ops_support_normal(f, act, s->n, s->k, 1.0);
    Tensor dw = ops_support_normal(f, DTYPE_F32, s->m, s->k, 1.0);
    Tensor db = with_bias ? ops_support_normal_1d(f, DTYPE_F32, s->m, 1.0) : tensor_none();
    double *want_w = naive_product(f, transposed(f, dy), transposed(f, x));
    double *want_b = ops_support_f64_zeros(f, s->m);
    for (int64_t i = 0; i < s->m * s->k; i++)
        want_w[i] += ops_support_get(dw, i);
    for (int64_t i = 0; with_bias && i < s->m; i++) {
        want_b[i] = ops_support_get(db, i);
        for (int64_t row = 0; row < s->n; row++)
            want_b[i] += ops_support_get(dy, row * s->m + i);
    }
    f->ops->linear_backward_weight(f->ops, dw, db, dy, x);
    /* the operands are exact in either type and sums are fp32: the narrow limit holds for bf16, too */
    cr_expect_lt(ops_support_error(dw, want_w), OPS_SUPPORT_F32, "n %d k %d m %d type %d: dw error %g",
                 (int)s->n, (int)s->k, (int)s->m, act, ops_support_error(dw, want_w));
    if (with_bias) cr_expect_lt(ops_support_error(db, want_b), OPS_SUPPORT_F32, "type %d: db", act);
    arena_reset(&f->arena, mark);
}

static const Dtype TYPES[2] = {DTYPE_F32, DTYPE_BF16};

static void check_all(void)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, (uint64_t)threads);
        for (int i = 0; i < SIZE_COUNT; i++)
            for (int act = 0; act < 2; act++) {
                for (int mat = 0; mat < 2; mat++) {
                    check_forward(&f, &SIZES[i], TYPES[act], TYPES[mat], (i + act) % 2);
                    check_backward_input(&f, &SIZES[i], TYPES[act], TYPES[mat]);
                }
                check_backward_weight(&f, &SIZES[i], TYPES[act], i % 2);
            }
        ops_support_destroy(&f);
    }
}

Test(linear, products_in_every_type)
{
    check_all();
}

/* What a processor without bf16 products does; the library reads the variable once, before its first use. */
Test(linear, products_without_bf16_instructions)
{
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    check_all();
}

/* bf16 weights make bf16 products of fp32 activations: exactly those of the rounded activations. */
Test(linear, fp32_activations_are_rounded_for_bf16_weights)
{
    OpsFixture f = ops_support_create(1, 4);
    Tensor x = ops_support_normal(&f, DTYPE_F32, 30, 64, 1.0),
           w = ops_support_normal(&f, DTYPE_BF16, 48, 64, 1.0);
    Tensor y = ops_support_poison(&f, DTYPE_F32, 30, 48);
    f.ops->linear_forward(f.ops, y, x, w, tensor_none());
    double *want = naive_product(&f, ops_support_copy(&f, x, DTYPE_BF16), w);
    cr_expect_lt(ops_support_error(y, want), OPS_SUPPORT_F32);
    ops_support_destroy(&f);
}

Test(linear, no_rows)
{
    OpsFixture f = ops_support_create(2, 5);
    Tensor empty = ops_support_poison(&f, DTYPE_F32, 0, 8), w = ops_support_normal(&f, DTYPE_F32, 8, 8, 1.0);
    Tensor dw = ops_support_normal(&f, DTYPE_F32, 8, 8, 1.0),
           db = ops_support_normal_1d(&f, DTYPE_F32, 8, 1.0);
    Tensor dw_before = ops_support_copy(&f, dw, DTYPE_F32), db_before = ops_support_copy(&f, db, DTYPE_F32);
    f.ops->linear_forward(f.ops, empty, empty, w, db);
    f.ops->linear_backward_input(f.ops, empty, empty, w);
    f.ops->linear_backward_weight(f.ops, dw, db, empty, empty);
    cr_expect(ops_support_equal(dw, dw_before) && ops_support_equal(db, db_before));
    ops_support_destroy(&f);
}

Test(linear, same_bits_again)
{
    Tensor first[3] = {{0}};
    OpsFixture f[2];
    for (int run = 0; run < 2; run++) {
        f[run] = ops_support_create(2, 6);
        Tensor x = ops_support_normal(&f[run], DTYPE_F32, 777, 96, 1.0);
        Tensor w = ops_support_normal(&f[run], DTYPE_F32, 288, 96, 1.0);
        Tensor y = ops_support_poison(&f[run], DTYPE_F32, 777, 288);
        Tensor dw = ops_support_zeros(&f[run], DTYPE_F32, 288, 96);
        Tensor db = tensor_rows(ops_support_zeros(&f[run], DTYPE_F32, 288, 1), 0, 288);
        f[run].ops->linear_forward(f[run].ops, y, x, w, tensor_none());
        f[run].ops->linear_backward_weight(f[run].ops, dw, db, y, x);
        if (run == 0) {
            first[0] = y;
            first[1] = dw;
            first[2] = db;
        } else {
            cr_expect(ops_support_equal(y, first[0]) && ops_support_equal(dw, first[1]));
            cr_expect(ops_support_equal(db, first[2]));
        }
    }
    ops_support_destroy(&f[0]);
    ops_support_destroy(&f[1]);
}

/* More shapes than the cache of primitives holds: results stay right when entries replace each other. */
Test(linear, many_shapes)
{
    OpsFixture f = ops_support_create(1, 7);
    Tensor w = ops_support_normal(&f, DTYPE_F32, 3, 4, 1.0);
    for (int round = 0; round < 2; round++)
        for (int64_t n = 1; n <= 700; n++) {
            ArenaMark mark = arena_mark(&f.arena);
            Tensor x = ops_support_normal(&f, DTYPE_F32, n, 4, 1.0),
                   y = ops_support_poison(&f, DTYPE_F32, n, 3);
            f.ops->linear_forward(f.ops, y, x, w, tensor_none());
            cr_assert_lt(ops_support_error(y, naive_product(&f, x, w)), OPS_SUPPORT_F32);
            arena_reset(&f.arena, mark);
        }
    ops_support_destroy(&f);
}

/* test_rows.c - residual branches and moves of rows, element by element in fp64. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

typedef struct {
    int64_t n, N, D;
    bool selected, scaled, gamma;
} Size;

static const Size SIZES[] = {{1, 1, 3, false, false, false},   {6, 6, 40, false, false, true},
                             {7, 30, 48, true, true, true},    {150, 200, 384, true, true, true},
                             {65, 70, 700, true, true, false}, {300, 300, 96, false, true, true}};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

typedef struct {
    Tensor x, y, rows, scale, gamma;
} Problem;

static Problem problem_of(OpsFixture *f, const Size *s, Dtype dtype)
{
    return (Problem){.x = ops_support_normal(f, DTYPE_F32, s->N, s->D, 1.0),
                     .y = ops_support_normal(f, dtype, s->n, s->D, 1.0),
                     .rows = s->selected ? ops_support_distinct(f, s->n, s->N) : tensor_none(),
                     .scale = s->scaled ? ops_support_normal_1d(f, DTYPE_F32, s->n, 1.0) : tensor_none(),
                     .gamma = s->gamma ? ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0) : tensor_none()};
}

static int64_t row_of(Tensor rows, int64_t i)
{
    return tensor_given(rows) ? tensor_i32(rows)[i] : i;
}

static double or_one(Tensor t, int64_t i)
{
    return tensor_given(t) ? ops_support_get(t, i) : 1.0;
}

static void check_residual_forward(OpsFixture *f, const Size *s, Dtype dtype)
{
    ArenaMark mark = arena_mark(&f->arena);
    Problem p = problem_of(f, s, dtype);
    double *want = ops_support_f64(f, p.x);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < s->D; j++)
            want[row_of(p.rows, i) * s->D + j] +=
                or_one(p.scale, i) * or_one(p.gamma, j) * ops_support_get(p.y, i * s->D + j);
    f->ops->residual_forward(f->ops, p.x, p.y, p.rows, p.scale, p.gamma);
    cr_expect_lt(ops_support_error(p.x, want), 5e-7, "n %d D %d: %g", (int)s->n, (int)s->D,
                 ops_support_error(p.x, want));
    arena_reset(&f->arena, mark);
}

static void check_residual_backward(OpsFixture *f, const Size *s, Dtype dtype)
{
    ArenaMark mark = arena_mark(&f->arena);
    Problem p = problem_of(f, s, dtype); /* p.x is dx here */
    Tensor dy = ops_support_poison(f, dtype, s->n, s->D);
    Tensor dgamma = s->gamma ? ops_support_normal_1d(f, DTYPE_F32, s->D, 1.0) : tensor_none();
    double *want = ops_support_f64_zeros(f, s->n * s->D), *want_gamma = ops_support_f64(f, dgamma);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < s->D; j++) {
            double d = or_one(p.scale, i) * ops_support_get(p.x, row_of(p.rows, i) * s->D + j);
            want[i * s->D + j] = d * or_one(p.gamma, j);
            if (s->gamma) want_gamma[j] += d * ops_support_get(p.y, i * s->D + j);
        }
    f->ops->residual_backward(f->ops, dy, dgamma, p.x, p.y, p.rows, p.scale, p.gamma);
    cr_expect_lt(ops_support_error(dy, want), dtype == DTYPE_BF16 ? OPS_SUPPORT_BF16 : 5e-7);
    if (s->gamma)
        cr_expect_lt(ops_support_error(dgamma, want_gamma), 2e-6, "n %d: dgamma %g", (int)s->n,
                     ops_support_error(dgamma, want_gamma));
    arena_reset(&f->arena, mark);
}

Test(rows, residual)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, 1);
        for (int i = 0; i < SIZE_COUNT; i++)
            for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
                check_residual_forward(&f, &SIZES[i], (Dtype)dtype);
                check_residual_backward(&f, &SIZES[i], (Dtype)dtype);
            }
        ops_support_destroy(&f);
    }
}

Test(rows, residual_same_bits_again)
{
    Tensor dgamma[2];
    OpsFixture f[2];
    const Size s = {300, 400, 96, true, true, true};
    for (int run = 0; run < 2; run++) {
        f[run] = ops_support_create(2, 2);
        Problem p = problem_of(&f[run], &s, DTYPE_F32);
        dgamma[run] = ops_support_zeros(&f[run], DTYPE_F32, 1, s.D);
        f[run].ops->residual_backward(f[run].ops, ops_support_poison(&f[run], DTYPE_F32, s.n, s.D),
                                      dgamma[run], p.x, p.y, p.rows, p.scale, p.gamma);
    }
    cr_expect(ops_support_equal(dgamma[0], dgamma[1]));
    ops_support_destroy(&f[0]);
    ops_support_destroy(&f[1]);
}

Test(rows, gather_in_every_type)
{
    OpsFixture f = ops_support_create(2, 3);
    const int64_t sizes[][3] = {{1, 1, 1}, {5, 9, 13}, {200, 120, 200}};
    for (int s = 0; s < 3; s++)
        for (int from = DTYPE_F32; from <= DTYPE_BF16; from++)
            for (int to = DTYPE_F32; to <= DTYPE_BF16; to++) {
                int64_t n = sizes[s][0], N = sizes[s][1], D = sizes[s][2];
                Tensor x = ops_support_normal(&f, (Dtype)from, N, D, 1.0);
                Tensor y = ops_support_poison(&f, (Dtype)to, n, D);
                Tensor rows = ops_support_poison_1d(&f, DTYPE_I32, n);
                for (int64_t i = 0; i < n; i++) /* repeats are allowed */
                    tensor_i32(rows)[i] = (int32_t)rng_integer(&f.rng, 0, N - 1);
                f.ops->gather_rows(f.ops, y, x, rows);
                Tensor converted = ops_support_copy(&f, x, (Dtype)to);
                for (int64_t i = 0; i < n; i++)
                    cr_assert(
                        ops_support_equal(tensor_rows(y, i, 1), tensor_rows(converted, row_of(rows, i), 1)));
            }
    ops_support_destroy(&f);
}

Test(rows, scatter_adds_repeats_in_order)
{
    for (int threads = 1; threads <= 2; threads++) {
        OpsFixture f = ops_support_create(threads, 4);
        const int64_t n = 400, N = 37, D = 130;
        for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            Tensor x = ops_support_normal(&f, DTYPE_F32, N, D, 1.0),
                   y = ops_support_normal(&f, (Dtype)dtype, n, D, 1.0);
            Tensor rows = ops_support_poison_1d(&f, DTYPE_I32, n), want = ops_support_copy(&f, x, DTYPE_F32);
            for (int64_t i = 0; i < n; i++) {
                int64_t row = rng_integer(&f.rng, 0, N - 1);
                tensor_i32(rows)[i] = (int32_t)row;
                for (int64_t j = 0; j < D; j++)
                    tensor_f32(want)[row * D + j] += (float)ops_support_get(y, i * D + j);
            }
            f.ops->scatter_add_rows(f.ops, x, y, rows);
            cr_expect(ops_support_equal(x, want), "the sums of fp32 numbers in this order are exact");
        }
        ops_support_destroy(&f);
    }
}

Test(rows, cast_rounds_to_nearest_even)
{
    OpsFixture f = ops_support_create(2, 5);
    const uint32_t patterns[] = {0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff,
                                 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff,
                                 0x00000001, 0x80000000, 0x7f7fffff, 0x7fffffff};
    enum { COUNT = sizeof patterns / sizeof *patterns };
    Tensor in = ops_support_normal(&f, DTYPE_F32, 50, 1003, 1.0),
           out = ops_support_zeros(&f, DTYPE_BF16, 50, 1003);
    memcpy((float *)in.data + 20, patterns, sizeof patterns);
    f.ops->cast(f.ops, out, in);
    for (int64_t i = 0; i < tensor_count(in); i++)
        cr_assert_eq(((uint16_t *)out.data)[i], dtype_bf16_from_f32(tensor_f32(in)[i]), "element %lld",
                     (long long)i);
    Tensor back = ops_support_zeros(&f, DTYPE_F32, 50, 1003);
    f.ops->cast(f.ops, back, out);
    for (int64_t i = 20 + COUNT; i < tensor_count(in); i++)
        cr_assert_eq(tensor_f32(back)[i], dtype_f32_from_bf16(((uint16_t *)out.data)[i]));
    ops_support_destroy(&f);
}

Test(rows, nothing_to_do)
{
    OpsFixture f = ops_support_create(2, 6);
    Tensor x = ops_support_normal(&f, DTYPE_F32, 5, 8, 1.0), before = ops_support_copy(&f, x, DTYPE_F32);
    Tensor y = ops_support_poison(&f, DTYPE_F32, 0, 8), rows = ops_support_i32(&f, 0, NULL);
    Tensor gamma = ops_support_normal_1d(&f, DTYPE_F32, 8, 1.0),
           dgamma = ops_support_copy(&f, gamma, DTYPE_F32);
    f.ops->residual_forward(f.ops, x, y, rows, tensor_none(), gamma);
    f.ops->residual_backward(f.ops, y, dgamma, x, y, rows, tensor_none(), gamma);
    f.ops->gather_rows(f.ops, y, x, rows);
    f.ops->scatter_add_rows(f.ops, x, y, rows);
    cr_expect(ops_support_equal(x, before) && ops_support_equal(dgamma, gamma));
    ops_support_destroy(&f);
}

/* test_attention.c - tiled attention against the whole score matrix in fp64. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

typedef struct {
    int sequences;
    int32_t lengths[8];
    int64_t heads, head_dim;
    int threads;
} Case;

static const Case CASES[] = {
    {1, {1}, 1, 4, 1},        {3, {2, 5, 3}, 2, 8, 1},         {4, {5, 17, 16, 64}, 3, 16, 2},
    {2, {65, 63}, 2, 32, 2},  {2, {0, 7}, 1, 12, 1},           {1, {257}, 2, 64, 2},
    {2, {60, 61}, 1, 100, 1}, {3, {120, 128, 129}, 2, 20, 2},  {1, {700}, 1, 24, 1},
    {2, {9, 70}, 1, 256, 2},  {5, {50, 50, 50, 1, 5}, 6, 5, 2}};

/* The operands of one case, outputs poisoned. */
typedef struct {
    Tensor qkv, out, lse, dout, dqkv, cu_seqlens;
    int64_t n, D;
} Problem;

static Problem problem_of(OpsFixture *f, const Case *c, Dtype dtype, double std)
{
    int32_t cu[9] = {0};
    for (int s = 0; s < c->sequences; s++)
        cu[s + 1] = cu[s] + c->lengths[s];
    int64_t n = cu[c->sequences], D = c->heads * c->head_dim;
    return (Problem){.qkv = ops_support_normal(f, dtype, n, 3 * D, std),
                     .out = ops_support_poison(f, dtype, n, D),
                     .lse = ops_support_poison(f, DTYPE_F32, n, c->heads),
                     .dout = ops_support_normal(f, dtype, n, D, 1.0),
                     .dqkv = ops_support_poison(f, dtype, n, 3 * D),
                     .cu_seqlens = ops_support_i32(f, c->sequences + 1, cu),
                     .n = n,
                     .D = D};
}

/* One query row of one head over the keys of its sequence; out and lse in fp64. */
static void naive_row(double *out, double *lse, const double *qkv, int64_t D, int64_t head, int64_t head_dim,
                      int64_t row, int64_t first, int64_t last)
{
    double scores[1500], largest = -INFINITY, total = 0.0;
    const double *q = qkv + row * 3 * D + head * head_dim;
    for (int64_t k = first; k < last; k++) {
        const double *key = qkv + k * 3 * D + D + head * head_dim;
        double dot = 0.0;
        for (int64_t j = 0; j < head_dim; j++)
            dot += q[j] * key[j];
        scores[k - first] = dot / sqrt((double)head_dim);
        largest = fmax(largest, scores[k - first]);
    }
    for (int64_t k = first; k < last; k++)
        total += scores[k - first] = exp(scores[k - first] - largest);
    for (int64_t j = 0; j < head_dim; j++) {
        double sum = 0.0;
        for (int64_t k = first; k < last; k++)
            sum += scores[k - first] * qkv[k * 3 * D + 2 * D + head * head_dim + j];
        out[row * D + head * head_dim + j] = sum / total;
    }
    *lse = largest + log(total);
}

static void naive_forward(double *out, double *lse, const double *qkv, const Case *c)
{
    int64_t first = 0, D = c->heads * c->head_dim;
    for (int s = 0; s < c->sequences; s++) {
        int64_t last = first + c->lengths[s];
        for (int64_t row = first; row < last; row++)
            for (int64_t h = 0; h < c->heads; h++)
                naive_row(out, &lse[row * c->heads + h], qkv, D, h, c->head_dim, row, first, last);
        first = last;
    }
}

static void run_forward(const OpsFixture *f, const Case *c, const Problem *p)
{
    f->ops->attention_forward(f->ops, p->out, p->lse, p->qkv, p->cu_seqlens, c->heads);
}

static void run_backward(const OpsFixture *f, const Case *c, const Problem *p)
{
    f->ops->attention_backward(f->ops, p->dqkv, p->dout, p->out, p->lse, p->qkv, p->cu_seqlens, c->heads);
}

/* <dout, out(qkv)> in fp64 */
static double naive_loss(OpsFixture *f, const Case *c, const Problem *p, const double *qkv)
{
    ArenaMark mark = arena_mark(&f->arena);
    double *out = ops_support_f64_zeros(f, p->n * p->D);
    double *lse = ops_support_f64_zeros(f, p->n * c->heads);
    naive_forward(out, lse, qkv, c);
    double loss = ops_support_dot(p->dout, out);
    arena_reset(&f->arena, mark);
    return loss;
}

static void check_forward(Dtype dtype, double limit)
{
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const Case *c = &CASES[i];
        OpsFixture f = ops_support_create(c->threads, 100 + i);
        Problem p = problem_of(&f, c, dtype, 1.5);
        run_forward(&f, c, &p);
        double *out = ops_support_f64_zeros(&f, p.n * p.D), *lse = ops_support_f64_zeros(&f, p.n * c->heads);
        naive_forward(out, lse, ops_support_f64(&f, p.qkv), c);
        cr_expect_lt(ops_support_error(p.out, out), limit, "case %zu: out differs by %g", i,
                     ops_support_error(p.out, out));
        cr_expect_lt(ops_support_error(p.lse, lse), 2e-6, "case %zu: lse differs by %g", i,
                     ops_support_error(p.lse, lse));
        ops_support_destroy(&f);
    }
}

Test(attention, forward_equals_whole_softmax)
{
    check_forward(DTYPE_F32, OPS_SUPPORT_F32);
}

Test(attention, forward_bf16)
{
    check_forward(DTYPE_BF16, OPS_SUPPORT_BF16);
}

/* Every element of the gradient, by central differences of the fp64 forward pass. */
static void check_gradient(const Case *c, Dtype dtype, double limit)
{
    OpsFixture f = ops_support_create(c->threads, 7);
    Problem p = problem_of(&f, c, dtype, 1.0);
    run_forward(&f, c, &p);
    run_backward(&f, c, &p);
    double *qkv = ops_support_f64(&f, p.qkv);
    double *want = ops_support_f64_zeros(&f, p.n * 3 * p.D);
    const double step = 1e-4;
    for (int64_t i = 0; i < p.n * 3 * p.D; i++) {
        double at = qkv[i];
        qkv[i] = at + step;
        double up = naive_loss(&f, c, &p, qkv);
        qkv[i] = at - step;
        double down = naive_loss(&f, c, &p, qkv);
        qkv[i] = at;
        want[i] = (up - down) / (2.0 * step);
    }
    cr_expect_lt(ops_support_error(p.dqkv, want), limit, "gradient differs by %g",
                 ops_support_error(p.dqkv, want));
    ops_support_destroy(&f);
}

Test(attention, backward_equals_finite_differences)
{
    check_gradient(&(Case){3, {2, 7, 1}, 2, 8, 1}, DTYPE_F32, 2e-6);
    check_gradient(&(Case){2, {13, 18}, 1, 5, 2}, DTYPE_F32, 2e-6);
}

Test(attention, backward_bf16)
{
    check_gradient(&(Case){2, {11, 5}, 2, 8, 1}, DTYPE_BF16, 2e-2);
}

/* Sizes that cross tiles: directional derivatives, each along one third (q, k or v) of a random run of rows.
 */
Test(attention, backward_across_tiles)
{
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const Case *c = &CASES[i];
        OpsFixture f = ops_support_create(c->threads, 40 + i);
        Problem p = problem_of(&f, c, DTYPE_F32, 1.0);
        run_forward(&f, c, &p);
        run_backward(&f, c, &p);
        double *qkv = ops_support_f64(&f, p.qkv);
        int64_t count = p.n * 3 * p.D;
        double *moved = ops_support_f64_zeros(&f, count), *direction = ops_support_f64_zeros(&f, count);
        for (int third = 0; third < 3; third++) {
            int64_t begin = rng_integer(&f.rng, 0, p.n - 1), end = rng_integer(&f.rng, begin + 1, p.n);
            double squares = 0.0, losses[2];
            for (int64_t k = 0; k < count; k++) {
                int64_t row = k / (3 * p.D);
                bool inside = row >= begin && row < end && k % (3 * p.D) / p.D == third;
                direction[k] = inside ? rng_normal(&f.rng) : 0.0;
                squares += pow(direction[k] * ops_support_get(p.dqkv, k), 2);
            }
            for (int side = 0; side < 2; side++) {
                for (int64_t k = 0; k < count; k++)
                    moved[k] = qkv[k] + (side ? -1e-4 : 1e-4) * direction[k];
                losses[side] = naive_loss(&f, c, &p, moved);
            }
            double want = (losses[0] - losses[1]) / 2e-4, got = ops_support_dot(p.dqkv, direction);
            cr_expect_lt(fabs(got - want), 2e-6 * sqrt(squares) + 1e-7, "case %zu third %d: %g, not %g", i,
                         third, got, want);
        }
        ops_support_destroy(&f);
    }
}

Test(attention, packed_equals_one_by_one)
{
    const Case c = {
        .sequences = 5, .lengths = {50, 3, 130, 65, 17}, .heads = 3, .head_dim = 16, .threads = 2};
    OpsFixture f = ops_support_create(c.threads, 3);
    Problem all = problem_of(&f, &c, DTYPE_F32, 1.0);
    run_forward(&f, &c, &all);
    run_backward(&f, &c, &all);
    int64_t first = 0;
    for (int s = 0; s < c.sequences; s++) {
        Case one = {.sequences = 1, .lengths = {c.lengths[s]}, .heads = c.heads, .head_dim = c.head_dim};
        Problem p = problem_of(&f, &one, DTYPE_F32, 1.0);
        p.qkv = tensor_rows(all.qkv, first, p.n);
        p.dout = tensor_rows(all.dout, first, p.n);
        run_forward(&f, &one, &p);
        run_backward(&f, &one, &p);
        cr_expect(ops_support_equal(p.out, tensor_rows(all.out, first, p.n)), "out of sequence %d", s);
        cr_expect(ops_support_equal(p.lse, tensor_rows(all.lse, first, p.n)), "lse of sequence %d", s);
        cr_expect(ops_support_equal(p.dqkv, tensor_rows(all.dqkv, first, p.n)), "dqkv of sequence %d", s);
        first += p.n;
    }
    ops_support_destroy(&f);
}

Test(attention, same_bits_for_any_thread_count)
{
    const Case c = {.sequences = 6, .lengths = {70, 5, 200, 31, 64, 2}, .heads = 4, .head_dim = 32};
    OpsFixture first = ops_support_create(1, 11);
    Problem p = problem_of(&first, &c, DTYPE_F32, 1.0);
    run_forward(&first, &c, &p);
    run_backward(&first, &c, &p);
    for (int threads = 1; threads <= 3; threads++) {
        OpsFixture f = ops_support_create(threads, 11);
        Problem again = problem_of(&f, &c, DTYPE_F32, 1.0);
        run_forward(&f, &c, &again);
        run_backward(&f, &c, &again);
        cr_expect(ops_support_equal(p.out, again.out) && ops_support_equal(p.lse, again.lse));
        cr_expect(ops_support_equal(p.dqkv, again.dqkv));
        ops_support_destroy(&f);
    }
    ops_support_destroy(&first);
}

/* Scores of several thousand: exp of any of them alone would overflow. */
Test(attention, large_scores_stay_finite)
{
    const Case c = {.sequences = 2, .lengths = {90, 20}, .heads = 2, .head_dim = 16, .threads = 1};
    OpsFixture f = ops_support_create(1, 5);
    Problem p = problem_of(&f, &c, DTYPE_F32, 40.0);
    run_forward(&f, &c, &p);
    run_backward(&f, &c, &p);
    double *out = ops_support_f64_zeros(&f, p.n * p.D), *lse = ops_support_f64_zeros(&f, p.n * c.heads);
    naive_forward(out, lse, ops_support_f64(&f, p.qkv), &c);
    cr_expect_lt(ops_support_error(p.lse, lse), 1e-6);
    cr_expect_lt(ops_support_error(p.out, out), 1e-3); /* scores of 1e4 have an absolute error of 1e-3 */
    for (int64_t i = 0; i < p.n * 3 * p.D; i++)
        cr_assert(isfinite(ops_support_get(p.dqkv, i)));
    ops_support_destroy(&f);
}

Test(attention, nan_is_not_hidden)
{
    const Case c = {.sequences = 1, .lengths = {70}, .heads = 1, .head_dim = 16, .threads = 1};
    OpsFixture f = ops_support_create(1, 5);
    Problem p = problem_of(&f, &c, DTYPE_F32, 1.0);
    ops_support_set(p.qkv, 66 * 3 * p.D + p.D, NAN); /* one number of one key */
    run_forward(&f, &c, &p);
    for (int64_t row = 0; row < p.n; row++)
        cr_assert(isnan(ops_support_get(p.out, row * p.D)), "row %lld", (long long)row);
    ops_support_destroy(&f);
}

Test(attention, nothing_to_do)
{
    OpsFixture f = ops_support_create(2, 1);
    const Case c = {.sequences = 2, .lengths = {0, 0}, .heads = 2, .head_dim = 8};
    Problem p = problem_of(&f, &c, DTYPE_F32, 1.0);
    run_forward(&f, &c, &p);
    run_backward(&f, &c, &p);
    ops_support_destroy(&f);
}

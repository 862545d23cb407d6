/* pos_embed against a direct two-dimensional sum of kernel values, and its transpose. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

/* Keys' kernel, written out in powers. */
static double kernel(double x, double a)
{
    double t = fabs(x);
    if (t <= 1.0) return (a + 2.0) * pow(t, 3.0) - (a + 3.0) * pow(t, 2.0) + 1.0;
    if (t < 2.0) return a * pow(t, 3.0) - 5.0 * a * pow(t, 2.0) + 8.0 * a * t - 4.0 * a;
    return 0.0;
}

/* weight[in] with which input places make output place i of one axis. */
static void axis_weights(double *weight, int64_t in, int64_t out, int64_t i, double offset, bool antialias)
{
    double scale = (double)in / ((double)out + offset), sum = 0.0;
    for (int64_t a = 0; a < in; a++)
        weight[a] = 0.0;
    if (antialias) {
        double center = ((double)i + 0.5) * scale, stretch = fmax(scale, 1.0);
        for (int64_t a = 0; a < in; a++)
            sum += weight[a] = kernel(((double)a + 0.5 - center) / stretch, -0.5);
        for (int64_t a = 0; a < in; a++)
            weight[a] /= sum;
        return;
    }
    double place = ((double)i + 0.5) * scale - 0.5;
    for (int64_t a = (int64_t)floor(place) - 1; a <= (int64_t)floor(place) + 2; a++)
        weight[a < 0 ? 0 : a >= in ? in - 1 : a] += kernel(place - (double)a, -0.75);
}

static double *resampled(OpsFixture *f, Tensor pos, int64_t side, int64_t h, int64_t w, double offset,
                         bool antialias)
{
    int64_t D = pos.shape[1];
    double *out = ops_support_f64_zeros(f, (1 + h * w) * D), *rows = ops_support_f64_zeros(f, side);
    double *columns = ops_support_f64_zeros(f, side), *in = ops_support_f64(f, pos);
    for (int64_t d = 0; d < D; d++)
        out[d] = in[d];
    for (int64_t at = 0; at < h * w; at++) {
        axis_weights(rows, side, h, at / w, offset, antialias);
        axis_weights(columns, side, w, at % w, offset, antialias);
        for (int64_t from = 0; from < side * side; from++)
            for (int64_t d = 0; d < D; d++)
                out[(1 + at) * D + d] += rows[from / side] * columns[from % side] * in[(1 + from) * D + d];
    }
    return out;
}

typedef struct {
    int64_t side, h, w, D;
} Grid;

static const Grid GRIDS[] = {{1, 1, 3, 4}, {2, 5, 1, 3},  {4, 4, 4, 7},   {4, 2, 8, 65},
                             {7, 3, 3, 8}, {16, 7, 7, 1}, {5, 12, 9, 64}, {16, 1, 2, 130}};
enum { GRID_COUNT = sizeof GRIDS / sizeof *GRIDS };

Test(pos_embed, forward_agrees_with_the_direct_sum)
{
    OpsFixture f = ops_support_create(2, 61);
    for (int s = 0; s < 3 * GRID_COUNT; s++) {
        Grid g = GRIDS[s / 3];
        double offset = s % 3 == 0 ? 0.1 : 0.0;
        bool antialias = s % 3 == 2;
        Tensor pos = ops_support_normal(&f, DTYPE_F32, 1 + g.side * g.side, g.D, 1.0);
        Tensor out = ops_support_poison(&f, DTYPE_F32, 1 + g.h * g.w, g.D);
        f.ops->pos_embed_forward(f.ops, out, pos, g.h, g.w, offset, antialias);
        double *want = resampled(&f, pos, g.side, g.h, g.w, offset, antialias);
        cr_expect_lt(ops_support_error(out, want), 2e-6, "case %d", s);
        cr_expect_eq(f.ops->scratch->used, 0);
    }
    ops_support_destroy(&f);
}

Test(pos_embed, backward_adds_the_transpose)
{
    OpsFixture f = ops_support_create(2, 62);
    for (int s = 0; s < 2 * GRID_COUNT; s++) {
        Grid g = GRIDS[s / 2];
        double offset = s & 1 ? 0.0 : 0.1;
        Tensor pos = ops_support_normal(&f, DTYPE_F32, 1 + g.side * g.side, g.D, 1.0);
        Tensor out = ops_support_poison(&f, DTYPE_F32, 1 + g.h * g.w, g.D);
        Tensor dout = ops_support_normal(&f, DTYPE_F32, 1 + g.h * g.w, g.D, 1.0);
        Tensor dpos = ops_support_normal(&f, DTYPE_F32, 1 + g.side * g.side, g.D, 1.0);
        double *in = ops_support_f64(&f, pos), before = ops_support_dot(dpos, in);
        f.ops->pos_embed_forward(f.ops, out, pos, g.h, g.w, offset, s & 1);
        f.ops->pos_embed_backward(f.ops, dpos, dout, g.h, g.w, offset, s & 1);
        double want = ops_support_dot(dout, ops_support_f64(&f, out));
        double got = ops_support_dot(dpos, in) - before;
        cr_expect_float_eq(got, want, 1e-5 * (sqrt((double)tensor_count(dout) + 1.0) + fabs(want)),
                           "case %d: %g, want %g", s, got, want);
    }
    ops_support_destroy(&f);
}

/* A constant stays one: both kernels' weights sum to 1 at every place. */
Test(pos_embed, a_constant_stays_constant)
{
    OpsFixture f = ops_support_create(2, 63);
    Tensor pos = ops_support_zeros(&f, DTYPE_F32, 1 + 37 * 37, 3);
    for (int64_t i = 0; i < tensor_count(pos); i++)
        ops_support_set(pos, i, 2.5);
    for (int s = 0; s < 2; s++) {
        Tensor out = ops_support_poison(&f, DTYPE_F32, 1 + 16 * 50, 3);
        f.ops->pos_embed_forward(f.ops, out, pos, 16, 50, s ? 0.0 : 0.1, s);
        for (int64_t i = 0; i < tensor_count(out); i++)
            cr_assert_float_eq(ops_support_get(out, i), 2.5, 3e-6);
    }
    ops_support_destroy(&f);
}

Test(pos_embed, same_bits_on_any_number_of_threads)
{
    OpsFixture keep = ops_support_create(1, 64);
    Tensor pos = ops_support_normal(&keep, DTYPE_F32, 1 + 81, 200, 1.0), first = tensor_none();
    for (int threads = 1; threads <= 3; threads++) {
        OpsFixture f = ops_support_create(threads, 64);
        Tensor out = ops_support_poison(&keep, DTYPE_F32, 1 + 12 * 10, 200);
        Tensor dpos = ops_support_zeros(&keep, DTYPE_F32, 1 + 81, 200);
        f.ops->pos_embed_forward(f.ops, out, pos, 12, 10, 0.1, false);
        f.ops->pos_embed_backward(f.ops, dpos, out, 12, 10, 0.1, false);
        if (threads == 1) first = dpos;
        cr_assert(ops_support_equal(dpos, first));
        ops_support_destroy(&f);
    }
    ops_support_destroy(&keep);
}

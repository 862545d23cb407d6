/* Convolution and pooling against plain fp64 loops: kernels, strides, odd sizes, both element types, NaN. */
#include "../support/ops_support.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct {
    int64_t n, h, w, channels, outputs, kernel, stride, padding;
} Shape;

static Tensor pictures(OpsFixture *f, Dtype dtype, int64_t n, int64_t h, int64_t w, int64_t channels)
{
    Tensor t = ops_support_normal(f, dtype, n * h * w, channels, 1.0);
    return tensor_view(t.data, dtype, 4, (int64_t[]){n, h, w, channels});
}

static int64_t windows(int64_t edge, const Shape *s)
{
    return (edge + 2 * s->padding - s->kernel) / s->stride + 1;
}

/* Element (i, y, x, c) of [n, h, w, C]. */
static int64_t at(Tensor t, int64_t i, int64_t y, int64_t x, int64_t c)
{
    return ((i * t.shape[1] + y) * t.shape[2] + x) * t.shape[3] + c;
}

/* One output of a convolution: sum over the window of x * w. */
static double window_sum(const Shape *s, Tensor x, Tensor w, int64_t i, int64_t row, int64_t column,
                         int64_t o)
{
    double sum = 0.0;
    for (int64_t ky = 0; ky < s->kernel; ky++)
        for (int64_t kx = 0; kx < s->kernel; kx++) {
            int64_t y = row * s->stride + ky - s->padding, z = column * s->stride + kx - s->padding;
            if (y < 0 || y >= s->h || z < 0 || z >= s->w) continue;
            for (int64_t c = 0; c < s->channels; c++)
                sum += ops_support_get(x, at(x, i, y, z, c)) *
                       ops_support_get(w, ((o * s->kernel + ky) * s->kernel + kx) * s->channels + c);
        }
    return sum;
}

static double *expected(OpsFixture *f, const Shape *s, const Conv2d *conv)
{
    double *want = ops_support_f64(f, conv->y);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t row = 0; row < conv->y.shape[1]; row++)
            for (int64_t column = 0; column < conv->y.shape[2]; column++)
                for (int64_t o = 0; o < s->outputs; o++) {
                    double value =
                        window_sum(s, conv->x, conv->w, i, row, column, o) + ops_support_get(conv->b, o);
                    double *to = &want[at(conv->y, i, row, column, o)];
                    value += conv->accumulate ? *to : 0.0;
                    *to = conv->relu && value < 0.0 ? 0.0 : value;
                }
    return want;
}

static Conv2d convolution(OpsFixture *f, const Shape *s, Dtype dtype, bool accumulate, bool relu)
{
    int64_t h = windows(s->h, s), w = windows(s->w, s), columns = s->kernel * s->kernel * s->channels;
    Tensor poisoned = ops_support_poison(f, dtype, s->n * h * w, s->outputs);
    Conv2d conv = {.x = pictures(f, dtype, s->n, s->h, s->w, s->channels),
                   .y = accumulate
                            ? pictures(f, dtype, s->n, h, w, s->outputs)
                            : tensor_view(poisoned.data, dtype, 4, (int64_t[]){s->n, h, w, s->outputs}),
                   .w = ops_support_normal(f, dtype, s->outputs, columns, 0.1),
                   .b = ops_support_normal_1d(f, DTYPE_F32, s->outputs, 1.0),
                   .kernel = s->kernel,
                   .stride = s->stride,
                   .padding = s->padding,
                   .accumulate = accumulate,
                   .relu = relu};
    return conv;
}

static const Shape SHAPES[] = {{2, 9, 7, 3, 5, 7, 2, 3},   {1, 8, 8, 16, 32, 1, 1, 0},
                               {3, 6, 5, 12, 20, 1, 2, 0}, {2, 7, 10, 33, 17, 3, 1, 1},
                               {1, 5, 5, 64, 64, 3, 2, 1}, {1, 3, 2, 4, 1, 5, 1, 2},
                               {0, 4, 4, 8, 8, 3, 1, 1}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

Test(pictures, convolution_agrees_with_the_formula)
{
    OpsFixture f = ops_support_create(2, 51);
    for (int i = 0; i < SHAPE_COUNT * 4; i++) {
        const Shape *s = &SHAPES[i / 4];
        Conv2d conv = convolution(&f, s, DTYPE_F32, i & 1, i & 2);
        double *want = expected(&f, s, &conv);
        Conv2d again = conv;
        again.y = ops_support_copy(&f, conv.y, DTYPE_F32);
        f.ops->conv2d_forward(f.ops, &conv);
        if (s->n == 0) continue;
        double error = ops_support_error(conv.y, want);
        cr_expect_leq(error, OPS_SUPPORT_F32, "shape %d: error %g", i / 4, error);
        f.ops->conv2d_forward(f.ops, &again);
        cr_expect(ops_support_equal(conv.y, again.y), "shape %d: not the same bits", i / 4);
    }
    ops_support_destroy(&f);
}

Test(pictures, convolution_in_bf16)
{
    OpsFixture f = ops_support_create(2, 52);
    if (!f.ops->has_bf16) cr_skip_test("this processor multiplies no bf16 numbers\n");
    for (int i = 0; i < (SHAPE_COUNT - 1) * 4; i++) {
        Conv2d conv = convolution(&f, &SHAPES[i / 4], DTYPE_BF16, i & 1, i & 2);
        double *want = expected(&f, &SHAPES[i / 4], &conv);
        f.ops->conv2d_forward(f.ops, &conv);
        double error = ops_support_error(conv.y, want);
        cr_expect_leq(error, OPS_SUPPORT_BF16, "shape %d: error %g", i / 4, error);
    }
    ops_support_destroy(&f);
}

/* Weights that change where they lie are seen, and one shape's memory is not another's. */
Test(pictures, convolution_reads_its_weights_every_time)
{
    OpsFixture f = ops_support_create(1, 53);
    Conv2d conv = convolution(&f, &SHAPES[3], DTYPE_F32, false, false);
    f.ops->conv2d_forward(f.ops, &conv);
    Conv2d larger = convolution(&f, &SHAPES[4], DTYPE_F32, false, false);
    f.ops->conv2d_forward(f.ops, &larger);
    for (int64_t i = 0; i < tensor_count(conv.w); i++)
        ops_support_set(conv.w, i, -2.0 * ops_support_get(conv.w, i));
    f.ops->conv2d_forward(f.ops, &conv);
    cr_expect_leq(ops_support_error(conv.y, expected(&f, &SHAPES[3], &conv)), OPS_SUPPORT_F32);
    ops_support_destroy(&f);
}

/* More shapes than primitives are kept for. */
Test(pictures, convolution_of_many_shapes)
{
    OpsFixture f = ops_support_create(1, 54);
    for (int64_t round = 0; round < 2; round++)
        for (int64_t w = 1; w <= 300; w++) {
            Shape s = {1, 1, w, 4, 4, 1, 1, 0};
            Conv2d conv = convolution(&f, &s, DTYPE_F32, false, false);
            f.ops->conv2d_forward(f.ops, &conv);
            cr_assert_leq(ops_support_error(conv.y, expected(&f, &s, &conv)), OPS_SUPPORT_F32);
        }
    ops_support_destroy(&f);
}

static double *largest(OpsFixture *f, const Shape *s, Tensor x, Tensor y)
{
    double *want = ops_support_f64_zeros(f, tensor_count(y));
    for (int64_t i = 0; i < tensor_count(y); i++) {
        int64_t c = i % s->channels, column = i / s->channels % y.shape[2];
        int64_t row = i / s->channels / y.shape[2] % y.shape[1],
                picture = i / s->channels / y.shape[2] / y.shape[1];
        want[i] = -INFINITY;
        for (int64_t ky = 0; ky < s->kernel; ky++)
            for (int64_t kx = 0; kx < s->kernel; kx++) {
                int64_t v = row * s->stride + ky - s->padding, u = column * s->stride + kx - s->padding;
                if (v < 0 || v >= s->h || u < 0 || u >= s->w) continue;
                want[i] = fmax(want[i], ops_support_get(x, at(x, picture, v, u, c)));
            }
    }
    return want;
}

Test(pictures, max_pool_is_the_largest_inside_the_picture)
{
    const Shape shapes[] = {{2, 9, 7, 5, 0, 3, 2, 1},
                            {1, 8, 8, 530, 0, 3, 2, 1},
                            {3, 5, 1, 64, 0, 2, 1, 1},
                            {1, 64, 50, 16, 0, 3, 2, 1}};
    OpsFixture f = ops_support_create(2, 55);
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        const Shape *s = &shapes[i / 2];
        Dtype dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        Tensor x = pictures(&f, dtype, s->n, s->h, s->w, s->channels);
        Tensor y = ops_support_poison(&f, dtype, s->n * windows(s->h, s) * windows(s->w, s), s->channels);
        y = tensor_view(y.data, dtype, 4, (int64_t[]){s->n, windows(s->h, s), windows(s->w, s), s->channels});
        for (int64_t j = 0; j < tensor_count(x); j++) /* padding that counted as 0 would be found */
            ops_support_set(x, j, ops_support_get(x, j) - 8.0);
        f.ops->max_pool_forward(f.ops, y, x, s->kernel, s->stride, s->padding);
        cr_expect_eq(ops_support_error(y, largest(&f, s, x, y)), 0.0, "shape %zu", i / 2);
    }
    Tensor x = pictures(&f, DTYPE_F32, 1, 4, 4, 2), y = pictures(&f, DTYPE_F32, 1, 2, 2, 2);
    ops_support_set(x, at(x, 0, 0, 0, 1), NAN);
    f.ops->max_pool_forward(f.ops, y, x, 3, 2, 1);
    cr_expect(isnan(ops_support_get(y, 1)) && !isnan(ops_support_get(y, 0)), "a NaN is not lost");
    ops_support_destroy(&f);
}

Test(pictures, gem_pool_is_the_generalised_mean)
{
    const Shape shapes[] = {
        {3, 4, 5, 7, 0, 0, 0, 0}, {2, 10, 10, 1030, 0, 0, 0, 0}, {1, 1, 1, 3, 0, 0, 0, 0}};
    const double powers[] = {3.0, 1.0, 2.5};
    const double least = 1e-6;
    OpsFixture f = ops_support_create(2, 56);
    for (int i = 0; i < 18; i++) {
        const Shape *s = &shapes[i / 6];
        double p = powers[i % 3];
        Tensor x = pictures(&f, i % 6 < 3 ? DTYPE_F32 : DTYPE_BF16, s->n, s->h, s->w, s->channels);
        for (int64_t j = 0; j < s->h * s->w; j++) /* a channel with nothing above the least */
            ops_support_set(x, j * s->channels, -1.0);
        Tensor y = ops_support_poison(&f, DTYPE_F32, s->n, s->channels);
        f.ops->gem_pool_forward(f.ops, y, x, p, least);
        double *want = ops_support_f64_zeros(&f, tensor_count(y));
        for (int64_t j = 0; j < tensor_count(x); j++)
            want[j / s->channels / (s->h * s->w) * s->channels + j % s->channels] +=
                pow(fmax(ops_support_get(x, j), least), p);
        for (int64_t j = 0; j < tensor_count(y); j++)
            want[j] = pow(want[j] / (double)(s->h * s->w), 1.0 / p);
        cr_expect_leq(ops_support_error(y, want), 1e-7);
        cr_expect_float_eq(ops_support_get(y, 0), least, 1e-12, "not 0, and no NaN");
    }
    ops_support_destroy(&f);
}

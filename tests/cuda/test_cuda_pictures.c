/* test_cuda_pictures.c - convolution and pooling on a GPU against the CPU: every type, strides, odd sizes. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct {
    int64_t n, h, w, channels, outputs, kernel, stride, padding;
} Shape;

static const Shape SHAPES[] = {{2, 19, 17, 3, 8, 7, 2, 3},   {1, 8, 8, 16, 32, 1, 1, 0},
                               {3, 6, 5, 24, 20, 1, 2, 0},   {2, 7, 10, 33, 17, 3, 1, 1},
                               {1, 15, 14, 64, 64, 3, 2, 1}, {1, 3, 2, 4, 1, 5, 1, 2},
                               {0, 4, 4, 8, 8, 3, 1, 1}};
static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES, ACT_COUNT = 3 };

static int64_t windows(int64_t edge, const Shape *s)
{
    return (edge + 2 * s->padding - s->kernel) / s->stride + 1;
}

static TwinTensor as_pictures(TwinTensor t, int64_t n, int64_t h, int64_t w, int64_t channels)
{
    return twin_shaped(t, 4, (int64_t[]){n, h, w, channels});
}

typedef struct {
    TwinTensor y, x, w, b;
} Operands;

static void convolve(Twin *twin, const Operands *o, const Shape *s, bool accumulate, bool relu,
                     TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Conv2d conv = {.y = o->y.on[side],
                       .x = o->x.on[side],
                       .w = o->w.on[side],
                       .b = o->b.on[side],
                       .kernel = s->kernel,
                       .stride = s->stride,
                       .padding = s->padding,
                       .accumulate = accumulate,
                       .relu = relu};
        twin_ops(twin, side)->conv2d_forward(twin_ops(twin, side), &conv);
    }
}

/* The host's bf16 convolution needs a processor that multiplies such numbers. */
static bool has(const Twin *twin, Dtype act)
{
    return act != DTYPE_BF16 || twin->cpu->has_bf16;
}

Test(cuda_pictures, convolutions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 51);
    for (int i = 0; i < SHAPE_COUNT * ACT_COUNT * 4; i++) {
        const Shape *s = &SHAPES[i / 4 / ACT_COUNT];
        Dtype act = ACTS[i / 4 % ACT_COUNT];
        bool accumulate = i & 1, relu = i & 2;
        if (!has(twin, act)) continue;
        int64_t h = windows(s->h, s), w = windows(s->w, s), pixels = s->n * h * w;
        Operands o = {.y = accumulate ? twin_normal(twin, act, pixels, s->outputs, 1.0)
                                      : twin_poison(twin, act, pixels, s->outputs),
                      .x = twin_normal(twin, act, s->n * s->h * s->w, s->channels, 1.0),
                      .w = twin_normal(twin, act, s->outputs, s->kernel * s->kernel * s->channels, 0.1),
                      .b = twin_normal_1d(twin, DTYPE_F32, s->outputs, 1.0)};
        o.y = as_pictures(o.y, s->n, h, w, s->outputs);
        o.x = as_pictures(o.x, s->n, s->h, s->w, s->channels);
        Operands again = o;
        again.y = twin_copy(twin, o.y);
        convolve(twin, &o, s, accumulate, relu, TWIN_HOST);
        TWIN_CLOSE(twin, o.y, twin_bound(act));
        twin_poison_scratch(twin);
        convolve(twin, &again, s, accumulate, relu, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, again.y, o.y);
    }
    twin_destroy(twin);
}

Test(cuda_pictures, pooling_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 52);
    const Shape shapes[] = {{2, 9, 7, 5, 0, 3, 2, 1},
                            {1, 8, 8, 70, 0, 3, 2, 1},
                            {3, 5, 1, 64, 0, 2, 1, 1},
                            {0, 4, 4, 8, 0, 3, 2, 1}};
    for (int i = 0; i < 4 * ACT_COUNT; i++) {
        const Shape *s = &shapes[i / ACT_COUNT];
        Dtype act = ACTS[i % ACT_COUNT];
        int64_t h = windows(s->h, s), w = windows(s->w, s);
        TwinTensor x = twin_uniform(twin, act, s->n * s->h * s->w, s->channels, -3.0, -1.0);
        TwinTensor y = twin_poison(twin, act, s->n * h * w, s->channels);
        x = as_pictures(x, s->n, s->h, s->w, s->channels);
        y = as_pictures(y, s->n, h, w, s->channels);
        TwinTensor maps = as_pictures(twin_normal(twin, act, s->n * s->h * s->w, s->channels, 2.0), s->n,
                                      s->h, s->w, s->channels);
        TwinTensor cubes = twin_poison(twin, DTYPE_F32, s->n, s->channels);
        TwinTensor powers = twin_poison(twin, DTYPE_F32, s->n, s->channels);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->max_pool_forward(ops, y.on[side], x.on[side], s->kernel, s->stride, s->padding);
            ops->gem_pool_forward(ops, cubes.on[side], maps.on[side], 3.0, 1e-6);
            ops->gem_pool_forward(ops, powers.on[side], maps.on[side], 2.5, 1e-6);
        }
        cr_expect_eq(twin_error(twin, y), 0.0);
        cr_expect(twin_written(twin, y));
        TWIN_CLOSE(twin, cubes, 1e-7);
        TWIN_CLOSE(twin, powers, 1e-7);
    }
    twin_destroy(twin);
}

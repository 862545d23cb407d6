/* test_cuda_prototypes.c - the weight-normed last layer on a GPU against the CPU: norms, scores, centre. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

typedef struct {
    int64_t K, d, n;
} Shape;

static const Shape SHAPES[] = {{65, 33, 1}, {1000, 24, 37}, {300, 256, 150}, {129, 64, 0}, {1, 1, 3}};
static const Dtype MATS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES, MAT_COUNT = 3 };

/* weight_v: 16 bits on the GPU where asked for, fp32 of the same values on the host. */
static TwinTensor weights_of(Twin *twin, Dtype mat, int64_t K, int64_t d)
{
    TwinTensor narrow = twin_normal(twin, mat, K, d, 0.02), wide = twin_cast(twin, narrow, DTYPE_F32);
    return (TwinTensor){.host = wide.host, .device = narrow.device};
}

static TwinTensor rows_of(Twin *twin, int64_t n, int64_t d)
{
    return twin_normal(twin, DTYPE_F32, n, d, 1.0 / sqrt((double)d));
}

Test(cuda_prototypes, weight_norm_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 1);
    for (int s = 0; s < SHAPE_COUNT; s++) {
        int64_t K = SHAPES[s].K, d = SHAPES[s].d;
        TwinTensor v = twin_normal(twin, DTYPE_F32, K, d, 0.02), g = twin_normal_1d(twin, DTYPE_F32, K, 1.0);
        TwinTensor scale = twin_poison_1d(twin, DTYPE_F32, K);
        TwinTensor dv = twin_normal(twin, DTYPE_F32, K, d, 1.0), dg = twin_normal_1d(twin, DTYPE_F32, K, 1.0);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->prototype_scale(ops, scale.on[side], v.on[side], g.on[side]);
            ops->weight_norm_backward(ops, dv.on[side], dg.on[side], v.on[side], g.on[side]);
        }
        TWIN_CLOSE(twin, scale, 1e-6);
        /* along one dimension nothing is left of d v: its error is the rounding of what cancels */
        if (d > 1) TWIN_CLOSE(twin, dv, 2e-6);
        TWIN_CLOSE(twin, dg, 2e-6);
    }
    twin_destroy(twin);
}

Test(cuda_prototypes, plain_scores_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 2);
    for (int i = 0; i < SHAPE_COUNT * MAT_COUNT; i++) {
        Shape s = SHAPES[i / MAT_COUNT];
        Dtype mat = MATS[i % MAT_COUNT];
        TwinTensor v = weights_of(twin, mat, s.K, s.d), x = rows_of(twin, s.n, s.d);
        TwinTensor scale = twin_uniform_1d(twin, DTYPE_F32, s.K, 0.5, 2.0);
        TwinTensor scores = twin_poison(twin, DTYPE_F32, s.n, s.K), again = twin_copy(twin, scores);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->prototype_scores(ops, scores.on[side], x.on[side], v.on[side], scale.on[side]);
        }
        TWIN_CLOSE(twin, scores, twin_bound(mat));
        twin->cuda->prototype_scores(twin->cuda, again.device, x.device, v.device, scale.device);
        TWIN_SAME_BITS(twin, scores, again);
    }
    twin_destroy(twin);
}

/* The rows are never rounded here, so 16-bit weights have the bound of fp32. */
Test(cuda_prototypes, centre_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 3);
    for (int i = 0; i < SHAPE_COUNT * MAT_COUNT; i++) {
        Shape s = SHAPES[i / MAT_COUNT];
        TwinTensor v = weights_of(twin, MATS[i % MAT_COUNT], s.K, s.d), x = rows_of(twin, s.n, s.d);
        TwinTensor scale = twin_uniform_1d(twin, DTYPE_F32, s.K, 0.5, 2.0);
        TwinTensor weight = twin_uniform_1d(twin, DTYPE_F32, s.n, 0.0, 1.0);
        TwinTensor sum = twin_poison_1d(twin, DTYPE_F32, s.K), bias = twin_poison_1d(twin, DTYPE_F32, s.K);
        TwinTensor center = twin_normal_1d(twin, DTYPE_F32, s.K, 1.0);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->prototype_center(ops, sum.on[side], x.on[side], v.on[side], scale.on[side], weight.on[side]);
            ops->center_update(ops, bias.on[side], center.on[side], sum.on[side], 0.04, 0.9);
        }
        TWIN_CLOSE(twin, sum, TWIN_F32);
        TWIN_CLOSE(twin, bias, TWIN_F32);
        TWIN_CLOSE(twin, center, TWIN_F32);
        TwinTensor again = twin_poison_1d(twin, DTYPE_F32, s.K);
        twin->cuda->prototype_center(twin->cuda, again.device, x.device, v.device, scale.device,
                                     weight.device);
        TWIN_SAME_BITS(twin, sum, again);
    }
    twin_destroy(twin);
}

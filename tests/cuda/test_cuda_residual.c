/* test_cuda_residual.c - LayerScale, drop-path scale and residual on a GPU against the CPU. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};

typedef struct {
    int64_t n, N, D;
    bool selected, scaled, gamma;
} Size;

static const Size SIZES[] = {
    {0, 7, 24, true, true, true},      {1, 1, 24, false, false, true},       {5, 9, 1000, true, true, true},
    {777, 900, 33, true, true, true},  {130, 130, 384, false, false, false}, {40, 40, 96, false, true, false},
    {21, 60, 1536, true, false, true}, {3000, 3000, 24, false, true, true},  {3, 5, 515, true, true, false}};
enum { ACT_COUNT = 3, SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

typedef struct {
    TwinTensor x, y, rows, row_scale, gamma, dx, dy, dgamma;
} Problem;

static Problem problem_of(Twin *twin, const Size *s, Dtype act)
{
    return (Problem){.x = twin_normal(twin, DTYPE_F32, s->N, s->D, 1.0),
                     .y = twin_normal(twin, act, s->n, s->D, 1.0),
                     .rows = s->selected ? twin_distinct(twin, s->n, s->N) : twin_none(),
                     .row_scale = s->scaled ? twin_uniform_1d(twin, DTYPE_F32, s->n, 0.5, 2.0) : twin_none(),
                     .gamma = s->gamma ? twin_normal_1d(twin, DTYPE_F32, s->D, 1.0) : twin_none(),
                     .dx = twin_normal(twin, DTYPE_F32, s->N, s->D, 1.0),
                     .dy = twin_poison(twin, act, s->n, s->D),
                     .dgamma = s->gamma ? twin_normal_1d(twin, DTYPE_F32, s->D, 1.0) : twin_none()};
}

static void backward(Twin *twin, const Problem *p, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->residual_backward(ops, p->dy.on[side], p->dgamma.on[side], p->dx.on[side], p->y.on[side],
                               p->rows.on[side], p->row_scale.on[side], p->gamma.on[side]);
    }
}

Test(cuda_residual, both_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    for (int s = 0; s < SIZE_COUNT * ACT_COUNT; s++) {
        const Size *size = &SIZES[s / ACT_COUNT];
        Dtype act = ACTS[s % ACT_COUNT];
        Problem p = problem_of(twin, size, act);
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->residual_forward(ops, p.x.on[side], p.y.on[side], p.rows.on[side], p.row_scale.on[side],
                                  p.gamma.on[side]);
        }
        TWIN_CLOSE(twin, p.x, 2e-6);
        Problem again = p;
        if (size->gamma) again.dgamma = twin_copy(twin, p.dgamma);
        again.dy = twin_poison(twin, act, size->n, size->D);
        backward(twin, &p, TWIN_HOST);
        TWIN_CLOSE(twin, p.dy, act == DTYPE_F32 ? 2e-6 : twin_bound(act));
        if (size->gamma) TWIN_CLOSE(twin, p.dgamma, TWIN_F32);
        backward(twin, &again, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, p.dy, again.dy);
        if (size->gamma) TWIN_SAME_BITS(twin, p.dgamma, again.dgamma);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}

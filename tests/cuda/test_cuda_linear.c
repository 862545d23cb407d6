/* test_cuda_linear.c - fully connected layers on a GPU against the CPU: every type, odd sizes, mixed types.
 */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

typedef struct {
    int64_t n, k, m;
} Shape;

static const Shape SHAPES[] = {{0, 8, 16},     {1, 24, 8},    {37, 65, 33}, {130, 64, 96},
                               {61, 129, 257}, {900, 48, 40}, {1, 1, 1}};
static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES, ACT_COUNT = 3 };

/* Operands of all three operations and copies of the results' starting values. */
typedef struct {
    TwinTensor x, w, b, y, dy, dx, dw, db;
} Layer;

static Layer layer_make(Twin *twin, Shape s, Dtype act, Dtype mat)
{
    return (Layer){.x = twin_normal(twin, act, s.n, s.k, 1.0),
                   .w = twin_normal(twin, mat, s.m, s.k, 0.1),
                   .b = twin_normal_1d(twin, DTYPE_F32, s.m, 1.0),
                   .y = twin_poison(twin, act, s.n, s.m),
                   .dy = twin_normal(twin, act, s.n, s.m, 1.0),
                   .dx = twin_poison(twin, act, s.n, s.k),
                   .dw = twin_normal(twin, DTYPE_F32, s.m, s.k, 1.0),
                   .db = twin_normal_1d(twin, DTYPE_F32, s.m, 1.0)};
}

static void layer_run(Twin *twin, const Layer *l, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->linear_forward(ops, l->y.on[side], l->x.on[side], l->w.on[side], l->b.on[side]);
        ops->linear_backward_input(ops, l->dx.on[side], l->dy.on[side], l->w.on[side]);
        ops->linear_backward_weight(ops, l->dw.on[side], l->db.on[side], l->dy.on[side], l->x.on[side]);
    }
}

static void layer_check(Twin *twin, const Layer *l, double bound)
{
    TWIN_CLOSE(twin, l->y, bound);
    TWIN_CLOSE(twin, l->dx, bound);
    /* fp32 sums of exact products of the same 16-bit numbers: the same bound for every type */
    TWIN_CLOSE(twin, l->dw, TWIN_F32);
    TWIN_CLOSE(twin, l->db, TWIN_F32);
}

Test(cuda_linear, all_directions_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 1);
    for (int i = 0; i < SHAPE_COUNT * ACT_COUNT; i++) {
        Dtype act = ACTS[i % ACT_COUNT];
        Layer l = layer_make(twin, SHAPES[i / ACT_COUNT], act, act);
        TwinTensor dw = twin_copy(twin, l.dw), db = twin_copy(twin, l.db);
        layer_run(twin, &l, TWIN_HOST);
        layer_check(twin, &l, twin_bound(act));

        Layer again = l;
        again.y = twin_poison(twin, act, SHAPES[i / ACT_COUNT].n, SHAPES[i / ACT_COUNT].m);
        again.dw = dw;
        again.db = db;
        twin_poison_scratch(twin);
        layer_run(twin, &again, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, again.y, l.y);
        TWIN_SAME_BITS(twin, again.dw, l.dw);
        TWIN_SAME_BITS(twin, again.db, l.db);
    }
    twin_destroy(twin);
}

/* Activations of another type than the weights, in several blocks of rows: products have the weights' type.
 */
Test(cuda_linear, mixed_types)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 2);
    const Dtype types[][2] = {{DTYPE_F32, DTYPE_BF16}, {DTYPE_BF16, DTYPE_F32}, {DTYPE_F32, DTYPE_F16}};
    for (int i = 0; i < 3; i++) {
        Dtype act = types[i][0], reduced = types[i][act == DTYPE_F32];
        Layer l = layer_make(twin, (Shape){77, 40, 33}, act, types[i][1]);
        layer_run(twin, &l, TWIN_HOST);
        layer_check(twin, &l, twin_bound(reduced));
    }
    twin_destroy(twin);
}

/* Without biases; and rows that start at odd addresses. */
Test(cuda_linear, no_bias_and_odd_addresses)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 3);
    for (int i = 0; i < ACT_COUNT; i++) {
        Layer l = layer_make(twin, (Shape){45, 24, 16}, ACTS[i], ACTS[i]);
        l.b = l.db = twin_none();
        for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
            Ops *ops = twin_ops(twin, side);
            ops->linear_forward(ops, l.y.on[side], l.x.on[side], l.w.on[side], l.b.on[side]);
            ops->linear_backward_weight(ops, l.dw.on[side], l.db.on[side], l.dy.on[side], l.x.on[side]);
        }
        TWIN_CLOSE(twin, l.y, twin_bound(ACTS[i]));
        TWIN_CLOSE(twin, l.dw, TWIN_F32);

        Layer odd = layer_make(twin, (Shape){46, 3, 5}, ACTS[i], ACTS[i]);
        odd.x = twin_rows(odd.x, 1, 45);
        odd.y = twin_rows(odd.y, 1, 45);
        odd.dx = twin_rows(odd.dx, 1, 45);
        odd.dy = twin_rows(odd.dy, 1, 45);
        layer_run(twin, &odd, TWIN_HOST);
        layer_check(twin, &odd, twin_bound(ACTS[i]));
    }
    twin_destroy(twin);
}

/* test_cuda_layer_norm.c - layer normalisation on a GPU against the CPU: every kernel's width, selected rows
 * and all. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>

static const float EPS = 1e-6f;
static const Dtype ACTS[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { ACT_COUNT = 3 };

typedef struct {
    int64_t n, N, D; /* n rows of N */
    bool selected;   /* by an index; else n = N */
    bool kept;       /* the selected rows are kept */
} Size;

static const Size SIZES[] = {
    {5, 5, 24, false, false},     {777, 800, 24, true, true},  {40, 60, 96, true, false},
    {130, 130, 384, false, true}, {70, 70, 500, false, false}, {60, 71, 640, true, true},
    {35, 50, 1000, true, true},   {1, 1, 1024, false, true},   {21, 21, 1536, false, true},
    {17, 19, 2000, true, false},  {11, 11, 3072, false, true}, {4, 4, 4000, false, true},
    {45, 60, 33, true, true},     {5, 5, 515, false, false},   {0, 4, 96, true, true}};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

static Twin *wide_twin(uint64_t seed)
{
    return twin_create(&(OpsLimits){.width = 4000, .max_seqlen = 64}, seed);
}

typedef struct {
    TwinTensor x, w, b, rows, y, stats, kept, dy, dx, dw, db;
    TwinTensor again; /* y of the backward pass, where rows are kept */
} Problem;

static Problem problem_of(Twin *twin, const Size *s, Dtype act)
{
    TwinTensor x = twin_normal(twin, DTYPE_F32, s->N, s->D, 2.0);
    if (act == DTYPE_F16) /* which the host keeps as fp32: without rounding */
        x = twin_cast(twin, twin_cast(twin, x, DTYPE_F16), DTYPE_F32);
    return (Problem){.x = x,
                     .w = twin_normal_1d(twin, DTYPE_F32, s->D, 1.0),
                     .b = twin_normal_1d(twin, DTYPE_F32, s->D, 1.0),
                     .rows = s->selected ? twin_distinct(twin, s->n, s->N) : twin_none(),
                     .y = twin_poison(twin, act, s->n, s->D),
                     .stats = twin_poison(twin, DTYPE_F32, s->n, 2),
                     .kept = s->kept ? twin_poison(twin, act, s->n, s->D) : twin_none(),
                     .again = s->kept ? twin_poison(twin, act, s->n, s->D) : twin_none(),
                     .dy = twin_normal(twin, act, s->n, s->D, 1.0),
                     .dx = twin_normal(twin, DTYPE_F32, s->N, s->D, 1.0),
                     .dw = twin_normal_1d(twin, DTYPE_F32, s->D, 1.0),
                     .db = twin_normal_1d(twin, DTYPE_F32, s->D, 1.0)};
}

static void forward(Twin *twin, const Problem *p)
{
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->layer_norm_forward(ops, p->y.on[side], p->stats.on[side], p->kept.on[side], p->x.on[side],
                                p->rows.on[side], p->w.on[side], p->b.on[side], EPS);
    }
}

/* From the kept rows, or from all of x in dy's type. */
static void backward(Twin *twin, const Problem *p, TwinSide first)
{
    TwinTensor x = tensor_given(p->kept.host) ? p->kept : twin_cast(twin, p->x, p->dy.device.dtype);
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->layer_norm_backward(ops, p->dx.on[side], p->dw.on[side], p->db.on[side], p->again.on[side],
                                 p->dy.on[side], x.on[side], p->rows.on[side], p->stats.on[side],
                                 p->w.on[side], p->b.on[side]);
    }
}

Test(cuda_layer_norm, forward_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = wide_twin(100);
    for (int s = 0; s < SIZE_COUNT; s++) {
        Problem p = problem_of(twin, &SIZES[s], ACTS[s % ACT_COUNT]);
        forward(twin, &p);
        TWIN_CLOSE(twin, p.y, twin_bound(ACTS[s % ACT_COUNT]));
        TWIN_CLOSE(twin, p.stats, TWIN_F32);
        if (SIZES[s].kept) cr_expect_eq(twin_error(twin, p.kept), 0.0);
    }
    twin_destroy(twin);
}

/* A common offset a thousand times the spread costs no digits: the mean goes first. */
Test(cuda_layer_norm, an_offset_costs_no_digits)
{
    TWIN_REQUIRE();
    Twin *twin = wide_twin(200);
    const int64_t widths[] = {384, 33};
    for (int s = 0; s < 2; s++) {
        Problem p = problem_of(twin, &(Size){.n = 9, .N = 9, .D = widths[s]}, DTYPE_F32);
        p.x = twin_uniform(twin, DTYPE_F32, 9, widths[s], 1000.0, 1001.0);
        forward(twin, &p);
        TWIN_CLOSE(twin, p.y, 1e-3); /* of what 1000 holds in fp32 */
        for (int64_t i = 0; i < 9; i++) {
            double rstd = twin_values(twin, p.stats, TWIN_DEVICE)[2 * i + 1];
            cr_expect(rstd > 2.5 && rstd < 5.0, "width %d: 1 / standard deviation %g", (int)widths[s], rstd);
        }
    }
    twin_destroy(twin);
}

Test(cuda_layer_norm, backward_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = wide_twin(300);
    for (int s = 0; s < SIZE_COUNT; s++) {
        Problem p = problem_of(twin, &SIZES[s], ACTS[(s + 1) % ACT_COUNT]);
        forward(twin, &p);
        Problem again = p;
        again.dx = twin_copy(twin, p.dx);
        again.dw = twin_copy(twin, p.dw);
        again.db = twin_copy(twin, p.db);
        backward(twin, &p, TWIN_HOST);
        TWIN_CLOSE(twin, p.dx, TWIN_F32);
        TWIN_CLOSE(twin, p.dw, TWIN_F32);
        TWIN_CLOSE(twin, p.db, TWIN_F32);
        if (SIZES[s].kept) TWIN_SAME_BITS(twin, p.again, p.y);
        backward(twin, &again, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, p.dx, again.dx);
        TWIN_SAME_BITS(twin, p.dw, again.dw);
        TWIN_SAME_BITS(twin, p.db, again.db);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}

/* Many rows a block: sums of dw and db over all turns. */
Test(cuda_layer_norm, backward_sums_over_many_rows)
{
    TWIN_REQUIRE();
    Twin *twin = wide_twin(400);
    Problem p = problem_of(twin, &(Size){.n = 4001, .N = 4001, .D = 48}, DTYPE_BF16);
    forward(twin, &p);
    backward(twin, &p, TWIN_HOST);
    TWIN_CLOSE(twin, p.dx, TWIN_F32);
    TWIN_CLOSE(twin, p.dw, TWIN_F32);
    TWIN_CLOSE(twin, p.db, TWIN_F32);
    twin_destroy(twin);
}

/* The rows that forward kept stand for x at `rows`. */
Test(cuda_layer_norm, backward_takes_kept_rows_or_all)
{
    TWIN_REQUIRE();
    Twin *twin = wide_twin(500);
    const int64_t widths[] = {96, 33};
    for (int s = 0; s < 2; s++) {
        Problem p = problem_of(
            twin, &(Size){.n = 11, .N = 30, .D = widths[s], .selected = true, .kept = true}, DTYPE_F32);
        forward(twin, &p);
        Problem all = p;
        all.kept = all.again = twin_none();
        all.dx = twin_copy(twin, p.dx);
        all.dw = twin_copy(twin, p.dw);
        backward(twin, &p, TWIN_HOST);
        backward(twin, &all, TWIN_HOST);
        TWIN_SAME_BITS(twin, p.dx, all.dx);
        TWIN_SAME_BITS(twin, p.dw, all.dw);
    }
    twin_destroy(twin);
}

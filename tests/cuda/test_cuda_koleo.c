/* test_cuda_koleo.c - KoLeo on a GPU against the CPU: neighbours, losses, gradients. */
#include "../support/twin_support.h"

#include <criterion/criterion.h>
#include <math.h>

static const int64_t SHAPES[][2] = {{0, 8}, {1, 8}, {2, 3}, {16, 384}, {37, 65}, {300, 20}, {64, 1000}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

typedef struct {
    TwinTensor loss, nearest, dx;
} Results;

static Results results_make(Twin *twin, int64_t n, int64_t D)
{
    const double before = 2.0;
    return (Results){.loss = twin_f64(twin, 1, &before),
                     .nearest = twin_poison_1d(twin, DTYPE_I32, n),
                     .dx = twin_poison(twin, DTYPE_F32, n, D)};
}

static void run(Twin *twin, const Results *r, TwinTensor x, TwinTensor loss_scale, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->koleo(ops, r->loss.on[side], r->nearest.on[side], r->dx.on[side], x.on[side], 0.1,
                   loss_scale.on[side]);
    }
}

static Twin *make_twin(uint64_t seed)
{
    return twin_create(&(OpsLimits){.rows = 512, .width = 1024, .prototypes = 64, .group_rows = 512}, seed);
}

Test(cuda_koleo, loss_and_gradient_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(1);
    const double scale = 1024.0;
    for (int s = 0; s < SHAPE_COUNT; s++) {
        int64_t n = SHAPES[s][0], D = SHAPES[s][1];
        TwinTensor x = twin_normal(twin, DTYPE_F32, n, D, 1.0);
        TwinTensor loss_scale = s % 2 ? twin_f64(twin, 1, &scale) : twin_none();
        Results r = results_make(twin, n, D), again = results_make(twin, n, D);
        run(twin, &r, x, loss_scale, TWIN_HOST);
        TWIN_EQUAL(twin, r.nearest);
        cr_expect(twin_error(twin, r.loss) <= 1e-12);
        TWIN_CLOSE(twin, r.dx, 1e-6);

        twin_poison_scratch(twin);
        run(twin, &again, x, loss_scale, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, r.loss, again.loss);
        TWIN_SAME_BITS(twin, r.dx, again.dx);
    }
    twin_destroy(twin);
}

/* Row 0 is zero; rows 1 and 2 are equal; most others share one element with all, so that row 1, the first of
 * equals, is the neighbour of a crowd. Elements are 0 or 1 / 2: both sides' products are exact, and ties are
 * ties. */
Test(cuda_koleo, ties_and_a_crowd_of_followers)
{
    TWIN_REQUIRE();
    Twin *twin = make_twin(2);
    enum { N = 270, D = 512 };
    TwinTensor x = twin_zeros(twin, DTYPE_F32, N, D);
    for (int64_t i = 1; i < N; i++) {
        for (int64_t j = 0; j < 3; j++)
            twin_set(x, i * D + (i <= 2 ? 1 + j : 1 + (i * 3 + j) % (D - 1)), 0.5);
        twin_set(x, i * D, 0.5);
    }
    twin_upload(twin, x);
    Results r = results_make(twin, N, D), forward = results_make(twin, N, D);
    run(twin, &r, x, twin_none(), TWIN_HOST);
    forward.dx = twin_none();
    run(twin, &forward, x, twin_none(), TWIN_DEVICE);
    TWIN_EQUAL(twin, r.nearest);
    cr_expect_eq((int64_t)twin_get(r.nearest, 1), 2);
    cr_expect_eq((int64_t)twin_get(r.nearest, 2), 1);
    cr_expect(twin_error(twin, r.loss) <= 1e-12);
    TWIN_CLOSE(twin, r.dx, 1e-6);
    TWIN_SAME_BITS(twin, r.loss, forward.loss);
    TWIN_SAME_BITS(twin, r.nearest, forward.nearest);
    twin_destroy(twin);
}

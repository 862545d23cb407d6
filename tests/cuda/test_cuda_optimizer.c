/* test_cuda_optimizer.c - norms, the step's decision, AdamW and moving averages on a GPU against the CPU. */
#include "../support/twin_support.h"

#include "base/memory.h"

#include <criterion/criterion.h>
#include <math.h>

enum { SEGMENTS = 40 };

/* OpsSegments on both sides, of lengths 0 to `longest` with gaps between some of them. */
typedef struct {
    TwinTensor bounds, module, rate, lr_multiplier, wd_multiplier;
    OpsSegments on[2];
    int64_t n; /* elements of the flat vector: some lie behind the last segment */
} Segments;

static Segments segments_of(Twin *twin, int64_t count, int64_t longest)
{
    int64_t *bounds = memory_alloc_array(2 * (size_t)count + 1, sizeof *bounds), at = 3;
    for (int64_t s = 0; s < count; s++) {
        int64_t length = rng_integer(&twin->rng, 0, s % 3 == 0 ? longest : longest < 17 ? longest : 17);
        bounds[2 * s] = at;
        bounds[2 * s + 1] = at += length;
        if (s % 4 == 1) at += rng_integer(&twin->rng, 0, 9);
    }
    Segments all = {.bounds = twin_i64(twin, count, 2, bounds),
                    .module = twin_integers(twin, count, 0, OPS_MODULES - 1),
                    .rate = twin_integers(twin, count, 0, OPS_RATES - 1),
                    .lr_multiplier = twin_uniform_1d(twin, DTYPE_F64, count, 0.1, 1.0),
                    .wd_multiplier = twin_uniform_1d(twin, DTYPE_F64, count, 0.0, 1.0),
                    .n = at + 5};
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++)
        all.on[side] = (OpsSegments){.count = count,
                                     .bounds = all.bounds.on[side],
                                     .module = all.module.on[side],
                                     .rate = all.rate.on[side],
                                     .lr_multiplier = all.lr_multiplier.on[side],
                                     .wd_multiplier = all.wd_multiplier.on[side]};
    memory_free(bounds);
    return all;
}

static TwinTensor control_of(Twin *twin, double finite)
{
    double c[CONTROL_COUNT] = {
        [CONTROL_LOSS_SCALE] = 1024,   [CONTROL_GROWTH] = 7,          [CONTROL_STEPS] = 3,
        [CONTROL_FINITE] = finite,     [CONTROL_CORRECTION1] = 0.271, [CONTROL_CORRECTION2] = 0.003,
        [CONTROL_FACTOR] = 0.7 / 1024, [CONTROL_FACTOR + 1] = 1.0,    [CONTROL_FACTOR + 2] = 0.123};
    return twin_f64(twin, CONTROL_COUNT, c);
}

static void squares(Twin *twin, TwinTensor result, TwinTensor x, const Segments *segments, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->segment_squares(ops, result.on[side], x.on[side], &segments->on[side]);
    }
}

Test(cuda_optimizer, segment_squares_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 10);
    const int64_t counts[] = {0, 1, 5, SEGMENTS}, longest[] = {10, 3, 20000, 9000};
    for (int s = 0; s < 4; s++) {
        Segments segments = segments_of(twin, counts[s], longest[s]);
        TwinTensor x = twin_normal_1d(twin, DTYPE_F32, segments.n, 1.0);
        TwinTensor result = twin_poison_1d(twin, DTYPE_F64, counts[s]),
                   again = twin_poison_1d(twin, DTYPE_F64, counts[s]);
        squares(twin, result, x, &segments, TWIN_HOST);
        for (int64_t i = 0; i < counts[s]; i++)
            TWIN_CLOSE(twin, twin_rows(result, i, 1), 1e-12);
        squares(twin, again, x, &segments, TWIN_DEVICE);
        TWIN_SAME_BITS(twin, result, again);
        cr_expect_eq(twin->cuda->scratch->used, 0);
    }
    twin_destroy(twin);
}

/* One bad element spoils its own segment and no other; what lies between segments spoils none. */
Test(cuda_optimizer, squares_show_what_is_not_finite)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 20);
    Segments segments = segments_of(twin, SEGMENTS, 3000);
    const double bad[] = {NAN, INFINITY, -INFINITY, 3e38};
    for (int b = 0; b < 4; b++) {
        TwinTensor x = twin_normal_1d(twin, DTYPE_F32, segments.n, 1.0);
        int64_t at = 3 * (b + 1), from = (int64_t)twin_get(segments.bounds, 2 * at);
        if (from == (int64_t)twin_get(segments.bounds, 2 * at + 1)) continue;
        twin_set(x, from, bad[b]);
        twin_set(x, 0, NAN);
        twin_set(x, segments.n - 1, INFINITY);
        twin_upload(twin, x);
        TwinTensor result = twin_poison_1d(twin, DTYPE_F64, SEGMENTS);
        squares(twin, result, x, &segments, TWIN_DEVICE);
        for (int64_t s = 0; s < SEGMENTS; s++)
            cr_expect_eq(isfinite(twin_values(twin, result, TWIN_DEVICE)[s]) != 0, s != at || b == 3);
    }
    twin_destroy(twin);
}

Test(cuda_optimizer, step_control_decides_as_the_cpu)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 30);
    Segments segments = segments_of(twin, SEGMENTS, 10);
    enum { CASES = 8 };
    for (int c = 0; c < CASES; c++) {
        StepControl rule = {.clip_grad = c % 2 ? 3.0 : 0.0, .beta1 = 0.9, .beta2 = 0.999, .scaled = c >= 4};
        TwinTensor control = control_of(twin, 1.0), losses = twin_normal_1d(twin, DTYPE_F64, 5, 1.0);
        TwinTensor sums = twin_uniform_1d(twin, DTYPE_F64, SEGMENTS, 0.0, 1e6);
        if (c == 2 || c == 6) twin_set(losses, 4, c == 2 ? NAN : INFINITY);
        if (c == 3 || c == 7) twin_set(sums, SEGMENTS - 1, c == 3 ? INFINITY : NAN);
        if (c == 5) twin_set(control, CONTROL_GROWTH, 1999);
        twin_upload(twin, losses);
        twin_upload(twin, sums);
        twin_upload(twin, control);
        for (int step = 0; step < 3; step++) {
            for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
                Ops *ops = twin_ops(twin, side);
                ops->step_control(ops, control.on[side], losses.on[side], sums.on[side], &segments.on[side],
                                  &rule);
            }
            for (int64_t i = 0; i < CONTROL_COUNT; i++)
                cr_expect_lt(twin_error(twin, twin_rows(control, i, 1)), 1e-12, "case %d, number %d", c,
                             (int)i);
        }
    }
    TwinTensor control = control_of(twin, 1.0), none = twin_zeros_1d(twin, DTYPE_F64, 0);
    Segments empty = segments_of(twin, 0, 0);
    StepControl rule = {.clip_grad = 3.0, .beta1 = 0.9, .beta2 = 0.999};
    for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->step_control(ops, control.on[side], tensor_none(), none.on[side], &empty.on[side], &rule);
    }
    TWIN_CLOSE(twin, control, 1e-12);
    twin_destroy(twin);
}

typedef struct {
    TwinTensor params, exp_avg, exp_avg_sq, grads, control;
} State;

static State state_of(Twin *twin, int64_t n, double finite)
{
    return (State){.params = twin_normal_1d(twin, DTYPE_F32, n, 1.0),
                   .exp_avg = twin_normal_1d(twin, DTYPE_F32, n, 0.1),
                   .exp_avg_sq = twin_uniform_1d(twin, DTYPE_F32, n, 0.0, 0.1),
                   .grads = twin_normal_1d(twin, DTYPE_F32, n, 1.0),
                   .control = control_of(twin, finite)};
}

static void adamw(Twin *twin, const State *s, const Segments *segments, TwinSide first)
{
    for (TwinSide side = first; side <= TWIN_DEVICE; side++) {
        Ops *ops = twin_ops(twin, side);
        ops->adamw(ops, &(AdamwUpdate){.params = s->params.on[side],
                                       .exp_avg = s->exp_avg.on[side],
                                       .exp_avg_sq = s->exp_avg_sq.on[side],
                                       .grads = s->grads.on[side],
                                       .segments = segments->on[side],
                                       .control = s->control.on[side],
                                       .lr = {1e-3, 2e-4, 5e-4},
                                       .weight_decay = 0.04,
                                       .beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .eps = 1e-8});
    }
}

/* Gaps between segments included, where nothing changes. Both fuse products and sums where they like: the
 * last bits. */
Test(cuda_optimizer, adamw_is_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 40);
    const int64_t counts[] = {0, 1, 5, SEGMENTS, 900}, longest[] = {10, 3, 20000, 9000, 3};
    for (int s = 0; s < 5; s++) {
        Segments segments = segments_of(twin, counts[s], longest[s]);
        State state = state_of(twin, segments.n, 1.0);
        for (int step = 0; step < 2; step++)
            adamw(twin, &state, &segments, TWIN_HOST);
        TWIN_CLOSE(twin, state.params, 3e-7);
        TWIN_CLOSE(twin, state.exp_avg, 3e-7);
        TWIN_CLOSE(twin, state.exp_avg_sq, 3e-7);
    }
    twin_destroy(twin);
}

Test(cuda_optimizer, nothing_changes_after_a_bad_step)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 50);
    Segments segments = segments_of(twin, 5, 3000);
    State state = state_of(twin, segments.n, 0.0);
    TwinTensor params = twin_copy(twin, state.params), first = twin_copy(twin, state.exp_avg);
    TwinTensor second = twin_copy(twin, state.exp_avg_sq);
    adamw(twin, &state, &segments, TWIN_DEVICE);
    twin->cuda->ema(twin->cuda, state.exp_avg.device, params.device, 0.5, state.control.device);
    twin->cuda->ema(twin->cuda, state.exp_avg.device, params.device, 0.0, state.control.device);
    TWIN_SAME_BITS(twin, state.params, params);
    TWIN_SAME_BITS(twin, state.exp_avg, first);
    TWIN_SAME_BITS(twin, state.exp_avg_sq, second);
    twin_destroy(twin);
}

/* From addresses that are not aligned to 16 bytes. */
Test(cuda_optimizer, any_address)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 60);
    Segments segments = segments_of(twin, 7, 5000);
    State whole = state_of(twin, segments.n + 1, 1.0), state = whole;
    state.params = twin_rows(whole.params, 1, segments.n);
    state.exp_avg = twin_rows(whole.exp_avg, 1, segments.n);
    state.exp_avg_sq = twin_rows(whole.exp_avg_sq, 1, segments.n);
    state.grads = twin_rows(whole.grads, 1, segments.n);
    TwinTensor result = twin_poison_1d(twin, DTYPE_F64, 7);
    adamw(twin, &state, &segments, TWIN_HOST);
    squares(twin, result, state.grads, &segments, TWIN_HOST);
    TWIN_CLOSE(twin, whole.params, 3e-7);
    TWIN_CLOSE(twin, whole.exp_avg, 3e-7);
    TWIN_CLOSE(twin, whole.exp_avg_sq, 3e-7);
    TWIN_CLOSE(twin, result, 1e-12);
    twin_destroy(twin);
}

Test(cuda_optimizer, ema_and_take_back_are_the_cpus)
{
    TWIN_REQUIRE();
    Twin *twin = twin_create(NULL, 70);
    const int64_t counts[] = {0, 1, 5, 777, 10000};
    const double momenta[] = {0.994, 0.0, 1.0, 0.5};
    for (int s = 0; s < 5 * 4 * 2; s++) {
        int64_t n = counts[s / 8], shift = s & 1;
        TwinTensor average = twin_normal_1d(twin, DTYPE_F32, n + 2, 1.0);
        TwinTensor value = twin_normal_1d(twin, DTYPE_F32, n + 2, 1.0),
                   before = twin_normal_1d(twin, DTYPE_F32, n + 2, 1.0);
        TwinTensor good = control_of(twin, 1.0), bad = control_of(twin, 0.0);
        TwinTensor controls[] = {good, twin_none(), bad};
        TwinTensor mean = twin_rows(average, shift, n), fresh = twin_rows(value, shift, n);
        TwinTensor old = twin_rows(before, shift, n);
        for (int c = 0; c < 3; c++) {
            for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
                Ops *ops = twin_ops(twin, side);
                ops->ema(ops, mean.on[side], fresh.on[side], momenta[s / 2 % 4], controls[c].on[side]);
            }
            TWIN_CLOSE(twin, average, 3e-7);
            for (TwinSide side = TWIN_HOST; side <= TWIN_DEVICE; side++) {
                Ops *ops = twin_ops(twin, side);
                ops->take_back(ops, fresh.on[side], old.on[side], controls[c].on[side]);
            }
            TWIN_EQUAL(twin, value);
        }
    }
    twin_destroy(twin);
}

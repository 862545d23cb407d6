/* optimizer.c - the update of a step on flat fp32 vectors: norms, what they decide, AdamW, moving averages.
 *
 * Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2, with the
 * operation order of PyTorch's AdamW (epsilon outside the bias-corrected root; golden README, trap 26); the
 * dynamic loss scale is that of Micikevicius et al., "Mixed Precision Training", ICLR 2018, with the
 * constants of PyTorch's GradScaler. One pass over memory each: these run at the speed of the memory bus.
 *
 * What it is not: schedules or parameter groups; they arrive as coefficients (optim/).
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

static const double CLIP_EPS = 1e-6;
static const double SCALE_BACKOFF = 0.5, SCALE_GROWTH = 2.0, SCALE_INTERVAL = 2000;

static const int64_t *bounds_of(const OpsSegments *segments)
{
    CHECK(segments->bounds.dtype == DTYPE_I64 && tensor_count(segments->bounds) == 2 * segments->count);
    return segments->bounds.data;
}

static bool update_allowed(Tensor control)
{
    if (!tensor_given(control)) return true;
    CHECK(tensor_count(control) == CONTROL_COUNT);
    return tensor_f64(control)[CONTROL_FINITE] != 0.0;
}

/* --- norms and decisions
 * ------------------------------------------------------------------------------------
 */

/* Blocks depend on the count alone and are added in order: the same bits on any number of threads. */
static double squares_of(const Ops *ops, const float *restrict values, int64_t n)
{
    enum { BLOCKS = 256, BLOCK_MIN = 4096 };
    double partial[BLOCKS], result = 0.0;
    if (n == 0) return 0.0;
    int64_t block = (n + BLOCKS - 1) / BLOCKS;
    if (block < BLOCK_MIN) block = BLOCK_MIN;
    int64_t blocks = (n + block - 1) / block;
    int threads = ops_cpu_threads(ops, n, blocks);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = (b + 1) * block < n ? (b + 1) * block : n;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = b * block; i < end; i++)
            sum += (double)values[i] * (double)values[i];
        partial[b] = sum;
    }
    for (int64_t b = 0; b < blocks; b++)
        result += partial[b];
    return result;
}

void cpu_segment_squares(const Ops *ops, Tensor squares, Tensor x, const OpsSegments *segments)
{
    CHECK(tensor_count(squares) == segments->count);
    const int64_t *bounds = bounds_of(segments);
    for (int64_t s = 0; s < segments->count; s++) {
        CHECK(bounds[2 * s] >= 0 && bounds[2 * s] <= bounds[2 * s + 1] &&
              bounds[2 * s + 1] <= tensor_count(x));
        tensor_f64(squares)[s] =
            squares_of(ops, tensor_f32(x) + bounds[2 * s], bounds[2 * s + 1] - bounds[2 * s]);
    }
}

/* The scale of the next step. */
static void adapt_loss_scale(double *control)
{
    if (control[CONTROL_FINITE] == 0.0) {
        control[CONTROL_LOSS_SCALE] *= SCALE_BACKOFF;
        control[CONTROL_GROWTH] = 0.0;
    } else if (++control[CONTROL_GROWTH] >= SCALE_INTERVAL) {
        control[CONTROL_LOSS_SCALE] *= SCALE_GROWTH;
        control[CONTROL_GROWTH] = 0.0;
    }
}

void cpu_step_control(const Ops *ops, Tensor control, Tensor losses, Tensor squares,
                      const OpsSegments *segments, const StepControl *rule)
{
    (void)ops;
    CHECK(tensor_count(control) == CONTROL_COUNT && tensor_count(squares) == segments->count);
    double *c = tensor_f64(control), sums[OPS_MODULES] = {0}, scale = c[CONTROL_LOSS_SCALE];
    bool finite = true;
    for (int64_t i = 0; i < tensor_count(losses); i++)
        finite = finite && isfinite(tensor_f64(losses)[i]);
    for (int64_t s = 0; s < segments->count; s++)
        sums[tensor_i32(segments->module)[s]] += tensor_f64(squares)[s];
    for (int m = 0; m < OPS_MODULES; m++) {
        double norm = sqrt(sums[m]) / scale;
        double clip = rule->clip_grad > 0 ? fmin(1.0, rule->clip_grad / (norm + CLIP_EPS)) : 1.0;
        finite = finite && isfinite(norm);
        c[CONTROL_NORM + m] = norm;
        c[CONTROL_FACTOR + m] = clip / scale;
    }
    c[CONTROL_FINITE] = finite;
    c[CONTROL_STEPS] += finite;
    c[CONTROL_CORRECTION1] = 1.0 - pow(rule->beta1, c[CONTROL_STEPS]);
    c[CONTROL_CORRECTION2] = 1.0 - pow(rule->beta2, c[CONTROL_STEPS]);
    if (rule->scaled) adapt_loss_scale(c);
}

/* --- updates
 * ------------------------------------------------------------------------------------------------
 */

/* Coefficients of one segment. The complements are made in fp64: 1 - 0.999 in fp32 is already wrong in the
 * fifth digit. */
typedef struct {
    float keep1, take1, keep2, take2, decay, rate, root, scale, eps;
} AdamwCoefficients;

static AdamwCoefficients coefficients_of(const AdamwUpdate *u, int64_t segment)
{
    const OpsSegments *s = &u->segments;
    const double *control = tensor_f64(u->control);
    double lr = u->lr[tensor_i32(s->rate)[segment]] * tensor_f64(s->lr_multiplier)[segment];
    double weight_decay = u->weight_decay * tensor_f64(s->wd_multiplier)[segment];
    return (AdamwCoefficients){
        .keep1 = (float)u->beta1,
        .take1 = (float)(1.0 - u->beta1),
        .keep2 = (float)u->beta2,
        .take2 = (float)(1.0 - u->beta2),
        .decay = (float)(1.0 - lr * weight_decay),
        .rate = (float)(lr / control[CONTROL_CORRECTION1]),
        .root = (float)(1.0 / sqrt(control[CONTROL_CORRECTION2])),
        .scale = (float)control[CONTROL_FACTOR + tensor_i32(s->module)[segment]],
        .eps = (float)u->eps,
    };
}

void cpu_adamw(const Ops *ops, const AdamwUpdate *u)
{
    int64_t n = tensor_count(u->params);
    CHECK(tensor_count(u->exp_avg) == n && tensor_count(u->exp_avg_sq) == n && tensor_count(u->grads) == n);
    const int64_t *bounds = bounds_of(&u->segments);
    if (!update_allowed(u->control)) return;
    float *restrict param = tensor_f32(u->params), *restrict first = tensor_f32(u->exp_avg);
    float *restrict second = tensor_f32(u->exp_avg_sq);
    const float *restrict gradient = tensor_f32(u->grads);
    for (int64_t s = 0; s < u->segments.count; s++) {
        const AdamwCoefficients c = coefficients_of(u, s);
        int64_t begin = bounds[2 * s], end = bounds[2 * s + 1];
        CHECK(begin >= 0 && begin <= end && end <= n);
        int threads = ops_cpu_threads(ops, end - begin, end - begin);
#pragma omp parallel for simd schedule(static) num_threads(threads)
        for (int64_t i = begin; i < end; i++) {
            float slope = gradient[i] * c.scale;
            float mean = c.keep1 * first[i] + c.take1 * slope;
            float square = c.keep2 * second[i] + c.take2 * (slope * slope);
            first[i] = mean;
            second[i] = square;
            param[i] = c.decay * param[i] - c.rate * mean / (sqrtf(square) * c.root + c.eps);
        }
    }
}

void cpu_ema(const Ops *ops, Tensor average, Tensor value, double momentum, Tensor control)
{
    int64_t n = tensor_count(average);
    CHECK(tensor_count(value) == n);
    if (n == 0 || !update_allowed(control)) return;
    float *restrict mean = tensor_f32(average);
    const float *restrict fresh = tensor_f32(value);
    float take = (float)(1.0 - momentum);
    int threads = ops_cpu_threads(ops, n, n);

    /* As a step towards the value: one rounding of the size of the step, where keep * mean rounds the mean
     * itself twice. Only at momentum 0 is it not exact, so that is a copy. */
    if (momentum == 0.0) {
        memcpy(mean, fresh, (size_t)n * sizeof(float));
        return;
    }
#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        mean[i] += take * (fresh[i] - mean[i]);
}

void cpu_take_back(const Ops *ops, Tensor x, Tensor before, Tensor control)
{
    (void)ops;
    CHECK(tensor_count(x) == tensor_count(before));
    if (!update_allowed(control)) memcpy(tensor_f32(x), tensor_f32(before), tensor_bytes(x));
}

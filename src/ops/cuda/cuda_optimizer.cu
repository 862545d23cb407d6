/* cuda_optimizer.cu - the twin of ops/cpu/optimizer.c: norms, what they decide, AdamW, moving averages.
 *
 * Floor of an element: squares 4 bytes, AdamW 28, moving average 12. One launch each over a flat vector
 * whatever the number of its segments (squares: two): blocks have equal stretches of it and look up which
 * segments lie there. Updates are written out in fused operations, so that no compiler has a choice; root and
 * division are exact, which fits into the time of moving the bytes.
 */
#include "ops/cuda/row_access.cuh"

#include <math.h>

enum {
    OPTIMIZER_LOADS = 4,        /* vectors of a thread under way at once, of one operand */
    OPTIMIZER_BLOCKS_EACH = 20, /* for a multiprocessor, which holds 5: small segments even out */
    OPTIMIZER_GRAIN = 1024,     /* elements of a block are a multiple of it */
};

static const double CLIP_EPS = 1e-6;
static const double SCALE_BACKOFF = 0.5, SCALE_GROWTH = 2.0, SCALE_INTERVAL = 2000;

/* OpsSegments where kernels read it. */
typedef struct {
    const int64_t *bounds;
    const int32_t *module, *rate;
    const double *lr_multiplier, *wd_multiplier;
    int count;
} SegmentTable;

/* Without multipliers only bounds and modules are looked at. */
static SegmentTable segment_table(const OpsSegments *s, bool multipliers)
{
    CHECK(s->count >= 0 && s->count <= INT32_MAX && (s->count == 0 || s->bounds.dtype == DTYPE_I64));
    SegmentTable t = {};
    t.count = (int)s->count;
    if (t.count == 0) return t;
    CHECK(tensor_count(s->bounds) == 2 * s->count && tensor_count(s->module) == s->count);
    t.bounds = (const int64_t *)s->bounds.data;
    t.module = tensor_i32(s->module);
    if (!multipliers) return t;
    CHECK(tensor_count(s->rate) == s->count && tensor_count(s->lr_multiplier) == s->count);
    CHECK(tensor_count(s->wd_multiplier) == s->count);
    t.rate = tensor_i32(s->rate);
    t.lr_multiplier = tensor_f64(s->lr_multiplier);
    t.wd_multiplier = tensor_f64(s->wd_multiplier);
    return t;
}

/* The first segment that ends behind element `at`, or their number. A warp looks at 32 places at a time,
 * since each look waits for memory. */
__device__ __forceinline__ int segment_behind(const SegmentTable &t, int64_t at)
{
    int low = 0, high = t.count, lane = (int)threadIdx.x % WARP;
    while (low < high) {
        int stride = (high - low + WARP - 1) / WARP, place = low + lane * stride;
        int before = __popc(__ballot_sync(ALL_LANES, place < high && t.bounds[2 * (int64_t)place + 1] <= at));
        int next = low + before * stride;
        low = before == 0 ? low : next - stride + 1;
        high = next < high ? next : high;
    }
    return low;
}

/* Elements begin .. end - 1 as whole vectors between up to V - 1 single elements before and behind. */
template <int V> struct Stretch {
    int64_t begin, body, tail, end;
    __device__ __forceinline__ Stretch(int64_t first, int64_t last) : begin(first), end(last)
    {
        body = (begin + V - 1) / V * V;
        body = body < end ? body : end;
        tail = end / V * V;
        tail = tail > body ? tail : body;
    }
    /* The element at an edge that falls to this thread of the block, or -1. */
    __device__ __forceinline__ int64_t edge() const
    {
        int64_t head = begin + threadIdx.x, back = tail + (int)threadIdx.x - V;
        if (threadIdx.x < V) return head < body ? head : -1;
        return threadIdx.x < 2 * V && back < end ? back : -1;
    }
};

__device__ __forceinline__ bool update_allowed(const double *control)
{
    return !control || control[CONTROL_FINITE] != 0.0;
}

static const double *control_of(Tensor control)
{
    if (!tensor_given(control)) return NULL;
    CHECK(tensor_count(control) == CONTROL_COUNT);
    return tensor_f64(control);
}

/* --- norms and decisions ------------------------------------------------------------------------------ */

/* Elements of a block, so that OPTIMIZER_BLOCKS_EACH are enough for n. */
static int64_t optimizer_chunk(const Ops *ops, int64_t n)
{
    int64_t most = (int64_t)ops_cuda(ops)->multiprocessors * OPTIMIZER_BLOCKS_EACH;
    int64_t grains = ceil_div(ceil_div(n, most), OPTIMIZER_GRAIN);
    return (grains > 2 ? grains : 2) * OPTIMIZER_GRAIN;
}

size_t cuda_optimizer_scratch(const OpsLimits *limits, int multiprocessors)
{
    return ops_cuda_piece((int64_t)multiprocessors * OPTIMIZER_BLOCKS_EACH + limits->segments,
                          sizeof(double));
}

/* Block c has elements c * chunk and on. Its sum of segment s goes to partial[c + s]: along the vector either
 * the block or the segment goes up by one, so that no two share a place. */
template <int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    segment_squares_kernel(double *partial, const float *x, SegmentTable t, int64_t chunk)
{
    __shared__ double shared[WARP];
    int64_t from = blockIdx.x * chunk, to = from + chunk;
    for (int s = segment_behind(t, from); s < t.count && t.bounds[2 * s] < to; s++) {
        int64_t begin = t.bounds[2 * s], end = t.bounds[2 * s + 1];
        const Stretch<V> part(begin > from ? begin : from, end < to ? end : to);
        double sum = 0.0;
        for (int64_t i = part.body + threadIdx.x * V; i < part.tail;
             i += OPTIMIZER_LOADS * ROW_ACCESS_THREADS * V) {
            float value[OPTIMIZER_LOADS][V];
#pragma unroll
            for (int u = 0; u < OPTIMIZER_LOADS; u++)
                if (i + u * ROW_ACCESS_THREADS * V < part.tail)
                    load_f32(value[u], x + i + u * ROW_ACCESS_THREADS * V);
#pragma unroll
            for (int u = 0; u < OPTIMIZER_LOADS; u++) {
                if (i + u * ROW_ACCESS_THREADS * V >= part.tail) break;
#pragma unroll
                for (int k = 0; k < V; k++)
                    sum += (double)value[u][k] * (double)value[u][k];
            }
        }
        int64_t edge = part.edge();
        if (edge >= 0) sum += (double)x[edge] * (double)x[edge];
        sum = block_sum(sum, shared);
        if (threadIdx.x == 0) partial[blockIdx.x + s] = sum;
    }
}

/* A segment a warp. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    segment_totals_kernel(double *squares, const double *partial, SegmentTable t, int64_t chunk)
{
    int64_t s = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (s >= t.count) return;
    int64_t begin = t.bounds[2 * s], end = t.bounds[2 * s + 1];
    double sum = 0.0;
    for (int64_t c = begin / chunk + lane; begin < end && c <= (end - 1) / chunk; c += WARP)
        sum += partial[c + s];
    sum = warp_sum(sum);
    if (lane == 0) squares[s] = sum;
}

extern "C" void cuda_segment_squares(const Ops *ops, Tensor squares, Tensor x, const OpsSegments *segments)
{
    CHECK(tensor_count(squares) == segments->count);
    SegmentTable t = segment_table(segments, false);
    if (t.count == 0) return;
    int64_t n = tensor_count(x), chunk = optimizer_chunk(ops, n), blocks = ceil_div(n, chunk);
    cudaStream_t stream = ops_cuda(ops)->stream;
    ArenaMark mark = arena_mark(ops->scratch);
    double *partial = (double *)arena_alloc(ops->scratch, (size_t)(blocks + t.count) * sizeof *partial);
    if (row_access_aligned(x, 4, 4))
        KERNEL_LAUNCH(segment_squares_kernel<4>, (unsigned)blocks, ROW_ACCESS_THREADS, 0, stream, partial,
                      tensor_f32(x), t, chunk);
    else
        KERNEL_LAUNCH(segment_squares_kernel<1>, (unsigned)blocks, ROW_ACCESS_THREADS, 0, stream, partial,
                      tensor_f32(x), t, chunk);
    KERNEL_LAUNCH(segment_totals_kernel, row_access_grid(t.count), ROW_ACCESS_THREADS, 0, stream,
                  tensor_f64(squares), partial, t, chunk);
    arena_reset(ops->scratch, mark);
}

/* The scale of the next step. */
__device__ void adapt_loss_scale(double *control)
{
    if (control[CONTROL_FINITE] == 0.0) {
        control[CONTROL_LOSS_SCALE] *= SCALE_BACKOFF;
        control[CONTROL_GROWTH] = 0.0;
    } else if (++control[CONTROL_GROWTH] >= SCALE_INTERVAL) {
        control[CONTROL_LOSS_SCALE] *= SCALE_GROWTH;
        control[CONTROL_GROWTH] = 0.0;
    }
}

__device__ void decide_step(double *c, const double *sums, bool finite, const StepControl &rule)
{
    double scale = c[CONTROL_LOSS_SCALE];
    for (int m = 0; m < OPS_MODULES; m++) {
        double norm = sqrt(sums[m]) / scale;
        double clip = rule.clip_grad > 0 ? fmin(1.0, rule.clip_grad / (norm + CLIP_EPS)) : 1.0;
        finite = finite && isfinite(norm);
        c[CONTROL_NORM + m] = norm;
        c[CONTROL_FACTOR + m] = clip / scale;
    }
    c[CONTROL_FINITE] = finite ? 1.0 : 0.0;
    c[CONTROL_STEPS] += finite ? 1.0 : 0.0;
    c[CONTROL_CORRECTION1] = 1.0 - pow(rule.beta1, c[CONTROL_STEPS]);
    c[CONTROL_CORRECTION2] = 1.0 - pow(rule.beta2, c[CONTROL_STEPS]);
    if (rule.scaled) adapt_loss_scale(c);
}

/* One block. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    step_control_kernel(double *control, const double *losses, int64_t loss_count, const double *squares,
                        SegmentTable t, StepControl rule)
{
    __shared__ double shared[WARP], sums[OPS_MODULES];
    double bad = 0.0;
    for (int64_t i = threadIdx.x; i < loss_count; i += blockDim.x)
        if (!isfinite(losses[i])) bad += 1.0;
    bad = block_sum(bad, shared);
    for (int m = 0; m < OPS_MODULES; m++) {
        double sum = 0.0;
        for (int s = threadIdx.x; s < t.count; s += blockDim.x)
            if (t.module[s] == m) sum += squares[s];
        sum = block_sum(sum, shared);
        if (threadIdx.x == 0) sums[m] = sum;
    }
    if (threadIdx.x == 0) decide_step(control, sums, bad == 0.0, rule);
}

extern "C" void cuda_step_control(const Ops *ops, Tensor control, Tensor losses, Tensor squares,
                                  const OpsSegments *segments, const StepControl *rule)
{
    CHECK(tensor_count(control) == CONTROL_COUNT && tensor_count(squares) == segments->count);
    int64_t loss_count = tensor_count(losses);
    KERNEL_LAUNCH(step_control_kernel, 1, ROW_ACCESS_THREADS, 0, ops_cuda(ops)->stream, tensor_f64(control),
                  loss_count > 0 ? tensor_f64(losses) : NULL, loss_count,
                  segments->count > 0 ? tensor_f64(squares) : NULL, segment_table(segments, false), *rule);
}

/* --- updates ------------------------------------------------------------------------------------------ */

typedef struct {
    float *param, *first, *second;
    const float *gradient;
    const double *control;
    SegmentTable t;
    int64_t n, chunk;
    double lr[OPS_RATES], weight_decay;
    float keep1, take1, keep2, take2, eps;
} AdamwRun;

/* A segment within a block: where, and with which coefficients. */
typedef struct {
    int64_t begin, end;
    float decay, rate, root, scale;
} AdamwPiece;

/* In fp64, as on the CPU. */
__device__ AdamwPiece adamw_piece(const AdamwRun &a, int s, int64_t from, int64_t to)
{
    int64_t begin = a.t.bounds[2 * s], end = a.t.bounds[2 * s + 1];
    double lr = a.lr[a.t.rate[s]] * a.t.lr_multiplier[s];
    double weight_decay = a.weight_decay * a.t.wd_multiplier[s];
    AdamwPiece piece;
    piece.begin = begin > from ? begin : from;
    piece.end = end < to ? end : to;
    piece.decay = (float)(1.0 - lr * weight_decay);
    piece.rate = (float)(lr / a.control[CONTROL_CORRECTION1]);
    piece.root = (float)(1.0 / sqrt(a.control[CONTROL_CORRECTION2]));
    piece.scale = (float)a.control[CONTROL_FACTOR + a.t.module[s]];
    return piece;
}

__device__ __forceinline__ void adamw_element(const AdamwRun &a, const AdamwPiece &c, float &param,
                                              float &first, float &second, float gradient)
{
    float slope = gradient * c.scale;
    first = fmaf(a.keep1, first, a.take1 * slope);
    second = fmaf(a.keep2, second, a.take2 * (slope * slope));
    param = fmaf(c.decay, param, -(c.rate * first / fmaf(sqrtf(second), c.root, a.eps)));
}

template <int V> __device__ __forceinline__ void adamw_update(const AdamwRun &a, const AdamwPiece &c)
{
    const Stretch<V> part(c.begin, c.end);
    for (int64_t i = part.body + threadIdx.x * V; i < part.tail; i += ROW_ACCESS_THREADS * V) {
        float param[V], first[V], second[V], gradient[V];
        load_f32(param, a.param + i);
        load_f32(first, a.first + i);
        load_f32(second, a.second + i);
        load_f32(gradient, a.gradient + i);
#pragma unroll
        for (int k = 0; k < V; k++)
            adamw_element(a, c, param[k], first[k], second[k], gradient[k]);
        store_f32(a.param + i, param);
        store_f32(a.first + i, first);
        store_f32(a.second + i, second);
    }
    int64_t edge = part.edge();
    if (edge >= 0) adamw_element(a, c, a.param[edge], a.first[edge], a.second[edge], a.gradient[edge]);
}

/* A chunk a block: its threads first make the coefficients of a segment each, then all go through those
 * segments. */
template <int V> __global__ void __launch_bounds__(ROW_ACCESS_THREADS, 5) adamw_kernel(AdamwRun a)
{
    __shared__ AdamwPiece pieces[ROW_ACCESS_THREADS];
    int64_t from = blockIdx.x * a.chunk, to = from + a.chunk;
    if (to > a.n) to = a.n;
    if (!update_allowed(a.control)) return;
    for (int s = segment_behind(a.t, from); s < a.t.count && a.t.bounds[2 * s] < to;
         s += ROW_ACCESS_THREADS) {
        int own = s + (int)threadIdx.x, count = 0;
        __syncthreads();
        if (own < a.t.count && a.t.bounds[2 * own] < to) pieces[threadIdx.x] = adamw_piece(a, own, from, to);
        __syncthreads();
        while (count < ROW_ACCESS_THREADS && s + count < a.t.count && a.t.bounds[2 * (s + count)] < to)
            adamw_update<V>(a, pieces[count++]);
    }
}

extern "C" void cuda_adamw(const Ops *ops, const AdamwUpdate *u)
{
    int64_t n = tensor_count(u->params);
    CHECK(tensor_count(u->exp_avg) == n && tensor_count(u->exp_avg_sq) == n && tensor_count(u->grads) == n);
    AdamwRun a = {};
    a.t = segment_table(&u->segments, true);
    a.control = control_of(u->control);
    CHECK(a.control);
    if (n == 0 || a.t.count == 0) return;
    a.param = tensor_f32(u->params);
    a.first = tensor_f32(u->exp_avg);
    a.second = tensor_f32(u->exp_avg_sq);
    a.gradient = tensor_f32(u->grads);
    a.n = n;
    a.chunk = optimizer_chunk(ops, n);
    for (int rate = 0; rate < OPS_RATES; rate++)
        a.lr[rate] = u->lr[rate];
    a.weight_decay = u->weight_decay;
    a.keep1 = (float)u->beta1;
    a.take1 = (float)(1.0 - u->beta1);
    a.keep2 = (float)u->beta2;
    a.take2 = (float)(1.0 - u->beta2);
    a.eps = (float)u->eps;
    unsigned blocks = (unsigned)ceil_div(n, a.chunk);
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (row_access_aligned(u->params, 4, 4) && row_access_aligned(u->exp_avg, 4, 4) &&
        row_access_aligned(u->exp_avg_sq, 4, 4) && row_access_aligned(u->grads, 4, 4))
        KERNEL_LAUNCH(adamw_kernel<4>, blocks, ROW_ACCESS_THREADS, 0, stream, a);
    else
        KERNEL_LAUNCH(adamw_kernel<1>, blocks, ROW_ACCESS_THREADS, 0, stream, a);
}

/* average += take * (value - average); take 1 copies, which that is not for every value. */
template <int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    ema_kernel(float *average, const float *value, float take, const double *control, int64_t n)
{
    const int LOADS = OPTIMIZER_LOADS / 2;
    int64_t vectors = n / V, step = (int64_t)gridDim.x * blockDim.x;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (!update_allowed(control)) return;
    for (int64_t v = thread; v < vectors; v += LOADS * step) {
        float mean[LOADS][V], fresh[LOADS][V];
#pragma unroll
        for (int u = 0; u < LOADS; u++)
            if (v + u * step < vectors) {
                load_f32(mean[u], average + (v + u * step) * V);
                load_f32(fresh[u], value + (v + u * step) * V);
            }
#pragma unroll
        for (int u = 0; u < LOADS; u++) {
            if (v + u * step >= vectors) break;
#pragma unroll
            for (int k = 0; k < V; k++)
                mean[u][k] = fmaf(take, fresh[u][k] - mean[u][k], mean[u][k]);
            store_f32(average + (v + u * step) * V, mean[u]);
        }
    }
    for (int64_t i = vectors * V + thread; i < n; i += step)
        average[i] = fmaf(take, value[i] - average[i], average[i]);
}

/* to = from where control says finite (`when` 1) or where it does not (0). */
template <int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    copy_when_kernel(float *to, const float *from, const double *control, bool when, int64_t n)
{
    int64_t vectors = n / V, step = (int64_t)gridDim.x * blockDim.x;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (update_allowed(control) != when) return;
    for (int64_t v = thread; v < vectors; v += step) {
        float value[V];
        load_f32(value, from + v * V);
        store_f32(to + v * V, value);
    }
    for (int64_t i = vectors * V + thread; i < n; i += step)
        to[i] = from[i];
}

static void copy_when(const Ops *ops, Tensor to, Tensor from, Tensor control, bool when)
{
    int64_t n = tensor_count(to);
    bool wide = row_access_aligned(to, 4, 4) && row_access_aligned(from, 4, 4);
    unsigned grid = row_access_flat_grid(ceil_div(n, wide ? 4 : 1));
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (wide)
        KERNEL_LAUNCH(copy_when_kernel<4>, grid, ROW_ACCESS_THREADS, 0, stream, tensor_f32(to),
                      tensor_f32(from), control_of(control), when, n);
    else
        KERNEL_LAUNCH(copy_when_kernel<1>, grid, ROW_ACCESS_THREADS, 0, stream, tensor_f32(to),
                      tensor_f32(from), control_of(control), when, n);
}

extern "C" void cuda_ema(const Ops *ops, Tensor average, Tensor value, double momentum, Tensor control)
{
    int64_t n = tensor_count(average);
    CHECK(tensor_count(value) == n);
    if (n == 0) return;
    if (momentum == 0.0) {
        copy_when(ops, average, value, control, true);
        return;
    }
    bool wide = row_access_aligned(average, 4, 4) && row_access_aligned(value, 4, 4);
    unsigned grid = row_access_flat_grid(ceil_div(n, (wide ? 4 : 1) * (OPTIMIZER_LOADS / 2)));
    cudaStream_t stream = ops_cuda(ops)->stream;
    float take = (float)(1.0 - momentum);
    if (wide)
        KERNEL_LAUNCH(ema_kernel<4>, grid, ROW_ACCESS_THREADS, 0, stream, tensor_f32(average),
                      tensor_f32(value), take, control_of(control), n);
    else
        KERNEL_LAUNCH(ema_kernel<1>, grid, ROW_ACCESS_THREADS, 0, stream, tensor_f32(average),
                      tensor_f32(value), take, control_of(control), n);
}

extern "C" void cuda_take_back(const Ops *ops, Tensor x, Tensor before, Tensor control)
{
    CHECK(tensor_count(x) == tensor_count(before));
    if (tensor_count(x) > 0 && tensor_given(control)) copy_when(ops, x, before, control, false);
}

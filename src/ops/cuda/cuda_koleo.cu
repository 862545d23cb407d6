/* cuda_koleo.cu - the twin of ops/cpu/koleo.c, which has the sources: every row is pushed away from its
 * nearest neighbour.
 *
 * Inner products of normalised rows are fp32 (never TF32) by cuBLASLt, a block of rows at a time, so that no
 * [n, n] matrix exists for large groups; the neighbour is the largest, the first of equals. Distances and
 * gradients are made in fp64 as on the CPU. A row's gradient is gathered: from its own term, then from those
 * of the rows that have it as neighbour, in ascending order, which a block finds by reading all of `nearest`.
 *
 * Floor for n = 64 rows of D = 1024: 8 Mflop and 0.8 MB, that is nothing: six small launches, some 15
 * microseconds. For n = 2048 rows (all ranks' class tokens): 8.6 Gflop in fp32, 0.2 ms, and 2048 readings of
 * 8 KB of `nearest`.
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/row_access.cuh"

enum {
    KOLEO_THREADS = 256,
    KOLEO_WARPS = KOLEO_THREADS / 32,
};

#define KOLEO_EPS 1e-8 /* of the norm, of each component of the difference, and of the log */

/* Scratch of one call. */
typedef struct {
    int64_t n, D;
    const float *x;   /* [n, D] */
    float *unit;      /* [n, D] normalised rows */
    double *inverse;  /* [n] 1 / max(|x|, eps) */
    double *distance; /* [n] |unit_i - unit_nn(i) + eps| */
    double *slope;    /* [n, D] d loss / d unit row */
    float *dots;      /* [rows of a block, n] */
} Koleo;

/* Rows whose inner products are made at one time. */
static int64_t koleo_block(int64_t n)
{
    int64_t rows = CUDA_BUDGET_DOTS / n;
    return rows > n ? n : rows < 1 ? 1 : rows;
}

extern "C" size_t cuda_koleo_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    int64_t n = limits->group_rows, D = limits->width;
    if (n == 0) return 0;
    int64_t all = n * n, dots = all < CUDA_BUDGET_DOTS ? all : n > CUDA_BUDGET_DOTS ? n : CUDA_BUDGET_DOTS;
    return ops_cuda_piece(n * D, sizeof(float)) + 2 * ops_cuda_piece(n, sizeof(double)) +
           ops_cuda_piece(n * D, sizeof(double)) + ops_cuda_piece(dots, sizeof(float));
}

static Koleo koleo_layout(const Ops *ops, Tensor x)
{
    Koleo k;
    k.n = x.shape[0];
    k.D = x.shape[1];
    k.x = tensor_f32(x);
    k.unit = (float *)arena_alloc(ops->scratch, (size_t)(k.n * k.D) * sizeof(float));
    k.inverse = (double *)arena_alloc(ops->scratch, (size_t)k.n * sizeof(double));
    k.distance = (double *)arena_alloc(ops->scratch, (size_t)k.n * sizeof(double));
    k.slope = (double *)arena_alloc(ops->scratch, (size_t)(k.n * k.D) * sizeof(double));
    k.dots = (float *)arena_alloc(ops->scratch, (size_t)(koleo_block(k.n) * k.n) * sizeof(float));
    return k;
}

/* --- neighbours ---------------------------------------------------------------------------------------- */

/* A block a row. */
__global__ void __launch_bounds__(KOLEO_THREADS) koleo_normalize(Koleo k)
{
    __shared__ double shared[WARP];
    const float *row = k.x + (int64_t)blockIdx.x * k.D;
    double sum = 0.0;
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
        sum += (double)row[d] * (double)row[d];
    double norm = sqrt(block_sum(sum, shared)), inverse = 1.0 / (norm > KOLEO_EPS ? norm : KOLEO_EPS);
    if (threadIdx.x == 0) k.inverse[blockIdx.x] = inverse;
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
        k.unit[(int64_t)blockIdx.x * k.D + d] = (float)((double)row[d] * inverse);
}

/* Keeps of two candidates the larger product, the lower row of equals; -1 is no candidate. */
__device__ __forceinline__ void koleo_better(float *best, int *row, float other, int other_row)
{
    bool take = other_row >= 0 && (*row < 0 || other > *best || (other == *best && other_row < *row));
    *best = take ? other : *best;
    *row = take ? other_row : *row;
}

/* nearest[first + i] = the row j other than itself with the largest dots[i, j], the lowest of equals. A warp
 * a row. */
__global__ void __launch_bounds__(KOLEO_THREADS)
    koleo_argmax(int32_t *nearest, const float *dots, int64_t first, int64_t rows, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * KOLEO_WARPS + threadIdx.x / WARP;
    if (i >= rows) return;
    int lane = threadIdx.x % WARP, row = -1;
    float best = 0.0f;
    for (int64_t j = lane; j < n; j += WARP)
        if (j != first + i) koleo_better(&best, &row, dots[i * n + j], (int)j);
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, best, offset);
        int other_row = __shfl_xor_sync(ALL_LANES, row, offset);
        koleo_better(&best, &row, other, other_row);
    }
    if (lane == 0) nearest[first + i] = row;
}

static void koleo_find_nearest(const Ops *ops, const Koleo *k, int32_t *nearest)
{
    int64_t block = koleo_block(k->n);
    for (int64_t first = 0; first < k->n; first += block) {
        int64_t rows = k->n - first < block ? k->n - first : block;
        CudaGemmProduct product = {};
        product.m = rows;
        product.n = k->n;
        product.k = k->D;
        product.dtype = DTYPE_F32;
        product.a = k->unit + first * k->D;
        product.b = k->unit;
        product.b_transposed = true;
        product.c = k->dots;
        product.c_dtype = DTYPE_F32;
        cuda_gemm_run(ops_cuda(ops)->gemm, &product);
        KERNEL_LAUNCH(koleo_argmax, (unsigned)ceil_div(rows, KOLEO_WARPS), KOLEO_THREADS, 0,
                      ops_cuda(ops)->stream, nearest, k->dots, first, rows, k->n);
    }
}

/* --- loss ---------------------------------------------------------------------------------------------- */

/* Element d of the difference of two unit rows, with the eps of the reference. */
__device__ __forceinline__ double koleo_delta(const Koleo &k, int64_t from, int64_t to, int64_t d)
{
    return (double)k.x[from * k.D + d] * k.inverse[from] - (double)k.x[to * k.D + d] * k.inverse[to] +
           KOLEO_EPS;
}

/* A block a row. */
__global__ void __launch_bounds__(KOLEO_THREADS) koleo_distances(Koleo k, const int32_t *nearest)
{
    __shared__ double shared[WARP];
    int64_t i = blockIdx.x, to = nearest[i];
    double sum = 0.0;
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS) {
        double delta = koleo_delta(k, i, to, d);
        sum += delta * delta;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) k.distance[i] = sqrt(sum);
}

/* loss += weight * -mean log(distance + eps), by one block. */
__global__ void __launch_bounds__(KOLEO_THREADS) koleo_loss(double *loss, Koleo k, double weight)
{
    __shared__ double shared[WARP];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < k.n; i += KOLEO_THREADS)
        sum -= log(k.distance[i] + KOLEO_EPS);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *loss += weight * (sum / (double)k.n);
}

/* --- gradient ------------------------------------------------------------------------------------------ */

/* slope[row, :] += factor * d(loss term of row `from`) / d(its own unit row). All threads of a block; each
 * meets only its own elements of `slope` again. */
__device__ __forceinline__ void koleo_add_term(const Koleo &k, double *slope, int64_t from, int64_t to,
                                               double factor)
{
    double distance = k.distance[from], scale = factor / ((distance + KOLEO_EPS) * distance);
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
        slope[d] += scale * koleo_delta(k, from, to, d);
}

/* Which rows among start .. start + KOLEO_THREADS - 1 have row i as neighbour: ascending in list[0 ..
 * returned). The first barrier also waits for all that read the list before, the second for all that read the
 * counts. */
__device__ __forceinline__ int koleo_list_followers(int *list, int *counts, const int32_t *nearest,
                                                    int64_t start, int64_t n, int64_t i)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, before = 0, total = 0;
    int64_t row = start + threadIdx.x;
    unsigned hits = __ballot_sync(ALL_LANES, row < n && nearest[row] == i);
    if (lane == 0) counts[warp] = __popc(hits);
    __syncthreads();
    for (int w = 0; w < KOLEO_WARPS; w++) {
        before += w < warp ? counts[w] : 0;
        total += counts[w];
    }
    if (hits >> lane & 1u) list[before + __popc(hits & ((1u << lane) - 1u))] = (int)row;
    __syncthreads();
    return total;
}

/* dx of row i = blockIdx.x, factor = -weight * loss_scale / n. */
__global__ void __launch_bounds__(KOLEO_THREADS)
    koleo_gradient(float *dx, Koleo k, const int32_t *nearest, double factor, const double *loss_scale)
{
    __shared__ double shared[WARP];
    __shared__ int list[KOLEO_THREADS], counts[KOLEO_WARPS];
    int64_t i = blockIdx.x;
    double *slope = k.slope + i * k.D;
    if (loss_scale) factor *= *loss_scale;
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
        slope[d] = 0.0;
    koleo_add_term(k, slope, i, nearest[i], factor);
    for (int64_t start = 0; start < k.n; start += KOLEO_THREADS) {
        int followers = koleo_list_followers(list, counts, nearest, start, k.n, i);
        for (int f = 0; f < followers; f++)
            koleo_add_term(k, slope, list[f], i, -factor);
    }

    /* Through u = x / max(|x|, eps); at or below eps the divisor is a constant. */
    const float *row = k.x + i * k.D;
    double inverse = k.inverse[i], along = 0.0;
    if (inverse * KOLEO_EPS < 1.0)
        for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
            along += (double)row[d] * inverse * slope[d];
    along = block_sum(along, shared);
    for (int64_t d = threadIdx.x; d < k.D; d += KOLEO_THREADS)
        dx[i * k.D + d] = (float)((slope[d] - (double)row[d] * inverse * along) * inverse);
}

/* --- operation ----------------------------------------------------------------------------------------- */

extern "C" void cuda_koleo(const Ops *ops, Tensor loss, Tensor nearest, Tensor dx, Tensor x, double weight,
                           Tensor loss_scale)
{
    CHECK(x.ndim == 2 && nearest.ndim == 1 && nearest.shape[0] == x.shape[0]);
    CHECK(!tensor_given(dx) || tensor_count(dx) == tensor_count(x));
    CHECK(tensor_count(loss) == 1);
    cudaStream_t stream = ops_cuda(ops)->stream;
    int64_t n = x.shape[0];
    if (n < 2) {
        if (n == 0) return;
        CUDA_CHECK(cudaMemsetAsync(tensor_i32(nearest), 0xff, sizeof(int32_t), stream)); /* -1 */
        if (tensor_given(dx)) CUDA_CHECK(cudaMemsetAsync(tensor_f32(dx), 0, tensor_bytes(dx), stream));
        return;
    }
    ArenaMark mark = arena_mark(ops->scratch);
    Koleo k = koleo_layout(ops, x);
    unsigned rows = (unsigned)n;
    KERNEL_LAUNCH(koleo_normalize, rows, KOLEO_THREADS, 0, stream, k);
    koleo_find_nearest(ops, &k, tensor_i32(nearest));
    KERNEL_LAUNCH(koleo_distances, rows, KOLEO_THREADS, 0, stream, k, tensor_i32(nearest));
    KERNEL_LAUNCH(koleo_loss, 1, KOLEO_THREADS, 0, stream, tensor_f64(loss), k, weight);
    if (tensor_given(dx))
        KERNEL_LAUNCH(koleo_gradient, rows, KOLEO_THREADS, 0, stream, tensor_f32(dx), k, tensor_i32(nearest),
                      -weight / (double)n,
                      tensor_given(loss_scale) ? (const double *)tensor_f64(loss_scale)
                                               : (const double *)NULL);
    arena_reset(ops->scratch, mark);
}

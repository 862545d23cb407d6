/* cuda_prototypes.cu - the twin of ops/cpu/prototypes.c: scores, centre and norm gradient of the
 * weight-normed last layer.
 *
 * Floors for K = 131,072 and d = 384 at 3.3 TB/s: prototype_scale reads v (201 MB, 0.06 ms),
 * weight_norm_backward reads v and d W and writes d v (604 MB, 0.18 ms; the second reading of a row comes
 * from the level-1 cache), prototype_center reads v and the rows. A warp has a prototype, 16 bytes a lane and
 * load; sums are fp64, as on the CPU: 50 million of them are nothing beside the bytes on the GPUs that this
 * is for (sm_80, sm_90).
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/cuda_prototype_blocks.cuh"
#include "ops/cuda/row_access.cuh"

enum { PROTOTYPES_CENTER_PARTS = 128 }; /* stretches of rows whose weighted sums are made side by side */

extern "C" size_t cuda_prototypes_scratch(const OpsLimits *limits, int multiprocessors)
{
    if (limits->prototypes == 0) return 0;
    int64_t d = limits->bottleneck;
    size_t sinkhorn = cuda_prototype_sinkhorn_scratch(limits, multiprocessors);
    size_t cross_entropy = cuda_prototype_cross_entropy_scratch(limits);
    size_t center =
        ops_cuda_piece(PROTOTYPES_CENTER_PARTS * d, sizeof(double)) + ops_cuda_piece(d, sizeof(double));
    size_t scores = ops_cuda_piece(CUDA_BUDGET_CONVERTED * d, sizeof(fp16));
    size_t largest = sinkhorn > cross_entropy ? sinkhorn : cross_entropy;
    largest = largest > center ? largest : center;
    return largest > scores ? largest : scores;
}

/* --- weight norm --------------------------------------------------------------------------------------- */

/* <a, b> of one row by a warp, to every lane: V elements a lane and load. */
template <int V, typename A, typename B>
__device__ __forceinline__ double warp_dot(const A *a, const B *b, int64_t d)
{
    double sum = 0.0;
    for (int64_t j = (int64_t)(threadIdx.x % WARP) * V; j < d; j += WARP * V) {
        float left[V], right[V];
        load_f32(left, a + j);
        load_f32(right, b + j);
#pragma unroll
        for (int v = 0; v < V; v++)
            sum += (double)left[v] * (double)right[v];
    }
    return warp_sum(sum);
}

/* The prototype of this warp. */
__device__ __forceinline__ int64_t warp_row()
{
    return (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
}

template <int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_scale(float *scale, const float *v, const float *g, int64_t K, int64_t d)
{
    int64_t k = warp_row();
    if (k >= K) return;
    double square = warp_dot<V>(v + k * d, v + k * d, d);
    if (threadIdx.x % WARP == 0) scale[k] = (float)((double)g[k] / sqrt(square));
}

template <int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS, 4)
    prototypes_norm_backward(float *dv, float *dg, const float *v, const float *g, int64_t K, int64_t d)
{
    int64_t k = warp_row();
    if (k >= K) return;
    const float *row = v + k * d;
    float *slope = dv + k * d;
    double along = warp_dot<V>((const float *)slope, row, d);
    double inverse = 1.0 / sqrt(warp_dot<V>(row, row, d));
    along *= inverse; /* of the unit vector */
    if (threadIdx.x % WARP == 0) dg[k] += (float)along;
    float scale = (float)((double)g[k] * inverse), back = (float)(along * inverse);
    for (int64_t j = (int64_t)(threadIdx.x % WARP) * V; j < d; j += WARP * V) {
        float direction[V], out[V];
        load_f32(direction, row + j);
        load_f32(out, (const float *)slope + j);
#pragma unroll
        for (int e = 0; e < V; e++)
            out[e] = scale * (out[e] - back * direction[e]);
        store_f32(slope + j, out);
    }
}

extern "C" void cuda_prototype_scale(const Ops *ops, Tensor scale, Tensor v, Tensor g)
{
    CHECK(v.ndim == 2 && tensor_count(scale) == v.shape[0] && tensor_count(g) == v.shape[0]);
    int64_t K = v.shape[0], d = v.shape[1];
    if (row_access_aligned(v, d, 4))
        KERNEL_LAUNCH(prototypes_scale<4>, row_access_grid(K), ROW_ACCESS_THREADS, 0, ops_cuda(ops)->stream,
                      tensor_f32(scale), tensor_f32(v), tensor_f32(g), K, d);
    else
        KERNEL_LAUNCH(prototypes_scale<1>, row_access_grid(K), ROW_ACCESS_THREADS, 0, ops_cuda(ops)->stream,
                      tensor_f32(scale), tensor_f32(v), tensor_f32(g), K, d);
}

extern "C" void cuda_weight_norm_backward(const Ops *ops, Tensor dv, Tensor dg, Tensor v, Tensor g)
{
    CHECK(v.ndim == 2 && tensor_count(dv) == tensor_count(v));
    CHECK(tensor_count(g) == v.shape[0] && tensor_count(dg) == v.shape[0]);
    int64_t K = v.shape[0], d = v.shape[1];
    if (row_access_aligned(v, d, 4) && row_access_aligned(dv, d, 4))
        KERNEL_LAUNCH(prototypes_norm_backward<4>, row_access_grid(K), ROW_ACCESS_THREADS, 0,
                      ops_cuda(ops)->stream, tensor_f32(dv), tensor_f32(dg), tensor_f32(v), tensor_f32(g), K,
                      d);
    else
        KERNEL_LAUNCH(prototypes_norm_backward<1>, row_access_grid(K), ROW_ACCESS_THREADS, 0,
                      ops_cuda(ops)->stream, tensor_f32(dv), tensor_f32(dg), tensor_f32(v), tensor_f32(g), K,
                      d);
}

/* --- scores -------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_scale_columns(float *scores, const float *scale, int64_t rows, int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x;
    if (k >= K) return;
    float factor = scale[k];
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
        scores[row * K + k] *= factor;
}

extern "C" void cuda_prototype_scores(const Ops *ops, Tensor scores, Tensor x, Tensor v, Tensor scale)
{
    CHECK(x.ndim == 2 && v.ndim == 2 && scores.ndim == 2 && x.shape[1] == v.shape[1]);
    CHECK(scores.shape[0] == x.shape[0] && scores.shape[1] == v.shape[0]);
    CHECK(tensor_count(scale) == v.shape[0] && row_access_is_act(v));
    int64_t n = x.shape[0], d = x.shape[1], K = v.shape[0];
    if (n == 0) return;
    ArenaMark mark = arena_mark(ops->scratch);
    int64_t block = v.dtype == DTYPE_F32 || n < CUDA_BUDGET_CONVERTED ? n : CUDA_BUDGET_CONVERTED;
    void *rounded =
        v.dtype == DTYPE_F32 ? NULL : arena_alloc(ops->scratch, (size_t)(block * d) * dtype_size(v.dtype));
    for (int64_t first = 0; first < n; first += block) {
        int64_t rows = n - first < block ? n - first : block;
        const float *some = tensor_f32(x) + first * d;
        if (rounded) cuda_prototype_blocks_round(ops, rounded, v.dtype, some, NULL, rows, d);
        CudaGemmProduct product = {};
        product.m = rows;
        product.n = K;
        product.k = d;
        product.dtype = v.dtype;
        product.a = rounded ? rounded : (const void *)some;
        product.b = v.data;
        product.b_transposed = true;
        product.c = tensor_f32(scores) + first * K;
        product.c_dtype = DTYPE_F32;
        cuda_gemm_run(ops_cuda(ops)->gemm, &product);
    }
    unsigned across = (unsigned)ceil_div(K, ROW_ACCESS_THREADS), down = (unsigned)(n < 1024 ? n : 1024);
    KERNEL_LAUNCH(prototypes_scale_columns, dim3(across, down), ROW_ACCESS_THREADS, 0, ops_cuda(ops)->stream,
                  tensor_f32(scores), tensor_f32(scale), n, K);
    arena_reset(ops->scratch, mark);
}

/* --- centre -------------------------------------------------------------------------------------------- */

/* partial[part, d] = sum of weight * x over a stretch of `each` rows. Grid (columns, parts). */
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_sum_rows(double *partial, const float *x, const float *weight, int64_t n, int64_t d,
                        int64_t each)
{
    int64_t j = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x;
    int64_t first = blockIdx.y * each, last = first + each < n ? first + each : n;
    if (j >= d) return;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = first; i < last; i++)
        sum += (double)__ldg(weight + i) * (double)__ldg(x + i * d + j);
    partial[blockIdx.y * d + j] = sum;
}

__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_join_rows(double *mean, const double *partial, int64_t parts, int64_t d)
{
    int64_t j = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x;
    if (j >= d) return;
    double sum = 0.0;
    for (int64_t part = 0; part < parts; part++)
        sum += partial[part * d + j];
    mean[j] = sum;
}

/* sum[k] = scale[k] * <mean, v[k]>, a warp a prototype, which reads V elements a lane and load. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_center(float *sum, const double *mean, const T *v, const float *scale, int64_t K, int64_t d)
{
    int64_t k = warp_row();
    if (k >= K) return;
    double score = 0.0;
    for (int64_t j = (int64_t)(threadIdx.x % WARP) * V; j < d; j += WARP * V) {
        float value[V];
        load_f32(value, v + k * d + j);
#pragma unroll
        for (int e = 0; e < V; e++)
            score += mean[j + e] * (double)value[e];
    }
    score = warp_sum(score);
    if (threadIdx.x % WARP == 0) sum[k] = (float)(score * (double)scale[k]);
}

template <typename T>
static void launch_center(const Ops *ops, float *sum, const double *mean, Tensor v, const float *scale)
{
    const int V = VectorWidth<T>::value;
    int64_t K = v.shape[0], d = v.shape[1];
    if (row_access_aligned(v, d, V))
        KERNEL_LAUNCH((prototypes_center<T, V>), row_access_grid(K), ROW_ACCESS_THREADS, 0,
                      ops_cuda(ops)->stream, sum, mean, (const T *)v.data, scale, K, d);
    else
        KERNEL_LAUNCH((prototypes_center<T, 1>), row_access_grid(K), ROW_ACCESS_THREADS, 0,
                      ops_cuda(ops)->stream, sum, mean, (const T *)v.data, scale, K, d);
}

/* Scores are linear in x, so the sum of scores is the score of the sum: [n, K] is never needed. */
extern "C" void cuda_prototype_center(const Ops *ops, Tensor sum, Tensor x, Tensor v, Tensor scale,
                                      Tensor row_weight)
{
    CHECK(x.ndim == 2 && v.ndim == 2 && x.shape[1] == v.shape[1]);
    CHECK(tensor_count(sum) == v.shape[0] && tensor_count(scale) == v.shape[0]);
    CHECK(tensor_count(row_weight) == x.shape[0]);
    int64_t n = x.shape[0], d = x.shape[1];
    ArenaMark mark = arena_mark(ops->scratch);
    cudaStream_t stream = ops_cuda(ops)->stream;
    double *mean = (double *)arena_alloc(ops->scratch, (size_t)d * sizeof(double));
    double *partial =
        (double *)arena_alloc(ops->scratch, (size_t)(PROTOTYPES_CENTER_PARTS * d) * sizeof(double));
    unsigned across = (unsigned)ceil_div(d, ROW_ACCESS_THREADS);
    int64_t each = ceil_div(n, PROTOTYPES_CENTER_PARTS), parts = n > 0 ? ceil_div(n, each) : 0;
    if (n > 0)
        KERNEL_LAUNCH(prototypes_sum_rows, dim3(across, (unsigned)parts), ROW_ACCESS_THREADS, 0, stream,
                      partial, tensor_f32(x), tensor_f32(row_weight), n, d, each);
    KERNEL_LAUNCH(prototypes_join_rows, across, ROW_ACCESS_THREADS, 0, stream, mean, partial, parts, d);
    DISPATCH_ACT(v.dtype, T, launch_center<T>(ops, tensor_f32(sum), mean, v, tensor_f32(scale)));
    arena_reset(ops->scratch, mark);
}

__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    prototypes_center_update(float *bias, float *center, const float *sum, double temp, double momentum,
                             int64_t K)
{
    int64_t k = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x;
    if (k >= K) return;
    double old = (double)center[k];
    bias[k] = (float)(-old / temp);
    center[k] = (float)(old * momentum + (double)sum[k] * (1.0 - momentum));
}

extern "C" void cuda_center_update(const Ops *ops, Tensor bias, Tensor center, Tensor sum, double temp,
                                   double momentum)
{
    int64_t K = tensor_count(center);
    CHECK(tensor_count(bias) == K && tensor_count(sum) == K && temp > 0.0);
    KERNEL_LAUNCH(prototypes_center_update, (unsigned)ceil_div(K, ROW_ACCESS_THREADS), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f32(bias), tensor_f32(center), tensor_f32(sum), temp,
                  momentum, K);
}

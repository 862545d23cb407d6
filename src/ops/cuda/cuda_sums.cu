/* cuda_sums.cu - the twin of ops/cpu/sums.c: the figures of a step. Few numbers out of few rows, added up in
 * fp64 in a fixed order; none of them is a matter of bandwidth.
 */
#include "ops/cuda/row_access.cuh"

#include <math.h>

enum { COUNT_THREADS = 1024 };

/* A group a block, which goes over all rows. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    group_sums_kernel(double *sums, const float *values, const float *weights, const int32_t *groups,
                      int64_t n, double factor)
{
    __shared__ double shared[WARP];
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        if (groups[i] == (int)blockIdx.x)
            sum += factor * (weights ? (double)weights[i] : 1.0) * (double)values[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) sums[blockIdx.x] += sum;
}

extern "C" void cuda_group_sums(const Ops *ops, Tensor sums, Tensor values, Tensor weights, Tensor groups,
                                double factor)
{
    int64_t n = tensor_count(values);
    CHECK(tensor_count(groups) == n && (!tensor_given(weights) || tensor_count(weights) == n));
    if (n == 0) return;
    KERNEL_LAUNCH(group_sums_kernel, (unsigned)tensor_count(sums), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f64(sums), tensor_f32(values), row_access_f32(weights),
                  tensor_i32(groups), n, factor);
}

/* 1 / |row|, a row a warp; a row of zeros stays one. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    direction_norms_kernel(double *inverse, const float *x, int64_t n, int64_t D)
{
    const double TINY = 1e-24;
    int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (i >= n) return;
    double square = 0.0;
#pragma unroll 4
    for (int64_t d = lane; d < D; d += WARP)
        square += (double)x[i * D + d] * (double)x[i * D + d];
    square = warp_sum(square);
    if (lane == 0) inverse[i] = 1.0 / sqrt(square + TINY);
}

/* 32 columns a block, every eighth row a warp. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    direction_sums_kernel(double *sums, const double *inverse, const float *x, int64_t n, int64_t D)
{
    __shared__ double shared[2][ROW_ACCESS_WARPS][WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int64_t d = (int64_t)blockIdx.x * WARP + lane;
    double sum = 0.0, squares = 0.0;
    if (d < D) {
#pragma unroll 4
        for (int64_t i = warp; i < n; i += ROW_ACCESS_WARPS) {
            double value = (double)x[i * D + d] * inverse[i];
            sum += value;
            squares += value * value;
        }
    }
    shared[0][warp][lane] = sum;
    shared[1][warp][lane] = squares;
    __syncthreads();
    if (warp > 1 || d >= D) return;
    double total = 0.0;
    for (int w = 0; w < ROW_ACCESS_WARPS; w++)
        total += shared[warp][w][lane];
    sums[warp * D + d] += total;
}

size_t cuda_sums_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    return ops_cuda_piece(limits->rows, sizeof(double));
}

extern "C" void cuda_direction_sums(const Ops *ops, Tensor sums, Tensor x)
{
    CHECK(x.ndim == 2 && tensor_count(sums) == 2 * x.shape[1]);
    int64_t n = x.shape[0], D = x.shape[1];
    if (tensor_count(x) == 0) return;
    cudaStream_t stream = ops_cuda(ops)->stream;
    ArenaMark mark = arena_mark(ops->scratch);
    double *inverse = (double *)arena_alloc(ops->scratch, (size_t)n * sizeof *inverse);
    KERNEL_LAUNCH(direction_norms_kernel, row_access_grid(n), ROW_ACCESS_THREADS, 0, stream, inverse,
                  tensor_f32(x), n, D);
    KERNEL_LAUNCH(direction_sums_kernel, (unsigned)ceil_div(D, WARP), ROW_ACCESS_THREADS, 0, stream,
                  tensor_f64(sums), inverse, tensor_f32(x), n, D);
    arena_reset(ops->scratch, mark);
}

/* One block. */
static __global__ void __launch_bounds__(COUNT_THREADS)
    count_positive_kernel(double *count, const float *x, int64_t n)
{
    __shared__ int64_t shared[WARP];
    int64_t positive = 0;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < n; i += COUNT_THREADS)
        positive += x[i] > 0.0f;
    positive = block_sum(positive, shared);
    if (threadIdx.x == 0) *count = (double)positive;
}

extern "C" void cuda_count_positive(const Ops *ops, Tensor count, Tensor x)
{
    CHECK(tensor_count(count) == 1);
    int64_t n = tensor_count(x);
    KERNEL_LAUNCH(count_positive_kernel, 1, COUNT_THREADS, 0, ops_cuda(ops)->stream, tensor_f64(count),
                  n > 0 ? tensor_f32(x) : NULL, n);
}

/* cuda_prototype_rows.cuh - what kernels over rows of scores share: a part of a row in registers, exp,
 * joining parts.
 *
 * A block has one part (PROTOTYPE_SPAN columns) of one row: grid (rows, parts), rows first, so that blocks
 * that run together read the same piece of the bias and find it in their level-1 cache.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_PROTOTYPE_ROWS_CUH
#define DINOBATCH_OPS_CUDA_CUDA_PROTOTYPE_ROWS_CUH

#include "ops/cuda/cuda_prototype_blocks.cuh"
#include "ops/cuda/row_access.cuh"

#include <float.h>
#include <limits.h>

/* Elements of one load, and loads of a thread. */
template <typename T> struct PrototypeAccess {
    static const int V = VectorWidth<T>::value;
    static const int LOADS = PROTOTYPE_EACH / V;
};

/* First column of a thread's load of the block's part. */
template <typename T> __device__ __forceinline__ int prototype_column(int load)
{
    return (int)blockIdx.y * PROTOTYPE_SPAN +
           (load * PROTOTYPE_THREADS + (int)threadIdx.x) * PrototypeAccess<T>::V;
}

/* exp as exactly as the scores deserve. */
template <typename T> __device__ __forceinline__ float prototype_exp(float x);
template <> __device__ __forceinline__ float prototype_exp<float>(float x)
{
    return expf(x);
}
template <> __device__ __forceinline__ float prototype_exp<fp16>(float x)
{
    return __expf(x);
}

/* value[v] = from[v] for the columns below K, 0 beyond. */
template <int V>
__device__ __forceinline__ void prototype_load_bias(float (&value)[V], const float *bias, int column, int K)
{
    if (column + V <= K && (uintptr_t)bias % 16 == 0) {
        load_f32(value, bias + column);
        return;
    }
#pragma unroll
    for (int v = 0; v < V; v++)
        value[v] = column + v < K ? __ldg(bias + column + v) : 0.0f;
}

/* One load of a row: z[v] = score / temp + bias, -FLT_MAX beyond K; bias may be NULL. Rows are padded to
 * whole vectors. */
template <typename T, int V>
__device__ __forceinline__ void prototype_load(float (&z)[V], const T *row, int load, int K,
                                               float inverse_temp, const float *bias)
{
    int column = prototype_column<T>(load);
    float add[V];
#pragma unroll
    for (int v = 0; v < V; v++)
        z[v] = add[v] = 0.0f;
    if (column < K) {
        load_f32(z, row + column);
        if (bias) prototype_load_bias(add, bias, column, K);
    }
#pragma unroll
    for (int v = 0; v < V; v++)
        z[v] = column + v < K ? fmaf(z[v], inverse_temp, add[v]) : -FLT_MAX;
}

/* log sum exp of a row from its parts, by a whole warp, to every lane. */
__device__ __forceinline__ float prototype_join(const float *maximum, const float *sum, int parts)
{
    int lane = threadIdx.x % WARP;
    float largest = -FLT_MAX, total = 0.0f;
    for (int part = lane; part < parts; part += WARP)
        largest = fmaxf(largest, maximum[part]);
    largest = warp_max(largest);
    for (int part = lane; part < parts; part += WARP)
        total += sum[part] * expf(maximum[part] - largest);
    return largest + logf(warp_sum(total));
}

/* The largest over a block of PROTOTYPE_THREADS, to every thread; `shared` has room for its warps and may be
 * used again after a barrier. */
__device__ __forceinline__ float prototype_block_max(float x, float *shared)
{
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < PROTOTYPE_THREADS / WARP; warp++)
        x = fmaxf(x, shared[warp]);
    return x;
}

#endif

/* column_sums.cuh - the second stage of sums over rows: partial sums of blocks, [parts, columns] fp32 in
 * scratch memory, added to where they belong in a fixed order. The first stage is the kernel that has the
 * rows in its registers.
 */
#ifndef DINOBATCH_OPS_CUDA_COLUMN_SUMS_CUH
#define DINOBATCH_OPS_CUDA_COLUMN_SUMS_CUH

#include "ops/cuda/row_access.cuh"

/* A warp has 32 columns of every eighth part; the block adds its warps' sums in order. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    column_sums_kernel(float *out, float *more, const float *partial, int64_t parts, int64_t columns,
                       int64_t D)
{
    __shared__ float sums[ROW_ACCESS_WARPS][WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int64_t column = (int64_t)blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (column < columns) {
#pragma unroll 8
        for (int64_t part = warp; part < parts; part += ROW_ACCESS_WARPS)
            sum += partial[part * columns + column];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= columns) return;
#pragma unroll
    for (int w = 1; w < ROW_ACCESS_WARPS; w++)
        sum += sums[w][lane];
    if (column < D)
        out[column] += sum;
    else
        more[column - D] += sum;
}

/* out[D] += the sums of columns 0 .. D - 1 over the parts; more[D] (or NULL) += those of the D columns
 * behind. */
static inline void column_sums_add(const Ops *ops, float *out, float *more, const float *partial,
                                   int64_t parts, int64_t D)
{
    int64_t columns = more ? 2 * D : D;
    KERNEL_LAUNCH(column_sums_kernel, (unsigned)ceil_div(columns, WARP), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, out, more, partial, parts, columns, D);
}

#endif

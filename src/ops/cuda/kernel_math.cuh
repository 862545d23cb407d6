/* kernel_math.cuh - what kernels of all families share: element types, 16-byte vectors, sums over a warp or a
 * block.
 */
#ifndef DINOBATCH_OPS_CUDA_KERNEL_MATH_CUH
#define DINOBATCH_OPS_CUDA_KERNEL_MATH_CUH

#include "ops/cuda/kernel_launch.cuh"
#include "ops/cuda/ops_cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __nv_bfloat16 bf16;
typedef __half fp16;

__device__ __forceinline__ float to_f32(float x)
{
    return x;
}
__device__ __forceinline__ float to_f32(bf16 x)
{
    return __bfloat162float(x);
}
__device__ __forceinline__ float to_f32(fp16 x)
{
    return __half2float(x);
}

/* Rounds to nearest even. */
template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ fp16 from_f32<fp16>(float x)
{
    return __float2half_rn(x);
}

/* COUNT elements that are loaded and stored at once. */
template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) Vector {
    T value[COUNT];
};

/* Elements of a 16-byte access. */
template <typename T> struct VectorWidth {
    static const int value = 16 / (int)sizeof(T);
};

static const int WARP = 32;
static const unsigned ALL_LANES = 0xffffffffu;

template <typename T> __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

/* The sum over all threads of the block, to every thread; blockDim.x a multiple of 32, at most 1024. `shared`
 * has room for 32 elements and may be used again after the call. A fixed order. */
template <typename T> __device__ __forceinline__ T block_sum(T x, T *shared)
{
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < warps ? shared[lane] : T(0);
    x = warp_sum(x);
    __syncthreads();
    return x;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Runs `statement` with T = float, bf16 or fp16 for an activation's element type. */
#define DISPATCH_ACT(dtype, T, statement)           \
    do {                                            \
        switch (dtype) {                            \
        case DTYPE_F32: {                           \
            typedef float T;                        \
            statement;                              \
        } break;                                    \
        case DTYPE_BF16: {                          \
            typedef bf16 T;                         \
            statement;                              \
        } break;                                    \
        case DTYPE_F16: {                           \
            typedef fp16 T;                         \
            statement;                              \
        } break;                                    \
        default:                                    \
            CHECK(!"an activation's element type"); \
        }                                           \
    } while (0)

#endif

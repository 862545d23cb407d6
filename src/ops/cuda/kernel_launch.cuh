/* kernel_launch.cuh - how kernels are started, and how they get dynamic shared memory.
 *
 * The tests compile the same kernels for the host with another file of this name, which runs the threads of a
 * block in turns (tests/emulator).
 */
#ifndef DINOBATCH_OPS_CUDA_KERNEL_LAUNCH_CUH
#define DINOBATCH_OPS_CUDA_KERNEL_LAUNCH_CUH

#include "device/cuda/device_cuda.h"

/* Starts kernel<<<grid, block, shared_bytes, stream>>>(arguments); a launch that fails ends the process. A
 * template kernel with commas goes into parentheses: KERNEL_LAUNCH((gelu<T, 4>), ...). An empty grid is not
 * started. More than 48 KiB of shared memory needs KERNEL_ALLOW_SHARED once before. */
#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                   \
    do {                                                                                \
        const dim3 kernel_grid_(grid), kernel_block_(block);                            \
        if (kernel_grid_.x * kernel_grid_.y * kernel_grid_.z > 0) {                     \
            kernel<<<kernel_grid_, kernel_block_, shared_bytes, stream>>>(__VA_ARGS__); \
            CUDA_CHECK(cudaGetLastError());                                             \
        }                                                                               \
    } while (0)

#define KERNEL_ALLOW_SHARED(kernel, bytes) \
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

/* Inside a kernel: `type *name`, the start of the block's dynamic shared memory, 128-byte aligned. */
#define KERNEL_SHARED(type, name)                                    \
    extern __shared__ __align__(128) unsigned char kernel_shared_[]; \
    type *name = reinterpret_cast<type *>(kernel_shared_)

#endif

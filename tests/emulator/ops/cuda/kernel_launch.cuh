/* kernel_launch.cuh - kernels of src/ops/cuda started in the emulator, in place of the header of that name in
 * src. */
#ifndef DINOBATCH_TESTS_EMULATOR_KERNEL_LAUNCH_CUH
#define DINOBATCH_TESTS_EMULATOR_KERNEL_LAUNCH_CUH

#include "device/cuda/device_cuda.h"

#define KERNEL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                      \
    do {                                                                                   \
        const dim3 kernel_grid_(grid), kernel_block_(block);                               \
        if (kernel_grid_.x * kernel_grid_.y * kernel_grid_.z > 0)                          \
            emulator_launch({#kernel, kernel_grid_, kernel_block_, (size_t)(shared_bytes), \
                             (cudaStream_t)(stream), NULL},                                \
                            kernel, __VA_ARGS__);                                          \
    } while (0)

#define KERNEL_ALLOW_SHARED(kernel, bytes) \
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

#define KERNEL_SHARED(type, name) type *name = reinterpret_cast<type *>(emulator_now.shared)

#endif

/* device_cuda.h - inside of a CUDA device: its stream, its properties, its errors. For src/device/cuda,
 * src/ops/cuda and src/comm/nccl only.
 */
#ifndef DINOBATCH_DEVICE_CUDA_DEVICE_CUDA_H
#define DINOBATCH_DEVICE_CUDA_DEVICE_CUDA_H

#include <cuda_runtime.h>

#ifdef __cplusplus
/* The project's headers are C: C++ has another word for this, and other names for the linker. */
#ifndef _Noreturn
#define _Noreturn [[noreturn]]
#endif
extern "C" {
#endif
#include "device/device.h"

/* The stream that all work of a device is given to. */
cudaStream_t device_cuda_stream(const Device *device);

/* The GPU's number in this process, as the runtime counts. */
int device_cuda_index(const Device *device);

int device_cuda_multiprocessors(const Device *device);

/* Most bytes of shared memory that a block may ask for. */
size_t device_cuda_shared_bytes(const Device *device);

/* Ends the process (the job, through the launcher) with one line: rank's host, what was tried, CUDA's reason.
 */
void device_cuda_fail(cudaError_t error, const char *what, const char *file, int line);

#ifdef __cplusplus
}
#endif

/* Every call of the runtime goes through this. */
#define CUDA_CHECK(call)                                                                          \
    do {                                                                                          \
        cudaError_t cuda_check_ = (call);                                                         \
        if (cuda_check_ != cudaSuccess) device_cuda_fail(cuda_check_, #call, __FILE__, __LINE__); \
    } while (0)

#endif

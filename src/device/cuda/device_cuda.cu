/* device_cuda.cu - a GPU: its memory, one stream, events.
 *
 * Source: the CUDA runtime's reference. One context and one stream per process; the stream is non-blocking,
 * so that nothing given to the default stream (nobody does) would wait for it. What is not here: kernels
 * (ops/cuda) and collectives (comm/nccl).
 */
#include "device/cuda/device_cuda.h"

extern "C" {
#include "base/memory.h"
#include "device/device_backend.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char *memory;
    size_t bytes;
} PinnedBlock;

typedef struct {
    Device device; /* first */
    int index;
    cudaStream_t stream;
    int multiprocessors;
    size_t shared_bytes;
    PinnedBlock *pinned; /* owned: what device_alloc_host has out */
    int pinned_count, pinned_capacity;
} CudaDevice;

typedef struct {
    DeviceEvent event; /* first */
    cudaEvent_t handle;
} CudaEvent;

void device_cuda_fail(cudaError_t error, const char *what, const char *file, int line)
{
    char host[64] = "unknown host";
    int index = -1;
    gethostname(host, sizeof host - 1);
    if (cudaGetDevice(&index) != cudaSuccess) index = -1;
    fprintf(stderr, "error: %s, GPU %d: %s: %s (%s, %s:%d)\n", host, index, what, cudaGetErrorString(error),
            cudaGetErrorName(error), file, line);
    abort();
}

/* The calling thread's work goes to this device. */
static CudaDevice *enter(const Device *device)
{
    CudaDevice *self = (CudaDevice *)(void *)device;
    CUDA_CHECK(cudaSetDevice(self->index));
    return self;
}

cudaStream_t device_cuda_stream(const Device *device)
{
    return ((const CudaDevice *)(const void *)device)->stream;
}

int device_cuda_index(const Device *device)
{
    return ((const CudaDevice *)(const void *)device)->index;
}

int device_cuda_multiprocessors(const Device *device)
{
    return ((const CudaDevice *)(const void *)device)->multiprocessors;
}

size_t device_cuda_shared_bytes(const Device *device)
{
    return ((const CudaDevice *)(const void *)device)->shared_bytes;
}

/* --- memory ------------------------------------------------------------------------------------------ */

static void *cuda_alloc(Device *device, size_t bytes)
{
    const CudaDevice *self = enter(device);
    void *memory = NULL;
    cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (error != cudaSuccess) {
        size_t available = 0, total = 0;
        char what[192];
        (void)cudaGetLastError(); /* forgets the failure, so that the next call tells its own */
        (void)cudaMemGetInfo(&available, &total);
        snprintf(what, sizeof what, "%.2f GiB of device memory (%.2f of %.2f GiB are free, %.2f are ours)",
                 (double)bytes / (1 << 30), (double)available / (1 << 30), (double)total / (1 << 30),
                 (double)device->used / (1 << 30));
        device_cuda_fail(error, what, __FILE__, __LINE__);
    }
    CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes > 0 ? bytes : 1, self->stream));
    return memory;
}

static void cuda_free(Device *device, void *memory)
{
    const CudaDevice *self = enter(device);
    CUDA_CHECK(cudaStreamSynchronize(self->stream));
    CUDA_CHECK(cudaFree(memory));
}

static void *cuda_alloc_host(Device *device, size_t bytes)
{
    CudaDevice *self = enter(device);
    size_t rounded = bytes > 0 ? bytes : 1;
    if (self->pinned_count == self->pinned_capacity) {
        int capacity = self->pinned_capacity ? 2 * self->pinned_capacity : 8;
        self->pinned =
            (PinnedBlock *)memory_grow(self->pinned, (size_t)self->pinned_count * sizeof(PinnedBlock),
                                       (size_t)capacity * sizeof(PinnedBlock));
        self->pinned_capacity = capacity;
    }
    void *memory = NULL;
    CUDA_CHECK(cudaMallocHost(&memory, rounded));
    memset(memory, 0, rounded);
    self->pinned[self->pinned_count++] = {(char *)memory, rounded};
    return memory;
}

static void cuda_free_host(Device *device, void *memory)
{
    CudaDevice *self = enter(device);
    for (int i = 0; i < self->pinned_count; i++) {
        if (self->pinned[i].memory != memory) continue;
        self->pinned[i] = self->pinned[--self->pinned_count];
        break;
    }
    CUDA_CHECK(cudaStreamSynchronize(self->stream)); /* a copy may still use it */
    CUDA_CHECK(cudaFreeHost(memory));
}

static bool is_pinned(const CudaDevice *self, const void *memory, size_t bytes)
{
    const char *first = (const char *)memory;
    for (int i = 0; i < self->pinned_count; i++) {
        const PinnedBlock *block = &self->pinned[i];
        if (first >= block->memory && first + bytes <= block->memory + block->bytes) return true;
    }
    return false;
}

/* --- work -------------------------------------------------------------------------------------------- */

static void cuda_device_zero(Device *device, void *memory, size_t bytes)
{
    CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, enter(device)->stream));
}

static void cuda_device_copy(Device *device, void *to, const void *from, size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, enter(device)->stream));
}

/* What pageable memory may be read and written by after an asynchronous copy returned is not the same on all
 * systems: here, nothing is. */
static void cuda_upload(Device *device, void *to, const void *from_host, size_t bytes)
{
    const CudaDevice *self = enter(device);
    CUDA_CHECK(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, self->stream));
    if (!is_pinned(self, from_host, bytes)) CUDA_CHECK(cudaStreamSynchronize(self->stream));
}

static void cuda_download(Device *device, void *to_host, const void *from, size_t bytes)
{
    const CudaDevice *self = enter(device);
    CUDA_CHECK(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, self->stream));
    if (!is_pinned(self, to_host, bytes)) CUDA_CHECK(cudaStreamSynchronize(self->stream));
}

static void cuda_finish(Device *device)
{
    CUDA_CHECK(cudaStreamSynchronize(enter(device)->stream));
}

static DeviceEvent *cuda_event_create(Device *device)
{
    (void)enter(device);
    CudaEvent *event = (CudaEvent *)memory_alloc(sizeof *event);
    event->event.device = device;
    CUDA_CHECK(cudaEventCreate(&event->handle));
    return &event->event;
}

static cudaEvent_t handle_of(const DeviceEvent *event)
{
    return ((const CudaEvent *)(const void *)event)->handle;
}

static void cuda_event_destroy(DeviceEvent *event)
{
    CUDA_CHECK(cudaEventDestroy(handle_of(event)));
    memory_free(event);
}

static void cuda_event_record(DeviceEvent *event)
{
    CUDA_CHECK(cudaEventRecord(handle_of(event), enter(event->device)->stream));
}

static void cuda_event_wait(DeviceEvent *event)
{
    CUDA_CHECK(cudaEventSynchronize(handle_of(event)));
}

static double cuda_event_seconds(const DeviceEvent *from, const DeviceEvent *to)
{
    float milliseconds = 0.0f;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, handle_of(from), handle_of(to)));
    return 1e-3 * (double)milliseconds;
}

/* --- opening ----------------------------------------------------------------------------------------- */

static void cuda_close(Device *device)
{
    CudaDevice *self = enter(device);
    CUDA_CHECK(cudaStreamSynchronize(self->stream));
    CUDA_CHECK(cudaStreamDestroy(self->stream));
    memory_free(self->pinned);
    memory_free(self);
}

static const DeviceBackend BACKEND = {
    DEVICE_CUDA,        cuda_close,        cuda_alloc,       cuda_free,
    cuda_alloc_host,    cuda_free_host,    cuda_device_zero, cuda_device_copy,
    cuda_upload,        cuda_download,     cuda_finish,      cuda_event_create,
    cuda_event_destroy, cuda_event_record, cuda_event_wait,  cuda_event_seconds};

/* A machine without a driver says so in one way (35), one without a GPU in another (100). */
extern "C" int device_cuda_count(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    (void)cudaGetLastError();
    return 0;
}

static Status open_failed(Error *error, int index, cudaError_t reason)
{
    (void)cudaGetLastError();
    return status_fail(error, STATUS_INPUT, "compute.device: cuda: GPU %d cannot be used: %s", index,
                       cudaGetErrorString(reason));
}

extern "C" Status device_cuda_open(Device **device, int rank_on_node, Error *error)
{
    int count = 0;
    cudaDeviceProp properties;
    *device = NULL;
    cudaError_t reason = cudaGetDeviceCount(&count);
    if (reason != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        return status_fail(error, STATUS_INPUT,
                           "compute.device: cuda was asked for, but there is no usable GPU: %s",
                           reason == cudaSuccess ? "none found" : cudaGetErrorString(reason));
    }
    int index = rank_on_node % count;
    reason = cudaSetDevice(index);
    if (reason == cudaSuccess) reason = cudaGetDeviceProperties(&properties, index);
    if (reason != cudaSuccess) return open_failed(error, index, reason);
    if (properties.major < 8)
        return status_fail(error, STATUS_INPUT,
                           "compute.device: cuda: GPU %d is a %s; sm_80 or later is needed", index,
                           properties.name);
    cudaStream_t stream;
    reason = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (reason != cudaSuccess) return open_failed(error, index, reason);

    CudaDevice *self = (CudaDevice *)memory_alloc(sizeof *self);
    self->device.backend = &BACKEND;
    self->index = index;
    self->stream = stream;
    self->multiprocessors = properties.multiProcessorCount;
    self->device.architecture = 10 * properties.major + properties.minor;
    self->shared_bytes = properties.sharedMemPerBlockOptin;
    snprintf(self->device.name, sizeof self->device.name, "%.100s (GPU %d)", properties.name, index);
    *device = &self->device;
    return STATUS_OK;
}

/* emulated_device.cc - what the runtime says about the device, and about errors. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <string>
#include <unistd.h>

static const int MULTIPROCESSORS = 4;

/* Compute capability as 80 or 90: EMULATOR_ARCHITECTURE says which. */
static int architecture()
{
    const char *text = getenv("EMULATOR_ARCHITECTURE");
    return text ? (int)strtol(text, NULL, 10) : 80;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

/* Every process has a GPU of its own, unless EMULATOR_GPU names one. */
static void name_gpu(cudaUUID_t *uuid)
{
    const char *name = getenv("EMULATOR_GPU");
    snprintf(uuid->bytes, sizeof uuid->bytes, "%.15s", name ? name : std::to_string(getpid()).c_str());
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (device != 0) return cudaErrorInvalidDevice;
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated sm_%d", architecture());
    name_gpu(&properties->uuid);
    properties->totalGlobalMem = EMULATOR_DEVICE_BYTES;
    properties->sharedMemPerBlock = EMULATOR_SHARED_PLAIN;
    properties->sharedMemPerBlockOptin = properties->sharedMemPerMultiprocessor = EMULATOR_SHARED_LIMIT;
    properties->major = architecture() / 10;
    properties->minor = architecture() % 10;
    properties->multiProcessorCount = MULTIPROCESSORS;
    properties->l2CacheSize = 4 << 20;
    properties->maxThreadsPerBlock = 1024;
    properties->regsPerBlock = 65536;
    properties->maxThreadsPerMultiProcessor = 2048;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    if (device != 0) return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = MULTIPROCESSORS;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = architecture() / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = architecture() % 10;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = EMULATOR_SHARED_LIMIT;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 0;
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    return cudaSuccess;
}

cudaError_t cudaPeekAtLastError()
{
    return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "an error of the emulator";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "a call that the emulator refuses";
}

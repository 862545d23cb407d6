/* device_facts.cu - the driver, the GPUs and NVIDIA's libraries, for people who ask. */
#include "device/cuda/device_cuda.h"

extern "C" {
#include "device/device_backend.h"
#include "device/device_facts.h"
}

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct {
    DeviceFact *facts;
    int count;
} FactList;

__attribute__((format(printf, 3, 4))) static void add(FactList *list, const char *name, const char *format,
                                                      ...)
{
    if (list->count == DEVICE_FACTS_MAX) return;
    DeviceFact *fact = &list->facts[list->count++];
    snprintf(fact->name, sizeof fact->name, "%s", name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fact->value, sizeof fact->value, format, arguments);
    va_end(arguments);
}

/* CUDA writes 13.1 as 13010. */
static void add_version(FactList *list, const char *name, int version)
{
    add(list, name, "%d.%d", version / 1000, version % 1000 / 10);
}

static void add_driver(FactList *list)
{
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0)
        add(list, "driver", "none");
    else
        add_version(list, "driver for CUDA", version);
    (void)cudaGetLastError();
}

static void add_gpus(FactList *list)
{
    int count = 0;
    cudaError_t reason = cudaGetDeviceCount(&count);
    if (reason != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        add(list, "gpus", "none: %s", reason == cudaSuccess ? "no device" : cudaGetErrorString(reason));
        return;
    }
    add(list, "gpus", "%d", count);
    for (int i = 0; i < count && i < DEVICE_FACTS_MAX / 2; i++) {
        cudaDeviceProp properties;
        char name[32];
        snprintf(name, sizeof name, "gpu %d", i);
        reason = cudaGetDeviceProperties(&properties, i);
        if (reason != cudaSuccess)
            add(list, name, "%s", cudaGetErrorString(reason));
        else
            add(list, name, "%.100s, sm_%d%d, %d multiprocessors, %.1f GiB", properties.name,
                properties.major, properties.minor, properties.multiProcessorCount,
                (double)properties.totalGlobalMem / (1 << 30));
    }
}

/* NCCL is not linked everywhere; 2.28.9 is written as 22809. */
static void add_nccl(FactList *list)
{
    void *library = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
    int version = 0;
    if (!library) {
        add(list, "nccl", "not found");
        return;
    }
    int (*get_version)(int *) = (int (*)(int *))dlsym(library, "ncclGetVersion");
    if (get_version && get_version(&version) == 0)
        add(list, "nccl", "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    else
        add(list, "nccl", "found, but it does not tell its version");
    dlclose(library);
}

static void add_choice(FactList *list)
{
    cudaDeviceProp properties;
    int count = device_cuda_count();
    if (count == 0)
        add(list, "compute.device: auto", "cpu");
    else if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major < 8)
        add(list, "compute.device: auto", "none: %s is older than sm_80; set compute.device=cpu",
            properties.name);
    else
        add(list, "compute.device: auto", "cuda, rank r of a node on GPU r modulo %d", count);
}

extern "C" int device_facts(DeviceFact facts[DEVICE_FACTS_MAX])
{
    FactList list = {facts, 0};
    int version = 0;
    add(&list, "build", "with CUDA %d.%d", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    add_driver(&list);
    if (cudaRuntimeGetVersion(&version) == cudaSuccess) add_version(&list, "runtime", version);
    size_t cublas = cublasLtGetVersion();
    add(&list, "cublas", "%zu.%zu.%zu", cublas / 10000, cublas / 100 % 100, cublas % 100);
    add_nccl(&list);
    add_gpus(&list);
    add_choice(&list);
    return list.count;
}

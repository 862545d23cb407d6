/* ops_cuda_stub.c - in place of ops/cuda in a build without CUDA, where no CUDA device can be opened. */
#include "base/check.h"
#include "ops/ops_backend.h"

size_t ops_cuda_memory(const OpsLimits *limits, int multiprocessors)
{
    (void)limits, (void)multiprocessors;
    return 0;
}

Ops *ops_cuda_create(Device *device, const OpsLimits *limits, const OpsOptions *options)
{
    (void)device, (void)limits, (void)options;
    CHECK(!"a CUDA device in a build without CUDA");
    return NULL;
}

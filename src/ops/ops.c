/* ops.c - the backend of a device. */
#include "ops/ops_backend.h"

Ops *ops_create(Device *device, const OpsLimits *limits, const OpsOptions *options)
{
    return device_kind(device) == DEVICE_CUDA ? ops_cuda_create(device, limits, options)
                                              : ops_cpu_create(device, limits, options);
}

void ops_destroy(Ops *ops)
{
    if (ops) ops->destroy(ops);
}

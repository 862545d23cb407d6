/* ops_backend.h - what ops.c chooses among. For src/ops only. */
#ifndef DINOBATCH_OPS_OPS_BACKEND_H
#define DINOBATCH_OPS_OPS_BACKEND_H

#include "ops/ops.h"

Ops *ops_cpu_create(Device *device, const OpsLimits *limits, const OpsOptions *options);
Ops *ops_cuda_create(Device *device, const OpsLimits *limits, const OpsOptions *options);

#endif

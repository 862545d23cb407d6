/* ops_backend.h - what ops.c chooses among, and what the backends have in common. For src/ops only. */
#ifndef DINOBATCH_OPS_OPS_BACKEND_H
#define DINOBATCH_OPS_OPS_BACKEND_H

#include "ops/ops.h"

Ops *ops_cpu_create(Device *device, const OpsLimits *limits, const OpsOptions *options);
Ops *ops_cuda_create(Device *device, const OpsLimits *limits, const OpsOptions *options);

/* CHECK-fails unless shapes and types of the operands fit together as ops.h says. */
void ops_check_prototype_cross_entropy(const PrototypeCrossEntropy *args);

#endif

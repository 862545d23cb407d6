/* ops_backend.h - what ops.c chooses among, and what the backends have in common. For src/ops only. */
#ifndef DINOBATCH_OPS_OPS_BACKEND_H
#define DINOBATCH_OPS_OPS_BACKEND_H

#include "ops/ops.h"

Ops *ops_cpu_create(Device *device, const OpsLimits *limits, const OpsOptions *options);
Ops *ops_cuda_create(Device *device, const OpsLimits *limits, const OpsOptions *options);

/* ops_memory of each. */
size_t ops_cpu_memory(const OpsLimits *limits, int threads);
size_t ops_cuda_memory(const OpsLimits *limits, int multiprocessors);

/* CHECK-fails unless shapes and types of the operands fit together as ops.h says. */
void ops_check_prototype_cross_entropy(const PrototypeCrossEntropy *args);

#endif

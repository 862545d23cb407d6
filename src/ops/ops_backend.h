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

/* The same of a convolution, and of pooling x [n, h, w, C] into y [n, h', w', C]. */
void ops_check_conv2d(const Conv2d *conv);
void ops_check_max_pool(Tensor y, Tensor x, int64_t kernel, int64_t stride, int64_t padding);

#endif

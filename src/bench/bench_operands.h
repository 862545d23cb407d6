/* bench_operands.h - tensors with plausible numbers in them, for measurements of single operations. */
#ifndef DINOBATCH_BENCH_BENCH_OPERANDS_H
#define DINOBATCH_BENCH_BENCH_OPERANDS_H

#include "ops/ops.h"

/* values[n] in host memory: normal numbers times `scale`. A short table repeated: drawing millions would take
 * longer than the measurement. */
void bench_operands_fill(float *values, int64_t n, double scale);

/* What the functions below take of the arena beside their result, for a while. */
enum { BENCH_OPERANDS_SPARE = 64 << 10 };

/* [rows, columns] of such numbers from an arena of ops->device, in fp32, bf16 or fp16. */
Tensor bench_operands_2d(const Ops *ops, Arena *arena, Dtype dtype, int64_t rows, int64_t columns,
                         double scale);
Tensor bench_operands_1d(const Ops *ops, Arena *arena, int64_t n, double scale);

/* [n] zeros, and [n] values of host memory. */
Tensor bench_operands_zeros(const Ops *ops, Arena *arena, Dtype dtype, int64_t n);
Tensor bench_operands_copy(const Ops *ops, Arena *arena, Dtype dtype, int64_t n, const void *values);

#endif

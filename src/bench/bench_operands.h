/* bench_operands.h - tensors with plausible numbers in them, for measurements of single operations. */
#ifndef DINOBATCH_BENCH_BENCH_OPERANDS_H
#define DINOBATCH_BENCH_BENCH_OPERANDS_H

#include "tensor/tensor.h"

/* values[n]: normal numbers times `scale`. A short table repeated: drawing millions would take longer than
 * the measurement. */
void bench_operands_fill(float *values, int64_t n, double scale);

/* [rows, columns] of such numbers from the arena, DTYPE_F32 or DTYPE_BF16. */
Tensor bench_operands_2d(Arena *arena, Dtype dtype, int64_t rows, int64_t columns, double scale);
Tensor bench_operands_1d(Arena *arena, int64_t n, double scale);

#endif

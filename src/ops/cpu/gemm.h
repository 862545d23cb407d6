/* gemm.h - matrix products of the host backend: the one place that talks to the matrix library.
 *
 * c[m, n] = op(a)[m, k] . op(b)[k, n], row-major and dense, fp32 sums, by oneDNN (its fp32 and bf16 were the
 * fastest of those measured; README "Speed"). Its primitives are generated code, made once per shape and kept
 * here. Not a BLAS interface: only what the operations need.
 */
#ifndef DINOBATCH_OPS_CPU_GEMM_H
#define DINOBATCH_OPS_CPU_GEMM_H

#include "ops/cpu/ops_cpu.h"

/* threads: what library calls may use. Owned by the caller. One thread at a time may use it. */
Gemm *gemm_create(int threads);
void gemm_destroy(Gemm *gemm);

/* True if this processor multiplies bf16 numbers by itself (AVX512-BF16 or AMX). */
bool gemm_has_bf16(const Gemm *gemm);

/* One product. m and n may be 0, k too where c is accumulated: nothing happens then. */
typedef struct {
    int64_t m, n, k;
    Dtype dtype;   /* of a and b: DTYPE_F32, or DTYPE_BF16 where gemm_has_bf16 */
    const void *a; /* [m, k], or [k, m] if a_transposed */
    const void *b; /* [k, n], or [n, k] if b_transposed */
    bool a_transposed;
    bool b_transposed;
    const float *bias; /* [n] added to every row, or NULL */
    bool accumulate;   /* c += instead of c =; fp32 c and no bias then */
    void *c;           /* [m, n] */
    Dtype c_dtype;     /* DTYPE_F32 or DTYPE_BF16 */
} GemmProduct;

void gemm_run(Gemm *gemm, const GemmProduct *product);

#endif

/* sgemm.h - an fp32 matrix product made by the calling thread alone.
 *
 * For operations that share their work out themselves and want a product of a piece that stays in cache;
 * whole layers use gemm.h. Call it inside a parallel region of ops->threads threads, also for little work:
 * there oneDNN computes on the thread that calls, and with one thread nobody else exists.
 * In a region of fewer threads it would share the product out itself. Strides in elements; no size may be 0.
 */
#ifndef DINOBATCH_OPS_CPU_SGEMM_H
#define DINOBATCH_OPS_CPU_SGEMM_H

#include <stdbool.h>
#include <stdint.h>

/* A row-major operand: element (i, j) is data[i * stride + j], or data[j * stride + i] if transposed. */
typedef struct {
    const float *data;
    int64_t stride;
    bool transposed;
} SgemmOperand;

/* c[m, n] = a[m, k] . b[k, n], or c += where accumulate; row i of c begins at c + i * ldc. */
void sgemm_run(int64_t m, int64_t n, int64_t k, SgemmOperand a, SgemmOperand b, bool accumulate, float *c,
               int64_t ldc);

#endif

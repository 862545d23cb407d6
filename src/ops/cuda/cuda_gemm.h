/* cuda_gemm.h - dense matrix products on the device: a thin face of cuBLASLt.
 *
 * The same bits every time for the same shapes, types and alignment on one kind of GPU: cuda_gemm.cu says
 * why. The tests replace cuda_gemm.cu by plain loops on the host (tests/emulator). Plain C.
 */
#ifndef DINOBATCH_OPS_CUDA_CUDA_GEMM_H
#define DINOBATCH_OPS_CUDA_CUDA_GEMM_H

#ifdef __cplusplus
extern "C" {
#endif
#include "base/dtype.h"
#include "device/device.h"

typedef struct CudaGemm CudaGemm;

/* Bytes of workspace for cuBLASLt. */
enum { CUDA_GEMM_WORKSPACE = 32 << 20 };

/* C[m, n] = alpha * op(A)[m, k] . op(B)[k, n] (+ C) (+ bias[n] to every row), all row-major in device memory.
 */
typedef struct {
    int64_t m, n, k;
    Dtype dtype;   /* of A and B: fp32, bf16, fp16; sums are fp32, and fp32 products are never TF32 */
    const void *a; /* [m, k], or where a_transposed [k, m] */
    const void *b; /* [k, n], or where b_transposed [n, k] */
    void *c;       /* [m, n]; overlaps neither operand */
    Dtype c_dtype; /* fp32, or dtype */
    bool a_transposed, b_transposed;
    bool accumulate; /* C is added to; otherwise it is only written, whatever it holds */
    float alpha;     /* 0 counts as 1 */
    const float
        *bias; /* [n] fp32, or NULL; rounded to c_dtype before it is added. Not with accumulate or k = 0 */
    int64_t a_stride, b_stride, c_stride; /* elements from a stored row to the next; 0: no gaps */
} CudaGemmProduct;

/* Products on the stream of `device`, which must outlive it. `width`: the most columns of a product with a
 * bias. All memory of a product's own (workspace, rounded bias) is taken here. Owned by the caller. */
CudaGemm *cuda_gemm_create(Device *device, int64_t width);

/* Bytes of device memory that it takes. */
static inline size_t cuda_gemm_memory(int64_t width)
{
    return (size_t)CUDA_GEMM_WORKSPACE + (size_t)(width > 0 ? width : 1) * sizeof(uint16_t);
}

/* NULL is fine. */
void cuda_gemm_destroy(CudaGemm *gemm);

/* Queues one product. m or n = 0: nothing happens; k = 0: C is zero, or unchanged (accumulate). */
void cuda_gemm_run(CudaGemm *gemm, const CudaGemmProduct *product);

#ifdef __cplusplus
}
#endif
#endif

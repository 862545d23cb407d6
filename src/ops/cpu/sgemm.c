/* sgemm.c - OpenBLAS behind 64-bit sizes. */
#include "ops/cpu/sgemm.h"

#include "base/check.h"

#include <cblas.h>
#include <limits.h>

static int blas_int(int64_t value)
{
    CHECK(value > 0 && value <= INT_MAX);
    return (int)value;
}

void sgemm_run(int64_t m, int64_t n, int64_t k, SgemmOperand a, SgemmOperand b, bool accumulate, float *c,
               int64_t ldc)
{
    cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                b.transposed ? CblasTrans : CblasNoTrans, blas_int(m), blas_int(n), blas_int(k), 1.0f, a.data,
                blas_int(a.stride), b.data, blas_int(b.stride), accumulate ? 1.0f : 0.0f, c, blas_int(ldc));
}

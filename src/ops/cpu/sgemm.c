/* sgemm.c - oneDNN's plain product. */
#include "ops/cpu/sgemm.h"

#include "base/check.h"

#include <dnnl.h>

void sgemm_run(int64_t m, int64_t n, int64_t k, SgemmOperand a, SgemmOperand b, bool accumulate, float *c,
               int64_t ldc)
{
    dnnl_status_t status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f,
                                      a.data, a.stride, b.data, b.stride, accumulate ? 1.0f : 0.0f, c, ldc);
    CHECK(status == dnnl_success);
}

/* emulated_gemm.cc - the products of ops/cuda/cuda_gemm.h by plain loops, in place of cuBLASLt.
 *
 * fp32 sums with k ascending; everything else as the header says, so that the operations around it are
 * tested.
 */
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

#include "device/cuda/device_cuda.h"

extern "C" {
#include "ops/cuda/cuda_gemm.h"
}

#include <vector>

struct CudaGemm {
    cudaStream_t stream;
    int64_t width;
};

static float load(const void *matrix, Dtype dtype, int64_t index)
{
    switch (dtype) {
    case DTYPE_F32:
        return ((const float *)matrix)[index];
    case DTYPE_BF16:
        return ((const __nv_bfloat16 *)matrix)[index];
    case DTYPE_F16:
        return ((const __half *)matrix)[index];
    default:
        emulator_fail("cuda_gemm: a type that products do not have");
    }
}

static void store(void *matrix, Dtype dtype, int64_t index, float value)
{
    if (dtype == DTYPE_F32)
        ((float *)matrix)[index] = value;
    else if (dtype == DTYPE_BF16)
        ((__nv_bfloat16 *)matrix)[index] = __nv_bfloat16(value);
    else
        ((__half *)matrix)[index] = __half(value);
}

/* value as it is once stored. */
static float rounded(Dtype dtype, float value)
{
    return dtype == DTYPE_F32    ? value
           : dtype == DTYPE_BF16 ? (float)__nv_bfloat16(value)
                                 : (float)__half(value);
}

/* op(matrix) as dense fp32 [rows, columns]. */
static std::vector<float> dense(const void *matrix, Dtype dtype, bool transposed, int64_t stride,
                                int64_t rows, int64_t columns)
{
    std::vector<float> out((size_t)(rows * columns));
    if (stride == 0) stride = transposed ? rows : columns;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            out[(size_t)(i * columns + j)] =
                load(matrix, dtype, transposed ? j * stride + i : i * stride + j);
    return out;
}

static void multiply(const CudaGemmProduct &p)
{
    float alpha = p.alpha == 0.0f ? 1.0f : p.alpha;
    int64_t c_stride = p.c_stride ? p.c_stride : p.n;
    std::vector<float> a = dense(p.a, p.dtype, p.a_transposed, p.a_stride, p.m, p.k);
    std::vector<float> b = dense(p.b, p.dtype, p.b_transposed, p.b_stride, p.k, p.n);
    std::vector<float> row((size_t)p.n);
    for (int64_t i = 0; i < p.m; i++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (int64_t k = 0; k < p.k; k++) {
            float factor = a[(size_t)(i * p.k + k)];
            const float *from = b.data() + k * p.n;
            for (int64_t j = 0; j < p.n; j++)
                row[(size_t)j] += factor * from[j];
        }
        for (int64_t j = 0; j < p.n; j++) {
            float value = alpha * row[(size_t)j];
            if (p.bias) value += rounded(p.c_dtype, p.bias[j]);
            if (p.accumulate) value += load(p.c, p.c_dtype, i * c_stride + j);
            store(p.c, p.c_dtype, i * c_stride + j, value);
        }
    }
}

static void require_matrix(const char *what, const void *matrix, Dtype dtype, int64_t rows, int64_t columns,
                           int64_t stride)
{
    if (rows == 0 || columns == 0) return;
    size_t elements = (size_t)((rows - 1) * (stride ? stride : columns) + columns);
    emulator_require_device(what, matrix, elements * dtype_size(dtype));
}

extern "C" CudaGemm *cuda_gemm_create(Device *device, int64_t width)
{
    return new CudaGemm{device_cuda_stream(device), width};
}

extern "C" void cuda_gemm_destroy(CudaGemm *gemm)
{
    delete gemm;
}

extern "C" void cuda_gemm_run(CudaGemm *gemm, const CudaGemmProduct *product)
{
    CudaGemmProduct p = *product;
    if (p.m == 0 || p.n == 0) return;
    if (p.c_dtype != DTYPE_F32 && p.c_dtype != p.dtype) emulator_fail("cuda_gemm: the result's type");
    if (p.bias && (p.accumulate || p.n > gemm->width))
        emulator_fail("cuda_gemm: a bias of %td columns", (ptrdiff_t)p.n);
    require_matrix("cuda_gemm, A", p.a, p.dtype, p.a_transposed ? p.k : p.m, p.a_transposed ? p.m : p.k,
                   p.a_stride);
    require_matrix("cuda_gemm, B", p.b, p.dtype, p.b_transposed ? p.n : p.k, p.b_transposed ? p.k : p.n,
                   p.b_stride);
    require_matrix("cuda_gemm, C", p.c, p.c_dtype, p.m, p.n, p.c_stride);
    if (p.bias) emulator_require_device("cuda_gemm, bias", p.bias, (size_t)p.n * sizeof(float));
    emulator_enqueue(gemm->stream, "cuda_gemm", [p] { multiply(p); });
}

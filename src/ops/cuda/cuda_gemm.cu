/* cuda_gemm.cu - dense matrix products by cuBLASLt.
 *
 * cuBLASLt counts in columns, so a row-major C = A B is handed over as C^T = B^T A^T: the library's first
 * operand is our B. A bias of one number per column of C is then one per row of its matrix, as its epilogue
 * wants it. The library adds a bias of C's type only (cublasLt.h, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE), hence
 * the small rounding kernel before a 16-bit product; it costs some 2 microseconds, a pass over C of its own
 * costs half as much as the product.
 *
 * Determinism: which algorithm is taken follows from the shape, the types and the alignment alone (the
 * heuristic is asked once for each and its first answer is kept; nothing is timed). By the cuBLAS manual,
 * "Results reproducibility", routines give the same bits on GPUs of one architecture and one number of
 * multiprocessors if the caller owns the workspace, which he does here. Products that are split along k sum
 * their parts by a second kernel in fp32 (CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE); the schemes that would add
 * parts in C, rounded to 16 bits, are masked out. No option that allows atomics is set. Compute type is
 * CUBLAS_COMPUTE_32F: fp32 operands are multiplied in fp32, not TF32.
 *
 * Nothing is allocated after creation: descriptors live on the stack, choices in a table of fixed size.
 */
#include "ops/cuda/cuda_gemm.h"

#include "ops/cuda/kernel_math.cuh"

#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

extern "C" {
#include "base/memory.h"
}

enum { GEMM_CHOICES = 1024, GEMM_PROBES = 8, GEMM_ALIGNMENT = 16, GEMM_THREADS = 256 };

/* All that the choice of an algorithm depends on. Compared as bytes: zeroed before it is filled. */
typedef struct {
    int64_t m, n, k, a_stride, b_stride, c_stride;
    int32_t dtype, c_dtype, a_transposed, b_transposed, accumulate, biased;
    int32_t a_alignment, b_alignment, c_alignment, used;
} GemmKey;

typedef struct {
    GemmKey key;
    cublasLtMatmulAlgo_t algorithm;
} GemmChoice;

struct CudaGemm {
    Device *device; /* borrowed */
    cudaStream_t stream;
    cublasLtHandle_t library;
    void *workspace;    /* CUDA_GEMM_WORKSPACE bytes of the device */
    void *rounded_bias; /* [width] of 16 bits */
    int64_t width;
    GemmChoice *choices; /* [GEMM_CHOICES]: open addressing, GEMM_PROBES places for each key */
};

static void gemm_check(cublasStatus_t status, const char *what, const GemmKey *key)
{
    char message[256];
    if (status == CUBLAS_STATUS_SUCCESS) return;
    if (key)
        snprintf(message, sizeof message, "%s: %s (m %lld, n %lld, k %lld)", what,
                 cublasLtGetStatusString(status), (long long)key->m, (long long)key->n, (long long)key->k);
    else
        snprintf(message, sizeof message, "%s: %s", what, cublasLtGetStatusString(status));
    device_cuda_fail(cudaErrorUnknown, message, __FILE__, __LINE__);
}

#define GEMM_CHECK(call, key) gemm_check(call, #call, key)

extern "C" CudaGemm *cuda_gemm_create(Device *device, int64_t width)
{
    CudaGemm *gemm = (CudaGemm *)memory_alloc(sizeof *gemm);
    gemm->device = device;
    gemm->stream = device_cuda_stream(device);
    gemm->width = width;
    gemm->workspace = device_alloc(device, CUDA_GEMM_WORKSPACE);
    gemm->rounded_bias = device_alloc(device, (size_t)(width > 0 ? width : 1) * sizeof(bf16));
    gemm->choices = (GemmChoice *)memory_alloc_array(GEMM_CHOICES, sizeof *gemm->choices);
    GEMM_CHECK(cublasLtCreate(&gemm->library), NULL);
    return gemm;
}

extern "C" void cuda_gemm_destroy(CudaGemm *gemm)
{
    if (!gemm) return;
    GEMM_CHECK(cublasLtDestroy(gemm->library), NULL);
    device_free(gemm->device, gemm->workspace);
    device_free(gemm->device, gemm->rounded_bias);
    memory_free(gemm->choices);
    memory_free(gemm);
}

/* --- bias ---------------------------------------------------------------------------------------------- */

template <typename T>
__global__ void __launch_bounds__(GEMM_THREADS) gemm_round_bias(T *out, const float *bias, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * GEMM_THREADS + threadIdx.x;
    if (i < n) out[i] = from_f32<T>(bias[i]);
}

/* The bias as the library reads it: of C's type. */
static const void *bias_of_type(CudaGemm *gemm, const float *bias, int64_t n, Dtype dtype)
{
    if (dtype == DTYPE_F32) return bias;
    CHECK(n <= gemm->width);
    unsigned grid = (unsigned)ceil_div(n, GEMM_THREADS);
    if (dtype == DTYPE_BF16)
        KERNEL_LAUNCH(gemm_round_bias<bf16>, grid, GEMM_THREADS, 0, gemm->stream, (bf16 *)gemm->rounded_bias,
                      bias, n);
    else
        KERNEL_LAUNCH(gemm_round_bias<fp16>, grid, GEMM_THREADS, 0, gemm->stream, (fp16 *)gemm->rounded_bias,
                      bias, n);
    return gemm->rounded_bias;
}

/* --- choice of an algorithm ---------------------------------------------------------------------------- */

static int32_t alignment_of(const void *pointer)
{
    uintptr_t address = (uintptr_t)pointer | GEMM_ALIGNMENT;
    return (int32_t)(address & (~address + 1));
}

static GemmKey key_of(const CudaGemmProduct *p)
{
    GemmKey key;
    memset(&key, 0, sizeof key);
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.a_stride = p->a_stride ? p->a_stride : p->a_transposed ? p->m : p->k;
    key.b_stride = p->b_stride ? p->b_stride : p->b_transposed ? p->k : p->n;
    key.c_stride = p->c_stride ? p->c_stride : p->n;
    key.dtype = (int32_t)p->dtype;
    key.c_dtype = (int32_t)p->c_dtype;
    key.a_transposed = p->a_transposed;
    key.b_transposed = p->b_transposed;
    key.accumulate = p->accumulate;
    key.biased = p->bias != NULL;
    key.a_alignment = alignment_of(p->a);
    key.b_alignment = alignment_of(p->b);
    key.c_alignment = alignment_of(p->c);
    key.used = 1;
    return key;
}

static uint64_t key_hash(const GemmKey *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash ^ hash >> 32;
}

/* The library's view of a product, on the stack: its "a" is our B, its "b" our A. */
typedef struct {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, c;
} GemmDescription;

static cudaDataType_t data_type(int32_t dtype)
{
    return dtype == DTYPE_BF16 ? CUDA_R_16BF : dtype == DTYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static void describe(GemmDescription *d, const GemmKey *key, const void *bias)
{
    cudaDataType_t type = data_type(key->dtype);
    cublasOperation_t first = key->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = key->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    GEMM_CHECK(cublasLtMatmulDescInit(&d->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), key);
    GEMM_CHECK(
        cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
        key);
    GEMM_CHECK(
        cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
        key);
    if (key->biased) {
        GEMM_CHECK(cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                  sizeof epilogue),
                   key);
        GEMM_CHECK(cublasLtMatmulDescSetAttribute(&d->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                  sizeof bias),
                   key);
    }
    /* as stored: rows and columns before the transposition */
    uint64_t a_rows = (uint64_t)(key->b_transposed ? key->k : key->n);
    uint64_t a_columns = (uint64_t)(key->b_transposed ? key->n : key->k);
    uint64_t b_rows = (uint64_t)(key->a_transposed ? key->m : key->k);
    uint64_t b_columns = (uint64_t)(key->a_transposed ? key->k : key->m);
    GEMM_CHECK(cublasLtMatrixLayoutInit(&d->a, type, a_rows, a_columns, key->b_stride), key);
    GEMM_CHECK(cublasLtMatrixLayoutInit(&d->b, type, b_rows, b_columns, key->a_stride), key);
    GEMM_CHECK(cublasLtMatrixLayoutInit(&d->c, data_type(key->c_dtype), (uint64_t)key->n, (uint64_t)key->m,
                                        key->c_stride),
               key);
}

static void set_preference(cublasLtMatmulPreferenceOpaque_t *preference,
                           cublasLtMatmulPreferenceAttributes_t what, const void *value, size_t bytes,
                           const GemmKey *key)
{
    GEMM_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, what, value, bytes), key);
}

static cublasLtMatmulAlgo_t ask_heuristic(const CudaGemm *gemm, GemmDescription *d, const GemmKey *key)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    size_t workspace = CUDA_GEMM_WORKSPACE;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t a = (uint32_t)key->b_alignment, b = (uint32_t)key->a_alignment, c = (uint32_t)key->c_alignment;
    int found = 0;
    memset(&result, 0, sizeof result);
    GEMM_CHECK(cublasLtMatmulPreferenceInit(&preference), key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace, key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction,
                   key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a, key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b, key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c, key);
    set_preference(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c, key);
    GEMM_CHECK(cublasLtMatmulAlgoGetHeuristic(gemm->library, &d->operation, &d->a, &d->b, &d->c, &d->c,
                                              &preference, 1, &result, &found),
               key);
    if (found < 1) gemm_check(CUBLAS_STATUS_NOT_SUPPORTED, "no algorithm for this product", key);
    GEMM_CHECK(result.state, key);
    return result.algo;
}

/* The algorithm for a key: from the table, or asked for and kept. A full neighbourhood loses its first entry.
 */
static const cublasLtMatmulAlgo_t *choose(CudaGemm *gemm, GemmDescription *d, const GemmKey *key)
{
    uint64_t start = key_hash(key);
    GemmChoice *free_place = &gemm->choices[start % GEMM_CHOICES];
    for (uint64_t probe = 0; probe < GEMM_PROBES; probe++) {
        GemmChoice *choice = &gemm->choices[(start + probe) % GEMM_CHOICES];
        if (memcmp(&choice->key, key, sizeof *key) == 0) return &choice->algorithm;
        if (!choice->key.used) {
            free_place = choice;
            break;
        }
    }
    free_place->algorithm = ask_heuristic(gemm, d, key);
    free_place->key = *key;
    return &free_place->algorithm;
}

/* --- products ------------------------------------------------------------------------------------------ */

extern "C" void cuda_gemm_run(CudaGemm *gemm, const CudaGemmProduct *p)
{
    CHECK(p->m >= 0 && p->n >= 0 && p->k >= 0 && !(p->bias && (p->accumulate || p->k == 0)));
    CHECK(p->c_dtype == p->dtype || p->c_dtype == DTYPE_F32);
    CHECK(p->dtype == DTYPE_F32 || p->dtype == DTYPE_BF16 || p->dtype == DTYPE_F16);
    if (p->m == 0 || p->n == 0) return;
    GemmKey key = key_of(p);
    if (p->k == 0) {
        size_t element = dtype_size(p->c_dtype);
        if (!p->accumulate)
            CUDA_CHECK(cudaMemset2DAsync(p->c, (size_t)key.c_stride * element, 0, (size_t)p->n * element,
                                         (size_t)p->m, gemm->stream));
        return;
    }
    GemmDescription d;
    describe(&d, &key, p->bias ? bias_of_type(gemm, p->bias, p->n, p->c_dtype) : NULL);
    const cublasLtMatmulAlgo_t *algorithm = choose(gemm, &d, &key);
    float alpha = p->alpha == 0.0f ? 1.0f : p->alpha, beta = p->accumulate ? 1.0f : 0.0f;
    GEMM_CHECK(cublasLtMatmul(gemm->library, &d.operation, &alpha, p->b, &d.a, p->a, &d.b, &beta, p->c, &d.c,
                              p->c, &d.c, algorithm, gemm->workspace, CUDA_GEMM_WORKSPACE, gemm->stream),
               &key);
}

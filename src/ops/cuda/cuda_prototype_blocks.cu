/* cuda_prototype_blocks.cu - scores in blocks of rows, and their measures; see the header. */
#include "ops/cuda/cuda_prototype_blocks.cuh"

#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/cuda_prototype_rows.cuh"

enum {
    BLOCKS_ROUND = 64, /* rows of a block are a multiple: whole tiles of a product */
    BLOCKS_FULL = 4,   /* row kernels' blocks that a multiprocessor holds */
};

/* --- sizes --------------------------------------------------------------------------------------------- */

static int64_t padded(int64_t K)
{
    return ceil_div(K, 8) * 8;
}

PrototypeBlocks cuda_prototype_blocks_of(Tensor v)
{
    CHECK(v.ndim == 2 && row_access_is_act(v) && v.shape[0] < INT32_MAX - PROTOTYPE_SPAN);
    PrototypeBlocks p = {};
    p.K = v.shape[0];
    p.d = v.shape[1];
    p.stride = padded(p.K);
    p.parts = ceil_div(p.K, PROTOTYPE_SPAN);
    p.dtype = v.dtype == DTYPE_F32 ? DTYPE_F32 : DTYPE_F16;
    return p;
}

int64_t cuda_prototype_blocks_most(const PrototypeBlocks *p, int64_t budget)
{
    int64_t most = budget / (p->stride * (int64_t)dtype_size(p->dtype));
    if (most < CUDA_BUDGET_FEWEST) return CUDA_BUDGET_FEWEST;
    return most < CUDA_BUDGET_MOST ? most : CUDA_BUDGET_MOST;
}

int64_t cuda_prototype_blocks_even(int64_t n, int64_t most)
{
    if (n <= most) return n;
    int64_t blocks = ceil_div(n, most), rows = ceil_div(n, blocks);
    int64_t whole = ceil_div(rows, BLOCKS_ROUND) * BLOCKS_ROUND;
    return whole <= most ? whole : rows;
}

int64_t cuda_prototype_blocks_cached(const Ops *ops, const PrototypeBlocks *p, int64_t sides, int64_t rows)
{
    int64_t cached = CUDA_BUDGET_CACHE / (sides * p->stride * (int64_t)dtype_size(p->dtype));
    int64_t full = ceil_div(BLOCKS_FULL * ops_cuda(ops)->multiprocessors, p->parts);
    int64_t most = cached > full ? cached : full;
    return most < rows ? ceil_div(rows, ceil_div(rows, most)) : rows;
}

/* Rows of a call within the limits. */
int64_t cuda_prototype_blocks_limit(const OpsLimits *limits)
{
    int64_t rows = limits->rows > PROTOTYPE_MAX_TARGETS ? limits->rows : (int64_t)PROTOTYPE_MAX_TARGETS;
    return rows < CUDA_BUDGET_MOST ? rows : CUDA_BUDGET_MOST;
}

/* The bytes of a block grow with K and with the size of a score, but for rounding down to whole rows. */
size_t cuda_prototype_blocks_bytes(const OpsLimits *limits, int64_t budget)
{
    int64_t row = padded(limits->prototypes) * (int64_t)sizeof(float);
    int64_t block = budget > CUDA_BUDGET_FEWEST * row ? budget : CUDA_BUDGET_FEWEST * row;
    int64_t all = cuda_prototype_blocks_limit(limits) * row;
    return ops_cuda_piece(all < block ? all : block, 1);
}

/* rows * parts <= rows * K / SPAN + rows */
size_t cuda_prototype_blocks_parts_bytes(const OpsLimits *limits, int64_t budget)
{
    int64_t scores = (int64_t)cuda_prototype_blocks_bytes(limits, budget) / (int64_t)sizeof(fp16);
    return 4 * ops_cuda_piece(scores / PROTOTYPE_SPAN + cuda_prototype_blocks_limit(limits), sizeof(float));
}

PrototypeParts cuda_prototype_blocks_parts(const Ops *ops, const PrototypeBlocks *p, int64_t rows)
{
    size_t count = (size_t)(rows * p->parts);
    PrototypeParts parts;
    parts.maximum = (float *)arena_alloc(ops->scratch, count * sizeof(float));
    parts.sum = (float *)arena_alloc(ops->scratch, count * sizeof(float));
    parts.product = (float *)arena_alloc(ops->scratch, count * sizeof(float));
    parts.top = (int32_t *)arena_alloc(ops->scratch, count * sizeof(int32_t));
    return parts;
}

/* --- operands ------------------------------------------------------------------------------------------ */

/* W = scale * v in one or two types, V elements at a time; `vectors` of them in all, `each` in a row. */
template <typename In, typename Out, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    blocks_weights(Out *w, bf16 *second, const In *v, const float *scale, int64_t vectors, int64_t each)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += step) {
        float value[V], factor = __ldg(scale + i / each);
        load_f32(value, v + i * V);
#pragma unroll
        for (int k = 0; k < V; k++)
            value[k] *= factor;
        store_f32(w + i * V, value);
        if (second) store_f32(second + i * V, value);
    }
}

template <typename In, typename Out>
static void launch_weights(const Ops *ops, const PrototypeBlocks *p, void *w, void *second, const void *v,
                           const float *scale)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    int64_t count = p->K * p->d;
    bool wide = p->d % 8 == 0 && (uintptr_t)v % 16 == 0;
    unsigned grid = row_access_flat_grid(wide ? count / 8 : count);
    if (wide)
        KERNEL_LAUNCH((blocks_weights<In, Out, 8>), grid, ROW_ACCESS_THREADS, 0, stream, (Out *)w,
                      (bf16 *)second, (const In *)v, scale, count / 8, p->d / 8);
    else
        KERNEL_LAUNCH((blocks_weights<In, Out, 1>), grid, ROW_ACCESS_THREADS, 0, stream, (Out *)w,
                      (bf16 *)second, (const In *)v, scale, count, p->d);
}

void cuda_prototype_blocks_weights(const Ops *ops, const PrototypeBlocks *p, void *w, void *second, Tensor v,
                                   Tensor scale)
{
    const float *factor = tensor_f32(scale);
    if (v.dtype == DTYPE_BF16)
        launch_weights<bf16, fp16>(ops, p, w, second, v.data, factor);
    else if (v.dtype == DTYPE_F16)
        launch_weights<fp16, fp16>(ops, p, w, second, v.data, factor);
    else
        launch_weights<float, float>(ops, p, w, second, v.data, factor);
}

/* A row a block row of threads: block (32, ROW_ACCESS_WARPS). */
template <typename Out>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    blocks_round(Out *out, const float *x, const int32_t *index, int64_t rows, int64_t d)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.y;
    if (row >= rows) return;
    int64_t from = row_access_index(index, row);
    for (int64_t j = threadIdx.x; j < d; j += WARP)
        out[row * d + j] = from_f32<Out>(from >= 0 ? x[from * d + j] : 0.0f);
}

void cuda_prototype_blocks_round(const Ops *ops, void *out, Dtype dtype, const float *x, const int32_t *index,
                                 int64_t rows, int64_t d)
{
    DISPATCH_ACT(dtype, T,
                 KERNEL_LAUNCH(blocks_round<T>, row_access_grid(rows), dim3(WARP, ROW_ACCESS_WARPS), 0,
                               ops_cuda(ops)->stream, (T *)out, x, index, rows, d));
}

void cuda_prototype_blocks_scores(const Ops *ops, const PrototypeBlocks *p, void *scores, const void *x,
                                  const void *w, int64_t rows)
{
    CudaGemmProduct product = {};
    product.m = rows;
    product.n = p->K;
    product.k = p->d;
    product.dtype = p->dtype;
    product.a = x;
    product.b = w;
    product.b_transposed = true;
    product.c = scores;
    product.c_dtype = p->dtype;
    product.c_stride = p->stride;
    cuda_gemm_run(ops_cuda(ops)->gemm, &product);
}

/* --- measures ------------------------------------------------------------------------------------------ */

__device__ __forceinline__ int earlier(int a, int b)
{
    return a < b ? a : b;
}

/* One part of one row: its largest z, and sums over exp(z - largest). The part stays in registers between the
 * two. */
template <typename T>
__global__ void __launch_bounds__(PROTOTYPE_THREADS)
    blocks_measure(PrototypeParts out, const T *scores, int64_t stride, int K, float inverse_temp,
                   const float *bias)
{
    const int V = PrototypeAccess<T>::V, LOADS = PrototypeAccess<T>::LOADS, WARPS = PROTOTYPE_THREADS / WARP;
    __shared__ float shared_max[WARPS], shared_sum[WARPS], shared_product[WARPS];
    __shared__ int shared_top[WARPS];
    const T *row = scores + (int64_t)blockIdx.x * stride;
    float z[LOADS][V], largest = -FLT_MAX;
#pragma unroll
    for (int load = 0; load < LOADS; load++) {
        prototype_load<T>(z[load], row, load, K, inverse_temp, bias);
#pragma unroll
        for (int v = 0; v < V; v++)
            largest = fmaxf(largest, z[load][v]);
    }
    largest = prototype_block_max(largest, shared_max);

    /* what lies beyond K has exp 0 */
    float sum = 0.0f, product = 0.0f;
    int top = INT_MAX;
#pragma unroll
    for (int load = LOADS - 1; load >= 0; load--)
#pragma unroll
        for (int v = V - 1; v >= 0; v--) {
            float below = z[load][v] - largest, e = prototype_exp<T>(below);
            sum += e;
            product = fmaf(e, below, product);
            if (below == 0.0f) top = prototype_column<T>(load) + v;
        }
    sum = warp_sum(sum);
    product = warp_sum(product);
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        top = earlier(top, __shfl_xor_sync(ALL_LANES, top, offset));
    if (threadIdx.x % WARP == 0) {
        shared_sum[threadIdx.x / WARP] = sum;
        shared_product[threadIdx.x / WARP] = product;
        shared_top[threadIdx.x / WARP] = top;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < WARPS; warp++) {
        sum += shared_sum[warp];
        product += shared_product[warp];
        top = earlier(top, shared_top[warp]);
    }
    int64_t at = (int64_t)blockIdx.x * gridDim.y + blockIdx.y;
    out.maximum[at] = largest;
    out.sum[at] = sum;
    out.product[at] = product;
    out.top[at] = top;
}

/* Parts to rows, a warp each: -sum q log q = log S - sum e (z - M) / S with S = sum e, e = exp(z - M). */
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    blocks_join(PrototypeMeasures out, PrototypeParts in, int64_t rows, int parts)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.y;
    if (row >= rows) return;
    const float *maximum = in.maximum + row * parts, *sum = in.sum + row * parts,
                *product = in.product + row * parts;
    float largest = -FLT_MAX;
    for (int part = threadIdx.x; part < parts; part += WARP)
        largest = fmaxf(largest, maximum[part]);
    largest = warp_max(largest);
    double total = 0.0, along = 0.0;
    int top = INT_MAX;
    for (int part = threadIdx.x; part < parts; part += WARP) {
        double lower = (double)maximum[part] - (double)largest, factor = exp(lower);
        total += factor * (double)sum[part];
        along += factor * ((double)product[part] + lower * (double)sum[part]);
        if (maximum[part] == largest) top = earlier(top, in.top[row * parts + part]);
    }
    total = warp_sum(total);
    along = warp_sum(along);
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        top = earlier(top, __shfl_xor_sync(ALL_LANES, top, offset));
    if (threadIdx.x > 0) return;
    double log_total = log(total);
    out.log_sum[row] = (float)((double)largest + log_total);
    if (out.entropy) out.entropy[row] = (float)(log_total - along / total);
    if (out.top) out.top[row] = top;
}

void cuda_prototype_blocks_measure(const Ops *ops, const PrototypeBlocks *p, PrototypeMeasures out,
                                   PrototypeParts parts, const void *scores, int64_t rows, float temp,
                                   const float *bias)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    dim3 grid((unsigned)rows, (unsigned)p->parts);
    if (p->dtype == DTYPE_F32)
        KERNEL_LAUNCH(blocks_measure<float>, grid, PROTOTYPE_THREADS, 0, stream, parts, (const float *)scores,
                      p->stride, (int)p->K, 1.0f / temp, bias);
    else
        KERNEL_LAUNCH(blocks_measure<fp16>, grid, PROTOTYPE_THREADS, 0, stream, parts, (const fp16 *)scores,
                      p->stride, (int)p->K, 1.0f / temp, bias);
    KERNEL_LAUNCH(blocks_join, row_access_grid(rows), dim3(WARP, ROW_ACCESS_WARPS), 0, stream, out, parts,
                  rows, (int)p->parts);
}

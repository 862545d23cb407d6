/* cuda_rows.cu - the twin of ops/cpu/rows.c: moving rows and changing their type.
 *
 * Floor: each element read once and written once (scatter_add_rows: x read, too). A row a warp, several
 * vectors of a lane under way at once.
 */
#include "ops/cuda/row_access.cuh"

enum { ROWS_LOADS = 4 }; /* vectors of a thread under way at once */

/* Exact where the types are the same, NaN's bits included. */
template <typename To, typename From> struct RowsConvert {
    static __device__ __forceinline__ To of(From x)
    {
        return from_f32<To>(to_f32(x));
    }
};
template <typename T> struct RowsConvert<T, T> {
    static __device__ __forceinline__ T of(T x)
    {
        return x;
    }
};

template <typename To, typename From, int V>
__device__ __forceinline__ Vector<To, V> rows_convert(const Vector<From, V> &in)
{
    Vector<To, V> out;
#pragma unroll
    for (int k = 0; k < V; k++)
        out.value[k] = RowsConvert<To, From>::of(in.value[k]);
    return out;
}

/* Elements of one access: 16 bytes of the wider type. */
template <typename A, typename B> struct RowsWidth {
    static const int value = 16 / (int)(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));
};

/* --- gather and cast ---------------------------------------------------------------------------------- */

template <typename To, typename From, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    gather_rows_kernel(To *y, const From *x, const int32_t *rows, int64_t n, int D)
{
    int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    if (i >= n) return;
    x += row_access_index(rows, i) * D;
    y += i * D;
    for (int at = (int)(threadIdx.x % WARP) * V; at < D; at += ROWS_LOADS * WARP * V) {
        Vector<From, V> in[ROWS_LOADS];
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (at + u * WARP * V < D)
                in[u] = *reinterpret_cast<const Vector<From, V> *>(x + at + u * WARP * V);
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (at + u * WARP * V < D)
                *reinterpret_cast<Vector<To, V> *>(y + at + u * WARP * V) = rows_convert<To, From, V>(in[u]);
    }
}

template <typename To, typename From, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) cast_kernel(To *out, const From *in, int64_t count)
{
    int64_t vectors = count / V, step = (int64_t)gridDim.x * blockDim.x;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (int64_t v = thread; v < vectors; v += ROWS_LOADS * step) {
        Vector<From, V> value[ROWS_LOADS];
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (v + u * step < vectors)
                value[u] = reinterpret_cast<const Vector<From, V> *>(in)[v + u * step];
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (v + u * step < vectors)
                reinterpret_cast<Vector<To, V> *>(out)[v + u * step] = rows_convert<To, From, V>(value[u]);
    }
    for (int64_t i = vectors * V + thread; i < count; i += step)
        out[i] = RowsConvert<To, From>::of(in[i]);
}

template <typename To, typename From>
static void gather_rows(const Ops *ops, Tensor y, Tensor x, const int32_t *rows)
{
    const int V = RowsWidth<To, From>::value;
    int64_t n = y.shape[0], D = y.shape[1];
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (row_access_aligned(y, D, V) && row_access_aligned(x, D, V))
        KERNEL_LAUNCH((gather_rows_kernel<To, From, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      (To *)y.data, (const From *)x.data, rows, n, (int)D);
    else
        KERNEL_LAUNCH((gather_rows_kernel<To, From, 1>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      (To *)y.data, (const From *)x.data, rows, n, (int)D);
}

extern "C" void cuda_gather_rows(const Ops *ops, Tensor y, Tensor x, Tensor rows)
{
    CHECK(y.ndim == 2 && x.ndim == 2 && y.shape[1] == x.shape[1] && y.shape[1] <= INT32_MAX);
    CHECK(row_access_is_act(x) && row_access_is_act(y));
    const int32_t *selected = row_access_rows(rows, y.shape[0], x.shape[0]);
    if (tensor_count(y) == 0) return;
    DISPATCH_ACT(y.dtype, To, DISPATCH_ACT(x.dtype, From, (gather_rows<To, From>(ops, y, x, selected))));
}

template <typename To, typename From> static void cast(const Ops *ops, Tensor out, Tensor in)
{
    const int V = RowsWidth<To, From>::value;
    int64_t count = tensor_count(in);
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (row_access_aligned(out, V, V) && row_access_aligned(in, V, V))
        KERNEL_LAUNCH((cast_kernel<To, From, V>), row_access_flat_grid(ceil_div(count, V * ROWS_LOADS)),
                      ROW_ACCESS_THREADS, 0, stream, (To *)out.data, (const From *)in.data, count);
    else
        KERNEL_LAUNCH((cast_kernel<To, From, 1>), row_access_flat_grid(ceil_div(count, ROWS_LOADS)),
                      ROW_ACCESS_THREADS, 0, stream, (To *)out.data, (const From *)in.data, count);
}

extern "C" void cuda_cast(const Ops *ops, Tensor out, Tensor in)
{
    CHECK(tensor_count(out) == tensor_count(in) && row_access_is_act(in) && row_access_is_act(out));
    if (tensor_count(in) == 0) return;
    DISPATCH_ACT(out.dtype, To, DISPATCH_ACT(in.dtype, From, (cast<To, From>(ops, out, in))));
}

extern "C" void cuda_zero(const Ops *ops, Tensor x)
{
    if (tensor_count(x) > 0) CUDA_CHECK(cudaMemsetAsync(x.data, 0, tensor_bytes(x), ops_cuda(ops)->stream));
}

/* --- scatter-add -------------------------------------------------------------------------------------- */

/* Rows may repeat, and each row's sum is made in order of i without locks: a table of x's rows says which i
 * is the first and which the last to be added. The first one's warp adds all; only where the two differ does
 * it look for those between. Integer maxima come out the same in any order. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    scatter_mark_kernel(int *table, const int32_t *rows, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    atomicMax(table + 2 * (int64_t)rows[i], n - i); /* 0 would be nobody */
    atomicMax(table + 2 * (int64_t)rows[i] + 1, i);
}

template <typename T, int V>
__device__ __forceinline__ void scatter_add_row(float *x, const T *y, int D, int lane)
{
    for (int at = lane * V; at < D; at += ROWS_LOADS * WARP * V) {
        float sum[ROWS_LOADS][V], more[ROWS_LOADS][V];
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (at + u * WARP * V < D) {
                load_f32(sum[u], x + at + u * WARP * V);
                load_f32(more[u], y + at + u * WARP * V);
            }
#pragma unroll
        for (int u = 0; u < ROWS_LOADS; u++)
            if (at + u * WARP * V < D) {
#pragma unroll
                for (int k = 0; k < V; k++)
                    sum[u][k] += more[u][k];
                store_f32(x + at + u * WARP * V, sum[u]);
            }
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    scatter_add_kernel(float *x, const T *y, const int32_t *rows, const int *table, int64_t n, int D)
{
    int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (i >= n) return;
    int64_t row = row_access_index(rows, i), last = i;
    if (table) {
        if (n - table[2 * row] != i) return;
        last = table[2 * row + 1];
    }
    x += row * D;
    scatter_add_row<T, V>(x, y + i * D, D, lane);
    for (int64_t base = i + 1; base <= last; base += WARP) {
        bool same = base + lane <= last && rows[base + lane] == row;
        unsigned hits = __ballot_sync(ALL_LANES, same);
        for (int k = 0; k < WARP; k++)
            if (hits >> k & 1u) scatter_add_row<T, V>(x, y + (base + k) * D, D, lane);
    }
}

size_t cuda_rows_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    return ops_cuda_piece(2 * limits->rows, sizeof(int));
}

template <typename T>
static void scatter_add_rows(const Ops *ops, Tensor x, Tensor y, const int32_t *rows, const int *table)
{
    int64_t n = y.shape[0], D = y.shape[1];
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (row_access_aligned(x, D, 4) && row_access_aligned(y, D, 4))
        KERNEL_LAUNCH((scatter_add_kernel<T, 4>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      tensor_f32(x), (const T *)y.data, rows, table, n, (int)D);
    else
        KERNEL_LAUNCH((scatter_add_kernel<T, 1>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      tensor_f32(x), (const T *)y.data, rows, table, n, (int)D);
}

extern "C" void cuda_scatter_add_rows(const Ops *ops, Tensor x, Tensor y, Tensor rows)
{
    CHECK(y.ndim == 2 && x.ndim == 2 && y.shape[1] == x.shape[1] && row_access_is_act(y));
    CHECK(y.shape[0] <= INT32_MAX && y.shape[1] <= INT32_MAX);
    const int32_t *selected = row_access_rows(rows, y.shape[0], x.shape[0]);
    int64_t n = y.shape[0];
    if (tensor_count(y) == 0) return;
    ArenaMark mark = arena_mark(ops->scratch);
    int *table = NULL;
    if (selected && n > 1) {
        cudaStream_t stream = ops_cuda(ops)->stream;
        size_t bytes = 2 * (size_t)x.shape[0] * sizeof *table;
        table = (int *)arena_alloc(ops->scratch, bytes);
        CUDA_CHECK(cudaMemsetAsync(table, 0, bytes, stream));
        KERNEL_LAUNCH(scatter_mark_kernel, (unsigned)ceil_div(n, ROW_ACCESS_THREADS), ROW_ACCESS_THREADS, 0,
                      stream, table, selected, (int)n);
    }
    DISPATCH_ACT(y.dtype, T, scatter_add_rows<T>(ops, x, y, selected, table));
    arena_reset(ops->scratch, mark);
}

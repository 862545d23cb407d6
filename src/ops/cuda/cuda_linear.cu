/* cuda_linear.cu - the twin of ops/cpu/linear.c: fully connected layers by cuBLASLt, bias gradients by our
 * own sums.
 *
 * Products have the type of the weights (for weight gradients: of the activations). Operands of another type
 * are converted in blocks of rows, so that scratch does not grow with the batch; a training step has none of
 * them. With 16-bit results the bias is rounded to their type first (cuda_gemm.cu), as the reference's mixed
 * precision does.
 *
 * Bias gradient: dy is read once more, which is its floor of n * m elements beside the product that reads it
 * too. Sums are made in two passes of fixed order: a block has a stretch of rows of some columns, in
 * registers; then the blocks' sums are added. The library's epilogue BGRAD would save the pass, but writes
 * sums of dy's type.
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/row_access.cuh"

enum {
    LINEAR_LANES = 32, /* threads of a block along columns, V columns each */
    LINEAR_ROWS = 8,   /* and along rows */
    LINEAR_MAX_V = 8,
    LINEAR_BLOCKS = 4,    /* column sum blocks of a multiprocessor */
    LINEAR_MIN_ROWS = 64, /* rows that are worth a block */
};

extern "C" size_t cuda_linear_scratch(const OpsLimits *limits, int multiprocessors)
{
    int64_t rows = limits->rows < CUDA_BUDGET_CONVERTED ? limits->rows : CUDA_BUDGET_CONVERTED;
    /* blocks along columns times blocks along rows exceed LINEAR_BLOCKS * multiprocessors by one row of
     * blocks */
    int64_t block_columns = LINEAR_LANES * LINEAR_MAX_V;
    int64_t partial =
        (int64_t)LINEAR_BLOCKS * multiprocessors * block_columns + limits->width + block_columns;
    size_t sums = ops_cuda_piece(partial, sizeof(float));
    size_t blocks = limits->reduced ? 2 * ops_cuda_piece(rows * limits->width, sizeof(float)) : 0;
    return sums > blocks ? sums : blocks;
}

/* --- products ------------------------------------------------------------------------------------------ */

/* `t` with elements of `dtype`: itself, or a copy in scratch. */
static Tensor converted(const Ops *ops, Tensor t, Dtype dtype)
{
    if (t.dtype == dtype) return t;
    Tensor copy = tensor_alloc_2d(ops->scratch, dtype, t.shape[0], t.shape[1]);
    cuda_cast(ops, copy, t);
    return copy;
}

/* out[n, p] = in[n, q] . op(w) + bias for rows of any number. */
static void multiply_rows(const Ops *ops, Tensor out, Tensor in, Tensor w, bool w_transposed,
                          const float *bias)
{
    ArenaMark mark = arena_mark(ops->scratch);
    Tensor a = converted(ops, in, w.dtype);
    bool separate = out.dtype != DTYPE_F32 && out.dtype != w.dtype;
    Tensor c = separate ? tensor_alloc_2d(ops->scratch, DTYPE_F32, out.shape[0], out.shape[1]) : out;
    CudaGemmProduct product = {};
    product.m = out.shape[0];
    product.n = out.shape[1];
    product.k = in.shape[1];
    product.dtype = w.dtype;
    product.a = a.data;
    product.b = w.data;
    product.b_transposed = w_transposed;
    product.bias = bias;
    product.c = c.data;
    product.c_dtype = c.dtype;
    cuda_gemm_run(ops_cuda(ops)->gemm, &product);
    if (separate) cuda_cast(ops, out, c);
    arena_reset(ops->scratch, mark);
}

static void multiply(const Ops *ops, Tensor out, Tensor in, Tensor w, bool w_transposed, const float *bias)
{
    CHECK(row_access_is_act(in) && row_access_is_act(w) && out.dtype == in.dtype);
    if (in.shape[0] == 0) return;
    int64_t n = in.shape[0], block = in.dtype == w.dtype ? n : CUDA_BUDGET_CONVERTED;
    for (int64_t row = 0; row < n; row += block) {
        int64_t rows = n - row < block ? n - row : block;
        multiply_rows(ops, tensor_rows(out, row, rows), tensor_rows(in, row, rows), w, w_transposed, bias);
    }
}

extern "C" void cuda_linear_forward(const Ops *ops, Tensor y, Tensor x, Tensor w, Tensor b)
{
    CHECK(y.ndim == 2 && x.ndim == 2 && w.ndim == 2);
    CHECK(y.shape[0] == x.shape[0] && y.shape[1] == w.shape[0] && x.shape[1] == w.shape[1]);
    CHECK(!tensor_given(b) || tensor_count(b) == w.shape[0]);
    multiply(ops, y, x, w, true, row_access_f32(b));
}

extern "C" void cuda_linear_backward_input(const Ops *ops, Tensor dx, Tensor dy, Tensor w)
{
    CHECK(dx.ndim == 2 && dy.ndim == 2 && w.ndim == 2);
    CHECK(dx.shape[0] == dy.shape[0] && dx.shape[1] == w.shape[1] && dy.shape[1] == w.shape[0]);
    multiply(ops, dx, dy, w, false, NULL);
}

/* --- bias gradient ------------------------------------------------------------------------------------- */

/* partial[part, columns] = sums of dy[n, columns] over the rows of a part, V columns a thread: rows part *
 * rows and on. Grid (blocks of columns, parts), block (LINEAR_LANES, LINEAR_ROWS). */
template <typename T, int V>
__global__ void __launch_bounds__(LINEAR_LANES *LINEAR_ROWS)
    linear_sum_columns(float *partial, const T *dy, int64_t n, int64_t columns, int64_t rows)
{
    __shared__ float shared[LINEAR_ROWS][LINEAR_LANES * V];
    int64_t column = ((int64_t)blockIdx.x * LINEAR_LANES + threadIdx.x) * V;
    int64_t first = blockIdx.y * rows, last = first + rows < n ? first + rows : n;
    float sum[V];
#pragma unroll
    for (int v = 0; v < V; v++)
        sum[v] = 0.0f;
    if (column < columns) {
#pragma unroll 4
        for (int64_t row = first + threadIdx.y; row < last; row += LINEAR_ROWS) {
            float value[V];
            load_f32(value, dy + row * columns + column);
#pragma unroll
            for (int v = 0; v < V; v++)
                sum[v] += value[v];
        }
    }
#pragma unroll
    for (int v = 0; v < V; v++)
        shared[threadIdx.y][v * LINEAR_LANES + threadIdx.x] = sum[v];
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns) return;
#pragma unroll
    for (int v = 0; v < V; v++) {
        float total = 0.0f;
        for (int y = 0; y < LINEAR_ROWS; y++)
            total += shared[y][v * LINEAR_LANES + threadIdx.x];
        partial[blockIdx.y * columns + column + v] = total;
    }
}

/* db[columns] += the parts' sums, in order. */
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    linear_add_parts(float *db, const float *partial, int64_t columns, int parts)
{
    int64_t column = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x;
    if (column >= columns) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int part = 0; part < parts; part++)
        sum += partial[part * columns + column];
    db[column] += sum;
}

template <typename T, int V> static void sum_columns(const Ops *ops, float *db, Tensor dy)
{
    int64_t n = dy.shape[0], columns = dy.shape[1];
    int64_t across = ceil_div(columns, LINEAR_LANES * V);
    int64_t parts = ceil_div((int64_t)LINEAR_BLOCKS * ops_cuda(ops)->multiprocessors, across);
    if (parts > ceil_div(n, LINEAR_MIN_ROWS)) parts = ceil_div(n, LINEAR_MIN_ROWS);
    int64_t rows = ceil_div(n, parts);
    parts = ceil_div(n, rows);
    ArenaMark mark = arena_mark(ops->scratch);
    float *partial = (float *)arena_alloc(ops->scratch, (size_t)(parts * columns) * sizeof(float));
    cudaStream_t stream = ops_cuda(ops)->stream;
    KERNEL_LAUNCH((linear_sum_columns<T, V>), dim3((unsigned)across, (unsigned)parts),
                  dim3(LINEAR_LANES, LINEAR_ROWS), 0, stream, partial, (const T *)dy.data, n, columns, rows);
    KERNEL_LAUNCH(linear_add_parts, (unsigned)ceil_div(columns, ROW_ACCESS_THREADS), ROW_ACCESS_THREADS, 0,
                  stream, db, partial, columns, (int)parts);
    arena_reset(ops->scratch, mark);
}

template <typename T> static void backward_bias(const Ops *ops, float *db, Tensor dy)
{
    const int V = VectorWidth<T>::value;
    if (row_access_aligned(dy, dy.shape[1], V))
        sum_columns<T, V>(ops, db, dy);
    else
        sum_columns<T, 1>(ops, db, dy);
}

extern "C" void cuda_linear_backward_weight(const Ops *ops, Tensor dw, Tensor db, Tensor dy, Tensor x)
{
    CHECK(dw.ndim == 2 && dy.ndim == 2 && x.ndim == 2 && row_access_is_act(dy) && x.dtype == dy.dtype);
    CHECK(dy.shape[0] == x.shape[0] && dw.shape[0] == dy.shape[1] && dw.shape[1] == x.shape[1]);
    CHECK(!tensor_given(db) || tensor_count(db) == dw.shape[0]);
    if (dy.shape[0] == 0) return;
    if (tensor_given(db)) DISPATCH_ACT(dy.dtype, T, backward_bias<T>(ops, tensor_f32(db), dy));
    CudaGemmProduct product = {};
    product.m = dw.shape[0];
    product.n = dw.shape[1];
    product.k = dy.shape[0];
    product.dtype = dy.dtype;
    product.a = dy.data;
    product.a_transposed = true;
    product.b = x.data;
    product.accumulate = true;
    product.c = tensor_f32(dw);
    product.c_dtype = DTYPE_F32;
    cuda_gemm_run(ops_cuda(ops)->gemm, &product);
}

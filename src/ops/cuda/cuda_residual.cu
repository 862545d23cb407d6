/* cuda_residual.cu - the twin of ops/cpu/residual.c: LayerScale, stochastic-depth scale and residual in one
 * pass.
 *
 * Floor of an element: forward 8 bytes of x and one of y; backward 4 of dx, one of y read and one of dy
 * written. Forward is a row a warp. Backward also sums columns: a block has a tile of columns and every n-th
 * row, keeps its sums in registers and leaves one partial sum a column, so that the floor is met up to those
 * few numbers.
 */
#include "ops/cuda/column_sums.cuh"

enum {
    RESIDUAL_LOADS = 4,    /* vectors of a thread under way at once, of each operand */
    RESIDUAL_RESIDENT = 4, /* backward blocks that a multiprocessor holds */
};

size_t cuda_residual_scratch(const OpsLimits *limits, int multiprocessors)
{
    int64_t tiled = (int64_t)multiprocessors * RESIDUAL_RESIDENT * WARP * 4;
    return ops_cuda_piece(tiled > limits->width ? tiled : limits->width, sizeof(float));
}

/* --- forward ------------------------------------------------------------------------------------------ */

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    residual_forward_kernel(float *x, const T *y, const int32_t *rows, const float *row_scale,
                            const float *gamma, int64_t n, int D)
{
    int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    if (i >= n) return;
    float scale = row_scale ? row_scale[i] : 1.0f;
    x += row_access_index(rows, i) * D;
    y += i * D;
    for (int at = (int)(threadIdx.x % WARP) * V; at < D; at += RESIDUAL_LOADS * WARP * V) {
        float sum[RESIDUAL_LOADS][V], branch[RESIDUAL_LOADS][V];
#pragma unroll
        for (int u = 0; u < RESIDUAL_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= D) break;
            load_f32(branch[u], y + j);
            load_f32(sum[u], x + j);
        }
#pragma unroll
        for (int u = 0; u < RESIDUAL_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= D) break;
            if (gamma) {
                float g[V];
                load_f32(g, gamma + j);
#pragma unroll
                for (int k = 0; k < V; k++)
                    sum[u][k] += scale * g[k] * branch[u][k];
            } else {
#pragma unroll
                for (int k = 0; k < V; k++)
                    sum[u][k] += scale * branch[u][k];
            }
            store_f32(x + j, sum[u]);
        }
    }
}

/* --- backward ----------------------------------------------------------------------------------------- */

template <typename T> struct ResidualBackward {
    T *dy;
    const T *y;                          /* NULL: no partial sums */
    const float *dx, *row_scale, *gamma; /* the last two or NULL */
    const int32_t *rows;
    float *partial; /* [gridDim.y, D] */
    int64_t n;
    int D;
};

/* Block (tile, part): columns tile * 32 V and on; warp w of it has rows 8 part + w, and every 8 gridDim.y th.
 */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS, RESIDUAL_RESIDENT)
    residual_backward_kernel(ResidualBackward<T> b)
{
    __shared__ float sums[ROW_ACCESS_WARPS][WARP * V];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, j = (int)(blockIdx.x * WARP + lane) * V;
    int64_t step = (int64_t)gridDim.y * ROW_ACCESS_WARPS;
    float gamma[V], sum[V];
#pragma unroll
    for (int k = 0; k < V; k++) {
        gamma[k] = b.gamma && j < b.D ? b.gamma[j + k] : 1.0f;
        sum[k] = 0.0f;
    }
    int64_t first = (int64_t)blockIdx.y * ROW_ACCESS_WARPS + warp;
    for (int64_t i = first; i < b.n && j < b.D; i += RESIDUAL_LOADS * step) {
        float slope[RESIDUAL_LOADS][V], branch[RESIDUAL_LOADS][V];
#pragma unroll
        for (int u = 0; u < RESIDUAL_LOADS; u++) {
            int64_t row = i + u * step;
            if (row >= b.n) break;
            load_f32(slope[u], b.dx + row_access_index(b.rows, row) * b.D + j);
            if (b.y) load_f32(branch[u], b.y + row * b.D + j);
        }
#pragma unroll
        for (int u = 0; u < RESIDUAL_LOADS; u++) {
            int64_t row = i + u * step;
            if (row >= b.n) break;
            float scale = b.row_scale ? __ldg(b.row_scale + row) : 1.0f;
#pragma unroll
            for (int k = 0; k < V; k++) {
                if (b.y) sum[k] += scale * slope[u][k] * branch[u][k];
                slope[u][k] *= scale * gamma[k];
            }
            store_f32(b.dy + row * b.D + j, slope[u]);
        }
    }
    if (!b.y) return;
#pragma unroll
    for (int k = 0; k < V; k++)
        sums[warp][lane * V + k] = sum[k];
    __syncthreads();
    for (int c = threadIdx.x; c < WARP * V; c += ROW_ACCESS_THREADS) {
        int column = (int)blockIdx.x * WARP * V + c;
        float total = 0.0f;
#pragma unroll
        for (int w = 0; w < ROW_ACCESS_WARPS; w++)
            total += sums[w][c];
        if (column < b.D) b.partial[(int64_t)blockIdx.y * b.D + column] = total;
    }
}

/* --- host side ---------------------------------------------------------------------------------------- */

static void residual_check(Tensor x, Tensor y, Tensor row_scale, Tensor gamma)
{
    CHECK(x.ndim == 2 && x.dtype == DTYPE_F32 && y.ndim == 2 && row_access_is_act(y));
    CHECK(x.shape[1] == y.shape[1] && y.shape[1] <= INT32_MAX);
    CHECK(!tensor_given(row_scale) || tensor_count(row_scale) == y.shape[0]);
    CHECK(!tensor_given(gamma) || tensor_count(gamma) == y.shape[1]);
}

template <typename T, int V>
static void residual_forward(const Ops *ops, Tensor x, Tensor y, const int32_t *rows, Tensor row_scale,
                             Tensor gamma)
{
    int64_t n = y.shape[0];
    KERNEL_LAUNCH((residual_forward_kernel<T, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f32(x), (const T *)y.data, rows, row_access_f32(row_scale),
                  row_access_f32(gamma), n, (int)y.shape[1]);
}

extern "C" void cuda_residual_forward(const Ops *ops, Tensor x, Tensor y, Tensor rows, Tensor row_scale,
                                      Tensor gamma)
{
    residual_check(x, y, row_scale, gamma);
    const int32_t *selected = row_access_rows(rows, y.shape[0], x.shape[0]);
    int64_t D = y.shape[1];
    if (tensor_count(y) == 0) return;
    if (row_access_aligned(x, D, 4) && row_access_aligned(y, D, 4) && row_access_aligned(gamma, D, 4))
        DISPATCH_ACT(y.dtype, T, (residual_forward<T, 4>(ops, x, y, selected, row_scale, gamma)));
    else
        DISPATCH_ACT(y.dtype, T, (residual_forward<T, 1>(ops, x, y, selected, row_scale, gamma)));
}

template <typename T, int V>
static void residual_backward(const Ops *ops, ResidualBackward<T> b, Tensor dgamma)
{
    int64_t tiles = ceil_div(b.D, WARP * V),
            blocks = (int64_t)ops_cuda(ops)->multiprocessors * RESIDUAL_RESIDENT;
    int64_t parts = blocks / tiles, most = ceil_div(b.n, ROW_ACCESS_WARPS);
    parts = parts < 1 ? 1 : parts < most ? parts : most;
    ArenaMark mark = arena_mark(ops->scratch);
    if (b.y) b.partial = (float *)arena_alloc(ops->scratch, (size_t)(parts * b.D) * sizeof(float));
    KERNEL_LAUNCH((residual_backward_kernel<T, V>), dim3((unsigned)tiles, (unsigned)parts),
                  ROW_ACCESS_THREADS, 0, ops_cuda(ops)->stream, b);
    if (b.y) column_sums_add(ops, tensor_f32(dgamma), NULL, b.partial, parts, b.D);
    arena_reset(ops->scratch, mark);
}

template <typename T>
static void residual_backward_run(const Ops *ops, Tensor dy, Tensor dgamma, Tensor dx, Tensor y,
                                  const int32_t *rows, Tensor row_scale, Tensor gamma)
{
    ResidualBackward<T> b = {};
    b.dy = (T *)dy.data;
    b.y = tensor_given(dgamma) ? (const T *)y.data : NULL;
    b.dx = tensor_f32(dx);
    b.row_scale = row_access_f32(row_scale);
    b.gamma = row_access_f32(gamma);
    b.rows = rows;
    b.n = dy.shape[0];
    b.D = (int)dy.shape[1];
    if (row_access_aligned(dy, b.D, 4) && row_access_aligned(dx, b.D, 4) &&
        (!b.y || row_access_aligned(y, b.D, 4)))
        residual_backward<T, 4>(ops, b, dgamma);
    else
        residual_backward<T, 1>(ops, b, dgamma);
}

extern "C" void cuda_residual_backward(const Ops *ops, Tensor dy, Tensor dgamma, Tensor dx, Tensor y,
                                       Tensor rows, Tensor row_scale, Tensor gamma)
{
    residual_check(dx, dy, row_scale, gamma);
    const int32_t *selected = row_access_rows(rows, dy.shape[0], dx.shape[0]);
    if (tensor_given(dgamma))
        CHECK(tensor_count(dgamma) == dy.shape[1] && y.ndim == 2 && y.dtype == dy.dtype &&
              y.shape[0] == dy.shape[0] && y.shape[1] == dy.shape[1]);
    if (tensor_count(dy) == 0) return;
    DISPATCH_ACT(dy.dtype, T, residual_backward_run<T>(ops, dy, dgamma, dx, y, selected, row_scale, gamma));
}

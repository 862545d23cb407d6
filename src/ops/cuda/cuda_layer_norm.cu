/* cuda_layer_norm.cu - the twin of ops/cpu/layer_norm.c: layer normalisation over the last dimension.
 *
 * Floor of an element: forward 4 bytes read, 2 or 4 of y (and of kept) written; backward 8 of dx, 2 or 4 each
 * of x, dy and y. Rows whose width is a multiple of 4 (up to 1536 forward, 3072 backward) stay in registers
 * between their sums and their use, so that the floor is met up to the weights, which the first-level cache
 * holds, and the partial sums of dw and db, one row of each for every block. Other widths go through slower
 * kernels that read a row again (out of the cache). Means are subtracted before squares are summed, as on the
 * CPU.
 */
#include "ops/cuda/column_sums.cuh"

enum {
    LAYER_NORM_RESIDENT = 3, /* backward blocks that a multiprocessor holds, at most */
    LAYER_NORM_FORWARD_MOST = 12 * 4 * 32,
    LAYER_NORM_BACKWARD_MOST = 3 * 8 * 4 * 32,
};

size_t cuda_layer_norm_scratch(const OpsLimits *limits, int multiprocessors)
{
    return ops_cuda_piece(2 * LAYER_NORM_RESIDENT * (int64_t)multiprocessors * limits->width, sizeof(float));
}

/* --- forward ------------------------------------------------------------------------------------------ */

template <typename T> struct LayerNormForward {
    T *y, *kept; /* kept or NULL */
    float *stats;
    const float *x, *w, *b;
    const int32_t *rows;
    int64_t n;
    int D;
    float eps;
};

/* An element of x as it is kept. */
template <typename T> __device__ __forceinline__ float layer_norm_input(const LayerNormForward<T> &f, float x)
{
    return f.kept ? to_f32(from_f32<T>(x)) : x;
}

/* A row a warp; lane l has elements 4 l .. 4 l + 3 of each of VECTORS stretches of 128. */
template <typename T, int VECTORS>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS, VECTORS > 8 ? 2 : 4)
    layer_norm_forward_kernel(LayerNormForward<T> f)
{
    int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (i >= f.n) return;
    const float *row = f.x + row_access_index(f.rows, i) * f.D;
    float x[VECTORS][4], sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int j = (v * WARP + lane) * 4;
        x[v][0] = x[v][1] = x[v][2] = x[v][3] = 0.0f;
        if (j < f.D) load_f32(x[v], row + j);
    }
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
#pragma unroll
        for (int k = 0; k < 4; k++)
            x[v][k] = layer_norm_input(f, x[v][k]);
        sum += (x[v][0] + x[v][1]) + (x[v][2] + x[v][3]);
    }
    float mean = warp_sum(sum) / (float)f.D;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        bool inside = (v * WARP + lane) * 4 < f.D;
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (inside) squares += (x[v][k] - mean) * (x[v][k] - mean);
    }
    float rstd = 1.0f / sqrtf(warp_sum(squares) / (float)f.D + f.eps);
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int j = (v * WARP + lane) * 4;
        if (f.kept && j < f.D) store_f32(f.kept + i * f.D + j, x[v]);
    }
#pragma unroll
    for (int v = 0; v < VECTORS; v++) { /* no store between these loads, which would hold them up */
        int j = (v * WARP + lane) * 4;
        if (j >= f.D) break;
        float w[4], b[4];
        load_f32(w, f.w + j);
        load_f32(b, f.b + j);
#pragma unroll
        for (int k = 0; k < 4; k++)
            x[v][k] = (x[v][k] - mean) * rstd * w[k] + b[k];
    }
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int j = (v * WARP + lane) * 4;
        if (j < f.D) store_f32(f.y + i * f.D + j, x[v]);
    }
    if (lane == 0) {
        f.stats[2 * i] = mean;
        f.stats[2 * i + 1] = rstd;
    }
}

/* Any width: a row a block. */
template <typename T>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) layer_norm_forward_any_kernel(LayerNormForward<T> f)
{
    __shared__ float shared[WARP];
    int64_t i = blockIdx.x;
    const float *row = f.x + row_access_index(f.rows, i) * f.D;
    float sum = 0.0f, squares = 0.0f;
    for (int j = threadIdx.x; j < f.D; j += blockDim.x)
        sum += layer_norm_input(f, row[j]);
    float mean = block_sum(sum, shared) / (float)f.D;
    for (int j = threadIdx.x; j < f.D; j += blockDim.x) {
        float x = layer_norm_input(f, row[j]);
        squares += (x - mean) * (x - mean);
    }
    float rstd = 1.0f / sqrtf(block_sum(squares, shared) / (float)f.D + f.eps);
    for (int j = threadIdx.x; j < f.D; j += blockDim.x) {
        float x = layer_norm_input(f, row[j]);
        if (f.kept) f.kept[i * f.D + j] = from_f32<T>(x);
        f.y[i * f.D + j] = from_f32<T>((x - mean) * rstd * f.w[j] + f.b[j]);
    }
    if (threadIdx.x == 0) {
        f.stats[2 * i] = mean;
        f.stats[2 * i + 1] = rstd;
    }
}

template <typename T>
static void layer_norm_forward(const Ops *ops, const LayerNormForward<T> &f, bool aligned)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    unsigned grid = row_access_grid(f.n);
    int64_t vectors = ceil_div(f.D, 4 * WARP);
#define LAYER_NORM_FORWARD(VECTORS) \
    KERNEL_LAUNCH((layer_norm_forward_kernel<T, VECTORS>), grid, ROW_ACCESS_THREADS, 0, stream, f)
    if (!aligned || f.D > LAYER_NORM_FORWARD_MOST)
        KERNEL_LAUNCH(layer_norm_forward_any_kernel<T>, (unsigned)f.n, ROW_ACCESS_THREADS, 0, stream, f);
    else if (vectors <= 1)
        LAYER_NORM_FORWARD(1);
    else if (vectors <= 2)
        LAYER_NORM_FORWARD(2);
    else if (vectors <= 3)
        LAYER_NORM_FORWARD(3);
    else if (vectors <= 6)
        LAYER_NORM_FORWARD(6);
    else if (vectors <= 8)
        LAYER_NORM_FORWARD(8);
    else
        LAYER_NORM_FORWARD(12);
#undef LAYER_NORM_FORWARD
}

template <typename T>
static void layer_norm_forward_run(const Ops *ops, Tensor y, Tensor stats, Tensor kept, Tensor x,
                                   const int32_t *rows, Tensor w, Tensor b, float eps)
{
    int64_t D = y.shape[1];
    bool aligned = row_access_aligned(y, D, 4) && row_access_aligned(kept, D, 4) &&
                   row_access_aligned(x, D, 4) && row_access_aligned(w, D, 4) && row_access_aligned(b, D, 4);
    LayerNormForward<T> f = {};
    f.y = (T *)y.data;
    f.stats = tensor_f32(stats);
    f.kept = (T *)kept.data; /* NULL where none is given */
    f.x = tensor_f32(x);
    f.w = tensor_f32(w);
    f.b = tensor_f32(b);
    f.rows = rows;
    f.n = y.shape[0];
    f.D = (int)D;
    f.eps = eps;
    layer_norm_forward(ops, f, aligned);
}

extern "C" void cuda_layer_norm_forward(const Ops *ops, Tensor y, Tensor stats, Tensor kept, Tensor x,
                                        Tensor rows, Tensor w, Tensor b, float eps)
{
    CHECK(y.ndim == 2 && row_access_is_act(y) && x.ndim == 2 && x.shape[1] == y.shape[1]);
    int64_t n = y.shape[0], D = y.shape[1];
    CHECK(tensor_count(stats) == 2 * n && tensor_count(w) == D && tensor_count(b) == D && D <= INT32_MAX);
    CHECK(!tensor_given(kept) || (tensor_count(kept) == n * D && kept.dtype == y.dtype));
    const int32_t *selected = row_access_rows(rows, n, x.shape[0]);
    if (n == 0) return;
    DISPATCH_ACT(y.dtype, T, layer_norm_forward_run<T>(ops, y, stats, kept, x, selected, w, b, eps));
}

/* --- backward ----------------------------------------------------------------------------------------- */

/* With g = dy w and h = (x - mean) rstd: dx += rstd (g - mean(g) - h mean(g h)), dw += sum dy h, db += sum
 * dy; y = h w + b. */
template <typename T> struct LayerNormBackward {
    float *dx, *partial; /* partial [gridDim.x, 2 D]: dw, then db */
    T *y;                /* or NULL */
    const T *dy, *x;
    const float *stats, *w, *b;
    const int32_t *x_rows, *dx_rows;
    int64_t n;
    int D;
};

/* out[D] = the sums of a column over the block's groups of LANES threads, in order. */
template <int VECTORS, int LANES>
__device__ __forceinline__ void layer_norm_leave_sums(float *out, int D, const float (&sum)[VECTORS][4],
                                                      float (*shared)[VECTORS * LANES * 4])
{
    int group = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
        store_f32(&shared[group][(v * LANES + lane) * 4], sum[v]);
    __syncthreads();
    for (int j = threadIdx.x; j < D; j += ROW_ACCESS_THREADS) {
        float total = shared[0][j];
#pragma unroll
        for (int r = 1; r < ROW_ACCESS_THREADS / LANES; r++)
            total += shared[r][j];
        out[j] = total;
    }
}

/* WARPS warps share a row, 8 / WARPS rows a block at a time; a thread keeps its columns' sums of dw and db
 * over all rows of its warps. */
template <typename T, int VECTORS, int WARPS>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS,
                                  VECTORS < 3 ? LAYER_NORM_RESIDENT : LAYER_NORM_RESIDENT - 1)
    layer_norm_backward_kernel(LayerNormBackward<T> b)
{
    const int ROWS = ROW_ACCESS_WARPS / WARPS, LANES = WARPS * WARP;
    __shared__ float row_sums[2][ROW_ACCESS_WARPS][2];
    __shared__ __align__(16) float column_sums[ROWS][VECTORS * LANES * 4];
    int group = threadIdx.x / LANES, lane = threadIdx.x % LANES, warp = threadIdx.x / WARP, turn = 0;
    float dw[VECTORS][4] = {}, db[VECTORS][4] = {};

    for (int64_t base = (int64_t)blockIdx.x * ROWS; base < b.n;
         base += (int64_t)gridDim.x * ROWS, turn ^= 1) {
        bool counts = base + group < b.n; /* the last rows may not fill the block */
        int64_t i = counts ? base + group : b.n - 1;
        const T *row = b.x + row_access_index(b.x_rows, i) * b.D;
        float *d_row = b.dx + row_access_index(b.dx_rows, i) * b.D;
        float mean = __ldg(b.stats + 2 * i), rstd = __ldg(b.stats + 2 * i + 1), sum_g = 0.0f, sum_gh = 0.0f;
        float h[VECTORS][4], g[VECTORS][4], d[VECTORS][4], y[VECTORS][4];
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int j = (v * LANES + lane) * 4;
            if (j < b.D && counts) {
                load_f32(h[v], row + j);
                load_f32(g[v], b.dy + i * b.D + j);
                load_f32(d[v], d_row + j);
            }
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int j = (v * LANES + lane) * 4;
            if (j >= b.D || !counts) break;
            float w[4];
            load_f32(w, b.w + j);
            if (b.y) load_f32(y[v], b.b + j);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                h[v][k] = (h[v][k] - mean) * rstd;
                if (b.y) y[v][k] += h[v][k] * w[k];
                dw[v][k] += g[v][k] * h[v][k];
                db[v][k] += g[v][k];
                g[v][k] *= w[k];
                sum_g += g[v][k];
                sum_gh += g[v][k] * h[v][k];
            }
        }
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int j = (v * LANES + lane) * 4;
            if (b.y && j < b.D && counts) store_f32(b.y + i * b.D + j, y[v]);
        }
        sum_g = warp_sum(sum_g);
        sum_gh = warp_sum(sum_gh);
        if (WARPS > 1) { /* two buffers by turns: one barrier a row */
            if (threadIdx.x % WARP == 0) {
                row_sums[turn][warp][0] = sum_g;
                row_sums[turn][warp][1] = sum_gh;
            }
            __syncthreads();
            sum_g = sum_gh = 0.0f;
#pragma unroll
            for (int k = 0; k < WARPS; k++) {
                sum_g += row_sums[turn][group * WARPS + k][0];
                sum_gh += row_sums[turn][group * WARPS + k][1];
            }
        }
        float mean_g = sum_g / (float)b.D, mean_gh = sum_gh / (float)b.D;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            int j = (v * LANES + lane) * 4;
            if (j >= b.D || !counts) break;
#pragma unroll
            for (int k = 0; k < 4; k++)
                d[v][k] += rstd * (g[v][k] - mean_g - h[v][k] * mean_gh);
            store_f32(d_row + j, d[v]);
        }
    }

    layer_norm_leave_sums<VECTORS, LANES>(b.partial + (int64_t)blockIdx.x * 2 * b.D, b.D, dw, column_sums);
    layer_norm_leave_sums<VECTORS, LANES>(b.partial + (int64_t)blockIdx.x * 2 * b.D + b.D, b.D, db,
                                          column_sums);
}

/* Any width: a row a block at a time, sums of dw and db in the block's own part of the scratch memory. */
template <typename T>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) layer_norm_backward_any_kernel(LayerNormBackward<T> b)
{
    __shared__ float shared[WARP];
    float *dw = b.partial + (int64_t)blockIdx.x * 2 * b.D, *db = dw + b.D;
    for (int j = threadIdx.x; j < b.D; j += blockDim.x)
        dw[j] = db[j] = 0.0f;
    for (int64_t i = blockIdx.x; i < b.n; i += gridDim.x) {
        const T *row = b.x + row_access_index(b.x_rows, i) * b.D;
        const T *dy = b.dy + i * b.D;
        float *d_row = b.dx + row_access_index(b.dx_rows, i) * b.D;
        float mean = b.stats[2 * i], rstd = b.stats[2 * i + 1], sum_g = 0.0f, sum_gh = 0.0f;
        for (int j = threadIdx.x; j < b.D; j += blockDim.x) {
            float h = (to_f32(row[j]) - mean) * rstd, slope = to_f32(dy[j]), g = slope * b.w[j];
            if (b.y) b.y[i * b.D + j] = from_f32<T>(h * b.w[j] + b.b[j]);
            dw[j] += slope * h;
            db[j] += slope;
            sum_g += g;
            sum_gh += g * h;
        }
        float mean_g = block_sum(sum_g, shared) / (float)b.D,
              mean_gh = block_sum(sum_gh, shared) / (float)b.D;
        for (int j = threadIdx.x; j < b.D; j += blockDim.x) {
            float h = (to_f32(row[j]) - mean) * rstd;
            d_row[j] += rstd * (to_f32(dy[j]) * b.w[j] - mean_g - h * mean_gh);
        }
    }
}

/* Rows that a block of the kernel for width D has at once; 0: no such kernel. */
static int layer_norm_block_rows(int64_t D)
{
    return D <= 384 ? 8 : D <= 768 ? 4 : D <= 1536 ? 2 : D <= LAYER_NORM_BACKWARD_MOST ? 1 : 0;
}

template <typename T>
static void layer_norm_backward(const Ops *ops, LayerNormBackward<T> b, float *dw, float *db, bool aligned)
{
    cudaStream_t stream = ops_cuda(ops)->stream;
    int rows = aligned ? layer_norm_block_rows(b.D) : 0;
    bool three = rows > 0 && ceil_div(b.D, 128 * 8 / rows) == 3; /* vectors a thread: more registers */
    int64_t resident = three ? LAYER_NORM_RESIDENT - 1 : LAYER_NORM_RESIDENT;
    int64_t most = resident * ops_cuda(ops)->multiprocessors, blocks = ceil_div(b.n, rows ? rows : 1);
    unsigned grid = (unsigned)(blocks < most ? blocks : most);
    ArenaMark mark = arena_mark(ops->scratch);
    b.partial = (float *)arena_alloc(ops->scratch, (size_t)grid * 2 * (size_t)b.D * sizeof(float));
#define LAYER_NORM_BACKWARD(VECTORS, WARPS) \
    KERNEL_LAUNCH((layer_norm_backward_kernel<T, VECTORS, WARPS>), grid, ROW_ACCESS_THREADS, 0, stream, b)
    if (rows == 0)
        KERNEL_LAUNCH(layer_norm_backward_any_kernel<T>, grid, ROW_ACCESS_THREADS, 0, stream, b);
    else if (b.D <= 128)
        LAYER_NORM_BACKWARD(1, 1);
    else if (b.D <= 384)
        LAYER_NORM_BACKWARD(3, 1);
    else if (b.D <= 512)
        LAYER_NORM_BACKWARD(2, 2);
    else if (b.D <= 768)
        LAYER_NORM_BACKWARD(3, 2);
    else if (b.D <= 1024)
        LAYER_NORM_BACKWARD(2, 4);
    else if (b.D <= 1536)
        LAYER_NORM_BACKWARD(3, 4);
    else if (b.D <= 2048)
        LAYER_NORM_BACKWARD(2, 8);
    else
        LAYER_NORM_BACKWARD(3, 8);
#undef LAYER_NORM_BACKWARD
    column_sums_add(ops, dw, db, b.partial, grid, b.D);
    arena_reset(ops->scratch, mark);
}

extern "C" void cuda_layer_norm_backward(const Ops *ops, Tensor dx, Tensor dw, Tensor db, Tensor y, Tensor dy,
                                         Tensor x, Tensor rows, Tensor stats, Tensor w, Tensor b)
{
    CHECK(dy.ndim == 2 && row_access_is_act(dy) && x.ndim == 2 && x.shape[1] == dy.shape[1]);
    int64_t n = dy.shape[0], D = dy.shape[1];
    CHECK(dx.ndim == 2 && dx.shape[1] == D && tensor_count(stats) == 2 * n);
    CHECK((x.shape[0] == dx.shape[0] || x.shape[0] == n) && x.dtype == dy.dtype);
    CHECK(!tensor_given(y) || (tensor_count(y) == n * D && y.dtype == dy.dtype && tensor_count(b) == D));
    CHECK(tensor_count(w) == D && tensor_count(dw) == D && tensor_count(db) == D && D <= INT32_MAX);
    const int32_t *selected = row_access_rows(rows, n, dx.shape[0]);
    if (n == 0) return;
    bool aligned = row_access_aligned(dx, D, 4) && row_access_aligned(dy, D, 4) &&
                   row_access_aligned(x, D, 4) && row_access_aligned(y, D, 4) &&
                   row_access_aligned(w, D, 4) && row_access_aligned(b, D, 4);
    DISPATCH_ACT(dy.dtype, T, {
        LayerNormBackward<T> back = {};
        back.dx = tensor_f32(dx);
        back.y = (T *)y.data; /* NULL where none is given */
        back.dy = (const T *)dy.data;
        back.x = (const T *)x.data;
        back.stats = tensor_f32(stats);
        back.w = tensor_f32(w);
        back.b = row_access_f32(b);
        back.x_rows = x.shape[0] == dx.shape[0] ? selected : NULL; /* [n, D]: gathered before (`kept`) */
        back.dx_rows = selected;
        back.n = n;
        back.D = (int)D;
        layer_norm_backward<T>(ops, back, tensor_f32(dw), tensor_f32(db), aligned);
    });
}

/* cuda_pictures.cu - the twin of ops/cpu/pictures.c: convolution, largest of a window, generalised mean.
 *
 * A convolution is a product of the matrix of its windows, [pixels of y, kernel * kernel * C], with the
 * weights; the matrix is made for so many pixels at a time that it stays in the level-2 cache, by threads
 * that write 16 bytes each in order. Of a 1x1 convolution without a stride (two thirds of ResNet-50's) the
 * picture itself is that matrix. The bias goes with the product; relu, and a bias where the product is added
 * to what is there, cost one more pass over y. Pooling reads its input once from memory: windows overlap
 * within the first-level cache.
 */
#include "ops/cuda/cuda_budget.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/cuda/row_access.cuh"

extern "C" {
#include "ops/ops_backend.h"
}

enum {
    GEM_LANES = 32, /* threads of a block along channels */
    GEM_ROWS = 8,   /* and along pixels */
};

/* Rows of the matrix of windows that are made at a time. */
static int64_t block_rows(int64_t columns)
{
    int64_t rows = CUDA_BUDGET_WINDOWS / (columns * (int64_t)sizeof(float));
    return rows < 1 ? 1 : rows;
}

extern "C" size_t cuda_pictures_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    int64_t columns = limits->conv_columns;
    if (columns == 0) return 0;
    /* as much as any convolution of fewer columns takes */
    int64_t budget = CUDA_BUDGET_WINDOWS / (int64_t)sizeof(float);
    return ops_cuda_piece(budget > columns ? budget : columns, sizeof(float));
}

/* --- convolution --------------------------------------------------------------------------------------- */

typedef struct {
    int h, w, channels; /* of a picture of x */
    int out_h, out_w;   /* of y */
    int kernel, stride, padding;
} WindowShape;

/* windows[rows, kernel * kernel * C]: those of the pixels [first, first + rows) of y, V channels a thread. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    gather_windows(T *windows, const T *x, WindowShape s, int64_t first, int64_t rows)
{
    int pieces = s.channels / V, columns = s.kernel * s.kernel * pieces;
    int64_t work = rows * columns, step = (int64_t)gridDim.x * ROW_ACCESS_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x; i < work; i += step) {
        int64_t pixel = first + i / columns;
        int column = (int)(i % columns), tap = column / pieces, piece = column % pieces;
        int out_x = (int)(pixel % s.out_w), out_y = (int)(pixel / s.out_w % s.out_h);
        int64_t picture = pixel / s.out_w / s.out_h;
        int in_y = out_y * s.stride - s.padding + tap / s.kernel;
        int in_x = out_x * s.stride - s.padding + tap % s.kernel;
        float value[V];
#pragma unroll
        for (int v = 0; v < V; v++)
            value[v] = 0.0f;
        if (in_y >= 0 && in_y < s.h && in_x >= 0 && in_x < s.w)
            load_f32(value, x + ((picture * s.h + in_y) * s.w + in_x) * s.channels + piece * V);
        store_f32(windows + i * V, value);
    }
}

/* y[count, columns] = y + b (or none), then at least 0 where relu. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    finish_convolution(T *y, const float *b, int64_t count, int columns, bool relu)
{
    int pieces = columns / V;
    int64_t work = count * pieces, step = (int64_t)gridDim.x * ROW_ACCESS_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x; i < work; i += step) {
        int column = (int)(i % pieces) * V;
        float value[V];
        load_f32(value, y + i * V);
#pragma unroll
        for (int v = 0; v < V; v++) {
            if (b) value[v] += __ldg(b + column + v);
            if (relu && value[v] < 0.0f) value[v] = 0.0f; /* a NaN stays */
        }
        store_f32(y + i * V, value);
    }
}

static WindowShape shape_of(Tensor x, Tensor y, int64_t kernel, int64_t stride, int64_t padding)
{
    WindowShape s;
    s.h = (int)x.shape[1];
    s.w = (int)x.shape[2];
    s.channels = (int)x.shape[3];
    s.out_h = (int)y.shape[1];
    s.out_w = (int)y.shape[2];
    s.kernel = (int)kernel;
    s.stride = (int)stride;
    s.padding = (int)padding;
    return s;
}

template <typename T>
static void gather(const Ops *ops, const Conv2d *conv, T *windows, int64_t first, int64_t rows)
{
    const int V = VectorWidth<T>::value;
    WindowShape s = shape_of(conv->x, conv->y, conv->kernel, conv->stride, conv->padding);
    cudaStream_t stream = ops_cuda(ops)->stream;
    const T *x = (const T *)conv->x.data;
    int64_t elements = rows * conv->w.shape[1];
    if (row_access_aligned(conv->x, s.channels, V))
        KERNEL_LAUNCH((gather_windows<T, V>), row_access_flat_grid(elements / V), ROW_ACCESS_THREADS, 0,
                      stream, windows, x, s, first, rows);
    else
        KERNEL_LAUNCH((gather_windows<T, 1>), row_access_flat_grid(elements), ROW_ACCESS_THREADS, 0, stream,
                      windows, x, s, first, rows);
}

/* Rows [first, first + rows) of y as a matrix from the rows of `windows`. */
static void multiply(const Ops *ops, const Conv2d *conv, const void *windows, int64_t first, int64_t rows)
{
    int64_t outputs = conv->w.shape[0];
    CudaGemmProduct product = {};
    product.m = rows;
    product.n = outputs;
    product.k = conv->w.shape[1];
    product.dtype = product.c_dtype = conv->x.dtype;
    product.a = windows;
    product.b = conv->w.data;
    product.b_transposed = true;
    product.accumulate = conv->accumulate;
    product.bias = conv->accumulate ? NULL : tensor_f32(conv->b);
    product.c = (char *)conv->y.data + (size_t)(first * outputs) * dtype_size(conv->y.dtype);
    cuda_gemm_run(ops_cuda(ops)->gemm, &product);
}

template <typename T> static void convolve(const Ops *ops, const Conv2d *conv)
{
    int64_t outputs = conv->w.shape[0], pixels = tensor_count(conv->y) / outputs;
    if (conv->kernel == 1 && conv->stride == 1 && conv->padding == 0) {
        multiply(ops, conv, conv->x.data, 0, pixels);
    } else {
        ArenaMark mark = arena_mark(ops->scratch);
        int64_t block = block_rows(conv->w.shape[1]);
        if (block > pixels) block = pixels;
        T *windows = (T *)arena_alloc(ops->scratch, (size_t)(block * conv->w.shape[1]) * sizeof(T));
        for (int64_t first = 0; first < pixels; first += block) {
            int64_t rows = pixels - first < block ? pixels - first : block;
            gather<T>(ops, conv, windows, first, rows);
            multiply(ops, conv, windows, first, rows);
        }
        arena_reset(ops->scratch, mark);
    }
    if (!conv->accumulate && !conv->relu) return;
    const int V = VectorWidth<T>::value;
    const float *b = conv->accumulate ? tensor_f32(conv->b) : NULL;
    cudaStream_t stream = ops_cuda(ops)->stream;
    T *y = (T *)conv->y.data;
    if (row_access_aligned(conv->y, outputs, V))
        KERNEL_LAUNCH((finish_convolution<T, V>), row_access_flat_grid(pixels * outputs / V),
                      ROW_ACCESS_THREADS, 0, stream, y, b, pixels, (int)outputs, conv->relu);
    else
        KERNEL_LAUNCH((finish_convolution<T, 1>), row_access_flat_grid(pixels * outputs), ROW_ACCESS_THREADS,
                      0, stream, y, b, pixels, (int)outputs, conv->relu);
}

extern "C" void cuda_conv2d_forward(const Ops *ops, const Conv2d *conv)
{
    ops_check_conv2d(conv);
    CHECK(conv->w.shape[1] <= ops_cuda(ops)->limits.conv_columns);
    if (tensor_count(conv->y) > 0) DISPATCH_ACT(conv->x.dtype, T, convolve<T>(ops, conv));
}

/* --- pooling ------------------------------------------------------------------------------------------- */

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    max_pool_kernel(T *y, const T *x, WindowShape s, int64_t pixels)
{
    int pieces = s.channels / V;
    int64_t work = pixels * pieces, step = (int64_t)gridDim.x * ROW_ACCESS_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * ROW_ACCESS_THREADS + threadIdx.x; i < work; i += step) {
        int64_t pixel = i / pieces, picture = pixel / s.out_w / s.out_h;
        int piece = (int)(i % pieces);
        int top = (int)(pixel / s.out_w % s.out_h) * s.stride - s.padding;
        int left = (int)(pixel % s.out_w) * s.stride - s.padding;
        float best[V];
#pragma unroll
        for (int v = 0; v < V; v++)
            best[v] = -INFINITY;
        for (int in_y = top < 0 ? 0 : top; in_y < top + s.kernel && in_y < s.h; in_y++)
            for (int in_x = left < 0 ? 0 : left; in_x < left + s.kernel && in_x < s.w; in_x++) {
                float value[V];
                load_f32(value, x + ((picture * s.h + in_y) * s.w + in_x) * s.channels + piece * V);
#pragma unroll
                for (int v = 0; v < V; v++)
                    if (value[v] > best[v] || value[v] != value[v]) best[v] = value[v];
            }
        store_f32(y + i * V, best);
    }
}

template <typename T> static void max_pool(const Ops *ops, Tensor y, Tensor x, WindowShape s)
{
    const int V = VectorWidth<T>::value;
    int64_t pixels = y.shape[0] * y.shape[1] * y.shape[2];
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (row_access_aligned(x, s.channels, V) && row_access_aligned(y, s.channels, V))
        KERNEL_LAUNCH((max_pool_kernel<T, V>), row_access_flat_grid(pixels * s.channels / V),
                      ROW_ACCESS_THREADS, 0, stream, (T *)y.data, (const T *)x.data, s, pixels);
    else
        KERNEL_LAUNCH((max_pool_kernel<T, 1>), row_access_flat_grid(pixels * s.channels), ROW_ACCESS_THREADS,
                      0, stream, (T *)y.data, (const T *)x.data, s, pixels);
}

extern "C" void cuda_max_pool_forward(const Ops *ops, Tensor y, Tensor x, int64_t kernel, int64_t stride,
                                      int64_t padding)
{
    ops_check_max_pool(y, x, kernel, stride, padding);
    if (tensor_count(y) == 0) return;
    WindowShape s = shape_of(x, y, kernel, stride, padding);
    DISPATCH_ACT(x.dtype, T, max_pool<T>(ops, y, x, s));
}

/* y[n, channels]: a block has GEM_LANES channels of one picture, each column of threads one channel. */
template <typename T>
__global__ void __launch_bounds__(GEM_LANES *GEM_ROWS)
    gem_pool_kernel(float *y, const T *x, int pixels, int channels, double p, double least)
{
    __shared__ double shared[GEM_ROWS][GEM_LANES];
    int channel = blockIdx.x * GEM_LANES + threadIdx.x;
    x += (int64_t)blockIdx.y * pixels * channels;
    double sum = 0.0;
    if (channel < channels)
        for (int i = threadIdx.y; i < pixels; i += GEM_ROWS) {
            double value = (double)to_f32(x[(int64_t)i * channels + channel]);
            if (value < least) value = least;
            sum += p == 3.0 ? value * value * value : pow(value, p);
        }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || channel >= channels) return;
    double total = 0.0;
    for (int i = 0; i < GEM_ROWS; i++)
        total += shared[i][threadIdx.x];
    y[(int64_t)blockIdx.y * channels + channel] = (float)pow(total / pixels, 1.0 / p);
}

extern "C" void cuda_gem_pool_forward(const Ops *ops, Tensor y, Tensor x, double p, double least)
{
    CHECK(x.ndim == 4 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[3]);
    CHECK(row_access_is_act(x) && p >= 1.0 && least > 0.0 && x.shape[0] < 65536);
    int64_t pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
    CHECK(pixels > 0);
    dim3 grid((unsigned)ceil_div(channels, GEM_LANES), (unsigned)x.shape[0]);
    DISPATCH_ACT(x.dtype, T,
                 KERNEL_LAUNCH(gem_pool_kernel<T>, grid, dim3(GEM_LANES, GEM_ROWS), 0, ops_cuda(ops)->stream,
                               tensor_f32(y), (const T *)x.data, (int)pixels, (int)channels, p, least));
}

/* pictures.c - operations on pictures [n, h, w, C]: convolution, largest of a window, generalised mean.
 *
 * Channels lie together, so that every inner loop runs over them and a 1x1 convolution is a plain product.
 * Source: torchvision's ResNet and SSCD's pooling (sscd/models/gem_pooling.py). Forward only: the network
 * that uses them is not trained here.
 */
#include "ops/cpu/convolution.h"
#include "ops/cpu/row_access.h"
#include "ops/ops_backend.h"

#include <math.h>

void cpu_conv2d_forward(const Ops *ops, const Conv2d *conv)
{
    ops_check_conv2d(conv);
    CHECK(conv->x.dtype == DTYPE_F32 || (conv->x.dtype == DTYPE_BF16 && ops->has_bf16));
    if (tensor_count(conv->y) > 0) convolution_run(((const OpsCpu *)(const void *)ops)->convolutions, conv);
    ops_cpu_progress(ops);
}

/* The part of a window that lies inside a picture's edge. */
typedef struct {
    int64_t first, last;
} Window;

static Window window_at(int64_t output, int64_t kernel, int64_t stride, int64_t padding, int64_t edge)
{
    int64_t first = output * stride - padding, last = first + kernel;
    return (Window){first < 0 ? 0 : first, last > edge ? edge : last};
}

/* best[j] = max(best[j], values[j]); a NaN stays. */
static void keep_larger(float *restrict best, const float *restrict values, int64_t n)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        best[j] = values[j] > best[j] || values[j] != values[j] ? values[j] : best[j];
}

/* Channels [first, first + count) of one output. */
static void pool_window(Tensor y, int64_t to, Tensor x, int64_t picture, Window down, Window across,
                        int64_t first, int64_t count)
{
    float largest[ROW_ACCESS_CHUNK], buffer[ROW_ACCESS_CHUNK];
    for (int64_t j = 0; j < count; j++)
        largest[j] = -INFINITY;
    for (int64_t i = down.first; i < down.last; i++)
        for (int64_t j = across.first; j < across.last; j++) {
            int64_t from = ((picture * x.shape[1] + i) * x.shape[2] + j) * x.shape[3] + first;
            keep_larger(largest, row_access_read(x, from, count, buffer), count);
        }
    if (y.dtype == DTYPE_F32)
        memcpy((float *)y.data + to + first, largest, (size_t)count * sizeof *largest);
    else
        row_access_commit(y, to + first, count, largest);
}

void cpu_max_pool_forward(const Ops *ops, Tensor y, Tensor x, int64_t kernel, int64_t stride, int64_t padding)
{
    ops_check_max_pool(y, x, kernel, stride, padding);
    CHECK(row_access_is_act(x));
    int64_t rows = y.shape[0] * y.shape[1], columns = y.shape[2], channels = y.shape[3];
    int threads = ops_cpu_threads(ops, tensor_count(x), rows);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        Window down = window_at(row % y.shape[1], kernel, stride, padding, x.shape[1]);
        for (int64_t column = 0; column < columns; column++) {
            Window across = window_at(column, kernel, stride, padding, x.shape[2]);
            int64_t to = (row * columns + column) * channels;
            for (int64_t c = 0; c < channels; c += ROW_ACCESS_CHUNK)
                pool_window(y, to, x, row / y.shape[1], down, across, c,
                            channels - c < ROW_ACCESS_CHUNK ? channels - c : ROW_ACCESS_CHUNK);
        }
    }
}

/* sum[j] += max(values[j], least)^p. */
static void add_powers(double *restrict sum, const float *restrict values, int64_t n, double p, double least)
{
    if (p == 3.0) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            double v = (double)values[j] < least ? least : (double)values[j];
            sum[j] += v * v * v;
        }
        return;
    }
    for (int64_t j = 0; j < n; j++)
        sum[j] += pow((double)values[j] < least ? least : (double)values[j], p);
}

void cpu_gem_pool_forward(const Ops *ops, Tensor y, Tensor x, double p, double least)
{
    CHECK(x.ndim == 4 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[3]);
    CHECK(row_access_is_act(x) && p >= 1.0 && least > 0.0);
    int64_t n = x.shape[0], pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
    CHECK(pixels > 0);
    float *out = tensor_f32(y);
    int threads = ops_cpu_threads(ops, tensor_count(x), n);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < channels; c += ROW_ACCESS_CHUNK) {
            int64_t count = channels - c < ROW_ACCESS_CHUNK ? channels - c : ROW_ACCESS_CHUNK;
            double sum[ROW_ACCESS_CHUNK] = {0};
            float buffer[ROW_ACCESS_CHUNK];
            for (int64_t pixel = 0; pixel < pixels; pixel++)
                add_powers(sum, row_access_read(x, (i * pixels + pixel) * channels + c, count, buffer), count,
                           p, least);
            for (int64_t j = 0; j < count; j++)
                out[i * channels + c + j] = (float)pow(sum[j] / (double)pixels, 1.0 / p);
        }
}

/* cuda_gelu.cu - the twin of ops/cpu/gelu.c: the Gaussian error linear unit, exact (erf) form.
 *
 * Floor: 2 elements moved each by the forward pass, 4 by the backward pass. At 3 TB/s an H100 moves bf16 for
 * 750 (375) elements a nanosecond and issues some 39 (78) instructions of a lane for each; the rational erf
 * below takes about 30 (40) with the conversions. So memory stays the limit, if not by much.
 */
#include "ops/cuda/row_access.cuh"

enum { GELU_LOADS = 2 }; /* vectors of a thread under way at once, of each operand */

/* The standard normal distribution's integral: the same fit of erf, x P(x^2) / Q(x^2), as the CPU's
 * (vector_math.h). */
__device__ __forceinline__ float gelu_normal_cdf(float x)
{
    float z = fminf(fmaxf(x * 0.707106781f, -3.9194f), 3.9194f);
    float u = z * z;
    float p = fmaf(2.05057267e-6f, u, 2.84888578e-4f);
    p = fmaf(p, u, 3.76482145e-3f);
    p = fmaf(p, u, 5.27463704e-2f);
    p = fmaf(p, u, 0.190384805f);
    p = fmaf(p, u, 1.12837911f);
    float q = fmaf(3.80970305e-5f, u, 1.16238627e-3f);
    q = fmaf(q, u, 1.49676116e-2f);
    q = fmaf(q, u, 0.11410062f);
    q = fmaf(q, u, 0.502056897f);
    q = fmaf(q, u, 1.0f);
    return fmaf(0.5f, __fdividef(z * p, q), 0.5f); /* a NaN is lost here; what this is multiplied by has it */
}

__device__ __forceinline__ float gelu_value(float x)
{
    return x * gelu_normal_cdf(x);
}

/* x becomes the value at x, slope is multiplied by the function's there. */
__device__ __forceinline__ void gelu_value_and_slope(float &x, float &slope)
{
    float cdf = gelu_normal_cdf(x);
    slope *= fmaf(x, 0.398942280f * __expf(-0.5f * x * x), cdf);
    x *= cdf;
}

/* y may be x: every thread reads what it writes before it writes. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS) gelu_forward_kernel(T *y, const T *x, int64_t count)
{
    int64_t vectors = count / V, step = (int64_t)gridDim.x * blockDim.x;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (int64_t v = thread; v < vectors; v += GELU_LOADS * step) {
        float value[GELU_LOADS][V];
#pragma unroll
        for (int u = 0; u < GELU_LOADS; u++)
            if (v + u * step < vectors) load_f32(value[u], x + (v + u * step) * V);
#pragma unroll
        for (int u = 0; u < GELU_LOADS; u++) {
            if (v + u * step >= vectors) break;
#pragma unroll
            for (int k = 0; k < V; k++)
                value[u][k] = gelu_value(value[u][k]);
            store_f32(y + (v + u * step) * V, value[u]);
        }
    }
    for (int64_t i = vectors * V + thread; i < count; i += step)
        y[i] = from_f32<T>(gelu_value(to_f32(x[i])));
}

/* dx or y may be dy. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    gelu_backward_kernel(T *dx, T *y, const T *dy, const T *x, int64_t count)
{
    int64_t vectors = count / V, step = (int64_t)gridDim.x * blockDim.x;
    int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (int64_t v = thread; v < vectors; v += GELU_LOADS * step) {
        float value[GELU_LOADS][V], slope[GELU_LOADS][V];
#pragma unroll
        for (int u = 0; u < GELU_LOADS; u++)
            if (v + u * step < vectors) {
                load_f32(value[u], x + (v + u * step) * V);
                load_f32(slope[u], dy + (v + u * step) * V);
            }
#pragma unroll
        for (int u = 0; u < GELU_LOADS; u++) {
            if (v + u * step >= vectors) break;
#pragma unroll
            for (int k = 0; k < V; k++)
                gelu_value_and_slope(value[u][k], slope[u][k]);
            store_f32(dx + (v + u * step) * V, slope[u]);
            store_f32(y + (v + u * step) * V, value[u]);
        }
    }
    for (int64_t i = vectors * V + thread; i < count; i += step) {
        float value = to_f32(x[i]), slope = to_f32(dy[i]);
        gelu_value_and_slope(value, slope);
        dx[i] = from_f32<T>(slope);
        y[i] = from_f32<T>(value);
    }
}

/* Forward where dx and dy are not given. */
template <typename T, int V> static void gelu_launch(const Ops *ops, Tensor dx, Tensor y, Tensor dy, Tensor x)
{
    int64_t count = tensor_count(x);
    unsigned grid = row_access_flat_grid(ceil_div(count, V * GELU_LOADS));
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (tensor_given(dx))
        KERNEL_LAUNCH((gelu_backward_kernel<T, V>), grid, ROW_ACCESS_THREADS, 0, stream, (T *)dx.data,
                      (T *)y.data, (const T *)dy.data, (const T *)x.data, count);
    else
        KERNEL_LAUNCH((gelu_forward_kernel<T, V>), grid, ROW_ACCESS_THREADS, 0, stream, (T *)y.data,
                      (const T *)x.data, count);
}

template <typename T> static void gelu_run(const Ops *ops, Tensor dx, Tensor y, Tensor dy, Tensor x)
{
    const int V = VectorWidth<T>::value;
    if (row_access_aligned(dx, V, V) && row_access_aligned(y, V, V) && row_access_aligned(dy, V, V) &&
        row_access_aligned(x, V, V))
        gelu_launch<T, V>(ops, dx, y, dy, x);
    else
        gelu_launch<T, 1>(ops, dx, y, dy, x);
}

extern "C" void cuda_gelu_forward(const Ops *ops, Tensor y, Tensor x)
{
    CHECK(tensor_count(y) == tensor_count(x) && y.dtype == x.dtype && row_access_is_act(x));
    if (tensor_count(x) > 0) DISPATCH_ACT(x.dtype, T, gelu_run<T>(ops, tensor_none(), y, tensor_none(), x));
}

extern "C" void cuda_gelu_backward(const Ops *ops, Tensor dx, Tensor y, Tensor dy, Tensor x)
{
    int64_t count = tensor_count(x);
    CHECK(tensor_count(dx) == count && tensor_count(y) == count && tensor_count(dy) == count);
    CHECK(row_access_is_act(x) && dx.dtype == x.dtype && y.dtype == x.dtype && dy.dtype == x.dtype);
    if (count > 0) DISPATCH_ACT(x.dtype, T, gelu_run<T>(ops, dx, y, dy, x));
}

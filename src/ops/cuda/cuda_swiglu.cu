/* cuda_swiglu.cu - the twin of ops/cpu/swiglu.c: silu(x1) * x2.
 *
 * Floor: 3 elements moved each by the forward pass, 6 by the backward pass. A warp has a row, so that no
 * index needs a division; the logistic costs about 15 instructions beside 59 (117) that fit into the time of
 * moving bf16.
 */
#include "ops/cuda/row_access.cuh"

enum { SWIGLU_LOADS = 2 }; /* vectors of a thread under way at once, of each operand */

/* x, logistic(x) to 2 units in the last place: 0 where e^-x overflows. */
__device__ __forceinline__ float swiglu_logistic(float x)
{
    return __fdividef(1.0f, 1.0f + expf(-x));
}

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    swiglu_forward_kernel(T *y, const T *x12, int64_t n, int h)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    if (row >= n) return;
    const T *gate = x12 + row * 2 * h, *value = gate + h;
    y += row * h;
    for (int at = (int)(threadIdx.x % WARP) * V; at < h; at += SWIGLU_LOADS * WARP * V) {
        float g[SWIGLU_LOADS][V], v[SWIGLU_LOADS][V];
#pragma unroll
        for (int u = 0; u < SWIGLU_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= h) break;
            load_f32(g[u], gate + j);
            load_f32(v[u], value + j);
        }
#pragma unroll
        for (int u = 0; u < SWIGLU_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= h) break;
#pragma unroll
            for (int k = 0; k < V; k++)
                v[u][k] *= g[u][k] * swiglu_logistic(g[u][k]);
            store_f32(y + j, v[u]);
        }
    }
}

/* y may be dy. */
template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    swiglu_backward_kernel(T *dx12, T *y, const T *dy, const T *x12, int64_t n, int h)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    if (row >= n) return;
    const T *gate = x12 + row * 2 * h, *value = gate + h;
    T *d_gate = dx12 + row * 2 * h, *d_value = d_gate + h;
    dy += row * h;
    y += row * h;
    for (int at = (int)(threadIdx.x % WARP) * V; at < h; at += SWIGLU_LOADS * WARP * V) {
        float g[SWIGLU_LOADS][V], v[SWIGLU_LOADS][V], slope[SWIGLU_LOADS][V];
#pragma unroll
        for (int u = 0; u < SWIGLU_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= h) break;
            load_f32(g[u], gate + j);
            load_f32(v[u], value + j);
            load_f32(slope[u], dy + j);
        }
#pragma unroll
        for (int u = 0; u < SWIGLU_LOADS; u++) {
            int j = at + u * WARP * V;
            if (j >= h) break;
#pragma unroll
            for (int k = 0; k < V; k++) {
                float s = swiglu_logistic(g[u][k]), silu = g[u][k] * s;
                float d_silu = slope[u][k] * v[u][k];
                g[u][k] = d_silu * (s + silu * (1.0f - s));
                v[u][k] *= silu;
                slope[u][k] *= silu;
            }
            store_f32(d_gate + j, g[u]);
            store_f32(d_value + j, slope[u]);
            store_f32(y + j, v[u]);
        }
    }
}

/* Forward where dx12 and dy are not given. */
template <typename T, int V>
static void swiglu_launch(const Ops *ops, Tensor dx12, Tensor y, Tensor dy, Tensor x12)
{
    int64_t n = x12.shape[0];
    int h = (int)(x12.shape[1] / 2);
    cudaStream_t stream = ops_cuda(ops)->stream;
    if (tensor_given(dx12))
        KERNEL_LAUNCH((swiglu_backward_kernel<T, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      (T *)dx12.data, (T *)y.data, (const T *)dy.data, (const T *)x12.data, n, h);
    else
        KERNEL_LAUNCH((swiglu_forward_kernel<T, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0, stream,
                      (T *)y.data, (const T *)x12.data, n, h);
}

template <typename T> static void swiglu_run(const Ops *ops, Tensor dx12, Tensor y, Tensor dy, Tensor x12)
{
    const int V = VectorWidth<T>::value;
    int64_t h = x12.shape[1] / 2;
    if (row_access_aligned(dx12, h, V) && row_access_aligned(y, h, V) && row_access_aligned(dy, h, V) &&
        row_access_aligned(x12, h, V))
        swiglu_launch<T, V>(ops, dx12, y, dy, x12);
    else
        swiglu_launch<T, 1>(ops, dx12, y, dy, x12);
}

static void swiglu_check(Tensor y, Tensor x12)
{
    CHECK(y.ndim == 2 && x12.ndim == 2 && y.shape[0] == x12.shape[0] && 2 * y.shape[1] == x12.shape[1]);
    CHECK(row_access_is_act(y) && y.dtype == x12.dtype && x12.shape[1] <= INT32_MAX);
}

extern "C" void cuda_swiglu_forward(const Ops *ops, Tensor y, Tensor x12)
{
    swiglu_check(y, x12);
    if (tensor_count(y) > 0)
        DISPATCH_ACT(y.dtype, T, swiglu_run<T>(ops, tensor_none(), y, tensor_none(), x12));
}

extern "C" void cuda_swiglu_backward(const Ops *ops, Tensor dx12, Tensor y, Tensor dy, Tensor x12)
{
    swiglu_check(y, x12);
    swiglu_check(dy, x12);
    swiglu_check(dy, dx12);
    if (tensor_count(dy) > 0) DISPATCH_ACT(dy.dtype, T, swiglu_run<T>(ops, dx12, y, dy, x12));
}

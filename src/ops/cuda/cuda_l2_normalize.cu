/* cuda_l2_normalize.cu - the twin of ops/cpu/l2_normalize.c: rows scaled to unit length, squares added in
 * fp64.
 *
 * Floor: forward 4 bytes written and 2 or 4 read an element, backward 8 read and 2 or 4 written. A warp has a
 * row and reads it twice, the second time out of the first-level cache (a row is 1 to 8 KiB). Three
 * conversions to or from fp64 an element, of which an H100 does 16 a clock and multiprocessor: a third of the
 * time of moving the bytes.
 */
#include "ops/cuda/row_access.cuh"

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    l2_normalize_forward_kernel(float *y, float *norms, const T *x, int64_t n, int d, float eps)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= n) return;
    x += row * d;
    y += row * d;
    double sum = 0.0;
#pragma unroll 4
    for (int j = lane * V; j < d; j += WARP * V) {
        float value[V];
        load_f32(value, x + j);
#pragma unroll
        for (int k = 0; k < V; k++)
            sum += (double)value[k] * (double)value[k];
    }
    double norm = sqrt(warp_sum(sum));
    double inverse = 1.0 / (norm < (double)eps ? (double)eps : norm);
#pragma unroll 4
    for (int j = lane * V; j < d; j += WARP * V) {
        float value[V];
        load_f32(value, x + j);
#pragma unroll
        for (int k = 0; k < V; k++)
            value[k] = (float)((double)value[k] * inverse);
        store_f32(y + j, value);
    }
    if (lane == 0) norms[row] = (float)norm;
}

template <typename T, int V>
__global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    l2_normalize_backward_kernel(T *dx, const float *dy, const float *y, const float *norms, int64_t n, int d,
                                 float eps)
{
    int64_t row = (int64_t)blockIdx.x * ROW_ACCESS_WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= n) return;
    dx += row * d;
    dy += row * d;
    y += row * d;
    float length = norms[row];
    double along = 0.0, inverse = 1.0 / (double)(length < eps ? eps : length);
#pragma unroll 4
    for (int j = lane * V; j < d; j += WARP * V) {
        float unit[V], slope[V];
        load_f32(unit, y + j);
        load_f32(slope, dy + j);
#pragma unroll
        for (int k = 0; k < V; k++)
            along += (double)unit[k] * (double)slope[k];
    }
    along = warp_sum(along);
    if (!(length > eps)) along = 0.0; /* the divisor is the constant eps */
#pragma unroll 4
    for (int j = lane * V; j < d; j += WARP * V) {
        float unit[V], slope[V];
        load_f32(unit, y + j);
        load_f32(slope, dy + j);
#pragma unroll
        for (int k = 0; k < V; k++)
            slope[k] = (float)(((double)slope[k] - (double)unit[k] * along) * inverse);
        store_f32(dx + j, slope);
    }
}

template <typename T, int V>
static void l2_normalize_forward(const Ops *ops, Tensor y, Tensor norms, Tensor x, float eps)
{
    int64_t n = x.shape[0];
    KERNEL_LAUNCH((l2_normalize_forward_kernel<T, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f32(y), tensor_f32(norms), (const T *)x.data, n,
                  (int)x.shape[1], eps);
}

template <typename T, int V>
static void l2_normalize_backward(const Ops *ops, Tensor dx, Tensor dy, Tensor y, Tensor norms, float eps)
{
    int64_t n = dx.shape[0];
    KERNEL_LAUNCH((l2_normalize_backward_kernel<T, V>), row_access_grid(n), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, (T *)dx.data, tensor_f32(dy), tensor_f32(y), tensor_f32(norms), n,
                  (int)dx.shape[1], eps);
}

extern "C" void cuda_l2_normalize_forward(const Ops *ops, Tensor y, Tensor norms, Tensor x, float eps)
{
    CHECK(x.ndim == 2 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[1]);
    CHECK(norms.shape[0] == x.shape[0] && row_access_is_act(x));
    if (x.shape[0] == 0) return;
    if (row_access_aligned(x, x.shape[1], 4) && row_access_aligned(y, x.shape[1], 4))
        DISPATCH_ACT(x.dtype, T, (l2_normalize_forward<T, 4>(ops, y, norms, x, eps)));
    else
        DISPATCH_ACT(x.dtype, T, (l2_normalize_forward<T, 1>(ops, y, norms, x, eps)));
}

extern "C" void cuda_l2_normalize_backward(const Ops *ops, Tensor dx, Tensor dy, Tensor y, Tensor norms,
                                           float eps)
{
    CHECK(dx.ndim == 2 && dy.ndim == 2 && dy.shape[0] == dx.shape[0] && dy.shape[1] == dx.shape[1]);
    CHECK(tensor_count(y) == tensor_count(dx) && norms.shape[0] == dx.shape[0]);
    CHECK(row_access_is_act(dx));
    int64_t d = dx.shape[1];
    if (dx.shape[0] == 0) return;
    if (row_access_aligned(dx, d, 4) && row_access_aligned(dy, d, 4) && row_access_aligned(y, d, 4))
        DISPATCH_ACT(dx.dtype, T, (l2_normalize_backward<T, 4>(ops, dx, dy, y, norms, eps)));
    else
        DISPATCH_ACT(dx.dtype, T, (l2_normalize_backward<T, 1>(ops, dx, dy, y, norms, eps)));
}

/* gelu.c - the Gaussian error linear unit, exact (erf) form: Hendrycks and Gimpel, arXiv:1606.08415. */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"
#include "ops/cpu/vector_math.h"

void cpu_gelu_forward(const Ops *ops, Tensor y, Tensor x)
{
    int64_t count = tensor_count(x), chunks = (count + ROW_ACCESS_CHUNK - 1) / ROW_ACCESS_CHUNK;
    CHECK(tensor_count(y) == count && y.dtype == x.dtype && row_access_is_act(x));
    int threads = ops_cpu_threads(ops, count, chunks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        float x_buffer[ROW_ACCESS_CHUNK], y_buffer[ROW_ACCESS_CHUNK];
        int64_t first = chunk * ROW_ACCESS_CHUNK;
        int64_t n = count - first < ROW_ACCESS_CHUNK ? count - first : ROW_ACCESS_CHUNK;
        const float *in = row_access_read(x, first, n, x_buffer);
        float *out = row_access_target(y, first, y_buffer);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[i] = in[i] * vector_normal_cdf(in[i]);
        row_access_commit(y, first, n, out);
    }
}

void cpu_gelu_backward(const Ops *ops, Tensor dx, Tensor y, Tensor dy, Tensor x)
{
    int64_t count = tensor_count(x), chunks = (count + ROW_ACCESS_CHUNK - 1) / ROW_ACCESS_CHUNK;
    CHECK(tensor_count(dx) == count && tensor_count(y) == count && tensor_count(dy) == count);
    CHECK(row_access_is_act(x) && dx.dtype == x.dtype && y.dtype == x.dtype && dy.dtype == x.dtype);
    int threads = ops_cpu_threads(ops, count, chunks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        float x_buffer[ROW_ACCESS_CHUNK], dy_buffer[ROW_ACCESS_CHUNK];
        float y_buffer[ROW_ACCESS_CHUNK], dx_buffer[ROW_ACCESS_CHUNK];
        int64_t first = chunk * ROW_ACCESS_CHUNK;
        int64_t n = count - first < ROW_ACCESS_CHUNK ? count - first : ROW_ACCESS_CHUNK;
        const float *in = row_access_read(x, first, n, x_buffer);
        const float *d_out = row_access_read(dy, first, n, dy_buffer);
        float *d_in = row_access_target(dx, first, dx_buffer), *out = row_access_target(y, first, y_buffer);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float value = in[i], slope = d_out[i], cdf = vector_normal_cdf(value);
            out[i] = value * cdf;
            d_in[i] = slope * (cdf + value * vector_normal_density(value));
        }
        row_access_commit(y, first, n, out);
        row_access_commit(dx, first, n, d_in);
    }
}

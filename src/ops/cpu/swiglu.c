/* swiglu.c - the gate of the SwiGLU feed-forward layer, silu(x1) * x2: Shazeer, arXiv:2002.05202;
 * dinov2/layers/swiglu_ffn.py. The linear maps around it are linear.c's. */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"
#include "ops/cpu/vector_math.h"

static void check_shapes(Tensor y, Tensor x12)
{
    CHECK(y.ndim == 2 && x12.ndim == 2 && y.shape[0] == x12.shape[0] && 2 * y.shape[1] == x12.shape[1]);
    CHECK(row_access_is_act(y) && y.dtype == x12.dtype);
}

void cpu_swiglu_forward(const Ops *ops, Tensor y, Tensor x12)
{
    check_shapes(y, x12);
    int64_t n = y.shape[0], h = y.shape[1];
    int threads = ops_cpu_threads(ops, n * h, n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < n; row++) {
        float gate_buffer[ROW_ACCESS_CHUNK], value_buffer[ROW_ACCESS_CHUNK], y_buffer[ROW_ACCESS_CHUNK];
        for (int64_t j = 0; j < h; j += ROW_ACCESS_CHUNK) {
            int64_t count = h - j < ROW_ACCESS_CHUNK ? h - j : ROW_ACCESS_CHUNK;
            const float *gate = row_access_read(x12, row * 2 * h + j, count, gate_buffer);
            const float *value = row_access_read(x12, row * 2 * h + h + j, count, value_buffer);
            float *out = row_access_target(y, row * h + j, y_buffer);
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                out[i] = gate[i] * vector_logistic(gate[i]) * value[i];
            row_access_commit(y, row * h + j, count, out);
        }
    }
}

void cpu_swiglu_backward(const Ops *ops, Tensor dx12, Tensor y, Tensor dy, Tensor x12)
{
    check_shapes(y, x12);
    check_shapes(dy, x12);
    check_shapes(dy, dx12);
    int64_t n = dy.shape[0], h = dy.shape[1];
    int threads = ops_cpu_threads(ops, n * h, n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < n; row++) {
        float gate_buffer[ROW_ACCESS_CHUNK], value_buffer[ROW_ACCESS_CHUNK], dy_buffer[ROW_ACCESS_CHUNK];
        float y_buffer[ROW_ACCESS_CHUNK], d_gate_buffer[ROW_ACCESS_CHUNK], d_value_buffer[ROW_ACCESS_CHUNK];
        for (int64_t j = 0; j < h; j += ROW_ACCESS_CHUNK) {
            int64_t count = h - j < ROW_ACCESS_CHUNK ? h - j : ROW_ACCESS_CHUNK;
            int64_t at_gate = row * 2 * h + j, at_value = at_gate + h;
            const float *gate = row_access_read(x12, at_gate, count, gate_buffer);
            const float *value = row_access_read(x12, at_value, count, value_buffer);
            const float *d_out = row_access_read(dy, row * h + j, count, dy_buffer);
            float *d_gate = row_access_target(dx12, at_gate, d_gate_buffer);
            float *d_value = row_access_target(dx12, at_value, d_value_buffer);
            float *out = row_access_target(y, row * h + j, y_buffer);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                float s = vector_logistic(gate[i]), slope = d_out[i];
                float silu = gate[i] * s;
                out[i] = silu * value[i];
                d_value[i] = slope * silu;
                d_gate[i] = slope * value[i] * (s + silu * (1.0f - s));
            }
            row_access_commit(y, row * h + j, count, out);
            row_access_commit(dx12, at_gate, count, d_gate);
            row_access_commit(dx12, at_value, count, d_value);
        }
    }
}

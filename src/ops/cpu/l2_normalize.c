/* l2_normalize.c - rows scaled to unit length, as torch.nn.functional.normalize does.
 *
 * Source: the bottleneck of dinov2/layers/dino_head.py. Squares are added in fp64, so that a row as short as
 * eps = 1e-12 keeps its direction instead of underflowing.
 *
 * What it is not: a normalisation over anything but rows.
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"
#include "ops/cpu/row_access.h"

#include <math.h>

static inline float element(const float *f32, const uint16_t *bf16, int64_t i)
{
    return f32 ? f32[i] : dtype_f32_from_bf16(bf16[i]);
}

void cpu_l2_normalize_forward(const Ops *ops, Tensor y, Tensor norms, Tensor x, float eps)
{
    CHECK(x.ndim == 2 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[1]);
    CHECK(norms.shape[0] == x.shape[0] && row_access_is_act(x));
    int64_t n = x.shape[0], d = x.shape[1];
    if (n == 0) return;
    const float *f32 = x.dtype == DTYPE_F32 ? x.data : NULL;
    const uint16_t *bf16 = x.dtype == DTYPE_BF16 ? x.data : NULL;
    float *restrict unit = tensor_f32(y), *restrict length = tensor_f32(norms);
    int threads = ops_cpu_threads(ops, n * d, n);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = i * d; j < (i + 1) * d; j++)
            sum += (double)element(f32, bf16, j) * (double)element(f32, bf16, j);
        double norm = sqrt(sum);
        double inverse = 1.0 / (norm < (double)eps ? (double)eps : norm);
        for (int64_t j = i * d; j < (i + 1) * d; j++)
            unit[j] = (float)((double)element(f32, bf16, j) * inverse);
        length[i] = (float)norm;
    }
}

void cpu_l2_normalize_backward(const Ops *ops, Tensor dx, Tensor dy, Tensor y, Tensor norms, float eps)
{
    CHECK(dx.ndim == 2 && dy.ndim == 2 && dy.shape[0] == dx.shape[0] && dy.shape[1] == dx.shape[1]);
    CHECK(tensor_count(y) == tensor_count(dx) && norms.shape[0] == dx.shape[0]);
    CHECK(row_access_is_act(dx));
    int64_t n = dx.shape[0], d = dx.shape[1];
    if (n == 0) return;
    const float *restrict slope = tensor_f32(dy), *restrict unit = tensor_f32(y);
    const float *restrict length = tensor_f32(norms);
    float *f32 = dx.dtype == DTYPE_F32 ? dx.data : NULL;
    uint16_t *bf16 = dx.dtype == DTYPE_BF16 ? dx.data : NULL;
    int threads = ops_cpu_threads(ops, n * d, n);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        double along = 0.0;
        bool moves = length[i] > eps; /* else the divisor is the constant eps */
        double inverse = 1.0 / (double)(length[i] < eps ? eps : length[i]);
#pragma omp simd reduction(+ : along)
        for (int64_t j = i * d; j < (i + 1) * d; j++)
            along += (double)unit[j] * (double)slope[j];
        if (!moves) along = 0.0;
        for (int64_t j = i * d; j < (i + 1) * d; j++) {
            float value = (float)(((double)slope[j] - (double)unit[j] * along) * inverse);
            if (f32)
                f32[j] = value;
            else
                bf16[j] = row_access_bf16(value);
        }
    }
}

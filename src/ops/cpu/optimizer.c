/* optimizer.c - AdamW, the moving average of the teacher, and sums of squares, on flat fp32 vectors.
 *
 * Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2, with the
 * operation order of PyTorch's AdamW (epsilon outside the bias-corrected root; golden README, trap 26). One
 * pass over memory each: these run at the speed of the memory bus.
 *
 * What it is not: schedules, parameter groups or clipping; they arrive as coefficients (optim/).
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

void cpu_adamw(const Ops *ops, Tensor p, Tensor m, Tensor v, Tensor g, AdamwStep step)
{
    int64_t n = tensor_count(p);
    CHECK(tensor_count(m) == n && tensor_count(v) == n && tensor_count(g) == n);
    if (n == 0) return;
    float *restrict param = tensor_f32(p), *restrict first = tensor_f32(m), *restrict second = tensor_f32(v);
    const float *restrict gradient = tensor_f32(g);

    /* The complements are made in fp64: 1 - 0.999 in fp32 is already wrong in the fifth digit. */
    double beta1 = step.beta1, beta2 = step.beta2;
    float keep1 = (float)beta1, take1 = (float)(1.0 - beta1);
    float keep2 = (float)beta2, take2 = (float)(1.0 - beta2);
    float decay = (float)(1.0 - (double)step.lr * (double)step.weight_decay);
    float rate = (float)((double)step.lr / (double)step.correction1);
    float root = (float)(1.0 / sqrt((double)step.correction2));
    float scale = (float)step.gradient_scale, eps = (float)step.eps;
    int threads = ops_cpu_threads(ops, n, n);

#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        float slope = gradient[i] * scale;
        float mean = keep1 * first[i] + take1 * slope;
        float square = keep2 * second[i] + take2 * (slope * slope);
        first[i] = mean;
        second[i] = square;
        param[i] = decay * param[i] - rate * mean / (sqrtf(square) * root + eps);
    }
}

void cpu_ema(const Ops *ops, Tensor average, Tensor value, double momentum)
{
    int64_t n = tensor_count(average);
    CHECK(tensor_count(value) == n);
    if (n == 0) return;
    float *restrict mean = tensor_f32(average);
    const float *restrict fresh = tensor_f32(value);
    float take = (float)(1.0 - momentum);
    int threads = ops_cpu_threads(ops, n, n);

    /* As a step towards the value: one rounding of the size of the step, where keep * mean rounds the mean
     * itself twice. Only at momentum 0 is it not exact, so that is a copy. */
    if (momentum == 0.0) {
        memcpy(mean, fresh, (size_t)n * sizeof(float));
        return;
    }
#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; i++)
        mean[i] += take * (fresh[i] - mean[i]);
}

void cpu_sum_squares(const Ops *ops, double *result, Tensor x)
{
    /* Blocks depend on the count alone and are added in order: the same bits on any number of threads. */
    enum { BLOCKS = 256, BLOCK_MIN = 4096 };
    double partial[BLOCKS];
    int64_t n = tensor_count(x);
    *result = 0.0;
    if (n == 0) return;
    const float *restrict values = tensor_f32(x);
    int64_t block = (n + BLOCKS - 1) / BLOCKS;
    if (block < BLOCK_MIN) block = BLOCK_MIN;
    int64_t blocks = (n + block - 1) / block;
    int threads = ops_cpu_threads(ops, n, blocks);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = (b + 1) * block < n ? (b + 1) * block : n;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = b * block; i < end; i++)
            sum += (double)values[i] * (double)values[i];
        partial[b] = sum;
    }
    for (int64_t b = 0; b < blocks; b++)
        *result += partial[b];
}

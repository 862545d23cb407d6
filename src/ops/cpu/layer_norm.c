/* layer_norm.c - layer normalisation over the last dimension: Ba et al., arXiv:1607.06450.
 *
 * The mean is subtracted before squares are summed, so that a large common offset costs no digits. Rows of a
 * 16-bit type are fp32 in a buffer while they are worked on: sums are those of an fp32 row, in its order. */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"

#include <math.h>
#include <string.h>

enum { SHORT_SUM = 64 }; /* rows summed before they join the long sum: fewer roundings */

size_t cpu_layer_norm_scratch(const OpsLimits *limits, int threads)
{
    return ops_cpu_piece(5 * threads * limits->width, sizeof(float));
}

/* Row i of y from x, mean and rstd. */
static void write_row(Tensor y, int64_t i, const float *stats, const float *x, const float *w, const float *b)
{
    float buffer[ROW_ACCESS_CHUNK];
    int64_t D = y.shape[1];
    float mean = stats[0], rstd = stats[1];
    for (int64_t j = 0; j < D; j += ROW_ACCESS_CHUNK) {
        int64_t count = D - j < ROW_ACCESS_CHUNK ? D - j : ROW_ACCESS_CHUNK;
        const float *in = x + j, *scale = w + j, *shift = b + j;
        float *out = row_access_target(y, i * D + j, buffer);
#pragma omp simd
        for (int64_t k = 0; k < count; k++)
            out[k] = (in[k] - mean) * rstd * scale[k] + shift[k];
        row_access_commit(y, i * D + j, count, out);
    }
}

static void make_stats(float *stats, const float *x, int64_t D, float eps)
{
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < D; j++)
        sum += x[j];
    float mean = sum / (float)D;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < D; j++)
        squares += (x[j] - mean) * (x[j] - mean);
    stats[0] = mean;
    stats[1] = 1.0f / sqrtf(squares / (float)D + eps);
}

/* Row i of x, in place or in `buffer` [D]. */
static const float *whole_row(Tensor x, int64_t i, float *buffer)
{
    int64_t D = x.shape[1];
    if (x.dtype == DTYPE_F32) return (const float *)x.data + i * D;
    row_access_to_f32(buffer, (const uint16_t *)x.data + i * D, D);
    return buffer;
}

/* Row i of `kept` is written; returns what it holds now. */
static const float *keep_row(Tensor kept, int64_t i, const float *x, float *buffer)
{
    int64_t D = kept.shape[1];
    if (kept.dtype == DTYPE_F32)
        memcpy((float *)kept.data + i * D, x, (size_t)D * sizeof(float));
    else
        row_access_to_bf16((uint16_t *)kept.data + i * D, x, D);
    return whole_row(kept, i, buffer);
}

void cpu_layer_norm_forward(const Ops *ops, Tensor y, Tensor stats, Tensor kept, Tensor x, Tensor rows,
                            Tensor w, Tensor b, float eps)
{
    CHECK(y.ndim == 2 && row_access_is_act(y) && x.ndim == 2 && x.shape[1] == y.shape[1]);
    int64_t n = y.shape[0], D = y.shape[1];
    CHECK(tensor_count(stats) == 2 * n && tensor_count(w) == D && tensor_count(b) == D);
    row_access_check_rows(rows, n, x.shape[0]);
    CHECK(!tensor_given(kept) || (kept.ndim == 2 && kept.shape[0] == n && kept.shape[1] == D));
    CHECK(!tensor_given(kept) || kept.dtype == y.dtype);
    const float *input = tensor_f32(x), *scale = tensor_f32(w), *shift = tensor_f32(b);
    float *statistics = tensor_f32(stats);
    int parts = ops_cpu_threads(ops, n * D, n);
    ArenaMark mark = arena_mark(ops->scratch);
    float *buffers = arena_alloc(ops->scratch, (size_t)(parts * D) * sizeof *buffers);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        int64_t first, last;
        ops_cpu_part(n, part, parts, &first, &last);
        for (int64_t i = first; i < last; i++) {
            const float *row = input + row_access_index(rows, i, x.shape[0]) * D;
            if (tensor_given(kept)) row = keep_row(kept, i, row, buffers + part * D);
            make_stats(statistics + 2 * i, row, D, eps);
            write_row(y, i, statistics + 2 * i, row, scale, shift);
        }
    }
    arena_reset(ops->scratch, mark);
}

/* With g = dy w and h = (x - mean) rstd: dx = rstd (g - mean(g) - h mean(g h)), dw = sum dy h, db = sum dy.
 * dw and db are sums of this part's rows so far. */
static void backward_row(float *dx, float *dw, float *db, Tensor dy, int64_t i, const float *x,
                         const float *stats, const float *w)
{
    float buffer[ROW_ACCESS_CHUNK];
    int64_t D = dy.shape[1];
    float mean = stats[0], rstd = stats[1], sum_g = 0.0f, sum_gh = 0.0f;
    for (int64_t j = 0; j < D; j += ROW_ACCESS_CHUNK) {
        int64_t count = D - j < ROW_ACCESS_CHUNK ? D - j : ROW_ACCESS_CHUNK;
        const float *d_out = row_access_read(dy, i * D + j, count, buffer);
#pragma omp simd reduction(+ : sum_g, sum_gh)
        for (int64_t k = 0; k < count; k++) {
            float h = (x[j + k] - mean) * rstd;
            float g = d_out[k] * w[j + k];
            dw[j + k] += d_out[k] * h;
            db[j + k] += d_out[k];
            sum_g += g;
            sum_gh += g * h;
        }
    }
    float mean_g = sum_g / (float)D, mean_gh = sum_gh / (float)D;
    for (int64_t j = 0; j < D; j += ROW_ACCESS_CHUNK) {
        int64_t count = D - j < ROW_ACCESS_CHUNK ? D - j : ROW_ACCESS_CHUNK;
        const float *d_out = row_access_read(dy, i * D + j, count, buffer);
#pragma omp simd
        for (int64_t k = 0; k < count; k++) {
            float h = (x[j + k] - mean) * rstd;
            dx[j + k] += rstd * (d_out[k] * w[j + k] - mean_g - h * mean_gh);
        }
    }
}

void cpu_layer_norm_backward(const Ops *ops, Tensor dx, Tensor dw, Tensor db, Tensor y, Tensor dy, Tensor x,
                             Tensor rows, Tensor stats, Tensor w, Tensor b)
{
    CHECK(dy.ndim == 2 && row_access_is_act(dy) && x.ndim == 2 && x.shape[1] == dy.shape[1]);
    int64_t n = dy.shape[0], D = dy.shape[1];
    CHECK(x.dtype == dy.dtype);
    CHECK(!tensor_given(y) ||
          (y.dtype == dy.dtype && y.ndim == 2 && y.shape[0] == n && y.shape[1] == D && tensor_count(b) == D));
    CHECK(dx.ndim == 2 && dx.shape[1] == D && tensor_count(stats) == 2 * n);
    CHECK(x.shape[0] == dx.shape[0] || x.shape[0] == n);
    CHECK(tensor_count(w) == D && tensor_count(dw) == D && tensor_count(db) == D);
    row_access_check_rows(rows, n, dx.shape[0]);
    bool kept = x.shape[0] != dx.shape[0];
    const float *scale = tensor_f32(w), *statistics = tensor_f32(stats);
    float *d_input = tensor_f32(dx);
    int parts = ops_cpu_threads(ops, n * D, n);
    ArenaMark mark = arena_mark(ops->scratch);
    /* per part: short sums of dw and db [2, D], long sums [2, D], a row [D] */
    float *sums = arena_alloc(ops->scratch, (size_t)(5 * parts * D) * sizeof *sums);
    memset(sums, 0, (size_t)(5 * parts * D) * sizeof *sums);
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        int64_t first, last;
        ops_cpu_part(n, part, parts, &first, &last);
        float *short_sum = sums + 5 * part * D;
        for (int64_t i = first; i < last; i++) {
            int64_t row = row_access_index(rows, i, dx.shape[0]);
            const float *in = whole_row(x, kept ? i : row, short_sum + 4 * D);
            backward_row(d_input + row * D, short_sum, short_sum + D, dy, i, in, statistics + 2 * i, scale);
            if (tensor_given(y)) write_row(y, i, statistics + 2 * i, in, scale, tensor_f32(b));
            if (i % SHORT_SUM == SHORT_SUM - 1 || i == last - 1)
                row_access_move_sum(short_sum + 2 * D, short_sum, 2 * D);
        }
    }
    for (int part = 0; part < parts; part++) {
        row_access_move_sum(tensor_f32(dw), sums + (5 * part + 2) * D, D);
        row_access_move_sum(tensor_f32(db), sums + (5 * part + 3) * D, D);
    }
    arena_reset(ops->scratch, mark);
}

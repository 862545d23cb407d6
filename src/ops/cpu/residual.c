/* residual.c - the residual branch in one pass: LayerScale (Touvron et al., arXiv:2103.17239),
 * stochastic-depth scale and addition; dinov2/layers/block.py (drop_add_residual_stochastic_depth). */
#include "ops/cpu/ops_cpu.h"
#include "ops/cpu/row_access.h"

enum { SHORT_SUM = 64 }; /* rows summed before they join the long sum: fewer roundings */

size_t cpu_residual_scratch(const OpsLimits *limits, int threads)
{
    return ops_cpu_piece(2 * threads * limits->width, sizeof(float));
}

static void check_operands(Tensor x, Tensor y, Tensor rows, Tensor row_scale, Tensor gamma)
{
    CHECK(x.ndim == 2 && x.dtype == DTYPE_F32 && y.ndim == 2 && row_access_is_act(y));
    CHECK(x.shape[1] == y.shape[1]);
    row_access_check_rows(rows, y.shape[0], x.shape[0]);
    CHECK(!tensor_given(row_scale) || tensor_count(row_scale) == y.shape[0]);
    CHECK(!tensor_given(gamma) || tensor_count(gamma) == y.shape[1]);
}

void cpu_residual_forward(const Ops *ops, Tensor x, Tensor y, Tensor rows, Tensor row_scale, Tensor gamma)
{
    check_operands(x, y, rows, row_scale, gamma);
    int64_t n = y.shape[0], D = y.shape[1];
    const float *scales = tensor_given(row_scale) ? tensor_f32(row_scale) : NULL;
    const float *gammas = tensor_given(gamma) ? tensor_f32(gamma) : NULL;
    int threads = ops_cpu_threads(ops, n * D, n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float buffer[ROW_ACCESS_CHUNK];
        float scale = scales ? scales[i] : 1.0f;
        float *row = tensor_f32(x) + row_access_index(rows, i, x.shape[0]) * D;
        for (int64_t j = 0; j < D; j += ROW_ACCESS_CHUNK) {
            int64_t count = D - j < ROW_ACCESS_CHUNK ? D - j : ROW_ACCESS_CHUNK;
            const float *branch = row_access_read(y, i * D + j, count, buffer);
            float *sum = row + j;
            if (gammas) {
                const float *g = gammas + j;
#pragma omp simd
                for (int64_t k = 0; k < count; k++)
                    sum[k] += scale * g[k] * branch[k];
            } else {
#pragma omp simd
                for (int64_t k = 0; k < count; k++)
                    sum[k] += scale * branch[k];
            }
        }
    }
}

typedef struct {
    Tensor dy, dx, y, rows;
    const float *scales, *gammas; /* or NULL */
} Backward;

/* dy of row i; sum[D] (or NULL) += its share of dgamma. */
static void backward_row(const Backward *b, int64_t i, float *sum)
{
    float y_buffer[ROW_ACCESS_CHUNK], dy_buffer[ROW_ACCESS_CHUNK];
    int64_t D = b->dy.shape[1];
    float scale = b->scales ? b->scales[i] : 1.0f;
    const float *dx_row = tensor_f32(b->dx) + row_access_index(b->rows, i, b->dx.shape[0]) * D;
    for (int64_t j = 0; j < D; j += ROW_ACCESS_CHUNK) {
        int64_t count = D - j < ROW_ACCESS_CHUNK ? D - j : ROW_ACCESS_CHUNK;
        const float *dx = dx_row + j;
        float *dy = row_access_target(b->dy, i * D + j, dy_buffer);
        if (sum) {
            const float *y = row_access_read(b->y, i * D + j, count, y_buffer);
            float *s = sum + j;
#pragma omp simd
            for (int64_t k = 0; k < count; k++)
                s[k] += scale * dx[k] * y[k];
        }
        if (b->gammas) {
            const float *g = b->gammas + j;
#pragma omp simd
            for (int64_t k = 0; k < count; k++)
                dy[k] = scale * g[k] * dx[k];
        } else {
#pragma omp simd
            for (int64_t k = 0; k < count; k++)
                dy[k] = scale * dx[k];
        }
        row_access_commit(b->dy, i * D + j, count, dy);
    }
}

void cpu_residual_backward(const Ops *ops, Tensor dy, Tensor dgamma, Tensor dx, Tensor y, Tensor rows,
                           Tensor row_scale, Tensor gamma)
{
    check_operands(dx, dy, rows, row_scale, gamma);
    int64_t n = dy.shape[0], D = dy.shape[1];
    Backward b = {.dy = dy,
                  .dx = dx,
                  .y = y,
                  .rows = rows,
                  .scales = tensor_given(row_scale) ? tensor_f32(row_scale) : NULL,
                  .gammas = tensor_given(gamma) ? tensor_f32(gamma) : NULL};
    int parts = ops_cpu_threads(ops, n * D, n);
    ArenaMark mark = arena_mark(ops->scratch);
    float *sums = NULL; /* per part: short sum [D], long sum [D] */
    if (tensor_given(dgamma)) {
        CHECK(tensor_count(dgamma) == D && y.ndim == 2 && y.dtype == dy.dtype && y.shape[0] == n);
        sums = arena_alloc(ops->scratch, (size_t)(2 * parts * D) * sizeof *sums);
        memset(sums, 0, (size_t)(2 * parts * D) * sizeof *sums);
    }
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; part++) {
        int64_t first, last;
        ops_cpu_part(n, part, parts, &first, &last);
        float *short_sum = sums ? sums + 2 * part * D : NULL;
        for (int64_t i = first; i < last; i++) {
            backward_row(&b, i, short_sum);
            if (short_sum && (i % SHORT_SUM == SHORT_SUM - 1 || i == last - 1))
                row_access_move_sum(short_sum + D, short_sum, D);
        }
    }
    for (int part = 0; sums && part < parts; part++)
        row_access_move_sum(tensor_f32(dgamma), sums + (2 * part + 1) * D, D);
    arena_reset(ops->scratch, mark);
}

/* prototypes.c - the weight-normed last layer of the heads: scores, centre, gradient of the norm.
 *
 * Source: Salimans and Kingma, "Weight Normalization", NeurIPS 2016, equations 2 and 3;
 * dinov2/layers/dino_head.py. W[k] = g[k] v[k] / |v[k]| is never made: scores are x . v[k] times a scale.
 *
 * What it is not: the losses over many rows (prototype_sinkhorn.c, prototype_cross_entropy.c).
 */
#include "ops/cpu/prototype_blocks.h"
#include "ops/cpu/sgemm.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

/* --- cutting -----------------------------------------------------------------------------------------------
 */

PrototypeTiles prototype_tiles(int64_t K, int64_t d)
{
    PrototypeTiles t = {.K = K, .d = d, .tile = K >= 16384 ? PROTOTYPE_TILE : K >= 2048 ? 128 : 64};
    t.tiles = (K + t.tile - 1) / t.tile;
    t.groups = t.tiles < PROTOTYPE_GROUPS ? t.tiles : PROTOTYPE_GROUPS;
    return t;
}

int64_t prototype_block_rows(int64_t K, int64_t scores, int64_t most)
{
    int64_t rows = scores / K / PROTOTYPE_BLOCK_MIN * PROTOTYPE_BLOCK_MIN;
    return rows < PROTOTYPE_BLOCK_MIN ? PROTOTYPE_BLOCK_MIN : rows > most ? most : rows;
}

int64_t prototype_block_floats(int64_t K, int64_t scores, int64_t most)
{
    int64_t wanted = most * K < scores ? most * K : scores;
    return wanted > PROTOTYPE_BLOCK_MIN * K ? wanted : PROTOTYPE_BLOCK_MIN * K;
}

int64_t prototype_even_rows(int64_t n, int64_t most)
{
    int64_t blocks = (n + most - 1) / most;
    return (n + blocks - 1) / blocks;
}

size_t cpu_prototypes_scratch(const OpsLimits *limits, int threads)
{
    (void)threads;
    if (limits->prototypes == 0) return 0;
    size_t sinkhorn = prototype_sinkhorn_scratch(limits);
    size_t cross_entropy = prototype_cross_entropy_scratch(limits);
    size_t center = ops_cpu_piece(limits->bottleneck, sizeof(double));
    size_t largest = sinkhorn > cross_entropy ? sinkhorn : cross_entropy;
    return largest > center ? largest : center;
}

void prototype_tile_scores(const PrototypeTiles *t, int64_t tile, int64_t rows, const float *x,
                           const float *v, const float *scale, float temp, const float *bias, float *z)
{
    int64_t at = tile * t->tile, width = prototype_width(t, tile);
    float factor[PROTOTYPE_TILE], inverse = 1.0f / temp;
    SgemmOperand a = {.data = x, .stride = t->d};
    SgemmOperand b = {.data = v + at * t->d, .stride = t->d, .transposed = true};
    sgemm_run(rows, width, t->d, a, b, false, z, width);

    for (int64_t k = 0; k < width; k++)
        factor[k] = scale[at + k] * inverse;
    for (int64_t i = 0; i < rows; i++) {
        float *restrict row = z + i * width;
        if (bias) {
#pragma omp simd
            for (int64_t k = 0; k < width; k++)
                row[k] = row[k] * factor[k] + bias[at + k];
        } else {
#pragma omp simd
            for (int64_t k = 0; k < width; k++)
                row[k] *= factor[k];
        }
    }
}

/* --- operations --------------------------------------------------------------------------------------------
 */

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

void cpu_prototype_scale(const Ops *ops, Tensor scale, Tensor v, Tensor g)
{
    CHECK(v.ndim == 2 && tensor_count(scale) == v.shape[0] && tensor_count(g) == v.shape[0]);
    int64_t K = v.shape[0], d = v.shape[1];
    float *out = tensor_f32(scale);
    const float *direction = tensor_f32(v), *length = tensor_f32(g);
    int threads = ops_cpu_threads(ops, K * d, K);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++)
        out[k] = (float)((double)length[k] / sqrt(dot(direction + k * d, direction + k * d, d)));
}

void cpu_prototype_scores(const Ops *ops, Tensor scores, Tensor x, Tensor v, Tensor scale)
{
    CHECK(x.ndim == 2 && v.ndim == 2 && scores.ndim == 2 && x.shape[1] == v.shape[1]);
    CHECK(scores.shape[0] == x.shape[0] && scores.shape[1] == v.shape[0]);
    CHECK(tensor_count(scale) == v.shape[0]);
    int64_t n = x.shape[0], d = x.shape[1], K = v.shape[0];
    if (n == 0) return;
    float *out = tensor_f32(scores);
    const float *rows = tensor_f32(x), *direction = tensor_f32(v), *factor = tensor_f32(scale);
    PrototypeTiles t = prototype_tiles(K, d);

#pragma omp parallel for schedule(dynamic, 1) num_threads(ops->threads)
    for (int64_t tile = 0; tile < t.tiles; tile++) {
        int64_t at = tile * t.tile, width = prototype_width(&t, tile);
        SgemmOperand a = {.data = rows, .stride = d};
        SgemmOperand b = {.data = direction + at * d, .stride = d, .transposed = true};
        sgemm_run(n, width, d, a, b, false, out + at, K);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = at; k < at + width; k++)
                out[i * K + k] *= factor[k];
    }
}

void cpu_weight_norm_backward(const Ops *ops, Tensor dv, Tensor dg, Tensor v, Tensor g)
{
    CHECK(v.ndim == 2 && tensor_count(dv) == tensor_count(v));
    CHECK(tensor_count(g) == v.shape[0] && tensor_count(dg) == v.shape[0]);
    int64_t K = v.shape[0], d = v.shape[1];
    float *slope = tensor_f32(dv), *length_slope = tensor_f32(dg);
    const float *direction = tensor_f32(v), *length = tensor_f32(g);
    int threads = ops_cpu_threads(ops, K * d, K);

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++) {
        const float *row = direction + k * d;
        float *restrict row_slope = slope + k * d;
        double norm = sqrt(dot(row, row, d));
        double along = dot(row_slope, row, d) / norm; /* of the unit vector */
        length_slope[k] += (float)along;
        float scale = (float)((double)length[k] / norm), back = (float)(along / norm);
#pragma omp simd
        for (int64_t j = 0; j < d; j++)
            row_slope[j] = scale * (row_slope[j] - back * row[j]);
    }
}

void cpu_prototype_center(const Ops *ops, Tensor sum, Tensor x, Tensor v, Tensor scale, Tensor row_weight)
{
    CHECK(x.ndim == 2 && v.ndim == 2 && x.shape[1] == v.shape[1]);
    CHECK(tensor_count(sum) == v.shape[0] && tensor_count(scale) == v.shape[0]);
    CHECK(tensor_count(row_weight) == x.shape[0]);
    int64_t n = x.shape[0], d = x.shape[1], K = v.shape[0];
    ArenaMark mark = arena_mark(ops->scratch);
    double *mean = arena_alloc(ops->scratch, (size_t)d * sizeof(double));
    memset(mean, 0, (size_t)d * sizeof(double));

    /* Scores are linear in x, so the sum of scores is the score of the sum: [n, K] is never needed. */
    for (int64_t i = 0; i < n; i++) {
        const float *row = tensor_f32(x) + i * d;
        double weight = (double)tensor_f32(row_weight)[i];
        for (int64_t j = 0; j < d; j++)
            mean[j] += weight * (double)row[j];
    }
    float *out = tensor_f32(sum);
    const float *direction = tensor_f32(v), *factor = tensor_f32(scale);
    int threads = ops_cpu_threads(ops, K * d, K);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++) {
        double score = 0.0;
#pragma omp simd reduction(+ : score)
        for (int64_t j = 0; j < d; j++)
            score += mean[j] * (double)direction[k * d + j];
        out[k] = (float)(score * (double)factor[k]);
    }
    arena_reset(ops->scratch, mark);
}

void cpu_center_update(const Ops *ops, Tensor bias, Tensor center, Tensor sum, double temp, double momentum)
{
    int64_t K = tensor_count(center);
    CHECK(tensor_count(bias) == K && tensor_count(sum) == K && temp > 0.0);
    float *b = tensor_f32(bias), *c = tensor_f32(center);
    const float *s = tensor_f32(sum);
    int threads = ops_cpu_threads(ops, K, K);
#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (int64_t k = 0; k < K; k++) {
        b[k] = (float)(-(double)c[k] / temp);
        c[k] = (float)((double)c[k] * momentum + (double)s[k] * (1.0 - momentum));
    }
}

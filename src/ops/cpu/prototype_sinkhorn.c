/* prototype_sinkhorn.c - Sinkhorn-Knopp targets over the rows of all ranks, as one bias per prototype.
 *
 * Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013; Caron et al., "Unsupervised Learning of Visual Features
 * by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020, appendix A; sinkhorn_knopp_teacher of
 * dinov2/loss/dino_clstoken_loss.py (golden README, trap 20).
 *
 * The assignment is exp(score / temp + b[k] + log u[i]) throughout, so two vectors are all that is iterated.
 * With u = 1, b[k] = -log sum_i exp(z[i, k]) in the first round. In later rounds sample normalisation makes
 * p[i, :] = softmax(z[i, :] + b), and prototype normalisation then subtracts log sum_i p[i, k] from b[k].
 * Those sums are safe without a maximum: b made the largest of a column at least 1 / N and a row's sum at
 * most K, so sum_i p[i, k] >= 1 / (N K). The factors 1 / B and 1 / K of the reference cancel in the end, and
 * its last sample normalisation is the softmax that uses the bias.
 *
 * DEVIATION: the reference exponentiates scores as they are, and overflows beyond 88 temp; here the column
 * maximum is subtracted, which is the same function.
 *
 * What it is not: the targets themselves; nobody stores [rows, K].
 */
#include "ops/cpu/prototype_blocks.h"

#include "base/check.h"
#include "ops/cpu/vector_math.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef struct {
    PrototypeTiles tiles;
    const float *x, *v, *scale;
    float temp;
    int64_t n, block; /* rows, and most of them in a block */
    bool kept;        /* one block holds all rows: its scores are made once */
    int threads;
    float *z;           /* [block, K] scores / temp, in tiles */
    float *row_max;     /* [tiles, block] largest z + b of a row in a tile */
    float *row_sum;     /* [tiles, block] sum exp(z + b - row_max) */
    float *row_log_sum; /* [block] log sum exp(z + b) over all tiles */
    float *column_max;  /* [K] */
    float *column_sum;  /* [K] */
} Sinkhorn;

enum { SINKHORN_BLOCK = 8 * PROTOTYPE_BLOCK, SINKHORN_SCORES = 2 * PROTOTYPE_SCORES };

/* Statistics of a block: one entry for each row of each tile, for any K up to the limit. */
static int64_t stats_floats(int64_t K)
{
    return prototype_block_floats(K, SINKHORN_SCORES, SINKHORN_BLOCK) / 64 + SINKHORN_BLOCK;
}

size_t prototype_sinkhorn_scratch(const OpsLimits *limits)
{
    int64_t K = limits->prototypes;
    return ops_cpu_piece(prototype_block_floats(K, SINKHORN_SCORES, SINKHORN_BLOCK), sizeof(float)) +
           2 * ops_cpu_piece(stats_floats(K), sizeof(float)) + ops_cpu_piece(SINKHORN_BLOCK, sizeof(float)) +
           2 * ops_cpu_piece(K, sizeof(float));
}

static Sinkhorn sinkhorn_layout(const Ops *ops, Tensor x, Tensor v, Tensor scale, float temp)
{
    int64_t K = v.shape[0];
    Sinkhorn s = {.tiles = prototype_tiles(K, v.shape[1]), .temp = temp, .n = x.shape[0]};
    s.x = s.n > 0 ? tensor_f32(x) : NULL;
    s.v = tensor_f32(v);
    s.scale = tensor_f32(scale);
    int64_t most = prototype_block_rows(K, SINKHORN_SCORES, SINKHORN_BLOCK);
    s.block = s.n > 0 ? prototype_even_rows(s.n, most) : 1;
    s.kept = s.n <= s.block;
    s.threads = ops->threads;
    s.z = arena_alloc(ops->scratch, (size_t)(s.block * K) * sizeof(float));
    s.row_max = arena_alloc(ops->scratch, (size_t)(s.tiles.tiles * s.block) * sizeof(float));
    s.row_sum = arena_alloc(ops->scratch, (size_t)(s.tiles.tiles * s.block) * sizeof(float));
    s.row_log_sum = arena_alloc(ops->scratch, (size_t)s.block * sizeof(float));
    s.column_max = arena_alloc(ops->scratch, (size_t)K * sizeof(float));
    s.column_sum = arena_alloc(ops->scratch, (size_t)K * sizeof(float));
    return s;
}

static void make_scores(const Sinkhorn *s, int64_t tile, int64_t first, int64_t rows, float *z)
{
    prototype_tile_scores(&s->tiles, tile, rows, s->x + first * s->tiles.d, s->v, s->scale, s->temp, NULL, z);
}

/* Adds exp(z) of a tile to the columns' running (maximum, sum of exp(z - maximum)). */
static void add_columns(const float *z, int64_t rows, int64_t width, float *restrict maximum,
                        float *restrict sum)
{
    float before[PROTOTYPE_TILE];
    memcpy(before, maximum, (size_t)width * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict row = z + i * width;
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            maximum[k] = row[k] > maximum[k] ? row[k] : maximum[k];
    }
#pragma omp simd
    for (int64_t k = 0; k < width; k++)
        sum[k] *= vector_exp(before[k] - maximum[k]);
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict row = z + i * width;
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            sum[k] += vector_exp(row[k] - maximum[k]);
    }
}

/* The first round: columns of this rank's rows. */
static void first_round(Sinkhorn *s)
{
    const PrototypeTiles *t = &s->tiles;
    for (int64_t k = 0; k < t->K; k++) {
        s->column_max[k] = -FLT_MAX;
        s->column_sum[k] = 0.0f;
    }
    for (int64_t first = 0; first < s->n; first += s->block) {
        int64_t rows = s->n - first < s->block ? s->n - first : s->block;
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
        for (int64_t group = 0; group < t->groups; group++) {
            int64_t tile, last;
            for (prototype_group(t, group, &tile, &last); tile < last; tile++) {
                int64_t at = tile * t->tile;
                float *z = s->z + at * rows;
                make_scores(s, tile, first, rows, z);
                add_columns(z, rows, prototype_width(t, tile), s->column_max + at, s->column_sum + at);
            }
        }
    }
}

/* row_max and row_sum of z + b of one tile. */
static void measure_rows(const Sinkhorn *s, int64_t tile, int64_t rows, const float *z, const float *bias)
{
    int64_t width = prototype_width(&s->tiles, tile);
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict row = z + i * width;
        float maximum = -FLT_MAX, sum = 0.0f;
#pragma omp simd reduction(max : maximum)
        for (int64_t k = 0; k < width; k++)
            maximum = row[k] + bias[k] > maximum ? row[k] + bias[k] : maximum;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < width; k++)
            sum += vector_exp(row[k] + bias[k] - maximum);
        s->row_max[tile * s->block + i] = maximum;
        s->row_sum[tile * s->block + i] = sum;
    }
}

static void combine_rows(const Sinkhorn *s, int64_t rows)
{
#pragma omp parallel for schedule(static) num_threads(s->threads)
    for (int64_t i = 0; i < rows; i++) {
        float maximum = -FLT_MAX;
        for (int64_t tile = 0; tile < s->tiles.tiles; tile++)
            maximum = fmaxf(maximum, s->row_max[tile * s->block + i]);
        double sum = 0.0;
        for (int64_t tile = 0; tile < s->tiles.tiles; tile++)
            sum += (double)s->row_sum[tile * s->block + i] *
                   (double)vector_exp(s->row_max[tile * s->block + i] - maximum);
        s->row_log_sum[i] = maximum + (float)log(sum);
    }
}

/* column_sum += sum_i softmax(z + b)[i, :] over a block of rows, columns of one tile. */
static void add_probabilities(const Sinkhorn *s, int64_t tile, int64_t rows, const float *z,
                              const float *bias)
{
    int64_t width = prototype_width(&s->tiles, tile);
    float sum[PROTOTYPE_TILE] = {0};
    for (int64_t i = 0; i < rows; i++) {
        const float *restrict row = z + i * width;
        float log_sum = s->row_log_sum[i];
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            sum[k] += vector_exp(row[k] + bias[k] - log_sum);
    }
    for (int64_t k = 0; k < width; k++)
        s->column_sum[tile * s->tiles.tile + k] += sum[k];
}

/* A later round: column_sum = sum over this rank's rows of softmax(z + b). */
static void later_round(Sinkhorn *s, const float *bias)
{
    const PrototypeTiles *t = &s->tiles;
    memset(s->column_sum, 0, (size_t)t->K * sizeof(float));
    for (int64_t first = 0; first < s->n; first += s->block) {
        int64_t rows = s->n - first < s->block ? s->n - first : s->block;
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
        for (int64_t group = 0; group < t->groups; group++) {
            int64_t tile, last;
            for (prototype_group(t, group, &tile, &last); tile < last; tile++) {
                float *z = s->z + tile * t->tile * rows;
                if (!s->kept) make_scores(s, tile, first, rows, z);
                measure_rows(s, tile, rows, z, bias + tile * t->tile);
            }
        }
        combine_rows(s, rows);
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->threads)
        for (int64_t tile = 0; tile < t->tiles; tile++)
            add_probabilities(s, tile, rows, s->z + tile * t->tile * rows, bias + tile * t->tile);
    }
}

void cpu_prototype_sinkhorn(const Ops *ops, Tensor bias, Tensor x, Tensor v, Tensor scale, float temp,
                            int iterations, Comm *comm)
{
    CHECK(v.ndim == 2 && x.ndim == 2 && x.shape[1] == v.shape[1] && temp > 0.0f && iterations >= 1);
    CHECK(tensor_count(bias) == v.shape[0] && tensor_count(scale) == v.shape[0]);
    int64_t K = v.shape[0];
    ArenaMark mark = arena_mark(ops->scratch);
    Sinkhorn s = sinkhorn_layout(ops, x, v, scale, temp);
    float *b = tensor_f32(bias);

    first_round(&s);
    memcpy(b, s.column_max, (size_t)K * sizeof(float));
    comm_all_reduce(comm, b, K, DTYPE_F32, COMM_MAX, ops->device);
    for (int64_t k = 0; k < K; k++)
        s.column_sum[k] *= vector_exp(s.column_max[k] - b[k]);
    comm_all_reduce(comm, s.column_sum, K, DTYPE_F32, COMM_SUM, ops->device);
    /* A sum is 0 only where no rank has a row: then no bias is as good as any. */
    for (int64_t k = 0; k < K; k++)
        b[k] = s.column_sum[k] == 0.0f ? 0.0f : -(b[k] + logf(s.column_sum[k]));

    for (int round = 1; round < iterations; round++) {
        later_round(&s, b);
        comm_all_reduce(comm, s.column_sum, K, DTYPE_F32, COMM_SUM, ops->device);
        for (int64_t k = 0; k < K; k++)
            if (s.column_sum[k] != 0.0f) b[k] -= logf(s.column_sum[k]);
    }
    arena_reset(ops->scratch, mark);
}

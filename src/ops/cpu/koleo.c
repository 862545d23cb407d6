/* koleo.c - the KoLeo regulariser: every row is pushed away from its nearest neighbour.
 *
 * Source: Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019, section 3.2;
 * dinov2/loss/koleo_loss.py (epsilons, golden README, trap 19). The neighbour is found on fp32 dot products
 * of normalised rows, in blocks, so that no [n, n] matrix exists. Distances and gradients are O(n D), so they
 * are made in fp64: between near-duplicates the gradient is a difference of huge numbers.
 *
 * What it is not: a search over other ranks' rows; the caller decides what a group is.
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"
#include "ops/cpu/sgemm.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { KOLEO_BLOCK = 64 }; /* rows whose dot products a thread holds at one time */

static const double KOLEO_EPS = 1e-8; /* of the norm, of each component of the difference, and of the log */

/* Scratch of one call. */
typedef struct {
    int64_t n, D;
    const float *x;     /* [n, D] */
    float *unit;        /* [n, D] normalised rows */
    double *inverse;    /* [n] 1 / max(|x|, eps) */
    double *distance;   /* [n] |unit_i - unit_nn(i) + eps| */
    float *dots;        /* [threads, KOLEO_BLOCK, n] */
    int32_t *first;     /* [n + 1] row j is the neighbour of followers[first[j]] .. followers[first[j + 1]] */
    int32_t *followers; /* [n] */
    double *row_buffers; /* [threads, D] */
} Koleo;

size_t cpu_koleo_scratch(const OpsLimits *limits, int threads)
{
    int64_t n = limits->group_rows, D = limits->width;
    return ops_cpu_piece(n * D, sizeof(float)) + 2 * ops_cpu_piece(n, sizeof(double)) +
           ops_cpu_piece(threads * KOLEO_BLOCK * n, sizeof(float)) + ops_cpu_piece(n + 1, sizeof(int32_t)) +
           ops_cpu_piece(n, sizeof(int32_t)) + ops_cpu_piece(threads * D, sizeof(double));
}

static Koleo koleo_layout(const Ops *ops, Tensor x)
{
    Koleo k = {.n = x.shape[0], .D = x.shape[1], .x = tensor_f32(x)};
    Arena *scratch = ops->scratch;
    k.unit = arena_alloc(scratch, (size_t)(k.n * k.D) * sizeof(float));
    k.inverse = arena_alloc(scratch, (size_t)k.n * sizeof(double));
    k.distance = arena_alloc(scratch, (size_t)k.n * sizeof(double));
    k.dots = arena_alloc(scratch, (size_t)(ops->threads * KOLEO_BLOCK * k.n) * sizeof(float));
    k.first = arena_alloc(scratch, (size_t)(k.n + 1) * sizeof(int32_t));
    k.followers = arena_alloc(scratch, (size_t)k.n * sizeof(int32_t));
    k.row_buffers = arena_alloc(scratch, (size_t)(ops->threads * k.D) * sizeof(double));
    return k;
}

static void koleo_normalize(Koleo *k, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < k->n; i++) {
        const float *row = k->x + i * k->D;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < k->D; d++)
            sum += (double)row[d] * (double)row[d];
        double norm = sqrt(sum);
        k->inverse[i] = 1.0 / (norm > KOLEO_EPS ? norm : KOLEO_EPS);
        for (int64_t d = 0; d < k->D; d++)
            k->unit[i * k->D + d] = (float)((double)row[d] * k->inverse[i]);
    }
}

/* Index of the largest dot product but the row's own; the lowest of equals. */
static int32_t koleo_argmax(const float *dots, int64_t n, int64_t self)
{
    int64_t best = self == 0 ? 1 : 0;
    for (int64_t j = best + 1; j < n; j++)
        if (j != self && dots[j] > dots[best]) best = j;
    return (int32_t)best;
}

static void koleo_find_nearest(Koleo *k, int32_t *nearest, int threads)
{
    SgemmOperand all = {.data = k->unit, .stride = k->D, .transposed = true};
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t begin = 0; begin < k->n; begin += KOLEO_BLOCK) {
        int64_t rows = k->n - begin < KOLEO_BLOCK ? k->n - begin : KOLEO_BLOCK;
        float *dots = k->dots + omp_get_thread_num() * KOLEO_BLOCK * k->n;
        SgemmOperand some = {.data = k->unit + begin * k->D, .stride = k->D};
        sgemm_run(rows, k->n, k->D, some, all, false, dots, k->n);
        for (int64_t i = 0; i < rows; i++)
            nearest[begin + i] = koleo_argmax(dots + i * k->n, k->n, begin + i);
    }
}

/* Distances in fp64 from the original rows; the loss is added in order of rows. */
static double koleo_distances(Koleo *k, const int32_t *nearest, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < k->n; i++) {
        const float *a = k->x + i * k->D, *b = k->x + nearest[i] * k->D;
        double scale_a = k->inverse[i], scale_b = k->inverse[nearest[i]], sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < k->D; d++) {
            double delta = (double)a[d] * scale_a - (double)b[d] * scale_b + KOLEO_EPS;
            sum += delta * delta;
        }
        k->distance[i] = sqrt(sum);
    }
    double loss = 0.0;
    for (int64_t i = 0; i < k->n; i++)
        loss -= log(k->distance[i] + KOLEO_EPS);
    return loss / (double)k->n;
}

/* Lists the rows that have each row as their neighbour, so that a gradient is gathered, never scattered. */
static void koleo_list_followers(Koleo *k, const int32_t *nearest)
{
    memset(k->first, 0, (size_t)(k->n + 1) * sizeof(int32_t));
    for (int64_t i = 0; i < k->n; i++)
        k->first[nearest[i] + 1]++;
    for (int64_t j = 0; j < k->n; j++)
        k->first[j + 1] += k->first[j];
    for (int64_t i = 0; i < k->n; i++)
        k->followers[k->first[nearest[i]]++] = (int32_t)i;
    for (int64_t j = k->n; j > 0; j--)
        k->first[j] = k->first[j - 1];
    k->first[0] = 0;
}

/* du += sign * d(loss term of row `from`) / d(its own unit row); the neighbour's is the negative of it. */
static void koleo_add_term(const Koleo *k, double *du, int64_t from, int64_t to, double factor)
{
    const float *a = k->x + from * k->D, *b = k->x + to * k->D;
    double scale_a = k->inverse[from], scale_b = k->inverse[to], distance = k->distance[from];
    double slope = factor / ((distance + KOLEO_EPS) * distance);
#pragma omp simd
    for (int64_t d = 0; d < k->D; d++)
        du[d] += slope * ((double)a[d] * scale_a - (double)b[d] * scale_b + KOLEO_EPS);
}

static void koleo_gradient(const Koleo *k, const int32_t *nearest, float *dx, double weight, int threads)
{
    double factor = -weight / (double)k->n;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < k->n; i++) {
        double *du = k->row_buffers + omp_get_thread_num() * k->D;
        memset(du, 0, (size_t)k->D * sizeof(double));
        koleo_add_term(k, du, i, nearest[i], factor);
        for (int32_t f = k->first[i]; f < k->first[i + 1]; f++)
            koleo_add_term(k, du, k->followers[f], i, -factor);

        /* Through u = x / max(|x|, eps); at or below eps the divisor is a constant. */
        const float *row = k->x + i * k->D;
        double inverse = k->inverse[i], along = 0.0;
        if (inverse * KOLEO_EPS < 1.0) {
#pragma omp simd reduction(+ : along)
            for (int64_t d = 0; d < k->D; d++)
                along += (double)row[d] * inverse * du[d];
        }
        for (int64_t d = 0; d < k->D; d++)
            dx[i * k->D + d] = (float)((du[d] - (double)row[d] * inverse * along) * inverse);
    }
}

void cpu_koleo(const Ops *ops, Tensor loss, Tensor nearest, Tensor dx, Tensor x, double weight,
               Tensor loss_scale)
{
    CHECK(x.ndim == 2 && nearest.ndim == 1 && nearest.shape[0] == x.shape[0]);
    CHECK(!tensor_given(dx) || tensor_count(dx) == tensor_count(x));
    CHECK(tensor_count(loss) == 1);
    int64_t n = x.shape[0], D = x.shape[1];
    if (n < 2) {
        if (n == 1) tensor_i32(nearest)[0] = -1;
        if (tensor_given(dx)) memset(tensor_f32(dx), 0, tensor_bytes(dx));
        return;
    }
    ArenaMark mark = arena_mark(ops->scratch);
    Koleo k = koleo_layout(ops, x);
    int threads = ops_cpu_threads(ops, n * D, n);
    koleo_normalize(&k, threads);
    koleo_find_nearest(&k, tensor_i32(nearest), ops->threads);
    tensor_f64(loss)[0] += weight * koleo_distances(&k, tensor_i32(nearest), threads);
    if (tensor_given(dx)) {
        koleo_list_followers(&k, tensor_i32(nearest));
        double scale = tensor_given(loss_scale) ? tensor_f64(loss_scale)[0] : 1.0;
        koleo_gradient(&k, tensor_i32(nearest), tensor_f32(dx), scale * weight, threads);
    }
    arena_reset(ops->scratch, mark);
}

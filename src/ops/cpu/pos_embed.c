/* pos_embed.c - position embeddings resampled to another grid, and the transpose of that map.
 *
 * Source: interpolate_pos_encoding of dinov2/models/vision_transformer.py and the two bicubic rules of
 * torch.nn.functional.interpolate that it uses; Keys, "Cubic convolution interpolation for digital image
 * processing", IEEE ASSP 1981. The map is separable: one table of taps for each axis, in fp64, applied rows
 * first. Columns of D are independent, so threads share them out and no sum crosses a thread.
 *
 * What it is not: an image resizer (PIL's arithmetic lives in data/image), nor the rule for when to resample
 * (the caller's).
 */
#include "ops/cpu/ops_cpu.h"

#include "base/check.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    POS_EMBED_COLUMNS = 64,  /* of D, for one thread at a time */
    POS_EMBED_MAX_GRID = 512 /* of the stored embedding: what scratch is planned for */
};

/* Output i of one axis is sum_t weight[i * taps + t] * input[index[i * taps + t]]. */
typedef struct {
    int64_t taps;
    int32_t *index;
    float *weight;
} PosEmbedAxis;

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static int64_t axis_taps(int64_t in, int64_t out, double offset, bool antialias)
{
    if (!antialias) return 4;
    double scale = (double)in / ((double)out + offset);
    return 2 * (int64_t)ceil(2.0 * fmax(scale, 1.0)) + 1;
}

/* a = -0.75; taps beyond the border read the border. */
static void axis_fill_plain(PosEmbedAxis *axis, int64_t in, int64_t out, double scale)
{
    for (int64_t i = 0; i < out; i++) {
        double place = ((double)i + 0.5) * scale - 0.5;
        int64_t base = (int64_t)floor(place);
        for (int64_t t = 0; t < 4; t++) {
            int64_t at = base - 1 + t;
            axis->weight[i * 4 + t] = (float)cubic(place - (double)at, -0.75);
            axis->index[i * 4 + t] = (int32_t)(at < 0 ? 0 : at >= in ? in - 1 : at);
        }
    }
}

/* a = -0.5, stretched when the grid shrinks; taps beyond the border are left out and the rest renormalised.
 */
static void axis_fill_antialias(PosEmbedAxis *axis, int64_t in, int64_t out, double scale)
{
    double stretch = fmax(scale, 1.0), support = 2.0 * stretch;
    for (int64_t i = 0; i < out; i++) {
        double center = ((double)i + 0.5) * scale, sum = 0.0;
        int64_t begin = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        if (begin < 0) begin = 0;
        if (end > in) end = in;
        CHECK(end > begin && end - begin <= axis->taps);
        for (int64_t at = begin; at < end; at++)
            sum += cubic(((double)at - center + 0.5) / stretch, -0.5);
        for (int64_t t = 0; t < axis->taps; t++) {
            int64_t at = begin + t;
            double weight = at < end ? cubic(((double)at - center + 0.5) / stretch, -0.5) / sum : 0.0;
            axis->weight[i * axis->taps + t] = (float)weight;
            axis->index[i * axis->taps + t] = (int32_t)(at < end ? at : end - 1);
        }
    }
}

static PosEmbedAxis axis_create(const Ops *ops, int64_t in, int64_t out, double offset, bool antialias)
{
    PosEmbedAxis axis = {.taps = axis_taps(in, out, offset, antialias)};
    axis.index = arena_alloc(ops->scratch, (size_t)(out * axis.taps) * sizeof(int32_t));
    axis.weight = arena_alloc(ops->scratch, (size_t)(out * axis.taps) * sizeof(float));
    double scale = (double)in / ((double)out + offset);
    if (antialias)
        axis_fill_antialias(&axis, in, out, scale);
    else
        axis_fill_plain(&axis, in, out, scale);
    return axis;
}

/* Most table entries of an axis: taps <= 4 scale + 7. */
static int64_t axis_entries(int64_t out)
{
    return 4 * POS_EMBED_MAX_GRID + 7 * out;
}

size_t cpu_pos_embed_scratch(const OpsLimits *limits, int threads)
{
    int64_t side = limits->max_seqlen > POS_EMBED_MAX_GRID ? limits->max_seqlen : POS_EMBED_MAX_GRID;
    size_t table =
        ops_cpu_piece(axis_entries(side), sizeof(int32_t)) + ops_cpu_piece(axis_entries(side), sizeof(float));
    return 2 * table + ops_cpu_piece(threads * POS_EMBED_MAX_GRID * POS_EMBED_COLUMNS, sizeof(float));
}

/* y[n] += a * x[n] */
static inline void axpy(float *restrict y, const float *restrict x, float a, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

/* Both directions on columns [0, n) of D-wide rows. `line` [side, POS_EMBED_COLUMNS] is one output row's
 * mixture of input rows, or its gradient. */
static void columns_forward(float *out, const float *pos, int64_t D, int64_t n, int64_t side, int64_t h,
                            int64_t w, const PosEmbedAxis *rows, const PosEmbedAxis *columns, float *line)
{
    memcpy(out, pos, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < h; i++) {
        memset(line, 0, (size_t)(side * POS_EMBED_COLUMNS) * sizeof(float));
        for (int64_t t = i * rows->taps; t < (i + 1) * rows->taps; t++) {
            if (rows->weight[t] == 0.0f) continue;
            const float *source = pos + (1 + rows->index[t] * side) * D;
            for (int64_t b = 0; b < side; b++)
                axpy(line + b * POS_EMBED_COLUMNS, source + b * D, rows->weight[t], n);
        }
        for (int64_t j = 0; j < w; j++) {
            float *target = out + (1 + i * w + j) * D;
            memset(target, 0, (size_t)n * sizeof(float));
            for (int64_t t = j * columns->taps; t < (j + 1) * columns->taps; t++)
                axpy(target, line + columns->index[t] * POS_EMBED_COLUMNS, columns->weight[t], n);
        }
    }
}

static void columns_backward(float *dpos, const float *dout, int64_t D, int64_t n, int64_t side, int64_t h,
                             int64_t w, const PosEmbedAxis *rows, const PosEmbedAxis *columns, float *line)
{
    axpy(dpos, dout, 1.0f, n);
    for (int64_t i = 0; i < h; i++) {
        memset(line, 0, (size_t)(side * POS_EMBED_COLUMNS) * sizeof(float));
        for (int64_t j = 0; j < w; j++) {
            const float *source = dout + (1 + i * w + j) * D;
            for (int64_t t = j * columns->taps; t < (j + 1) * columns->taps; t++)
                axpy(line + columns->index[t] * POS_EMBED_COLUMNS, source, columns->weight[t], n);
        }
        for (int64_t t = i * rows->taps; t < (i + 1) * rows->taps; t++) {
            if (rows->weight[t] == 0.0f) continue;
            float *target = dpos + (1 + rows->index[t] * side) * D;
            for (int64_t b = 0; b < side; b++)
                axpy(target + b * D, line + b * POS_EMBED_COLUMNS, rows->weight[t], n);
        }
    }
}

/* Side of the square grid behind a [1 + side^2, D] embedding. */
static int64_t grid_side(Tensor pos)
{
    int64_t side = (int64_t)lround(sqrt((double)(pos.shape[0] - 1)));
    CHECK(pos.ndim == 2 && side >= 1 && side * side == pos.shape[0] - 1 && side <= POS_EMBED_MAX_GRID);
    return side;
}

/* columns_forward or columns_backward. */
typedef void ColumnsPass(float *target, const float *source, int64_t D, int64_t n, int64_t side, int64_t h,
                         int64_t w, const PosEmbedAxis *rows, const PosEmbedAxis *columns, float *line);

/* Runs a pass over all columns of the embedding, a block of them per turn of a thread. */
static void resample(const Ops *ops, ColumnsPass *pass, Tensor target, Tensor source, int64_t side, int64_t h,
                     int64_t w, double offset, bool antialias)
{
    ArenaMark mark = arena_mark(ops->scratch);
    int64_t D = target.shape[1], parts = (D + POS_EMBED_COLUMNS - 1) / POS_EMBED_COLUMNS;
    PosEmbedAxis rows = axis_create(ops, side, h, offset, antialias);
    PosEmbedAxis columns = axis_create(ops, side, w, offset, antialias);
    int threads = ops_cpu_threads(ops, h * w * D, parts);
    float *to = tensor_f32(target);
    const float *from = tensor_f32(source);

    float *lines = arena_alloc(ops->scratch, (size_t)(threads * side * POS_EMBED_COLUMNS) * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        float *line = lines + omp_get_thread_num() * side * POS_EMBED_COLUMNS;
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++) {
            int64_t first = part * POS_EMBED_COLUMNS;
            int64_t n = D - first < POS_EMBED_COLUMNS ? D - first : POS_EMBED_COLUMNS;
            pass(to + first, from + first, D, n, side, h, w, &rows, &columns, line);
        }
    }
    arena_reset(ops->scratch, mark);
}

void cpu_pos_embed_forward(const Ops *ops, Tensor out, Tensor pos, int64_t h, int64_t w, double offset,
                           bool antialias)
{
    int64_t side = grid_side(pos), D = pos.shape[1];
    CHECK(h >= 1 && w >= 1 && out.ndim == 2 && out.shape[0] == 1 + h * w && out.shape[1] == D);
    resample(ops, columns_forward, out, pos, side, h, w, offset, antialias);
}

void cpu_pos_embed_backward(const Ops *ops, Tensor dpos, Tensor dout, int64_t h, int64_t w, double offset,
                            bool antialias)
{
    int64_t side = grid_side(dpos), D = dpos.shape[1];
    CHECK(h >= 1 && w >= 1 && dout.ndim == 2 && dout.shape[0] == 1 + h * w && dout.shape[1] == D);
    resample(ops, columns_backward, dpos, dout, side, h, w, offset, antialias);
}

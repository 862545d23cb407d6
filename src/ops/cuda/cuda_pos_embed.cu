/* cuda_pos_embed.cu - the twin of ops/cpu/pos_embed.c: position embeddings resampled to another grid, and the
 * transpose of that map.
 *
 * Once a step for a crop size, out of some hundred rows: not a matter of bandwidth. One kernel writes the
 * weights of an axis as a small matrix [out, in] with the stretch of its rows that is not zero; the others
 * add rows of D up, a block an output place (or, transposed, an input place), in a fixed order.
 */
#include "ops/cuda/row_access.cuh"

#include <math.h>

enum { POS_EMBED_MAX_GRID = 512 }; /* side of the stored embedding: what scratch is planned for */

/* Output i of an axis is the sum over a = begin[i] .. end[i] - 1 of weight[i * in + a] * input[a]. */
typedef struct {
    float *weight; /* [out, in] */
    int *begin, *end;
    int in, out;
} PosEmbedAxis;

__device__ __forceinline__ double pos_embed_cubic(double x, double a)
{
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

/* a = -0.75; taps beyond the border read the border, so that its weight is theirs together. */
__device__ void pos_embed_plain_row(const PosEmbedAxis *axis, int i, double scale)
{
    double place = ((double)i + 0.5) * scale - 0.5;
    int base = (int)floor(place) - 1, most = axis->in - 1;
    int begin = base < 0      ? 0
                : base > most ? most
                              : base,
        end = base + 4 < 1      ? 1
              : base + 4 > most ? most + 1
                                : base + 4;
    for (int at = begin; at < end; at++) {
        double weight = 0.0;
        for (int tap = base; tap < base + 4; tap++)
            if ((tap < 0 ? 0 : tap > most ? most : tap) == at)
                weight += pos_embed_cubic(place - (double)tap, -0.75);
        axis->weight[(int64_t)i * axis->in + at] = (float)weight;
    }
    axis->begin[i] = begin;
    axis->end[i] = end;
}

/* a = -0.5, stretched when the grid shrinks; taps beyond the border are left out and the rest renormalised.
 */
__device__ void pos_embed_antialias_row(const PosEmbedAxis *axis, int i, double scale)
{
    double stretch = fmax(scale, 1.0), support = 2.0 * stretch, center = ((double)i + 0.5) * scale, sum = 0.0;
    int begin = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
    if (begin < 0) begin = 0;
    if (end > axis->in) end = axis->in;
    for (int at = begin; at < end; at++)
        sum += pos_embed_cubic(((double)at - center + 0.5) / stretch, -0.5);
    for (int at = begin; at < end; at++)
        axis->weight[(int64_t)i * axis->in + at] =
            (float)(pos_embed_cubic(((double)at - center + 0.5) / stretch, -0.5) / sum);
    axis->begin[i] = begin;
    axis->end[i] = end;
}

/* A thread an output place; zeros outside of the stretch, for the transpose. */
static __global__ void pos_embed_axis_kernel(PosEmbedAxis axis, double scale, int antialias)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= axis.out) return;
    for (int at = 0; at < axis.in; at++)
        axis.weight[(int64_t)i * axis.in + at] = 0.0f;
    if (antialias)
        pos_embed_antialias_row(&axis, i, scale);
    else
        pos_embed_plain_row(&axis, i, scale);
}

/* Block 0 copies entry 0; block 1 + i * w + j makes that place. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    pos_embed_forward_kernel(float *out, const float *pos, PosEmbedAxis rows, PosEmbedAxis columns, int D)
{
    int64_t place = (int64_t)blockIdx.x - 1;
    out += (int64_t)blockIdx.x * D;
    if (place < 0) {
        for (int k = threadIdx.x; k < D; k += blockDim.x)
            out[k] = pos[k];
        return;
    }
    int i = (int)(place / columns.out), j = (int)(place % columns.out);
    const float *row_weight = rows.weight + (int64_t)i * rows.in;
    const float *column_weight = columns.weight + (int64_t)j * columns.in;
    for (int k = threadIdx.x; k < D; k += blockDim.x) {
        float sum = 0.0f;
        for (int b = columns.begin[j]; b < columns.end[j]; b++) {
            float line = 0.0f;
            for (int a = rows.begin[i]; a < rows.end[i]; a++)
                line += row_weight[a] * pos[(1 + (int64_t)a * columns.in + b) * D + k];
            sum += column_weight[b] * line;
        }
        out[k] = sum;
    }
}

/* Block 0: entry 0; block 1 + a * in + b: what that place of the stored grid gave to all others. */
static __global__ void __launch_bounds__(ROW_ACCESS_THREADS)
    pos_embed_backward_kernel(float *dpos, const float *dout, PosEmbedAxis rows, PosEmbedAxis columns, int D)
{
    int64_t place = (int64_t)blockIdx.x - 1;
    dpos += (int64_t)blockIdx.x * D;
    if (place < 0) {
        for (int k = threadIdx.x; k < D; k += blockDim.x)
            dpos[k] += dout[k];
        return;
    }
    int a = (int)(place / columns.in), b = (int)(place % columns.in);
    for (int k = threadIdx.x; k < D; k += blockDim.x) {
        float sum = 0.0f;
        for (int i = 0; i < rows.out; i++) {
            float row_weight = rows.weight[(int64_t)i * rows.in + a], line = 0.0f;
            if (row_weight == 0.0f) continue;
            for (int j = 0; j < columns.out; j++) {
                float column_weight = columns.weight[(int64_t)j * columns.in + b];
                if (column_weight == 0.0f) continue;
                line += column_weight * dout[(1 + (int64_t)i * columns.out + j) * D + k];
            }
            sum += row_weight * line;
        }
        dpos[k] += sum;
    }
}

/* --- host side ---------------------------------------------------------------------------------------- */

/* Most places of an axis of the output. */
static int64_t pos_embed_longest(const OpsLimits *limits)
{
    return limits->max_seqlen > POS_EMBED_MAX_GRID ? limits->max_seqlen : (int64_t)POS_EMBED_MAX_GRID;
}

size_t cuda_pos_embed_scratch(const OpsLimits *limits, int multiprocessors)
{
    (void)multiprocessors;
    int64_t out = pos_embed_longest(limits);
    return 2 *
           (ops_cuda_piece(out * POS_EMBED_MAX_GRID, sizeof(float)) + 2 * ops_cuda_piece(out, sizeof(int)));
}

static PosEmbedAxis pos_embed_axis(const Ops *ops, int64_t in, int64_t out, double offset, bool antialias)
{
    PosEmbedAxis axis = {};
    axis.weight = (float *)arena_alloc(ops->scratch, (size_t)(out * in) * sizeof(float));
    axis.begin = (int *)arena_alloc(ops->scratch, (size_t)out * sizeof(int));
    axis.end = (int *)arena_alloc(ops->scratch, (size_t)out * sizeof(int));
    axis.in = (int)in;
    axis.out = (int)out;
    KERNEL_LAUNCH(pos_embed_axis_kernel, (unsigned)ceil_div(out, WARP), WARP, 0, ops_cuda(ops)->stream, axis,
                  (double)in / ((double)out + offset), (int)antialias);
    return axis;
}

/* Side of the square grid behind a [1 + side^2, D] embedding. */
static int64_t pos_embed_side(Tensor pos)
{
    int64_t side = (int64_t)lround(sqrt((double)(pos.shape[0] - 1)));
    CHECK(pos.ndim == 2 && side >= 1 && side * side == pos.shape[0] - 1 && side <= POS_EMBED_MAX_GRID);
    return side;
}

extern "C" void cuda_pos_embed_forward(const Ops *ops, Tensor out, Tensor pos, int64_t h, int64_t w,
                                       double offset, bool antialias)
{
    int64_t side = pos_embed_side(pos), D = pos.shape[1];
    CHECK(h >= 1 && w >= 1 && out.ndim == 2 && out.shape[0] == 1 + h * w && out.shape[1] == D &&
          D <= INT32_MAX);
    ArenaMark mark = arena_mark(ops->scratch);
    PosEmbedAxis rows = pos_embed_axis(ops, side, h, offset, antialias);
    PosEmbedAxis columns = pos_embed_axis(ops, side, w, offset, antialias);
    KERNEL_LAUNCH(pos_embed_forward_kernel, (unsigned)(1 + h * w), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f32(out), tensor_f32(pos), rows, columns, (int)D);
    arena_reset(ops->scratch, mark);
}

extern "C" void cuda_pos_embed_backward(const Ops *ops, Tensor dpos, Tensor dout, int64_t h, int64_t w,
                                        double offset, bool antialias)
{
    int64_t side = pos_embed_side(dpos), D = dpos.shape[1];
    CHECK(h >= 1 && w >= 1 && dout.ndim == 2 && dout.shape[0] == 1 + h * w && dout.shape[1] == D &&
          D <= INT32_MAX);
    ArenaMark mark = arena_mark(ops->scratch);
    PosEmbedAxis rows = pos_embed_axis(ops, side, h, offset, antialias);
    PosEmbedAxis columns = pos_embed_axis(ops, side, w, offset, antialias);
    KERNEL_LAUNCH(pos_embed_backward_kernel, (unsigned)(1 + side * side), ROW_ACCESS_THREADS, 0,
                  ops_cuda(ops)->stream, tensor_f32(dpos), tensor_f32(dout), rows, columns, (int)D);
    arena_reset(ops->scratch, mark);
}

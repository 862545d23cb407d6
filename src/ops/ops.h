/* ops.h - the table of operations: what the model, the losses and the optimiser are made of.
 *
 * One X-macro list makes the struct of function pointers that callers use (`ops->gelu_forward(ops, y, x)`),
 * and the prototypes of each backend (`cpu_gelu_forward`, `cuda_gelu_forward`). `ops/cpu` is the definition
 * of correct, and fast on a host; `ops/cuda` is its twin on a GPU.
 *
 * Words used below
 * - n, N: rows (tokens); n rows taken out of N where `rows` [n] int32 selects them, all where it is none
 * - act: an activation: fp32, bf16 or fp16; all act operands of one call have the same type
 * - fp32: always fp32, whatever the compute type
 * - mat: a weight matrix: fp32, bf16 or fp16 (16 bits: products of such numbers, sums in fp32)
 * - written: every element is set; "+=": added to what is there
 *
 * Every tensor lies in the memory of ops->device, and work is done in the order of the calls; nothing is
 * handed back to the host: results go to tensors, which device_download fetches. Tensors may have no rows (n
 * = 0): nothing is written then, and nothing fails. Nothing aliases unless it says so. Operations allocate
 * nothing; temporary memory comes from ops->scratch. For one thread count the result is the same bits every
 * time, on a GPU too. Shapes are checked by asserts: a wrong one is our bug.
 *
 * What it is not: a graph, an autograd, a broadcasting array library.
 */
#ifndef DINOBATCH_OPS_OPS_H
#define DINOBATCH_OPS_OPS_H

#include "comm/comm.h"
#include "tensor/tensor.h"

typedef struct Ops Ops;

enum { PROTOTYPE_MAX_TARGETS = 16 }; /* teacher rows that one student row is compared with */

enum { PATCHIFY_LEVELS = 256 }; /* that a uint8 pixel can have */

/* Operands of prototype_cross_entropy (below). */
typedef struct {
    Tensor student;       /* [n, d] fp32: L2-normalised bottleneck rows */
    Tensor student_v;     /* [K, d] mat (fp32 unless ops->reduced_prototypes): weight_v of the last layer */
    Tensor student_scale; /* [K] fp32: weight_g / |weight_v row| (prototype_scale) */
    float student_temp;
    Tensor teacher;       /* [m, e] fp32; e may be another width than d */
    Tensor teacher_v;     /* [K, e] like student_v */
    Tensor teacher_scale; /* [K] fp32 */
    float teacher_temp;
    Tensor teacher_bias; /* [K] fp32: added to teacher score / temp before the softmax (Sinkhorn or
                            -centre/temp) */
    Tensor targets;      /* [n, t] int32: the teacher rows that each student row is compared with; -1: none */
    Tensor row_weight;   /* [n] fp32: weight of each student row in the differentiated loss */
    Tensor loss_scale;   /* [1] fp64: factor on both gradients (fp16), or none: 1 */
    /* results */
    Tensor loss;      /* [n] fp32 written: sum over its targets of -sum_k q_k log softmax(s / student_temp)_k,
                         unweighted */
    Tensor d_student; /* [n, d] fp32 written: d (sum_i row_weight_i loss_i) / d student; none: forward only */
    Tensor d_student_w; /* [K, d] fp32 +=: d / d W, W = scale * v row-wise (weight_norm_backward finishes it);
                           none with d_student */
    Tensor usage;       /* [K] fp32 += : times that a target's largest entry was this prototype, or none */
    Tensor entropy;     /* [2] fp64 +=: over (student row, target) pairs the target's entropy in nats; their
                           number */
} PrototypeCrossEntropy;

/* A convolution of pictures [n, height, width, channels], with what follows it. */
typedef struct {
    Tensor y; /* [n, h', w', O] act: h' = (h + 2 padding - kernel) / stride + 1, and so w' */
    Tensor x; /* [n, h, w, C] act */
    Tensor w; /* [O, kernel * kernel * C] mat of x's type: columns are row, column of the kernel, channel */
    Tensor b; /* [O] fp32 */
    int64_t kernel, stride, padding; /* both ways alike; what is padded is 0 */
    bool accumulate;                 /* y += instead of y = */
    bool relu;                       /* then y = max(y, 0) */
} Conv2d;

/* The stretches of a flat vector that have coefficients of their own: parameters, or a rank's parts of them.
 */
typedef struct {
    int64_t count;        /* S */
    Tensor bounds;        /* [S, 2] int64: first element, one past the last; ascending, disjoint */
    Tensor module;        /* [S] int32: 0 .. OPS_MODULES - 1, whose gradient is clipped together */
    Tensor rate;          /* [S] int32: which of OPS_RATES learning rates counts */
    Tensor lr_multiplier; /* [S] fp64 */
    Tensor wd_multiplier; /* [S] fp64 */
} OpsSegments;

enum { OPS_MODULES = 3 };

/* Learning rates that differ for some iterations: of prototypes while they are frozen, of the backbone while
 * it is, of everything else. */
enum { OPS_RATE_OTHER, OPS_RATE_LAST_LAYER, OPS_RATE_BACKBONE, OPS_RATES };

/* What decides a step's update lies with the device, so that the host need not wait for it: fp64 numbers of
 * the control vector. step_control makes all but the first two from a step's losses and gradients. */
enum {
    CONTROL_LOSS_SCALE,  /* factor on the gradients of the next step; 1 unless fp16 */
    CONTROL_GROWTH,      /* finite steps since it last changed */
    CONTROL_STEPS,       /* updates made, this one included */
    CONTROL_FINITE,      /* 1: every loss and every gradient of this step is finite; 0: nothing may change */
    CONTROL_CORRECTION1, /* 1 - beta1^steps */
    CONTROL_CORRECTION2, /* 1 - beta2^steps */
    CONTROL_NORM,        /* [OPS_MODULES]: gradient norms without the loss scale */
    CONTROL_FACTOR = CONTROL_NORM + OPS_MODULES, /* [OPS_MODULES]: clip factor / loss scale of this step */
    CONTROL_COUNT = CONTROL_FACTOR + OPS_MODULES,
};

/* How step_control decides. */
typedef struct {
    double clip_grad;    /* 0: no clipping */
    double beta1, beta2; /* of AdamW */
    bool scaled; /* the loss scale is dynamic (fp16): halved after a bad step, doubled after 2000 good */
} StepControl;

/* One AdamW update of a flat vector. */
typedef struct {
    Tensor params, exp_avg, exp_avg_sq; /* [n] fp32 in place */
    Tensor grads;                       /* [n] fp32 read */
    OpsSegments segments;               /* what lies between them is left alone */
    Tensor control;                     /* [CONTROL_COUNT] fp64 read; nothing changes unless CONTROL_FINITE */
    double lr[OPS_RATES], weight_decay;
    double beta1, beta2, eps; /* double, since 1 - 0.999f is off by 1e-5 */
} AdamwUpdate;

/* clang-format off */
#define OPS_LIST(X) \
/* --- dense layers ------------------------------------------------------------------------------------------- */ \
/* y[n, m] act = x[n, k] act . w[m, k]^T mat + b[m] fp32 (or none) */ \
X(linear_forward, (const Ops *ops, Tensor y, Tensor x, Tensor w, Tensor b)) \
/* dx[n, k] act written = dy[n, m] act . w[m, k] mat */ \
X(linear_backward_input, (const Ops *ops, Tensor dx, Tensor dy, Tensor w)) \
/* dw[m, k] fp32 += dy^T . x;  db[m] fp32 (or none) += column sums of dy */ \
X(linear_backward_weight, (const Ops *ops, Tensor dw, Tensor db, Tensor dy, Tensor x)) \
/* --- normalisation ------------------------------------------------------------------------------------------- */ \
/* y[n, D] act = (x[rows] - mean) * rstd * w + b over the last dimension; x[N, D] fp32; stats[n, 2] fp32 = mean, rstd, \
 * rstd = 1 / sqrt(biased variance + eps); kept[n, D] act (or none) written = x[rows], and where it is given y and stats \
 * are those of what is kept, so that the backward has the very numbers */ \
X(layer_norm_forward, (const Ops *ops, Tensor y, Tensor stats, Tensor kept, Tensor x, Tensor rows, Tensor w, Tensor b, float eps)) \
/* dx[N, D] fp32 += at rows (rows are distinct);  dw[D], db[D] fp32 +=; dy[n, D] act; x act: [N, D] read at rows, or [n, D] \
 * as the forward kept it; y[n, D] act (or none) written = the forward's y again, with its b (read for y alone) */ \
X(layer_norm_backward, (const Ops *ops, Tensor dx, Tensor dw, Tensor db, Tensor y, Tensor dy, Tensor x, Tensor rows, Tensor stats, Tensor w, Tensor b)) \
/* y[n, d] fp32 = x / max(|x|, eps); norms[n] fp32 = |x|; x act */ \
X(l2_normalize_forward, (const Ops *ops, Tensor y, Tensor norms, Tensor x, float eps)) \
/* dx[n, d] act = (dy - y <y, dy>) / norm where norm > eps, dy / eps elsewhere (0 for dy = 0) */ \
X(l2_normalize_backward, (const Ops *ops, Tensor dx, Tensor dy, Tensor y, Tensor norms, float eps)) \
/* --- attention ----------------------------------------------------------------------------------------------- */ \
/* Softmax attention inside each sequence of a packed batch. qkv[n, 3*D] act: columns are q, k, v, then head, then head \
 * dimension; sequence s is rows cu_seqlens[s] .. cu_seqlens[s+1] (int32 [S+1]); scale head_dim^-0.5. \
 * out[n, D] act; lse[n, heads] fp32 = log sum exp of the scaled scores. The score matrix is never stored. */ \
X(attention_forward, (const Ops *ops, Tensor out, Tensor lse, Tensor qkv, Tensor cu_seqlens, int64_t heads)) \
/* dqkv[n, 3*D] act written */ \
X(attention_backward, (const Ops *ops, Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, Tensor cu_seqlens, int64_t heads)) \
/* --- element-wise -------------------------------------------------------------------------------------------- */ \
/* y = x Phi(x), the erf form; act of any shape. y may be x */ \
X(gelu_forward, (const Ops *ops, Tensor y, Tensor x)) \
/* dx = dy * (Phi(x) + x phi(x)); y written = the forward's y again; dx or y may be dy */ \
X(gelu_backward, (const Ops *ops, Tensor dx, Tensor y, Tensor dy, Tensor x)) \
/* y[n, h] = silu(x1) * x2, x12[n, 2h] = gate then value; act */ \
X(swiglu_forward, (const Ops *ops, Tensor y, Tensor x12)) \
/* dx12[n, 2h] written; y[n, h] written = the forward's y again; y may be dy */ \
X(swiglu_backward, (const Ops *ops, Tensor dx12, Tensor y, Tensor dy, Tensor x12)) \
/* x[N, D] fp32: x[rows[i]] += row_scale[i] * gamma * y[i]; y[n, D] act; row_scale [n] fp32 or none (1); gamma [D] fp32 \
 * or none (1); rows are distinct. LayerScale, drop-path scale and residual in one */ \
X(residual_forward, (const Ops *ops, Tensor x, Tensor y, Tensor rows, Tensor row_scale, Tensor gamma)) \
/* dy[n, D] act = row_scale * gamma * dx[rows]; dgamma[D] fp32 (or none) += sum row_scale * dx[rows] * y */ \
X(residual_backward, (const Ops *ops, Tensor dy, Tensor dgamma, Tensor dx, Tensor y, Tensor rows, Tensor row_scale, Tensor gamma)) \
/* y[n, D] = x[rows]; x[N, D] and y act or fp32, types may differ */ \
X(gather_rows, (const Ops *ops, Tensor y, Tensor x, Tensor rows)) \
/* x[rows[i]] += y[i], in order of i; rows may repeat; x[N, D] fp32, y[n, D] act */ \
X(scatter_add_rows, (const Ops *ops, Tensor x, Tensor y, Tensor rows)) \
/* out = in converted among fp32, bf16, fp16; or copied */ \
X(cast, (const Ops *ops, Tensor out, Tensor in)) \
/* Every element of x, of any type, becomes 0 */ \
X(zero, (const Ops *ops, Tensor x)) \
/* --- embeddings ---------------------------------------------------------------------------------------------- */ \
/* patches[B*N, C*p*p] act from images[B, C, H, W]; row (b, i, j) row-major over the grid, columns channel, y, x; \
 * N = (H/p)*(W/p), H and W multiples of p. The images are uint8, and levels[C, 256] fp32 says what each grey level of a \
 * channel is, or fp32, and levels none. The patch convolution is linear_forward on this */ \
X(patchify_forward, (const Ops *ops, Tensor patches, Tensor images, Tensor levels, int64_t patch_size)) \
/* dimages[B, C, H, W] fp32 written from dpatches */ \
X(patchify_backward, (const Ops *ops, Tensor dimages, Tensor dpatches, int64_t patch_size)) \
/* x[B*(1+R+N), D] fp32 written: per sequence [cls + pos[0], registers (no position), patch or mask_token + pos[1+i]]; \
 * patches[B*N, D] act; masks[B*N] uint8 or none; mask_token[D], cls[D], registers[R*D] (or none), pos[1+N, D] fp32 */ \
X(embed_tokens_forward, (const Ops *ops, Tensor x, Tensor patches, Tensor masks, Tensor mask_token, Tensor cls, Tensor registers, Tensor pos)) \
/* dpatches[B*N, D] act written (0 where masked); dmask_token, dcls, dregisters fp32 +=; dpos[1+N, D] fp32 += */ \
X(embed_tokens_backward, (const Ops *ops, Tensor dpatches, Tensor dmask_token, Tensor dcls, Tensor dregisters, Tensor dpos, Tensor dx, Tensor masks)) \
/* out[1+h*w, D] fp32 written: pos[1+M*M, D] fp32 resampled to an h x w grid by the reference's bicubic rules (offset > 0: \
 * scale (h+offset)/M, a = -0.75, clamped border; antialias: a = -0.5, renormalised); entry 0 is copied */ \
X(pos_embed_forward, (const Ops *ops, Tensor out, Tensor pos, int64_t h, int64_t w, double offset, bool antialias)) \
/* dpos[1+M*M, D] fp32 += the transpose of the same map applied to dout */ \
X(pos_embed_backward, (const Ops *ops, Tensor dpos, Tensor dout, int64_t h, int64_t w, double offset, bool antialias)) \
/* --- pictures as [n, h, w, C] ---------------------------------------------------------------------------------- */ \
/* y (+)= conv(x, w) + b, and what follows; see the struct */ \
X(conv2d_forward, (const Ops *ops, const Conv2d *conv)) \
/* y[n, h', w', C] act = the largest x[n, h, w, C] under each window of kernel x kernel; sizes as in Conv2d, what is padded \
 * does not count; padding <= kernel / 2 */ \
X(max_pool_forward, (const Ops *ops, Tensor y, Tensor x, int64_t kernel, int64_t stride, int64_t padding)) \
/* y[n, C] fp32 = (mean over h and w of max(x, least)^p)^(1/p): generalised mean; x[n, h, w, C] act, p >= 1, least > 0 */ \
X(gem_pool_forward, (const Ops *ops, Tensor y, Tensor x, double p, double least)) \
/* --- prototypes: the weight-normed last layer, never materialising [rows, K] in fp32 for all rows ------------- */ \
/* scale[K] fp32 = g[K] / |v row|, v[K, d] fp32 */ \
X(prototype_scale, (const Ops *ops, Tensor scale, Tensor v, Tensor g)) \
/* scores[n, K] fp32 = x[n, d] . v^T * scale: the plain form, for tests and small heads */ \
X(prototype_scores, (const Ops *ops, Tensor scores, Tensor x, Tensor v, Tensor scale)) \
/* In place: dv[K, d] holds d/dW on entry, d/dv on return; dg[K] fp32 +=. Weight norm, one norm per row */ \
X(weight_norm_backward, (const Ops *ops, Tensor dv, Tensor dg, Tensor v, Tensor g)) \
/* Centering: bias[K] = -center / temp with the centre as it stands, then center[K] = momentum * center + (1 - momentum) * sum; \
 * all fp32 */ \
X(center_update, (const Ops *ops, Tensor bias, Tensor center, Tensor sum, double temp, double momentum)) \
/* bias[K] fp32 written such that softmax_k(score / temp + bias) are the Sinkhorn-Knopp targets after `iterations` rounds \
 * of prototype then sample normalisation over the x[n, d] fp32 of all ranks (any n, also 0). Collective over COMM */ \
X(prototype_sinkhorn, (const Ops *ops, Tensor bias, Tensor x, Tensor v, Tensor scale, float temp, int iterations, Comm *comm)) \
/* sum[K] fp32 written = sum_i row_weight[i] * score(x[i]) of this rank's rows */ \
X(prototype_center, (const Ops *ops, Tensor sum, Tensor x, Tensor v, Tensor scale, Tensor row_weight)) \
/* Cross-entropy of student rows against teacher rows, forward and backward, in row blocks; see the struct */ \
X(prototype_cross_entropy, (const Ops *ops, PrototypeCrossEntropy *args)) \
/* --- losses on plain rows ------------------------------------------------------------------------------------ */ \
/* KoLeo of one group x[n, D] fp32: L = -mean log(|x_i - x_nn(i) + 1e-8| + 1e-8) on L2-normalised rows (eps 1e-8); \
 * loss[1] fp64 += weight * L; nearest[n] int32 written; dx[n, D] fp32 (or none) written = loss_scale * weight * dL / dx, \
 * loss_scale [1] fp64 or none (1). n < 2: L = 0, dx = 0 */ \
X(koleo, (const Ops *ops, Tensor loss, Tensor nearest, Tensor dx, Tensor x, double weight, Tensor loss_scale)) \
/* sums[G] fp64 += factor * weights[i] * values[i] at groups[i], in order of i; values, weights (or none: 1) [n] fp32; \
 * groups [n] int32, -1: nowhere */ \
X(group_sums, (const Ops *ops, Tensor sums, Tensor values, Tensor weights, Tensor groups, double factor)) \
/* sums[2, D] fp64 += the L2-normalised rows of x[n, D] fp32, and their squares: how far directions spread */ \
X(direction_sums, (const Ops *ops, Tensor sums, Tensor x)) \
/* count[1] fp64 written = number of elements of x [n] fp32 above 0 */ \
X(count_positive, (const Ops *ops, Tensor count, Tensor x)) \
/* --- optimiser ------------------------------------------------------------------------------------------------ */ \
/* squares[S] fp64 written: the sum of squares of each segment of the flat x [n] fp32, added up in fp64 in a fixed order; \
 * not finite if any element is not */ \
X(segment_squares, (const Ops *ops, Tensor squares, Tensor x, const OpsSegments *segments)) \
/* control [CONTROL_COUNT] fp64 in place, from losses [any] fp64 and the gradients' squares [S] fp64 of segment_squares */ \
X(step_control, (const Ops *ops, Tensor control, Tensor losses, Tensor squares, const OpsSegments *segments, const StepControl *rule)) \
/* Decoupled AdamW, see the struct */ \
X(adamw, (const Ops *ops, const AdamwUpdate *update)) \
/* average = momentum * average + (1 - momentum) * value, [n] fp32; nothing unless control (or none) says finite */ \
X(ema, (const Ops *ops, Tensor average, Tensor value, double momentum, Tensor control)) \
/* x = before, [n] fp32, if control does not say finite */ \
X(take_back, (const Ops *ops, Tensor x, Tensor before, Tensor control))
/* clang-format on */

struct Ops {
#define OPS_MEMBER(name, arguments) void(*name) arguments;
    OPS_LIST(OPS_MEMBER)
#undef OPS_MEMBER
    void (*destroy)(Ops *ops);
    const char *name;        /* "cpu", "cuda" */
    Device *device;          /* where tensors lie; borrowed */
    int threads;             /* OpenMP threads of this rank */
    bool has_bf16, has_fp16; /* this processor multiplies such numbers itself */
    bool reduced_prototypes; /* prototype operations take 16-bit weight_v */
    Arena *scratch;          /* temporary memory of operations; owned */
    Comm *moving; /* whose started collectives long operations on a CPU move forward; borrowed; NULL:
                     none */
};

/* The largest sizes that operations will meet; scratch is planned from them. */
typedef struct {
    int64_t rows;       /* tokens of one call */
    int64_t width;      /* columns of any activation */
    int64_t max_seqlen; /* tokens of one sequence */
    int64_t head_dim;
    int64_t heads;
    int64_t prototypes;
    int64_t bottleneck;
    int64_t group_rows;   /* rows of one KoLeo group */
    int64_t segments;     /* of OpsSegments */
    int64_t conv_columns; /* kernel * kernel * C of a convolution; 0: there is none */
    bool reduced;         /* 16-bit operands will be used */
} OpsLimits;

/* Which attention kernels a GPU uses for 16-bit operands of a head dimension that they have: by mma.sync
 * (sm_80 and later), or by wgmma (capability 9.0 alone). All else is the same for both. */
typedef enum { OPS_ATTENTION_AUTO, OPS_ATTENTION_SM80, OPS_ATTENTION_SM90 } OpsAttention;

/* What users choose. */
typedef struct {
    int threads;            /* of this rank; 0: what OpenMP would use */
    OpsAttention attention; /* auto is sm80. Of no effect on a CPU */
} OpsOptions;

/* True if the device has these attention kernels; any has auto's. */
bool ops_attention_works(const Device *device, OpsAttention attention);

/* Bytes of device memory that the operations of such a device take beside their operands: scratch and
 * workspaces. `parallel`: OpenMP threads, or multiprocessors of the GPU. 0: this build does not know (a GPU's
 * without CUDA). */
size_t ops_memory(DeviceKind kind, const OpsLimits *limits, int parallel);

/* The operations of a device, which must outlive them; it has the attention kernels of the options. Owned by
 * the caller. */
Ops *ops_create(Device *device, const OpsLimits *limits, const OpsOptions *options);
void ops_destroy(Ops *ops);

#endif

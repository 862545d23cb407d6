/* ops_work.h - what an operation has to do, from its operands: products, and bytes that it moves.
 *
 * OPS_WORK_name is an OpsWork made of the arguments that ops.h lists for `name`. It is what the result needs,
 * once: products count multiply and add as two, backwards of attention and of the losses do not count scores
 * that are computed again, so a rate made of it is comparable between ways to compute. Operations without
 * large products count bytes of their operands, read and written.
 */
#ifndef DINOBATCH_OPS_OPS_WORK_H
#define DINOBATCH_OPS_OPS_WORK_H

#include "ops/ops.h"

typedef struct {
    double flops, bytes; /* one of them is 0, */
    Dtype dtype;         /* and products are of such numbers */
    /* Attention, whose products only the lengths of sequences tell: */
    Tensor starts;     /* cu_seqlens, */
    int64_t tokens;    /* in all, */
    double per_square; /* and the flops for each square of a length */
} OpsWork;

/* A product of [m, k] and [k, n]. */
OpsWork ops_work_product(Dtype dtype, int64_t m, int64_t n, int64_t k);

/* Scores and weighted sum of each sequence: two products of its length squared by the width of all heads. */
OpsWork ops_work_attention(Tensor out, Tensor cu_seqlens);

/* Student scores, and with the backward both gradients. Teacher scores are Sinkhorn's, made there. */
OpsWork ops_work_cross_entropy(const PrototypeCrossEntropy *args);

/* As a product of the matrix of windows. */
OpsWork ops_work_convolution(const Conv2d *conv);

OpsWork ops_work_times(double factor, OpsWork work);

/* A tensor that is read and written is listed twice. */
#define OPS_WORK_MOVED(...) \
    ops_work_moved((const Tensor[]){__VA_ARGS__}, sizeof((Tensor[]){__VA_ARGS__}) / sizeof(Tensor))
OpsWork ops_work_moved(const Tensor *tensors, size_t count);

/* Also so many fp32 tensors of the shape of y: rows that are read, written, or both. */
OpsWork ops_work_with_rows(OpsWork work, Tensor y, int count);

/* The flops of attention over sequences that start where starts[count] says. */
double ops_work_of_lengths(const OpsWork *work, const int32_t *starts, int64_t count);

/* clang-format off */
#define OPS_WORK_linear_forward           ops_work_product(w.dtype, x.shape[0], w.shape[0], w.shape[1])
#define OPS_WORK_linear_backward_input    ops_work_product(w.dtype, dy.shape[0], w.shape[0], w.shape[1])
#define OPS_WORK_linear_backward_weight   ops_work_product(x.dtype, x.shape[0], dw.shape[0], dw.shape[1])
#define OPS_WORK_layer_norm_forward       ops_work_with_rows(OPS_WORK_MOVED(y, kept), y, 1)
#define OPS_WORK_layer_norm_backward      ops_work_with_rows(OPS_WORK_MOVED(y, dy, dy), dy, 2)
#define OPS_WORK_l2_normalize_forward     OPS_WORK_MOVED(y, x)
#define OPS_WORK_l2_normalize_backward    OPS_WORK_MOVED(dx, dy, y)
#define OPS_WORK_attention_forward        ops_work_attention(out, cu_seqlens)
#define OPS_WORK_attention_backward       ops_work_times(2, ops_work_attention(out, cu_seqlens))
#define OPS_WORK_gelu_forward             OPS_WORK_MOVED(y, x)
#define OPS_WORK_gelu_backward            OPS_WORK_MOVED(dx, y, dy, x)
#define OPS_WORK_swiglu_forward           OPS_WORK_MOVED(y, x12)
#define OPS_WORK_swiglu_backward          OPS_WORK_MOVED(dx12, y, dy, x12)
#define OPS_WORK_residual_forward         ops_work_with_rows(OPS_WORK_MOVED(y), y, 2)
#define OPS_WORK_residual_backward        ops_work_with_rows(OPS_WORK_MOVED(dy, y), dy, 1)
#define OPS_WORK_gather_rows              OPS_WORK_MOVED(y, y)
#define OPS_WORK_scatter_add_rows         ops_work_with_rows(OPS_WORK_MOVED(y), y, 2)
#define OPS_WORK_cast                     OPS_WORK_MOVED(out, in)
#define OPS_WORK_zero                     OPS_WORK_MOVED(x)
#define OPS_WORK_patchify_forward         OPS_WORK_MOVED(patches, images)
#define OPS_WORK_patchify_backward        OPS_WORK_MOVED(dimages, dpatches)
#define OPS_WORK_embed_tokens_forward     OPS_WORK_MOVED(x, patches)
#define OPS_WORK_embed_tokens_backward    OPS_WORK_MOVED(dpatches, dx)
#define OPS_WORK_pos_embed_forward        OPS_WORK_MOVED(out, pos)
#define OPS_WORK_pos_embed_backward       OPS_WORK_MOVED(dpos, dpos, dout)
#define OPS_WORK_conv2d_forward           ops_work_convolution(conv)
#define OPS_WORK_max_pool_forward         OPS_WORK_MOVED(y, x)
#define OPS_WORK_gem_pool_forward         OPS_WORK_MOVED(y, x)
#define OPS_WORK_prototype_scale          OPS_WORK_MOVED(v)
#define OPS_WORK_prototype_scores         ops_work_product(v.dtype, x.shape[0], v.shape[0], v.shape[1])
#define OPS_WORK_weight_norm_backward     OPS_WORK_MOVED(dv, dv, v)
#define OPS_WORK_prototype_sinkhorn       ops_work_product(v.dtype, x.shape[0], v.shape[0], v.shape[1])
#define OPS_WORK_prototype_center         ops_work_product(v.dtype, x.shape[0], v.shape[0], v.shape[1])
#define OPS_WORK_center_update            OPS_WORK_MOVED(bias, center, center, sum)
#define OPS_WORK_prototype_cross_entropy  ops_work_cross_entropy(args)
#define OPS_WORK_koleo                    ops_work_product(x.dtype, x.shape[0], x.shape[0], x.shape[1])
#define OPS_WORK_group_sums               OPS_WORK_MOVED(values, weights, groups)
#define OPS_WORK_direction_sums           OPS_WORK_MOVED(x)
#define OPS_WORK_count_positive           OPS_WORK_MOVED(x)
#define OPS_WORK_segment_squares          OPS_WORK_MOVED(x)
#define OPS_WORK_step_control             OPS_WORK_MOVED(control, losses, squares)
#define OPS_WORK_adamw                    ops_work_times(7, OPS_WORK_MOVED(update->params))
#define OPS_WORK_ema                      OPS_WORK_MOVED(average, average, value)
#define OPS_WORK_take_back                OPS_WORK_MOVED(x, before)
/* clang-format on */

#endif

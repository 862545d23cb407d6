/* dino_head.h - the projection head up to its normalised bottleneck.
 *
 * Source: dinov2/layers/dino_head.py. MLP with erf GELU between, none after the last product, then L2
 * normalisation with max(norm, 1e-12). It deliberately ends there: the weight-normed last layer is an operand
 * of the prototype operations (ops.h), which never make all scores at once; this file only owns its two
 * parameters.
 */
#ifndef DINOBATCH_NN_DINO_HEAD_H
#define DINOBATCH_NN_DINO_HEAD_H

#include "nn/nn_hooks.h"
#include "ops/ops.h"
#include "tensor/param_table.h"

enum { DINO_HEAD_MAX_LAYERS = 8 };

typedef struct {
    int64_t in_dim, hidden_dim, bottleneck_dim, prototypes;
    int64_t nlayers; /* 1..DINO_HEAD_MAX_LAYERS; 1: one product from in_dim to the bottleneck */
} DinoHeadConfig;

typedef struct {
    DinoHeadConfig config;
    int weight[DINO_HEAD_MAX_LAYERS], bias[DINO_HEAD_MAX_LAYERS]; /* parameter ids of mlp.{0,2,..} */
    int weight_g, weight_v;                                       /* of last_layer: [K, 1], [K, bottleneck] */
    int unit;
} DinoHead;

/* What the backward needs, for n rows. */
typedef struct {
    Dtype act;                        /* of pre and the scratch */
    Tensor in;                        /* [n, in_dim] act: the caller's rows, or their reduced copy */
    Tensor in_copy;                   /* [n, in_dim] bf16, none for fp32 */
    Tensor pre[DINO_HEAD_MAX_LAYERS]; /* [n, width]: output of product i */
    Tensor active;                    /* [n, hidden_dim] scratch: GELU of one pre at a time */
    Tensor norms;                     /* [n] fp32 */
    Tensor bottleneck;                /* [n, bottleneck] fp32, rows of length 1 */
    Tensor d_wide, d_wide2;           /* flat scratch of the backward, none without it */
} DinoHeadActivations;

/* Adds the parameters as a unit of their own. */
void dino_head_build(DinoHead *head, const DinoHeadConfig *config, ParamModule module, ParamTable *table);

/* Activations of type `act` (fp32, or bf16 where the weights have reduced copies) for n rows from the arena.
 */
DinoHeadActivations dino_head_activations(const DinoHead *head, Arena *arena, Dtype act, int64_t n,
                                          bool backward);

/* acts->bottleneck from in[n, in_dim] fp32, which must outlive the backward. */
void dino_head_forward(const DinoHead *head, const Ops *ops, const Weights *weights,
                       DinoHeadActivations *acts, Tensor in, const NnHooks *hooks);

/* din[n, in_dim] fp32 written from d_bottleneck[n, bottleneck]; MLP gradients added to the flat `grads`. The
 * last layer's gradient is the loss's business (prototype_cross_entropy, then weight_norm_backward). */
void dino_head_backward(const DinoHead *head, const Ops *ops, const Weights *weights,
                        DinoHeadActivations *acts, Tensor din, Tensor d_bottleneck, ParamValues grads,
                        const NnHooks *hooks);

#endif

/* vit_block.h - one transformer block: x += ls1(attn(norm1(x))); x += ls2(ffn(norm2(x))), each on its own
 * subset.
 *
 * Source: dinov2/layers/{block,attention,mlp,swiglu_ffn,layer_scale}.py. The feed-forward is the MLP (erf
 * GELU) or SwiGLU with the fused width rule. Backward passes are written by hand from what the forward kept:
 * outputs of products, and inputs of norms. What takes one pass over those to make (LayerNorm's and the
 * activation function's outputs) is made again.
 */
#ifndef DINOBATCH_NN_VIT_BLOCK_H
#define DINOBATCH_NN_VIT_BLOCK_H

#include "nn/packed_sequence.h"
#include "ops/ops.h"
#include "tensor/param_table.h"

typedef struct {
    int64_t embed_dim, heads, hidden; /* hidden: width between the two feed-forward products */
    bool swiglu;
    /* parameter ids; -1 where the layer has none */
    int norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias, ls1_gamma;
    int norm2_weight, norm2_bias, ffn_in_weight, ffn_in_bias, ffn_out_weight, ffn_out_bias, ls2_gamma;
    int unit;
} VitBlock;

/* What a block's parameters depend on. */
typedef struct {
    int64_t embed_dim, heads;
    double mlp_ratio;
    bool swiglu, qkv_bias, proj_bias, ffn_bias;
    double layerscale; /* initial gamma; 0: no LayerScale */
} VitBlockSpec;

/* What the backward pass of a block needs. n1, n2: tokens of the two subsets; H: ffn input product's width.
 * Activations are fp32 or 16 bits wide but for those that say fp32. In 16 bits x1 and x2 are rounded once,
 * and the norms take the rounded rows, as if the residual stream had that type there. */
typedef struct {
    TokenSubset attention, ffn;
    Tensor x1, stats1;               /* [n1, D], [n1, 2] fp32 */
    Tensor qkv, attended, lse, out1; /* [n1, 3D], [n1, D], [n1, heads] fp32, [n1, D] */
    Tensor x2, stats2;               /* [n2, D], [n2, 2] fp32 */
    Tensor hidden_in, out2;          /* [n2, H], [n2, D] */
} VitBlockActivations;

/* Temporary memory of either pass, shared by all blocks of a model: flat buffers of activations; each use
 * takes the front of one as a matrix. */
typedef struct {
    Tensor narrow, wide, wider; /* D, hidden, and the larger of 3 D and H a token */
} VitBlockScratch;

/* Adds the block's parameters to the table's current unit, under "<prefix>norm1.weight" and so on. */
VitBlock vit_block_build(ParamTable *table, ParamModule module, const VitBlockSpec *spec, const char *prefix);

/* Width of the feed-forward: int(D * mlp_ratio), for SwiGLU (int(that * 2/3) + 7) / 8 * 8. */
int64_t vit_block_hidden(const VitBlockSpec *spec);

/* Activations of type `act` for subsets that are already drawn, from the arena. */
VitBlockActivations vit_block_activations(const VitBlock *block, Arena *arena, Dtype act,
                                          TokenSubset attention, TokenSubset ffn);

/* Room for any block like this one with up to `tokens` kept tokens, from the arena. */
VitBlockScratch vit_block_scratch(const VitBlock *block, Arena *arena, Dtype act, int64_t tokens);

/* x[tokens, D] fp32 in place. */
void vit_block_forward(const VitBlock *block, const Ops *ops, const Weights *weights,
                       VitBlockActivations *acts, Tensor x, const VitBlockScratch *scratch);

/* dx[tokens, D] fp32: gradient of the block's output on entry, of its input on return. Parameter gradients
 * are added to the flat buffer `grads`. */
void vit_block_backward(const VitBlock *block, const Ops *ops, const Weights *weights,
                        const VitBlockActivations *acts, Tensor dx, ParamValues grads,
                        const VitBlockScratch *scratch);

#endif

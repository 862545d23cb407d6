/* vit.h - the vision transformer backbone on one packed batch of crops, forward and backward.
 *
 * Source: dinov2/models/vision_transformer.py (DinoVisionTransformer), golden README traps 1-11. Token order
 * is [cls, registers, patches]. The final LayerNorm is a call of its own on the rows that somebody needs,
 * since losses read the class tokens and the masked patches only.
 *
 *     Vit vit;                 vit_build(&vit, &config, &table);
 *     VitPass pass = vit_pass(&vit, &input, &arena);      // lays out activations; on a measuring arena only
 * sizes vit_forward(&vit, ops, &weights, &pass, hooks); vit_norm_forward(&vit, ops, &weights, &pass, rows,
 * out, stats, hooks); vit_norm_backward(...);  vit_backward(&vit, ops, &weights, &pass, grads, dimages,
 * hooks);
 *
 * It runs on one process and knows nothing of MPI, losses, data or files.
 */
#ifndef DINOBATCH_NN_VIT_H
#define DINOBATCH_NN_VIT_H

#include "nn/drop_path.h"
#include "nn/nn_hooks.h"
#include "nn/vit_block.h"

typedef struct {
    int64_t embed_dim, depth, num_heads;
    int64_t patch_size;
    int64_t img_size; /* pixels of the native square picture: the position embedding is (img_size /
                         patch_size)^2 */
    int64_t num_register_tokens;
    double mlp_ratio;
    bool swiglu, qkv_bias, proj_bias, ffn_bias;
    double layerscale; /* 0: none */
    double drop_path_rate;
    bool drop_path_uniform; /* false: rising linearly from 0 at the first block */
    int64_t block_chunks;   /* only changes names and units: blocks.<chunk>.<block> */
    bool interpolate_antialias;
    double interpolate_offset;
} VitConfig;

enum { VIT_IMAGE_CHANNELS = 3 };

typedef struct {
    VitConfig config;
    int64_t grid; /* side of the native patch grid */
    int cls_token, pos_embed, register_tokens, mask_token, patch_weight,
        patch_bias; /* parameter ids, -1: none */
    int norm_weight, norm_bias;
    int embed_unit, norm_unit;
    VitBlock *blocks; /* [depth] owned */
} Vit;

/* Crops of one size in a pass. */
typedef struct {
    int64_t sequences, height, width; /* pixels, multiples of the patch size */
    Tensor images;                    /* [sequences, 3, height, width] uint8, or fp32: normalised */
    Tensor levels;                    /* [3, 256] fp32: what the grey levels of uint8 images are; or none */
    Tensor masks;                     /* [sequences * patches] uint8, 1: replaced by mask_token; or none */
    DropPathSet place;                /* of these sequences among all groups, for stochastic depth */
} VitCrops;

typedef struct {
    int set_count;
    VitCrops sets[PACKED_MAX_SETS];
    Dtype act;        /* of activations: fp32, or bf16 where the weights have reduced copies */
    bool backward;    /* activations are kept for vit_backward */
    bool recompute;   /* with backward: of each block the input alone is kept, the rest is computed again */
    int64_t blocks;   /* only the first of them are computed; 0: all. Not with backward */
    bool drop_path;   /* stochastic depth at the configured rate */
    uint64_t seed;    /* of its draws, */
    int64_t step;     /* with the step */
    Tensor *captures; /* [depth] or NULL: captures[i] [tokens, D] fp32, where given, receives the output of
                         block i */
} VitInput;

/* One pass: the input, the pack, all activations. Lives in the arena it was laid out in. */
typedef struct {
    VitInput input;
    PackedSequence pack;
    int64_t patches[PACKED_MAX_SETS];   /* per sequence of each set */
    Tensor patch_rows[PACKED_MAX_SETS]; /* [sequences * patches, 3 * p * p] */
    Tensor projected[PACKED_MAX_SETS];  /* [sequences * patches, D] */
    Tensor position[PACKED_MAX_SETS];   /* [1 + patches, D]; none: the native embedding itself */
    Tensor position_scratch;            /* [max 1 + patches, D]: gradients of one position embedding */
    VitBlockActivations *blocks;        /* [depth], or one that all blocks share when nothing is kept; with
                                           recompute their tensors are views of the same memory */
    Tensor *inputs;                     /* [depth - 1], each [tokens, D] fp32: inputs of all blocks but the
                                           last; NULL without recompute */
    Tensor x;                           /* [tokens, D] fp32: residual stream, x_prenorm after the forward */
    Tensor dx;                          /* [tokens, D] fp32: its gradient; none without backward */
    VitBlockScratch scratch;
} VitPass;

/* Adds the parameters to the table under the reference's names and fills `vit`; vit_fini frees it. The
 * configuration has been checked: heads divide embed_dim, the patch size divides img_size, block_chunks
 * is at most depth. */
void vit_build(Vit *vit, const VitConfig *config, ParamTable *table);
void vit_fini(Vit *vit);

/* Patches of a picture. */
int64_t vit_patches(const Vit *vit, int64_t height, int64_t width);

/* Row of sequence `sequence` of set `set` in the pack; the class token is first, patch i is at +1 + registers
 * + i. */
int64_t vit_row(const VitPass *pass, int set, int64_t sequence);

/* Draws the subsets of stochastic depth and lays out activations. The largest pass of a kind, given to a
 * measuring arena, bounds all smaller ones. */
VitPass vit_pass(const Vit *vit, const VitInput *input, Arena *arena);

/* pass->x becomes x_prenorm, or the output of the last block that is computed. */
void vit_forward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, const NnHooks *hooks);

/* out[n, D] fp32 = final LayerNorm of x[rows]; stats[n, 2] fp32 for the backward; rows [n] int32 of the pack
 * or none. */
void vit_norm_forward(const Vit *vit, const Ops *ops, const Weights *weights, Tensor x, Tensor rows,
                      Tensor out, Tensor stats, const NnHooks *hooks);

/* Tells hooks what a forward pass with its final norm would touch, without one: hooks may need every rank's
 * part in it, also that of a rank that has nothing to compute. */
void vit_walk_forward(const Vit *vit, const NnHooks *hooks);

/* Adds the gradient dout[n, D] to pass->dx (zeroed by the caller) at rows (distinct) and to the norm's
 * parameters. */
void vit_norm_backward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, Tensor rows,
                       Tensor dout, Tensor stats, ParamValues grads, const NnHooks *hooks);

/* From pass->dx, the gradient of x_prenorm, to all parameters (added to flat `grads`). dimages: NULL, or per
 * set a tensor like the images that receives their gradient. Overwrites pass->dx, pass->inputs and the patch
 * activations. */
void vit_backward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, ParamValues grads,
                  const Tensor *dimages, const NnHooks *hooks);

#endif

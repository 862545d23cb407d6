/* vit_forward.c - the forward pass: tokens, blocks, final norm. */
#include "nn/vit.h"

#include "base/check.h"

static const float LAYER_NORM_EPS = 1e-6f;

/* The rows of one crop set inside a [tokens, D] matrix of the pack. */
static Tensor set_rows(const VitPass *pass, int set, Tensor x)
{
    const PackedSet *s = &pass->pack.sets[set];
    return tensor_rows(x, s->first_row, s->sequences * s->tokens_each);
}

static void embed_set(const Vit *vit, const Ops *ops, const Weights *w, VitPass *pass, int set)
{
    const VitCrops *crops = &pass->input.sets[set];
    int64_t p = vit->config.patch_size;
    ops->patchify_forward(ops, pass->patch_rows[set], crops->images, crops->levels, p);
    ops->linear_forward(ops, pass->projected[set], pass->patch_rows[set],
                        weights_matrix(w, vit->patch_weight), weights_vector(w, vit->patch_bias));
    Tensor native =
        tensor_as_2d(weights_vector(w, vit->pos_embed), 1 + vit->grid * vit->grid, vit->config.embed_dim);
    Tensor position = native;
    if (tensor_given(pass->position[set])) {
        position = pass->position[set];
        ops->pos_embed_forward(ops, position, native, crops->height / p, crops->width / p,
                               vit->config.interpolate_offset, vit->config.interpolate_antialias);
    }
    ops->embed_tokens_forward(ops, set_rows(pass, set, pass->x), pass->projected[set], crops->masks,
                              weights_vector(w, vit->mask_token), weights_vector(w, vit->cls_token),
                              weights_vector(w, vit->register_tokens), position);
}

/* The activations of block i, or the ones that all blocks of a pass without backward share. */
static VitBlockActivations *block_activations(const VitPass *pass, int64_t i)
{
    return &pass->blocks[pass->input.backward ? i : 0];
}

void vit_forward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, const NnHooks *hooks)
{
    nn_hooks_before(hooks, vit->embed_unit, NN_FORWARD);
    for (int set = 0; set < pass->input.set_count; set++)
        embed_set(vit, ops, weights, pass, set);
    nn_hooks_after(hooks, vit->embed_unit, NN_FORWARD);

    int64_t depth = pass->input.blocks ? pass->input.blocks : vit->config.depth;
    for (int64_t i = 0; i < depth; i++) {
        const VitBlock *block = &vit->blocks[i];
        bool first_of_unit = i == 0 || vit->blocks[i - 1].unit != block->unit;
        bool last_of_unit = i == depth - 1 || vit->blocks[i + 1].unit != block->unit;
        if (first_of_unit) nn_hooks_before(hooks, block->unit, NN_FORWARD);
        if (pass->inputs && i < depth - 1) ops->gather_rows(ops, pass->inputs[i], pass->x, tensor_none());
        vit_block_forward(block, ops, weights, block_activations(pass, i), pass->x, &pass->scratch);
        if (last_of_unit) nn_hooks_after(hooks, block->unit, NN_FORWARD);
        if (pass->input.captures && tensor_given(pass->input.captures[i]))
            ops->gather_rows(ops, pass->input.captures[i], pass->x, tensor_none());
    }
}

void vit_norm_forward(const Vit *vit, const Ops *ops, const Weights *weights, Tensor x, Tensor rows,
                      Tensor out, Tensor stats, const NnHooks *hooks)
{
    nn_hooks_before(hooks, vit->norm_unit, NN_FORWARD);
    ops->layer_norm_forward(ops, out, stats, tensor_none(), x, rows,
                            weights_vector(weights, vit->norm_weight),
                            weights_vector(weights, vit->norm_bias), LAYER_NORM_EPS);
    nn_hooks_after(hooks, vit->norm_unit, NN_FORWARD);
}

void vit_walk_forward(const Vit *vit, const NnHooks *hooks)
{
    for (int unit = vit->embed_unit; unit <= vit->norm_unit; unit++) {
        nn_hooks_before(hooks, unit, NN_FORWARD);
        nn_hooks_after(hooks, unit, NN_FORWARD);
    }
}

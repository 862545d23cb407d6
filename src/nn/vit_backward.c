/* vit_backward.c - the backward pass: final norm, blocks in reverse, tokens. */
#include "nn/vit.h"

#include <string.h>

void vit_norm_backward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, Tensor rows,
                       Tensor dout, Tensor stats, ParamValues grads, const NnHooks *hooks)
{
    nn_hooks_before(hooks, vit->norm_unit, NN_BACKWARD);
    ops->layer_norm_backward(ops, pass->dx, param_vector_view(grads, vit->norm_weight),
                             param_vector_view(grads, vit->norm_bias), tensor_none(), dout, pass->x, rows,
                             stats, weights_vector(weights, vit->norm_weight), tensor_none());
    nn_hooks_after(hooks, vit->norm_unit, NN_BACKWARD);
}

static void embed_set_backward(const Vit *vit, const Ops *ops, const Weights *w, VitPass *pass, int set,
                               ParamValues grads, Tensor dimage)
{
    const VitCrops *crops = &pass->input.sets[set];
    const PackedSet *packed = &pass->pack.sets[set];
    int64_t D = vit->config.embed_dim, p = vit->config.patch_size;
    Tensor d_native = tensor_as_2d(param_vector_view(grads, vit->pos_embed), 1 + vit->grid * vit->grid, D);
    bool resampled = tensor_given(pass->position[set]);
    Tensor d_position = d_native;
    if (resampled) {
        d_position = tensor_2d(pass->position_scratch.data, DTYPE_F32, 1 + pass->patches[set], D);
        ops->zero(ops, d_position);
    }
    Tensor d_projected = pass->projected[set]; /* the projection itself is not needed any more */
    Tensor dx = tensor_rows(pass->dx, packed->first_row, packed->sequences * packed->tokens_each);
    ops->embed_tokens_backward(ops, d_projected, param_vector_view(grads, vit->mask_token),
                               param_vector_view(grads, vit->cls_token),
                               param_vector_view(grads, vit->register_tokens), d_position, dx, crops->masks);
    if (resampled)
        ops->pos_embed_backward(ops, d_native, d_position, crops->height / p, crops->width / p,
                                vit->config.interpolate_offset, vit->config.interpolate_antialias);
    ops->linear_backward_weight(ops, param_matrix_view(grads, vit->patch_weight),
                                param_vector_view(grads, vit->patch_bias), d_projected,
                                pass->patch_rows[set]);
    if (tensor_given(dimage)) {
        Tensor d_patch_rows = pass->patch_rows[set];
        ops->linear_backward_input(ops, d_patch_rows, d_projected, weights_matrix(w, vit->patch_weight));
        ops->patchify_backward(ops, dimage, d_patch_rows, p);
    }
}

void vit_backward(const Vit *vit, const Ops *ops, const Weights *weights, VitPass *pass, ParamValues grads,
                  const Tensor *dimages, const NnHooks *hooks)
{
    int64_t depth = vit->config.depth;
    for (int64_t i = depth - 1; i >= 0; i--) {
        const VitBlock *block = &vit->blocks[i];
        bool last_of_unit = i == depth - 1 || vit->blocks[i + 1].unit != block->unit;
        bool first_of_unit = i == 0 || vit->blocks[i - 1].unit != block->unit;
        if (last_of_unit) nn_hooks_before(hooks, block->unit, NN_BACKWARD);
        /* The last block's activations still lie there. */
        if (pass->inputs && i < depth - 1)
            vit_block_forward(block, ops, weights, &pass->blocks[i], pass->inputs[i], &pass->scratch);
        vit_block_backward(block, ops, weights, &pass->blocks[i], pass->dx, grads, &pass->scratch);
        if (first_of_unit) nn_hooks_after(hooks, block->unit, NN_BACKWARD);
    }
    nn_hooks_before(hooks, vit->embed_unit, NN_BACKWARD);
    for (int set = 0; set < pass->input.set_count; set++)
        embed_set_backward(vit, ops, weights, pass, set, grads, dimages ? dimages[set] : tensor_none());
    nn_hooks_after(hooks, vit->embed_unit, NN_BACKWARD);
}

/* vit_block.c - attention and feed-forward branches, forward and backward. */
#include "nn/vit_block.h"

#include "base/check.h"

#include <string.h>

static const float LAYER_NORM_EPS = 1e-6f;
static const double WEIGHT_STD = 0.02;

static int add_vector(ParamTable *table, ParamModule module, const char *prefix, const char *suffix,
                      int64_t n, double value)
{
    ParamSpec spec = {
        .module = module, .init = PARAM_INIT_CONSTANT, .init_value = value, .ndim = 1, .shape = {n}};
    return param_table_add(table, &spec, prefix, suffix);
}

static int add_matrix(ParamTable *table, ParamModule module, const char *prefix, const char *suffix,
                      int64_t rows, int64_t columns)
{
    ParamSpec spec = {.module = module,
                      .init = PARAM_INIT_TRUNCATED_NORMAL,
                      .init_value = WEIGHT_STD,
                      .ndim = 2,
                      .shape = {rows, columns},
                      .read = PARAM_READ_REDUCED};
    return param_table_add(table, &spec, prefix, suffix);
}

int64_t vit_block_hidden(const VitBlockSpec *spec)
{
    int64_t hidden = (int64_t)((double)spec->embed_dim * spec->mlp_ratio);
    return spec->swiglu ? ((int64_t)((double)hidden * 2.0 / 3.0) + 7) / 8 * 8 : hidden;
}

VitBlock vit_block_build(ParamTable *table, ParamModule module, const VitBlockSpec *spec, const char *prefix)
{
    int64_t D = spec->embed_dim, hidden = vit_block_hidden(spec);
    int64_t hidden_in = spec->swiglu ? 2 * hidden : hidden;
    bool scaled = spec->layerscale > 0;
    VitBlock b = {.embed_dim = D,
                  .heads = spec->heads,
                  .hidden = hidden,
                  .swiglu = spec->swiglu,
                  .unit = table->unit_count - 1};
    b.norm1_weight = add_vector(table, module, prefix, "norm1.weight", D, 1);
    b.norm1_bias = add_vector(table, module, prefix, "norm1.bias", D, 0);
    b.qkv_weight = add_matrix(table, module, prefix, "attn.qkv.weight", 3 * D, D);
    b.qkv_bias = spec->qkv_bias ? add_vector(table, module, prefix, "attn.qkv.bias", 3 * D, 0) : -1;
    b.proj_weight = add_matrix(table, module, prefix, "attn.proj.weight", D, D);
    b.proj_bias = spec->proj_bias ? add_vector(table, module, prefix, "attn.proj.bias", D, 0) : -1;
    b.ls1_gamma = scaled ? add_vector(table, module, prefix, "ls1.gamma", D, spec->layerscale) : -1;
    b.norm2_weight = add_vector(table, module, prefix, "norm2.weight", D, 1);
    b.norm2_bias = add_vector(table, module, prefix, "norm2.bias", D, 0);
    const char *in_weight = spec->swiglu ? "mlp.w12.weight" : "mlp.fc1.weight";
    const char *in_bias = spec->swiglu ? "mlp.w12.bias" : "mlp.fc1.bias";
    const char *out_weight = spec->swiglu ? "mlp.w3.weight" : "mlp.fc2.weight";
    const char *out_bias = spec->swiglu ? "mlp.w3.bias" : "mlp.fc2.bias";
    b.ffn_in_weight = add_matrix(table, module, prefix, in_weight, hidden_in, D);
    b.ffn_in_bias = spec->ffn_bias ? add_vector(table, module, prefix, in_bias, hidden_in, 0) : -1;
    b.ffn_out_weight = add_matrix(table, module, prefix, out_weight, D, hidden);
    b.ffn_out_bias = spec->ffn_bias ? add_vector(table, module, prefix, out_bias, D, 0) : -1;
    b.ls2_gamma = scaled ? add_vector(table, module, prefix, "ls2.gamma", D, spec->layerscale) : -1;
    return b;
}

VitBlockActivations vit_block_activations(const VitBlock *block, Arena *arena, Dtype act,
                                          TokenSubset attention, TokenSubset ffn)
{
    int64_t D = block->embed_dim, n1 = attention.tokens, n2 = ffn.tokens;
    int64_t hidden_in = block->swiglu ? 2 * block->hidden : block->hidden;
    VitBlockActivations a = {.attention = attention, .ffn = ffn};
    a.x1 = tensor_alloc_2d(arena, act, n1, D);
    a.stats1 = tensor_alloc_2d(arena, DTYPE_F32, n1, 2);
    a.qkv = tensor_alloc_2d(arena, act, n1, 3 * D);
    a.attended = tensor_alloc_2d(arena, act, n1, D);
    a.lse = tensor_alloc_2d(arena, DTYPE_F32, n1, block->heads);
    a.out1 = tensor_alloc_2d(arena, act, n1, D);
    a.x2 = tensor_alloc_2d(arena, act, n2, D);
    a.stats2 = tensor_alloc_2d(arena, DTYPE_F32, n2, 2);
    a.hidden_in = tensor_alloc_2d(arena, act, n2, hidden_in);
    a.out2 = tensor_alloc_2d(arena, act, n2, D);
    return a;
}

VitBlockScratch vit_block_scratch(const VitBlock *block, Arena *arena, Dtype act, int64_t tokens)
{
    int64_t D = block->embed_dim, hidden = block->hidden, hidden_in = block->swiglu ? 2 * hidden : hidden;
    VitBlockScratch s;
    s.narrow = tensor_alloc_1d(arena, act, tokens * D);
    s.wide = tensor_alloc_1d(arena, act, tokens * (hidden > D ? hidden : D));
    s.wider = tensor_alloc_1d(arena, act, tokens * (hidden_in > 3 * D ? hidden_in : 3 * D));
    return s;
}

/* The front of a flat buffer as a matrix. */
static Tensor carve(Tensor buffer, int64_t rows, int64_t columns)
{
    CHECK(rows * columns <= buffer.shape[0]);
    return tensor_2d(buffer.data, buffer.dtype, rows, columns);
}

static void attention_branch_forward(const VitBlock *b, const Ops *ops, const Weights *w,
                                     VitBlockActivations *a, Tensor x, const VitBlockScratch *scratch)
{
    Tensor y = carve(scratch->narrow, a->attention.tokens, b->embed_dim);
    ops->layer_norm_forward(ops, y, a->stats1, a->x1, x, a->attention.rows,
                            weights_vector(w, b->norm1_weight), weights_vector(w, b->norm1_bias),
                            LAYER_NORM_EPS);
    ops->linear_forward(ops, a->qkv, y, weights_matrix(w, b->qkv_weight), weights_vector(w, b->qkv_bias));
    ops->attention_forward(ops, a->attended, a->lse, a->qkv, a->attention.cu_seqlens, b->heads);
    ops->linear_forward(ops, a->out1, a->attended, weights_matrix(w, b->proj_weight),
                        weights_vector(w, b->proj_bias));
    ops->residual_forward(ops, x, a->out1, a->attention.rows, a->attention.row_scale,
                          weights_vector(w, b->ls1_gamma));
}

static void ffn_branch_forward(const VitBlock *b, const Ops *ops, const Weights *w, VitBlockActivations *a,
                               Tensor x, const VitBlockScratch *scratch)
{
    Tensor y = carve(scratch->narrow, a->ffn.tokens, b->embed_dim);
    Tensor hidden = carve(scratch->wide, a->ffn.tokens, b->hidden);
    ops->layer_norm_forward(ops, y, a->stats2, a->x2, x, a->ffn.rows, weights_vector(w, b->norm2_weight),
                            weights_vector(w, b->norm2_bias), LAYER_NORM_EPS);
    ops->linear_forward(ops, a->hidden_in, y, weights_matrix(w, b->ffn_in_weight),
                        weights_vector(w, b->ffn_in_bias));
    if (b->swiglu)
        ops->swiglu_forward(ops, hidden, a->hidden_in);
    else
        ops->gelu_forward(ops, hidden, a->hidden_in);
    ops->linear_forward(ops, a->out2, hidden, weights_matrix(w, b->ffn_out_weight),
                        weights_vector(w, b->ffn_out_bias));
    ops->residual_forward(ops, x, a->out2, a->ffn.rows, a->ffn.row_scale, weights_vector(w, b->ls2_gamma));
}

void vit_block_forward(const VitBlock *block, const Ops *ops, const Weights *weights,
                       VitBlockActivations *acts, Tensor x, const VitBlockScratch *scratch)
{
    attention_branch_forward(block, ops, weights, acts, x, scratch);
    ffn_branch_forward(block, ops, weights, acts, x, scratch);
}

/* The end of either branch's backward: dy[n, D] through the LayerNorm of the kept rows x into the residual
 * stream dx; the norm's output y is made again on the way. */
static void norm_backward(const Ops *ops, const Weights *w, const int norm[2], Tensor y, Tensor dy, Tensor x,
                          Tensor stats, Tensor rows, Tensor dx, ParamValues grads)
{
    ops->layer_norm_backward(ops, dx, param_vector_view(grads, norm[0]), param_vector_view(grads, norm[1]), y,
                             dy, x, rows, stats, weights_vector(w, norm[0]), weights_vector(w, norm[1]));
}

static void ffn_branch_backward(const VitBlock *b, const Ops *ops, const Weights *w,
                                const VitBlockActivations *a, Tensor dx, ParamValues grads,
                                const VitBlockScratch *scratch)
{
    int64_t n = a->ffn.tokens, D = b->embed_dim;
    Tensor d_out = carve(scratch->narrow, n, D);
    Tensor d_hidden = carve(scratch->wide, n, b->hidden), hidden = d_hidden;
    Tensor d_hidden_in = carve(scratch->wider, n, a->hidden_in.shape[1]);
    ops->residual_backward(ops, d_out, param_vector_view(grads, b->ls2_gamma), dx, a->out2, a->ffn.rows,
                           a->ffn.row_scale, weights_vector(w, b->ls2_gamma));
    ops->linear_backward_input(ops, d_hidden, d_out, weights_matrix(w, b->ffn_out_weight));
    if (b->swiglu)
        ops->swiglu_backward(ops, d_hidden_in, hidden, d_hidden, a->hidden_in);
    else
        ops->gelu_backward(ops, d_hidden_in, hidden, d_hidden, a->hidden_in);
    ops->linear_backward_weight(ops, param_matrix_view(grads, b->ffn_out_weight),
                                param_vector_view(grads, b->ffn_out_bias), d_out, hidden);
    Tensor d_y = d_out, y = carve(scratch->wide, n, D);
    ops->linear_backward_input(ops, d_y, d_hidden_in, weights_matrix(w, b->ffn_in_weight));
    norm_backward(ops, w, (const int[]){b->norm2_weight, b->norm2_bias}, y, d_y, a->x2, a->stats2,
                  a->ffn.rows, dx, grads);
    ops->linear_backward_weight(ops, param_matrix_view(grads, b->ffn_in_weight),
                                param_vector_view(grads, b->ffn_in_bias), d_hidden_in, y);
}

static void attention_branch_backward(const VitBlock *b, const Ops *ops, const Weights *w,
                                      const VitBlockActivations *a, Tensor dx, ParamValues grads,
                                      const VitBlockScratch *scratch)
{
    int64_t n = a->attention.tokens, D = b->embed_dim;
    Tensor d_out = carve(scratch->narrow, n, D);
    Tensor d_attended = carve(scratch->wide, n, D);
    Tensor d_qkv = carve(scratch->wider, n, 3 * D);
    ops->residual_backward(ops, d_out, param_vector_view(grads, b->ls1_gamma), dx, a->out1, a->attention.rows,
                           a->attention.row_scale, weights_vector(w, b->ls1_gamma));
    ops->linear_backward_weight(ops, param_matrix_view(grads, b->proj_weight),
                                param_vector_view(grads, b->proj_bias), d_out, a->attended);
    ops->linear_backward_input(ops, d_attended, d_out, weights_matrix(w, b->proj_weight));
    ops->attention_backward(ops, d_qkv, d_attended, a->attended, a->lse, a->qkv, a->attention.cu_seqlens,
                            b->heads);
    Tensor d_y = d_out, y = d_attended;
    ops->linear_backward_input(ops, d_y, d_qkv, weights_matrix(w, b->qkv_weight));
    norm_backward(ops, w, (const int[]){b->norm1_weight, b->norm1_bias}, y, d_y, a->x1, a->stats1,
                  a->attention.rows, dx, grads);
    ops->linear_backward_weight(ops, param_matrix_view(grads, b->qkv_weight),
                                param_vector_view(grads, b->qkv_bias), d_qkv, y);
}

void vit_block_backward(const VitBlock *block, const Ops *ops, const Weights *weights,
                        const VitBlockActivations *acts, Tensor dx, ParamValues grads,
                        const VitBlockScratch *scratch)
{
    ffn_branch_backward(block, ops, weights, acts, dx, grads, scratch);
    attention_branch_backward(block, ops, weights, acts, dx, grads, scratch);
}

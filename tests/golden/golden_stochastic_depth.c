/* golden_stochastic_depth.c - stochastic_depth.h5: one block whose branches compute given subsets of samples.
 */
#include "../support/ops_support.h"
#include "golden_params.h"

#include "base/memory.h"
#include "nn/drop_path.h"
#include "nn/vit_block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Golden *golden;
    const Ops *ops;
    const char *name;
    const VitBlock *block;
    const ParamTable *table;
    Weights weights;
    int set_count;
    int64_t sequences[PACKED_MAX_SETS], tokens_each[PACKED_MAX_SETS], D;
    PackedSequence pack;
} Case;

/* The residual scale of every sample of a branch from the lists of kept ones, which also prove the rule that
 * says how many are kept. */
static void read_scales(const Case *c, const char *branch, float *scale)
{
    double ratio = golden_attr(c->golden, "drop_ratio", "%s", c->name);
    memset(scale, 0, (size_t)c->pack.sequences * sizeof *scale);
    for (int set = 0; set < c->set_count; set++) {
        GoldenShape shape;
        const int64_t *kept = golden_i64(c->golden, &shape, "%s/brange_%s_%d", c->name, branch, set);
        double stored = golden_scalar(c->golden, "%s/scale_%d", c->name, set);
        if (drop_path_kept(c->sequences[set], ratio) != shape.count ||
            fabs((double)c->sequences[set] / (double)shape.count - stored) > 1e-6 * stored)
            golden_fail(c->golden, "%s/brange_%s_%d: %lld of %lld kept", c->name, branch, set,
                        (long long)shape.count, (long long)c->sequences[set]);
        for (int64_t i = 0; i < shape.count; i++)
            scale[c->pack.sets[set].first_sequence + kept[i]] =
                (float)((double)c->sequences[set] / (double)shape.count);
    }
}

/* x rows of a set. */
static float *set_values(const Case *c, int set, float *x)
{
    return x + c->pack.sets[set].first_row * c->D;
}

static void check_pass(Case *c, Arena *arena)
{
    float *scale = arena_alloc(arena, (size_t)c->pack.sequences * sizeof *scale);
    read_scales(c, "attn", scale);
    TokenSubset attention = packed_sequence_subset(&c->pack, arena, scale, c->pack.sequences, c->pack.tokens);
    read_scales(c, "ffn", scale);
    TokenSubset ffn = packed_sequence_subset(&c->pack, arena, scale, c->pack.sequences, c->pack.tokens);
    VitBlockActivations acts = vit_block_activations(c->block, arena, DTYPE_F32, attention, ffn);
    VitBlockScratch scratch = vit_block_scratch(c->block, arena, DTYPE_F32, c->pack.tokens);
    Tensor x = tensor_alloc_2d(arena, DTYPE_F32, c->pack.tokens, c->D);
    Tensor dx = tensor_alloc_2d(arena, DTYPE_F32, c->pack.tokens, c->D);
    float *grads = memory_alloc_array((size_t)c->table->flat_count, sizeof(float));
    GoldenShape shape;
    for (int set = 0; set < c->set_count; set++) {
        const float *input = golden_f32(c->golden, &shape, "%s/input_%d", c->name, set);
        memcpy(set_values(c, set, tensor_f32(x)), input, (size_t)shape.count * sizeof(float));
        const float *cotangent = golden_f32(c->golden, &shape, "%s/cotangent_%d", c->name, set);
        memcpy(set_values(c, set, tensor_f32(dx)), cotangent, (size_t)shape.count * sizeof(float));
    }
    vit_block_forward(c->block, c->ops, &c->weights, &acts, x, &scratch);
    double loss = 0;
    for (int64_t i = 0; i < tensor_count(x); i++)
        loss += (double)tensor_f32(x)[i] * (double)tensor_f32(dx)[i];
    vit_block_backward(c->block, c->ops, &c->weights, &acts, dx, param_values_flat(c->table, grads),
                       &scratch);
    golden_compare_f64(c->golden, &loss, 1, "%s/loss", c->name);
    for (int set = 0; set < c->set_count; set++) {
        int64_t n = c->sequences[set] * c->tokens_each[set] * c->D;
        golden_compare(c->golden, set_values(c, set, tensor_f32(x)), n, "%s/out_%d", c->name, set);
        golden_compare(c->golden, set_values(c, set, tensor_f32(dx)), n, "%s/grad/input_%d", c->name, set);
    }
    char group[128];
    snprintf(group, sizeof group, "%s/grad/params", c->name);
    golden_params_compare(c->golden, c->table, GOLDEN_NAMES_PLAIN, grads, group);
    memory_free(grads);
}

static void check_case(Case *c)
{
    GoldenShape shape;
    while (c->set_count < PACKED_MAX_SETS && golden_has(c->golden, "%s/input_%d", c->name, c->set_count)) {
        golden_f32(c->golden, &shape, "%s/input_%d", c->name, c->set_count);
        c->sequences[c->set_count] = shape.dim[0];
        c->tokens_each[c->set_count++] = shape.dim[1];
    }
    Arena arena = arena_create((size_t)64 << 20);
    c->pack = packed_sequence_make(&arena, c->set_count, c->sequences, c->tokens_each);
    check_pass(c, &arena);
    arena_destroy(&arena);
}

void golden_stochastic_depth(Golden *golden)
{
    VitBlockSpec spec = {.embed_dim = (int64_t)golden_attr(golden, "embed_dim", "/"),
                         .heads = (int64_t)golden_attr(golden, "num_heads", "/"),
                         .mlp_ratio = golden_attr(golden, "mlp_ratio", "/"),
                         .swiglu = golden_params_any(golden, "params", "mlp.w12.weight"),
                         .qkv_bias = golden_params_any(golden, "params", "attn.qkv.bias"),
                         .proj_bias = golden_params_any(golden, "params", "attn.proj.bias"),
                         .ffn_bias = golden_params_any(golden, "params", "mlp.fc1.bias") ||
                                     golden_params_any(golden, "params", "mlp.w12.bias"),
                         .layerscale = golden_params_any(golden, "params", "ls1.gamma") ? 1.0 : 0.0};
    ParamTable table;
    param_table_init(&table);
    param_table_begin_unit(&table, PARAM_BACKBONE);
    VitBlock block = vit_block_build(&table, PARAM_BACKBONE, &spec, "");
    float *params = memory_alloc_array((size_t)table.flat_count, sizeof(float));
    golden_params_load(golden, &table, GOLDEN_NAMES_PLAIN, params, "params");
    OpsLimits limits = {.rows = 16384, .width = 4096, .max_seqlen = 1024, .head_dim = 256};
    Ops *ops = ops_support_open(&limits, 0);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        if (strcmp(*name, "params") == 0) continue;
        Case c = {.golden = golden,
                  .ops = ops,
                  .name = *name,
                  .block = &block,
                  .table = &table,
                  .weights = {.master = param_values_flat(&table, params)},
                  .D = spec.embed_dim};
        check_case(&c);
    }
    ops_support_close(ops);
    memory_free(params);
    param_table_fini(&table);
}

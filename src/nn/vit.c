/* vit.c - building a backbone, and laying out a pass. */
#include "nn/vit.h"

#include "base/check.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>

static const double POSITION_STD = 0.02;
static const double TOKEN_STD = 1e-6;

static void build_embeddings(Vit *vit, ParamTable *table)
{
    const VitConfig *c = &vit->config;
    int64_t D = c->embed_dim, p = c->patch_size;
    vit->embed_unit = param_table_begin_unit(table, PARAM_BACKBONE);
    ParamSpec cls = {PARAM_BACKBONE, PARAM_INIT_NORMAL, TOKEN_STD, 3, {1, 1, D}, PARAM_READ_EXACT};
    vit->cls_token = param_table_add(table, &cls, "cls_token", "");
    ParamSpec pos = {
        PARAM_BACKBONE,  PARAM_INIT_TRUNCATED_NORMAL, POSITION_STD, 3, {1, 1 + vit->grid * vit->grid, D},
        PARAM_READ_EXACT};
    vit->pos_embed = param_table_add(table, &pos, "pos_embed", "");
    vit->register_tokens = -1;
    if (c->num_register_tokens > 0) {
        ParamSpec registers = {
            PARAM_BACKBONE,  PARAM_INIT_NORMAL, TOKEN_STD, 3, {1, c->num_register_tokens, D},
            PARAM_READ_EXACT};
        vit->register_tokens = param_table_add(table, &registers, "register_tokens", "");
    }
    ParamSpec mask = {PARAM_BACKBONE, PARAM_INIT_CONSTANT, 0.0, 2, {1, D}, PARAM_READ_EXACT};
    vit->mask_token = param_table_add(table, &mask, "mask_token", "");
    double bound =
        1.0 / sqrt((double)(VIT_IMAGE_CHANNELS * p * p)); /* the framework's default for a convolution */
    ParamSpec weight = {PARAM_BACKBONE,    PARAM_INIT_UNIFORM, bound, 4, {D, VIT_IMAGE_CHANNELS, p, p},
                        PARAM_READ_REDUCED};
    vit->patch_weight = param_table_add(table, &weight, "patch_embed.proj.weight", "");
    ParamSpec bias = {PARAM_BACKBONE, PARAM_INIT_UNIFORM, bound, 1, {D}, PARAM_READ_EXACT};
    vit->patch_bias = param_table_add(table, &bias, "patch_embed.proj.bias", "");
}

void vit_build(Vit *vit, const VitConfig *config, ParamTable *table)
{
    const VitConfig *c = config;
    CHECK(c->embed_dim % c->num_heads == 0 && c->img_size % c->patch_size == 0);
    CHECK(c->block_chunks >= 0 && c->block_chunks <= c->depth);
    *vit = (Vit){.config = *config, .grid = c->img_size / c->patch_size};
    build_embeddings(vit, table);

    vit->blocks = memory_alloc_array((size_t)c->depth, sizeof *vit->blocks);
    VitBlockSpec spec = {.embed_dim = c->embed_dim,
                         .heads = c->num_heads,
                         .mlp_ratio = c->mlp_ratio,
                         .swiglu = c->swiglu,
                         .qkv_bias = c->qkv_bias,
                         .proj_bias = c->proj_bias,
                         .ffn_bias = c->ffn_bias,
                         .layerscale = c->layerscale};
    /* where it does not go in evenly there are more chunks than asked for, as in the reference */
    int64_t chunk_size = c->block_chunks ? c->depth / c->block_chunks : 1;
    for (int64_t i = 0; i < c->depth; i++) {
        char prefix[64];
        if (c->block_chunks)
            snprintf(prefix, sizeof prefix, "blocks.%lld.%lld.", (long long)(i / chunk_size), (long long)i);
        else
            snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)i);
        if (i % chunk_size == 0) param_table_begin_unit(table, PARAM_BACKBONE);
        vit->blocks[i] = vit_block_build(table, PARAM_BACKBONE, &spec, prefix);
    }

    vit->norm_unit = param_table_begin_unit(table, PARAM_BACKBONE);
    ParamSpec norm = {PARAM_BACKBONE, PARAM_INIT_CONSTANT, 1.0, 1, {c->embed_dim}, PARAM_READ_EXACT};
    vit->norm_weight = param_table_add(table, &norm, "norm.weight", "");
    norm.init_value = 0.0;
    vit->norm_bias = param_table_add(table, &norm, "norm.bias", "");
}

void vit_fini(Vit *vit)
{
    memory_free(vit->blocks);
    *vit = (Vit){0};
}

int64_t vit_patches(const Vit *vit, int64_t height, int64_t width)
{
    int64_t p = vit->config.patch_size;
    CHECK(height % p == 0 && width % p == 0);
    return (height / p) * (width / p);
}

int64_t vit_row(const VitPass *pass, int set, int64_t sequence)
{
    const PackedSet *s = &pass->pack.sets[set];
    CHECK(sequence >= 0 && sequence < s->sequences);
    return s->first_row + sequence * s->tokens_each;
}

static double drop_path_rate(const VitConfig *c, int64_t block)
{
    if (c->drop_path_uniform || c->depth == 1) return c->drop_path_uniform ? c->drop_path_rate : 0.0;
    return c->drop_path_rate * (double)block / (double)(c->depth - 1);
}

static TokenSubset branch_subset(const Vit *vit, const VitPass *pass, Arena *arena, int64_t block,
                                 DropPathBranch branch)
{
    const VitInput *in = &pass->input;
    if (!in->drop_path) return packed_sequence_all(&pass->pack);
    DropPathDraw draw = {.rate = drop_path_rate(&vit->config, block),
                         .seed = in->seed,
                         .step = in->step,
                         .block = block,
                         .branch = branch};
    for (int i = 0; i < in->set_count; i++)
        draw.sets[i] = in->sets[i].place;
    return drop_path_subset(&pass->pack, arena, &draw);
}

static void layout_embeddings(const Vit *vit, VitPass *pass, Arena *arena)
{
    int64_t D = vit->config.embed_dim, p = vit->config.patch_size, most = 0;
    for (int i = 0; i < pass->input.set_count; i++) {
        const VitCrops *crops = &pass->input.sets[i];
        int64_t rows = crops->sequences * pass->patches[i];
        pass->patch_rows[i] = tensor_alloc_2d(arena, pass->input.act, rows, VIT_IMAGE_CHANNELS * p * p);
        pass->projected[i] = tensor_alloc_2d(arena, pass->input.act, rows, D);
        /* Untouched only on a square picture with the native number of patches (trap 3). */
        bool native = pass->patches[i] == vit->grid * vit->grid && crops->height == crops->width;
        if (!native) pass->position[i] = tensor_alloc_2d(arena, DTYPE_F32, 1 + pass->patches[i], D);
        if (pass->patches[i] > most) most = pass->patches[i];
    }
    if (pass->input.backward) pass->position_scratch = tensor_alloc_1d(arena, DTYPE_F32, (1 + most) * D);
}

/* Room for the activations of any one block, which all blocks use in turn. */
static Arena layout_shared_block(const Vit *vit, const VitPass *pass, Arena *arena)
{
    TokenSubset all = packed_sequence_all(&pass->pack);
    Arena plan = arena_measuring();
    vit_block_activations(&vit->blocks[0], &plan, pass->input.act, all, all);
    void *room = arena_alloc(arena, plan.peak);
    return arena_is_measuring(arena)
               ? arena_measuring()
               : (Arena){.base = room, .capacity = plan.peak, .foreign = arena->foreign};
}

/* Blocks of a pass with backward: what each keeps, or with recompute its input and a common rest. */
static void layout_blocks(const Vit *vit, VitPass *pass, Arena *arena)
{
    int64_t depth = vit->config.depth;
    bool measuring = arena_is_measuring(arena), recompute = pass->input.recompute;
    pass->blocks = arena_alloc_host(arena, (size_t)depth * sizeof *pass->blocks);
    Arena shared = {0};
    if (recompute) {
        pass->inputs = arena_alloc_host(arena, (size_t)depth * sizeof *pass->inputs);
        shared = layout_shared_block(vit, pass, arena);
    }
    for (int64_t i = 0; i < depth; i++) {
        TokenSubset attention = branch_subset(vit, pass, arena, i, DROP_PATH_ATTENTION);
        TokenSubset ffn = branch_subset(vit, pass, arena, i, DROP_PATH_FFN);
        if (recompute) arena_reset(&shared, ARENA_START);
        VitBlockActivations acts = vit_block_activations(&vit->blocks[i], recompute ? &shared : arena,
                                                         pass->input.act, attention, ffn);
        if (!measuring) pass->blocks[i] = acts;
        if (!recompute || i == depth - 1) continue;
        Tensor input = tensor_alloc_2d(arena, DTYPE_F32, pass->pack.tokens, vit->config.embed_dim);
        if (!measuring) pass->inputs[i] = input;
    }
}

VitPass vit_pass(const Vit *vit, const VitInput *input, Arena *arena)
{
    CHECK(input->blocks >= 0 && input->blocks <= vit->config.depth && !(input->blocks && input->backward));
    VitPass pass = {.input = *input};
    int64_t sequences[PACKED_MAX_SETS], tokens_each[PACKED_MAX_SETS];
    for (int i = 0; i < input->set_count; i++) {
        pass.patches[i] = vit_patches(vit, input->sets[i].height, input->sets[i].width);
        sequences[i] = input->sets[i].sequences;
        tokens_each[i] = 1 + vit->config.num_register_tokens + pass.patches[i];
    }
    pass.pack = packed_sequence_make(arena, input->set_count, sequences, tokens_each);
    layout_embeddings(vit, &pass, arena);

    int64_t D = vit->config.embed_dim;
    pass.x = tensor_alloc_2d(arena, DTYPE_F32, pass.pack.tokens, D);
    pass.scratch = vit_block_scratch(&vit->blocks[0], arena, input->act, pass.pack.tokens);
    if (!input->backward) {
        CHECK(!input->drop_path);
        TokenSubset all = packed_sequence_all(&pass.pack);
        VitBlockActivations shared = vit_block_activations(&vit->blocks[0], arena, input->act, all, all);
        pass.blocks = arena_alloc_host(arena, sizeof shared);
        if (!arena_is_measuring(arena)) *pass.blocks = shared;
        return pass;
    }
    layout_blocks(vit, &pass, arena);
    pass.dx = tensor_alloc_2d(arena, DTYPE_F32, pass.pack.tokens, D);
    return pass;
}

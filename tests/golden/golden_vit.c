/* golden_vit.c - vit_*.h5: the backbone forward and backward, on one set of crops or several in one pack. */
#include "../support/ops_support.h"
#include "golden_params.h"

#include "base/memory.h"
#include "nn/vit.h"

#include <stdio.h>
#include <string.h>

/* A backbone with the file's weights. */
typedef struct {
    Golden *golden;
    Vit vit;
    ParamTable table;
    float *params, *grads; /* flat */
    Weights weights;
} Model;

/* One case of the file. "%d" sets where there are several, the plain names where there is one. */
typedef struct {
    const char *name;
    int set_count;
    char suffix[PACKED_MAX_SETS][8]; /* "" or "_0", "_1" */
    Arena arena;
    VitPass pass;
    Tensor *captures; /* [depth] owned */
    const Ops *ops;
} Case;

static int64_t attr(Golden *golden, const char *name)
{
    return (int64_t)golden_attr(golden, name, "/");
}

static void model_init(Model *m, Golden *golden)
{
    VitConfig config = {.embed_dim = attr(golden, "embed_dim"),
                        .depth = attr(golden, "depth"),
                        .num_heads = attr(golden, "num_heads"),
                        .patch_size = attr(golden, "patch_size"),
                        .img_size = attr(golden, "img_size"),
                        .num_register_tokens = attr(golden, "num_register_tokens"),
                        .mlp_ratio = golden_attr(golden, "mlp_ratio", "/"),
                        .swiglu = strncmp(golden_attr_text(golden, "ffn_layer", "/"), "swiglu", 6) == 0,
                        .qkv_bias = golden_params_any(golden, "params", "attn.qkv.bias"),
                        .proj_bias = golden_params_any(golden, "params", "attn.proj.bias"),
                        .ffn_bias = golden_params_any(golden, "params", "mlp.fc1.bias") ||
                                    golden_params_any(golden, "params", "mlp.w12.bias"),
                        .layerscale = golden_params_any(golden, "params", "ls1.gamma") ? 1.0 : 0.0,
                        .block_chunks = attr(golden, "block_chunks"),
                        .interpolate_antialias = attr(golden, "interpolate_antialias") != 0,
                        .interpolate_offset = golden_attr(golden, "interpolate_offset", "/")};
    *m = (Model){.golden = golden};
    param_table_init(&m->table);
    vit_build(&m->vit, &config, &m->table);
    m->params = memory_alloc_array((size_t)m->table.flat_count, sizeof(float));
    m->grads = memory_alloc_array((size_t)m->table.flat_count, sizeof(float));
    m->weights = (Weights){.table = &m->table, .master = m->params};
    golden_params_load(golden, &m->table, GOLDEN_NAMES_PLAIN, m->params, "params");
}

static void model_fini(Model *m)
{
    vit_fini(&m->vit);
    param_table_fini(&m->table);
    memory_free(m->params);
    memory_free(m->grads);
}

static VitCrops read_crops(Golden *golden, const char *name, const char *suffix)
{
    GoldenShape shape;
    const float *images = golden_f32(golden, &shape, "%s/input%s", name, suffix);
    VitCrops crops = {.sequences = shape.dim[0], .height = shape.dim[2], .width = shape.dim[3]};
    crops.images = tensor_view((void *)(uintptr_t)images, DTYPE_F32, 4, shape.dim);
    if (golden_has(golden, "%s/masks%s", name, suffix)) {
        const uint8_t *masks = golden_u8(golden, &shape, "%s/masks%s", name, suffix);
        crops.masks = tensor_1d((void *)(uintptr_t)masks, DTYPE_U8, shape.count);
    }
    return crops;
}

static void case_forward(Case *c, Model *m)
{
    c->captures = memory_alloc_array((size_t)m->vit.config.depth, sizeof *c->captures);
    VitInput input = {.backward = true, .captures = c->captures};
    if (golden_has(m->golden, "%s/input", c->name)) {
        input.sets[input.set_count++] = read_crops(m->golden, c->name, "");
    } else {
        while (input.set_count < PACKED_MAX_SETS &&
               golden_has(m->golden, "%s/input_%d", c->name, input.set_count)) {
            snprintf(c->suffix[input.set_count], sizeof c->suffix[0], "_%d", input.set_count);
            input.sets[input.set_count] = read_crops(m->golden, c->name, c->suffix[input.set_count]);
            input.set_count++;
        }
    }
    c->set_count = input.set_count;
    Arena plan = arena_measuring();
    VitPass sizes = vit_pass(&m->vit, &input, &plan);
    size_t one = (size_t)(sizes.pack.tokens * m->vit.config.embed_dim) * sizeof(float);
    c->arena = arena_create(plan.peak + (size_t)(m->vit.config.depth + 4) * (one + 4096));
    for (int64_t i = 0; i < m->vit.config.depth; i++)
        c->captures[i] = tensor_alloc_2d(&c->arena, DTYPE_F32, sizes.pack.tokens, m->vit.config.embed_dim);
    c->pass = vit_pass(&m->vit, &input, &c->arena);
    vit_forward(&m->vit, c->ops, &m->weights, &c->pass, NULL);
}

/* Tokens [first, first + count) of every sequence of a set, out of x[tokens, D], to out[B, count, D]. */
static int64_t take_tokens(const Case *c, int set, Tensor x, int64_t first, int64_t count, float *out)
{
    const PackedSet *s = &c->pass.pack.sets[set];
    int64_t D = x.shape[1];
    for (int64_t b = 0; b < s->sequences; b++)
        memcpy(out + b * count * D, tensor_f32(x) + (vit_row(&c->pass, set, b) + first) * D,
               (size_t)(count * D) * sizeof(float));
    return s->sequences * count * D;
}

/* The reverse of take_tokens. */
static void put_tokens(const Case *c, int set, Tensor x, int64_t first, int64_t count, const float *in)
{
    const PackedSet *s = &c->pass.pack.sets[set];
    int64_t D = x.shape[1];
    for (int64_t b = 0; b < s->sequences; b++)
        memcpy(tensor_f32(x) + (vit_row(&c->pass, set, b) + first) * D, in + b * count * D,
               (size_t)(count * D) * sizeof(float));
}

/* The four outputs that a set can have: where their tokens lie. */
typedef struct {
    const char *name;
    int64_t first, count;
    bool normed;
} Output;

static void outputs_of(const Model *m, const Case *c, int set, Output outputs[4])
{
    int64_t R = m->vit.config.num_register_tokens, N = c->pass.patches[set];
    outputs[0] = (Output){"x_prenorm", 0, 1 + R + N, false};
    outputs[1] = (Output){"x_norm_clstoken", 0, 1, true};
    outputs[2] = (Output){"x_norm_regtokens", 1, R, true};
    outputs[3] = (Output){"x_norm_patchtokens", 1 + R, N, true};
}

/* Compares outputs, fills cotangents, returns sum <output, cotangent>. */
static double check_outputs(const Model *m, Case *c, Tensor normed, Tensor d_normed, float *buffer)
{
    Golden *golden = m->golden;
    double loss = 0;
    for (int set = 0; set < c->set_count; set++) {
        Output outputs[4];
        outputs_of(m, c, set, outputs);
        for (int i = 0; i < 4; i++) {
            const Output *o = &outputs[i];
            if (!golden_has(golden, "%s/out%s/%s", c->name, c->suffix[set], o->name)) continue;
            int64_t n = take_tokens(c, set, o->normed ? normed : c->pass.x, o->first, o->count, buffer);
            golden_compare(golden, buffer, n, "%s/out%s/%s", c->name, c->suffix[set], o->name);
            GoldenShape shape;
            const float *cotangent =
                golden_f32(golden, &shape, "%s/cotangent%s/%s", c->name, c->suffix[set], o->name);
            put_tokens(c, set, o->normed ? d_normed : c->pass.dx, o->first, o->count, cotangent);
            for (int64_t k = 0; k < n; k++)
                loss += (double)buffer[k] * (double)cotangent[k];
        }
    }
    return loss;
}

static void check_backward(Model *m, Case *c)
{
    int64_t tokens = c->pass.pack.tokens, D = m->vit.config.embed_dim;
    Tensor normed = tensor_alloc_2d(&c->arena, DTYPE_F32, tokens, D);
    Tensor d_normed = tensor_alloc_2d(&c->arena, DTYPE_F32, tokens, D);
    Tensor stats = tensor_alloc_2d(&c->arena, DTYPE_F32, tokens, 2);
    float *buffer = arena_alloc(&c->arena, (size_t)(tokens * D) * sizeof(float));
    memset(c->pass.dx.data, 0, tensor_bytes(c->pass.dx));
    memset(d_normed.data, 0, tensor_bytes(d_normed));
    vit_norm_forward(&m->vit, c->ops, &m->weights, c->pass.x, tensor_none(), normed, stats, NULL);
    double loss = check_outputs(m, c, normed, d_normed, buffer);
    golden_compare_f64(m->golden, &loss, 1, "%s/loss", c->name);

    memset(m->grads, 0, (size_t)m->table.flat_count * sizeof(float));
    Tensor dimages[PACKED_MAX_SETS] = {{0}};
    for (int set = 0; set < c->set_count; set++) {
        Tensor images = c->pass.input.sets[set].images;
        float *memory = memory_alloc(tensor_bytes(images));
        dimages[set] = tensor_view(memory, DTYPE_F32, 4, images.shape);
    }
    vit_norm_backward(&m->vit, c->ops, &m->weights, &c->pass, tensor_none(), d_normed, stats, m->grads, NULL);
    vit_backward(&m->vit, c->ops, &m->weights, &c->pass, m->grads, dimages, NULL);
    char group[128];
    snprintf(group, sizeof group, "%s/grad/params", c->name);
    golden_params_compare(m->golden, &m->table, GOLDEN_NAMES_PLAIN, m->grads, group);
    for (int set = 0; set < c->set_count; set++) {
        golden_compare(m->golden, tensor_f32(dimages[set]), tensor_count(dimages[set]), "%s/grad/input%s",
                       c->name, c->suffix[set]);
        memory_free(dimages[set].data);
    }
}

/* (B, N, D) as (B, D, N). */
static void channels_first(const float *in, int64_t B, int64_t N, int64_t D, float *out)
{
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < N; i++)
            for (int64_t d = 0; d < D; d++)
                out[(b * D + d) * N + i] = in[(b * N + i) * D + d];
}

/* One returned layer: class_<i> and patch_<i> of GROUP from block `block`. */
static void check_layer(const Model *m, Case *c, const char *group, int index, int64_t block, bool norm,
                        bool reshape)
{
    int64_t tokens = c->pass.pack.tokens, D = m->vit.config.embed_dim, R = m->vit.config.num_register_tokens;
    ArenaMark mark = arena_mark(&c->arena);
    Tensor x = tensor_alloc_2d(&c->arena, DTYPE_F32, tokens, D);
    Tensor stats = tensor_alloc_2d(&c->arena, DTYPE_F32, tokens, 2);
    memcpy(x.data, c->captures[block].data, tensor_bytes(x));
    if (norm)
        vit_norm_forward(&m->vit, c->ops, &m->weights, c->captures[block], tensor_none(), x, stats, NULL);
    float *buffer = memory_alloc_array((size_t)(2 * tokens * D), sizeof(float)),
          *turned = buffer + tokens * D;
    if (golden_has(m->golden, "%s/class_%d", group, index)) {
        int64_t n = take_tokens(c, 0, x, 0, 1, buffer);
        golden_compare(m->golden, buffer, n, "%s/class_%d", group, index);
    }
    int64_t n = take_tokens(c, 0, x, 1 + R, c->pass.patches[0], buffer);
    if (reshape) channels_first(buffer, c->pass.pack.sequences, c->pass.patches[0], D, turned);
    golden_compare(m->golden, reshape ? turned : buffer, n, "%s/patch_%d", group, index);
    memory_free(buffer);
    arena_reset(&c->arena, mark);
}

static void check_intermediate(const Model *m, Case *c)
{
    Golden *golden = m->golden;
    if (!golden_has(golden, "%s/intermediate", c->name)) return;
    int64_t depth = m->vit.config.depth;
    for (const char *const *name = golden_members(golden, NULL, "%s/intermediate", c->name); *name; name++) {
        char group[128];
        int n = 0;
        snprintf(group, sizeof group, "%s/intermediate/%s", c->name, *name);
        if (strcmp(*name, "tokens_in") == 0) { /* what block 0 read: nothing is dropped, so all rows */
            golden_compare(golden, tensor_f32(c->pass.blocks[0].x1), tensor_count(c->pass.blocks[0].x1), "%s",
                           group);
        } else if (strcmp(*name, "list_reshape") == 0) {
            check_layer(m, c, group, 0, 0, true, true);
            check_layer(m, c, group, 1, depth - 1, true, true);
        } else if (sscanf(*name, "n%d_", &n) == 1 && n >= 1 && n <= depth) {
            for (int i = 0; i < n; i++)
                check_layer(m, c, group, i, depth - n + i, strstr(*name, "_norm") != NULL, false);
        } else {
            golden_fail(golden, "%s: unknown kind of intermediate output", group);
        }
    }
}

void golden_vit(Golden *golden)
{
    Model model;
    model_init(&model, golden);
    OpsLimits limits = {.rows = 65536, .width = 8192, .max_seqlen = 4096, .head_dim = 256};
    Ops *ops = ops_support_open(&limits, 0);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        if (strcmp(*name, "params") == 0) continue;
        Case c = {.name = *name, .ops = ops};
        case_forward(&c, &model);
        check_intermediate(&model, &c);
        check_backward(&model, &c);
        arena_destroy(&c.arena);
        memory_free(c.captures);
    }
    ops_support_close(ops);
    model_fini(&model);
}

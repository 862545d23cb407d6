/* golden_vit.c - vit_*.h5: the backbone forward and backward, on one set of crops or several in one pack. */
#include "golden_device.h"
#include "golden_params.h"

#include "base/memory.h"
#include "nn/vit.h"

#include <stdio.h>
#include <string.h>

/* A backbone with the file's weights. */
typedef struct {
    Golden *golden;
    const Ops *ops;
    Vit vit;
    ParamTable table;
    float *params, *grads; /* flat, of the device */
    Weights weights;
} Model;

/* One case of the file. "%d" sets where there are several, the plain names where there is one. */
typedef struct {
    const char *name;
    char suffix[PACKED_MAX_SETS][8]; /* "" or "_0", "_1" */
    VitInput input;
    Arena arena;
    VitPass pass;
    Tensor *captures;               /* [depth] owned */
    Tensor normed, d_normed, stats; /* of all tokens */
    Tensor layer_normed, layer_stats;
} Case;

static int64_t attr(Golden *golden, const char *name)
{
    return (int64_t)golden_attr(golden, name, "/");
}

static void model_init(Model *m, Golden *golden, const Ops *ops)
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
    *m = (Model){.golden = golden, .ops = ops};
    param_table_init(&m->table);
    vit_build(&m->vit, &config, &m->table);
    size_t bytes = (size_t)m->table.flat_count * sizeof(float);
    m->params = device_alloc(ops->device, bytes);
    m->grads = device_alloc(ops->device, bytes);
    m->weights = (Weights){.master = param_values_flat(&m->table, m->params)};
    float *host = memory_alloc(bytes);
    golden_params_load(golden, &m->table, GOLDEN_NAMES_PLAIN, host, "params");
    device_upload(ops->device, m->params, host, bytes);
    memory_free(host);
}

static void model_fini(Model *m)
{
    device_free(m->ops->device, m->params);
    device_free(m->ops->device, m->grads);
    vit_fini(&m->vit);
    param_table_fini(&m->table);
}

static VitCrops read_crops(const Model *m, const char *name, const char *suffix)
{
    GoldenShape shape;
    const float *images = golden_f32(m->golden, &shape, "%s/input%s", name, suffix);
    VitCrops crops = {.sequences = shape.dim[0], .height = shape.dim[2], .width = shape.dim[3]};
    crops.images =
        golden_device_copy(m->ops, tensor_view((void *)(uintptr_t)images, DTYPE_F32, 4, shape.dim));
    if (golden_has(m->golden, "%s/masks%s", name, suffix)) {
        const uint8_t *masks = golden_u8(m->golden, &shape, "%s/masks%s", name, suffix);
        crops.masks = golden_device_copy(m->ops, tensor_1d((void *)(uintptr_t)masks, DTYPE_U8, shape.count));
    }
    return crops;
}

/* Everything that the case computes; on a measuring arena too. */
static void layout(Case *c, const Model *m, Arena *arena)
{
    c->pass = vit_pass(&m->vit, &c->input, arena);
    int64_t tokens = c->pass.pack.tokens, D = m->vit.config.embed_dim;
    for (int64_t i = 0; i < m->vit.config.depth; i++)
        c->captures[i] = tensor_alloc_2d(arena, DTYPE_F32, tokens, D);
    c->normed = tensor_alloc_2d(arena, DTYPE_F32, tokens, D);
    c->d_normed = tensor_alloc_2d(arena, DTYPE_F32, tokens, D);
    c->stats = tensor_alloc_2d(arena, DTYPE_F32, tokens, 2);
    c->layer_normed = tensor_alloc_2d(arena, DTYPE_F32, tokens, D);
    c->layer_stats = tensor_alloc_2d(arena, DTYPE_F32, tokens, 2);
}

static void case_forward(Case *c, Model *m)
{
    c->captures = memory_alloc_array((size_t)m->vit.config.depth, sizeof *c->captures);
    c->input = (VitInput){.backward = true, .captures = c->captures};
    if (golden_has(m->golden, "%s/input", c->name)) {
        c->input.sets[c->input.set_count++] = read_crops(m, c->name, "");
    } else {
        int *count = &c->input.set_count;
        while (*count < PACKED_MAX_SETS && golden_has(m->golden, "%s/input_%d", c->name, *count)) {
            snprintf(c->suffix[*count], sizeof c->suffix[0], "_%d", *count);
            c->input.sets[*count] = read_crops(m, c->name, c->suffix[*count]);
            (*count)++;
        }
    }
    Device *device = m->ops->device;
    Arena plan = arena_measuring();
    layout(c, m, &plan);
    c->arena = device_arena_create(device, &plan);
    layout(c, m, &c->arena);
    device_upload_staged(device, &c->arena, ARENA_START);
    vit_forward(&m->vit, m->ops, &m->weights, &c->pass, NULL);
}

static void case_fini(Case *c, const Model *m)
{
    for (int set = 0; set < c->input.set_count; set++) {
        golden_device_free(m->ops, c->input.sets[set].images);
        golden_device_free(m->ops, c->input.sets[set].masks);
    }
    device_arena_destroy(m->ops->device, &c->arena);
    memory_free(c->captures);
}

/* A tensor's numbers on the host. */
static const float *fetch(const Model *m, Tensor x)
{
    return golden_device_f32(m->golden, m->ops, tensor_f32(x), tensor_count(x));
}

/* Tokens [first, first + count) of every sequence of a set, out of x[tokens, D] on the host, to out[B, count,
 * D]. */
static int64_t take_tokens(const Case *c, int set, const float *x, int64_t first, int64_t count, float *out)
{
    const PackedSet *s = &c->pass.pack.sets[set];
    int64_t D = c->normed.shape[1];
    for (int64_t b = 0; b < s->sequences; b++)
        memcpy(out + b * count * D, x + (vit_row(&c->pass, set, b) + first) * D,
               (size_t)(count * D) * sizeof(float));
    return s->sequences * count * D;
}

/* The reverse of take_tokens. */
static void put_tokens(const Case *c, int set, float *x, int64_t first, int64_t count, const float *in)
{
    const PackedSet *s = &c->pass.pack.sets[set];
    int64_t D = c->normed.shape[1];
    for (int64_t b = 0; b < s->sequences; b++)
        memcpy(x + (vit_row(&c->pass, set, b) + first) * D, in + b * count * D,
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

/* Compares outputs, fills the cotangents d_x and d_normed [tokens, D] in host memory, returns
 * sum <output, cotangent>. */
static double check_outputs(const Model *m, Case *c, float *d_x, float *d_normed)
{
    Golden *golden = m->golden;
    const float *x = fetch(m, c->pass.x), *normed = fetch(m, c->normed);
    float *buffer = memory_alloc(tensor_bytes(c->normed));
    double loss = 0;
    for (int set = 0; set < c->input.set_count; set++) {
        Output outputs[4];
        outputs_of(m, c, set, outputs);
        for (int i = 0; i < 4; i++) {
            const Output *o = &outputs[i];
            if (!golden_has(golden, "%s/out%s/%s", c->name, c->suffix[set], o->name)) continue;
            int64_t n = take_tokens(c, set, o->normed ? normed : x, o->first, o->count, buffer);
            golden_compare(golden, buffer, n, "%s/out%s/%s", c->name, c->suffix[set], o->name);
            GoldenShape shape;
            const float *cotangent =
                golden_f32(golden, &shape, "%s/cotangent%s/%s", c->name, c->suffix[set], o->name);
            put_tokens(c, set, o->normed ? d_normed : d_x, o->first, o->count, cotangent);
            for (int64_t k = 0; k < n; k++)
                loss += (double)buffer[k] * (double)cotangent[k];
        }
    }
    memory_free(buffer);
    return loss;
}

static void check_backward(Model *m, Case *c)
{
    const Ops *ops = m->ops;
    vit_norm_forward(&m->vit, ops, &m->weights, c->pass.x, tensor_none(), c->normed, c->stats, NULL);
    float *d_x = memory_alloc(tensor_bytes(c->pass.dx)), *d_normed = memory_alloc(tensor_bytes(c->d_normed));
    double loss = check_outputs(m, c, d_x, d_normed);
    golden_compare_f64(m->golden, &loss, 1, "%s/loss", c->name);
    device_upload(ops->device, c->pass.dx.data, d_x, tensor_bytes(c->pass.dx));
    device_upload(ops->device, c->d_normed.data, d_normed, tensor_bytes(c->d_normed));
    memory_free(d_x);
    memory_free(d_normed);

    int64_t flat = m->table.flat_count;
    ops->zero(ops, tensor_1d(m->grads, DTYPE_F32, flat));
    Tensor dimages[PACKED_MAX_SETS] = {{0}};
    for (int set = 0; set < c->input.set_count; set++) {
        dimages[set] = c->input.sets[set].images;
        dimages[set].data = device_alloc(ops->device, tensor_bytes(dimages[set]));
    }
    vit_norm_backward(&m->vit, ops, &m->weights, &c->pass, tensor_none(), c->d_normed, c->stats,
                      param_values_flat(&m->table, m->grads), NULL);
    vit_backward(&m->vit, ops, &m->weights, &c->pass, param_values_flat(&m->table, m->grads), dimages, NULL);
    char group[128];
    snprintf(group, sizeof group, "%s/grad/params", c->name);
    golden_params_compare(m->golden, &m->table, GOLDEN_NAMES_PLAIN,
                          golden_device_f32(m->golden, ops, m->grads, flat), group);
    for (int set = 0; set < c->input.set_count; set++) {
        golden_compare(m->golden, fetch(m, dimages[set]), tensor_count(dimages[set]), "%s/grad/input%s",
                       c->name, c->suffix[set]);
        golden_device_free(ops, dimages[set]);
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
    if (norm)
        vit_norm_forward(&m->vit, m->ops, &m->weights, c->captures[block], tensor_none(), c->layer_normed,
                         c->layer_stats, NULL);
    const float *x = fetch(m, norm ? c->layer_normed : c->captures[block]);
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
            Tensor x1 = c->pass.blocks[0].x1;
            golden_compare(golden, fetch(m, x1), tensor_count(x1), "%s", group);
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
    OpsLimits limits = {.rows = 65536, .width = 8192, .max_seqlen = 4096, .head_dim = 256, .heads = 64};
    Ops *ops = golden_device_open(golden, &limits);
    Model model;
    model_init(&model, golden, ops);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        if (strcmp(*name, "params") == 0) continue;
        Case c = {.name = *name};
        case_forward(&c, &model);
        check_intermediate(&model, &c);
        check_backward(&model, &c);
        case_fini(&c, &model);
    }
    model_fini(&model);
    golden_device_close(ops);
}

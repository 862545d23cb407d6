/* test_vit_weights.c - networks under the names of others: there and back bit by bit, what they are from
 * shapes alone, what does not fit; and features of timm's and transformers' own networks
 * (tests/golden/peers, by tests/support/peer_models.py).
 */
#include "../support/ops_support.h"
#include "../support/ssl_support.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "ckpt/vit_weights.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PEERS "tests/golden/peers"

/* A network with its weights. */
typedef struct {
    Vit vit;
    ParamTable table;
    float *flat;
} Net;

static VitConfig tiny(int64_t registers, bool swiglu)
{
    return (VitConfig){.embed_dim = 24,
                       .depth = 3,
                       .num_heads = 3,
                       .patch_size = 4,
                       .img_size = 20,
                       .num_register_tokens = registers,
                       .mlp_ratio = 4,
                       .swiglu = swiglu,
                       .qkv_bias = true,
                       .proj_bias = true,
                       .ffn_bias = true,
                       .layerscale = 1e-5};
}

static void build(Net *net, const VitConfig *config)
{
    *net = (Net){0};
    param_table_init(&net->table);
    vit_build(&net->vit, config, &net->table);
}

static void make(Net *net, const VitConfig *config)
{
    build(net, config);
    net->flat = memory_alloc_array((size_t)net->table.flat_count, sizeof *net->flat);
    ssl_support_random_params(&net->table, 7, net->flat);
}

static void unmake(Net *net)
{
    vit_fini(&net->vit);
    param_table_fini(&net->table);
    memory_free(net->flat);
}

static float *values_of(const Net *net, const char *name)
{
    int id = param_table_find(&net->table, PARAM_BACKBONE, name);
    cr_assert(id >= 0, "%s", name);
    return net->flat + net->table.params[id].offset;
}

/* Everything that a file says: its naming and network too. */
static Status load(const char *path, int64_t heads, Net *net, VitNames *names, Error *error)
{
    SafetensorsFile file;
    VitConfig config;
    *net = (Net){0};
    Status status = safetensors_open(&file, path, error);
    cr_assert_eq(status, STATUS_OK, "%s", error->text);
    status = vit_names_detect(names, &file, error);
    if (status == STATUS_OK) status = vit_weights_describe(&file, names, &config, error);
    if (status == STATUS_OK) {
        config.num_heads = heads;
        config.layerscale = config.layerscale > 0 ? 1e-5 : 0;
        build(net, &config);
        status = vit_weights_load(&file, names, &net->table, &net->flat, error);
    }
    safetensors_close(&file);
    return status;
}

static void expect_same_network(const VitConfig *a, const VitConfig *b)
{
    cr_expect(a->embed_dim == b->embed_dim && a->depth == b->depth && a->patch_size == b->patch_size &&
              a->img_size == b->img_size && a->num_register_tokens == b->num_register_tokens &&
              a->swiglu == b->swiglu && a->qkv_bias == b->qkv_bias && a->proj_bias == b->proj_bias &&
              a->ffn_bias == b->ffn_bias && a->layerscale == b->layerscale);
}

static void expect_same_bytes(const char *path, const char *other)
{
    char *both[2];
    const char *const paths[] = {path, other};
    size_t sizes[2];
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(paths[i], "rb");
        cr_assert_not_null(file);
        both[i] = memory_alloc(1 << 20);
        sizes[i] = fread(both[i], 1, 1 << 20, file);
        fclose(file);
    }
    cr_expect(sizes[0] == sizes[1] && sizes[0] > 1000 && sizes[0] < 1 << 20);
    cr_expect(memcmp(both[0], both[1], sizes[0]) == 0, "%s and %s differ", path, other);
    memory_free(both[0]);
    memory_free(both[1]);
}

/* Out, in, and out again: the network is known, its weights are the same but for what timm does not keep. */
static void check_round_trip(const TempFolder *folder, VitNaming naming, const VitConfig *config)
{
    TempPath path = temp_folder_in(folder, "a.safetensors"), again = temp_folder_in(folder, "b.safetensors");
    Net net, back;
    VitNames names;
    Error error = {0};
    make(&net, config);
    float *copy = memory_alloc_array((size_t)net.table.flat_count, sizeof *copy);
    memcpy(copy, net.flat, (size_t)net.table.flat_count * sizeof *copy);
    cr_assert_eq(vit_weights_save(path.text, naming, SAFETENSORS_F32, &net.table, net.flat, &error),
                 STATUS_OK, "%s", error.text);
    cr_expect(memcmp(copy, net.flat, (size_t)net.table.flat_count * sizeof *copy) == 0, "left as it was");
    cr_assert_eq(load(path.text, 3, &back, &names, &error), STATUS_OK, "%s", error.text);
    cr_expect_eq(names.naming, naming);
    expect_same_network(&back.vit.config, config);
    for (int i = 0; i < net.table.count; i++) {
        const Param *param = &net.table.params[i];
        bool timm = naming == VIT_NAMES_TIMM, folds = timm && config->num_register_tokens > 0;
        if (timm && strcmp(param->name, "mask_token") == 0) continue;
        if (folds && (strcmp(param->name, "cls_token") == 0 || strcmp(param->name, "pos_embed") == 0))
            continue;
        cr_expect(memcmp(net.flat + param->offset, values_of(&back, param->name),
                         (size_t)param->count * sizeof *copy) == 0,
                  "%s, %s", vit_names_word(naming), param->name);
    }
    cr_assert_eq(vit_weights_save(again.text, naming, SAFETENSORS_F32, &back.table, back.flat, &error),
                 STATUS_OK);
    expect_same_bytes(path.text, again.text);
    memory_free(copy);
    unmake(&net);
    unmake(&back);
}

Test(vit_weights, every_naming_goes_there_and_back)
{
    TempFolder folder = temp_folder_create();
    for (int naming = VIT_NAMES_REFERENCE; naming <= VIT_NAMES_TIMM; naming++) {
        for (int kind = 0; kind < 4; kind++) {
            VitConfig config = tiny(kind & 1 ? 4 : 0, kind & 2);
            check_round_trip(&folder, (VitNaming)naming, &config);
        }
        VitConfig bare = tiny(0, false);
        bare.qkv_bias = bare.proj_bias = bare.ffn_bias = false;
        bare.layerscale = 0;
        check_round_trip(&folder, (VitNaming)naming, &bare);
    }
    temp_folder_destroy(&folder);
}

Test(vit_weights, timm_with_registers_has_one_class_token_in_place_of_two)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "a.safetensors");
    VitConfig config = tiny(2, false);
    Net net, back;
    VitNames names;
    Error error = {0};
    make(&net, &config);
    vit_weights_save(path.text, VIT_NAMES_TIMM, SAFETENSORS_F32, &net.table, net.flat, &error);
    cr_assert_eq(load(path.text, 3, &back, &names, &error), STATUS_OK, "%s", error.text);
    cr_expect(names.folded);
    const float *token = values_of(&net, "cls_token"), *position = values_of(&net, "pos_embed");
    const float *folded = values_of(&back, "cls_token"), *rest = values_of(&back, "pos_embed");
    for (int i = 0; i < 24; i++) {
        cr_expect_eq(folded[i], token[i] + position[i]);
        cr_expect(rest[i] == 0.0f && signbit(rest[i]));
        cr_expect_eq(values_of(&back, "mask_token")[i], 0.0f);
    }
    cr_expect(memcmp(rest + 24, position + 24, 25 * 24 * sizeof *rest) == 0);
    unmake(&net);
    unmake(&back);
    temp_folder_destroy(&folder);
}

/* --- names --- */

Test(vit_weights, names_are_those_of_the_others)
{
    static const struct {
        const char *ours, *huggingface, *timm;
    } rows[] = {
        {"cls_token", "embeddings.cls_token", "cls_token"},
        {"register_tokens", "embeddings.register_tokens", "reg_token"},
        {"mask_token", "embeddings.mask_token", NULL},
        {"pos_embed", "embeddings.position_embeddings", "pos_embed"},
        {"patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"},
        {"norm.weight", "layernorm.weight", "norm.weight"},
        {"blocks.11.norm2.bias", "encoder.layer.11.norm2.bias", "blocks.11.norm2.bias"},
        {"blocks.0.attn.qkv.weight", "encoder.layer.0.attention.attention.key.weight",
         "blocks.0.attn.qkv.weight"},
        {"blocks.0.attn.proj.bias", "encoder.layer.0.attention.output.dense.bias", "blocks.0.attn.proj.bias"},
        {"blocks.7.ls2.gamma", "encoder.layer.7.layer_scale2.lambda1", "blocks.7.ls2.gamma"},
        {"blocks.7.mlp.w12.bias", "encoder.layer.7.mlp.weights_in.bias", "blocks.7.mlp.fc1.bias"},
        {"blocks.7.mlp.w3.weight", "encoder.layer.7.mlp.weights_out.weight", "blocks.7.mlp.fc2.weight"},
        {"blocks.7.mlp.fc2.weight", "encoder.layer.7.mlp.fc2.weight", "blocks.7.mlp.fc2.weight"},
    };
    VitNames huggingface = vit_names_plain(VIT_NAMES_HUGGINGFACE, true);
    VitNames timm = vit_names_plain(VIT_NAMES_TIMM, true);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[128];
        int parts;
        bool split = strstr(rows[i].ours, "qkv") != NULL;
        cr_expect(vit_names_of(&huggingface, rows[i].ours, split ? 1 : 0, name, &parts));
        cr_expect_str_eq(name, rows[i].huggingface);
        cr_expect_eq(parts, split ? 3 : 1);
        cr_expect_eq(vit_names_of(&timm, rows[i].ours, 0, name, &parts), rows[i].timm != NULL);
        if (rows[i].timm) cr_expect_str_eq(name, rows[i].timm);
    }
}

/* A file of the reference's training: chunks of blocks, "backbone." in front, heads beside it. */
static void write_chunked(const char *path, const Net *net, const char *extra, const char *left_out)
{
    SafetensorsSource sources[100];
    char names[100][128];
    int count = 0;
    for (int i = 0; i < net->table.count; i++) {
        const Param *param = &net->table.params[i];
        if (left_out && strcmp(param->name, left_out) == 0) continue;
        snprintf(names[count], sizeof names[count], "backbone.%s", param->name);
        sources[count] = (SafetensorsSource){names[count], param->ndim, param->shape,
                                             net->flat + param->offset, SAFETENSORS_F32};
        count++;
    }
    static const int64_t one[] = {1};
    sources[count++] = (SafetensorsSource){extra, 1, one, net->flat, SAFETENSORS_F32};
    cr_assert_eq(safetensors_write(path, sources, count, NULL), STATUS_OK);
}

Test(vit_weights, chunks_of_the_reference_are_seen_through)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "a.safetensors");
    VitConfig config = tiny(0, true);
    config.depth = 4;
    config.block_chunks = 2;
    Net net, back;
    VitNames names;
    Error error = {0};
    make(&net, &config);
    write_chunked(path.text, &net, "dino_head.last_layer.weight_v", NULL);
    cr_assert_eq(load(path.text, 3, &back, &names, &error), STATUS_OK, "%s", error.text);
    cr_expect(names.chunked && names.depth == 4 && names.chunks[3] == 1);
    cr_expect(memcmp(values_of(&back, "blocks.3.mlp.w12.weight"),
                     values_of(&net, "blocks.1.3.mlp.w12.weight"), 24 * 64 * 2 * sizeof(float)) == 0);
    unmake(&back);
    unmake(&net);
    temp_folder_destroy(&folder);
}

Test(vit_weights, what_does_not_fit_is_listed)
{
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "a.safetensors");
    VitConfig config = tiny(0, false);
    Net net, back;
    VitNames names;
    Error error = {0};
    make(&net, &config);
    write_chunked(path.text, &net, "backbone.head.bias", "blocks.1.norm1.weight");
    cr_expect_eq(load(path.text, 3, &back, &names, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text,
                              "of 49 tensors 48 match; 1 missing (backbone.blocks.1.norm1.weight); "
                              "1 unexpected (backbone.head.bias)"),
                       "%s", error.text);
    cr_expect_null(back.flat);
    unmake(&back);
    write_chunked(path.text, &net, "backbone.blocks.99999.norm1.weight", NULL);
    cr_expect_eq(load(path.text, 3, &back, &names, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "more than 1024 blocks"), "%s", error.text);
    write_chunked(path.text, &net, "backbone.blocks.900.norm1.weight", NULL);
    cr_expect_eq(load(path.text, 3, &back, &names, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "12571 missing (backbone.blocks.3.norm1.weight, "), "%s",
                       error.text);
    cr_expect_not_null(
        strstr(error.text, ", ...); 1 of another shape (backbone.blocks.900.norm1.weight [1] not"), "%s",
        error.text);
    unmake(&back);
    write_chunked(path.text, &net, "x", "patch_embed.proj.weight");
    cr_expect_eq(load(path.text, 3, &back, &names, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "no vision transformer"), "%s", error.text);
    write_chunked(path.text, &net, "x", "pos_embed");
    cr_expect_eq(load(path.text, 3, &back, &names, &error), STATUS_INPUT);
    cr_expect_not_null(strstr(error.text, "no position embedding"), "%s", error.text);
    unmake(&net);
    temp_folder_destroy(&folder);
}

/* --- grids --- */

Test(vit_weights, another_grid_is_what_a_pass_would_interpolate)
{
    VitConfig config = tiny(0, false);
    config.interpolate_offset = 0.1;
    Net net, other;
    make(&net, &config);
    config.img_size = 28;
    make(&other, &config);
    Ops *ops = ops_support_open(&(OpsLimits){.max_seqlen = 64, .width = 24}, 1);
    vit_weights_resample(&net.vit, &net.table, net.flat, &other.vit, &other.table, other.flat, ops);
    float *expected = memory_alloc_array((1 + 49) * 24, sizeof *expected);
    ops->pos_embed_forward(ops, tensor_2d(expected, DTYPE_F32, 50, 24),
                           tensor_2d(values_of(&net, "pos_embed"), DTYPE_F32, 26, 24), 7, 7, 0.1, false);
    cr_expect(memcmp(values_of(&other, "pos_embed"), expected, 50 * 24 * sizeof *expected) == 0);
    cr_expect(memcmp(values_of(&other, "norm.weight"), values_of(&net, "norm.weight"), 24 * sizeof(float)) ==
              0);
    memory_free(expected);
    ops_support_close(ops);
    unmake(&net);
    unmake(&other);
}

/* --- features of the others' networks --- */

static float *read_whole(const SafetensorsFile *file, const char *name, int64_t count)
{
    const SafetensorsTensor *tensor = safetensors_find(file, name);
    cr_assert(tensor && tensor->count == count, "%s", name);
    float *values = memory_alloc_array((size_t)count, sizeof *values);
    cr_assert_eq(safetensors_read(file, tensor, 0, count, values, NULL), STATUS_OK);
    return values;
}

/* Pictures of one size through the network: [tokens, D] behind the final norm. */
static Tensor run(const Net *net, const Ops *ops, Tensor images, Arena *arena, VitPass *pass)
{
    Weights weights = {.master = param_values_flat(&net->table, net->flat)};
    const int64_t *shape = images.shape;
    VitCrops crops = {.sequences = shape[0],
                      .height = shape[2],
                      .width = shape[3],
                      .place = {shape[0], 0},
                      .images = images};
    VitInput input = {.set_count = 1, .sets = {crops}, .act = DTYPE_F32};
    *pass = vit_pass(&net->vit, &input, arena);
    vit_forward(&net->vit, ops, &weights, pass, NULL);
    Tensor out = tensor_alloc_2d(arena, DTYPE_F32, pass->pack.tokens, net->vit.config.embed_dim);
    Tensor stats = tensor_alloc_2d(arena, DTYPE_F32, pass->pack.tokens, 2);
    vit_norm_forward(&net->vit, ops, &weights, pass->x, tensor_none(), out, stats, NULL);
    return out;
}

enum { PEER_WIDTH = 16, PEER_PATCH = 4, PEER_SIDE = 12 };

/* n pictures of a size; `which` is behind the names of the file's tensors. */
static void compare_features(const Net *net, const SafetensorsFile *file, const char *which, int64_t n,
                             int64_t height, int64_t width)
{
    int64_t registers = net->vit.config.num_register_tokens, W = PEER_WIDTH;
    int64_t patches = height * width / (PEER_PATCH * PEER_PATCH);
    char name[32];
    snprintf(name, sizeof name, "images%s", which);
    float *images = read_whole(file, name, n * 3 * height * width);
    snprintf(name, sizeof name, "class_token%s", which);
    float *tokens = read_whole(file, name, n * W);
    snprintf(name, sizeof name, "patch_tokens%s", which);
    float *expected = read_whole(file, name, n * patches * W);
    Ops *ops = ops_support_open(
        &(OpsLimits){.rows = 64, .width = 256, .max_seqlen = 64, .head_dim = 64, .heads = 2}, 1);
    Arena arena = arena_create((size_t)8 << 20);
    VitPass pass;
    const int64_t shape[] = {n, 3, height, width};
    Tensor out = run(net, ops, tensor_view(images, DTYPE_F32, 4, shape), &arena, &pass);
    for (int64_t i = 0; i < n; i++) {
        const float *row = tensor_f32(out) + vit_row(&pass, 0, i) * W;
        cr_expect_lt(ssl_support_difference(row, tokens + i * W, W), 1e-5, "%s: %s", file->path, name);
        cr_expect_lt(
            ssl_support_difference(row + (1 + registers) * W, expected + i * patches * W, patches * W), 1e-5,
            "%s: %s", file->path, name);
    }
    memory_free(images);
    memory_free(tokens);
    memory_free(expected);
    arena_destroy(&arena);
    ops_support_close(ops);
}

/* At the native grid, and at one of 4 x 6 patches as the peer resamples to it. */
static void check_peer(const char *peer, VitNaming naming, int64_t registers, bool swiglu, bool antialias)
{
    char path[128];
    Net net;
    VitNames names;
    SafetensorsFile file;
    Error error = {0};
    snprintf(path, sizeof path, PEERS "/%s.safetensors", peer);
    cr_assert_eq(load(path, 2, &net, &names, &error), STATUS_OK, "%s", error.text);
    VitConfig *c = &net.vit.config;
    cr_expect(names.naming == naming && c->num_register_tokens == registers && c->swiglu == swiglu);
    cr_assert(c->embed_dim == PEER_WIDTH && c->img_size == PEER_SIDE && c->depth == 2);
    c->interpolate_antialias = antialias;
    c->interpolate_offset = 0.0;
    snprintf(path, sizeof path, PEERS "/%s_features.safetensors", peer);
    cr_assert_eq(safetensors_open(&file, path, &error), STATUS_OK, "%s", error.text);
    compare_features(&net, &file, "", 2, PEER_SIDE, PEER_SIDE);
    compare_features(&net, &file, "_wide", 1, 16, 24);
    safetensors_close(&file);
    unmake(&net);
}

Test(vit_weights, features_are_those_of_timm_and_transformers)
{
    check_peer("huggingface_mlp", VIT_NAMES_HUGGINGFACE, 0, false, false);
    check_peer("huggingface_registers_swiglu", VIT_NAMES_HUGGINGFACE, 4, true, true);
    check_peer("timm_registers_mlp", VIT_NAMES_TIMM, 4, false, true);
    check_peer("timm_swiglu", VIT_NAMES_TIMM, 0, true, true);
}

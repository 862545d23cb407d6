/* linear_tokens.c - see linear_tokens.h. */
#include "eval/linear_tokens.h"

#include "base/check.h"
#include "base/memory.h"

struct LinearTokens {
    const FeatureBackbone *backbone;
    Device *device;
    LinearTokensSpec spec;
    int64_t patches;
    int64_t patch_blocks; /* whose patch tokens are made: all, or the last */
    Arena arena;
    Tensor *captures; /* [depth] outputs of the last blocks */
    float *host;      /* class tokens, then patch tokens, block by block; of the device's host memory */
    const float **class_tokens; /* [blocks] */
};

/* A pass of n pictures, laid out in the arena. */
typedef struct {
    VitPass pass;
    Tensor class_rows, patch_rows; /* int32 */
    Tensor classes;                /* [blocks * n, D] */
    Tensor patches;                /* [n * patches, D] */
    Tensor stats;                  /* [n * patches, 2] */
} TokenPass;

/* On a real arena the pictures are on their way to the device when it returns. */
static TokenPass layout(LinearTokens *tokens, Arena *arena, uint8_t *images, int64_t n)
{
    const Vit *vit = tokens->backbone->vit;
    int64_t D = vit->config.embed_dim, depth = vit->config.depth;
    bool host = device_kind(tokens->device) == DEVICE_CPU;
    ArenaMark mark = arena_mark(arena);
    int64_t shape[] = {n, VIT_IMAGE_CHANNELS, tokens->spec.height, tokens->spec.width};
    VitCrops crops = {.sequences = n,
                      .height = tokens->spec.height,
                      .width = tokens->spec.width,
                      .images = tensor_view(images, DTYPE_U8, 4, shape),
                      .levels = tokens->backbone->levels};
    if (!host) crops.images.data = arena_alloc(arena, tensor_bytes(crops.images));
    VitInput input = {.set_count = 1,
                      .sets = {crops},
                      .act = weights_act(tokens->backbone->weights),
                      .captures = tokens->captures};
    TokenPass p = {.pass = vit_pass(vit, &input, arena)};
    int32_t *class_rows, *patch_rows;
    p.class_rows = tensor_stage_1d(arena, DTYPE_I32, n, &class_rows);
    p.patch_rows = tensor_stage_1d(arena, DTYPE_I32, n * tokens->patches, &patch_rows);
    for (int64_t i = depth - tokens->spec.blocks; i < depth; i++)
        tokens->captures[i] = tensor_alloc_2d(arena, DTYPE_F32, p.pass.x.shape[0], D);
    p.classes = tensor_alloc_2d(arena, DTYPE_F32, tokens->spec.blocks * n, D);
    p.patches = tensor_alloc_2d(arena, DTYPE_F32, n * tokens->patches, D);
    p.stats = tensor_alloc_2d(arena, DTYPE_F32, n * tokens->patches, 2);
    if (arena_is_measuring(arena)) return p;
    for (int64_t i = 0; i < n; i++) {
        int64_t first = vit_row(&p.pass, 0, i);
        class_rows[i] = (int32_t)first;
        for (int64_t j = 0; j < tokens->patches; j++)
            patch_rows[i * tokens->patches + j] = (int32_t)(first + 1 + vit->config.num_register_tokens + j);
    }
    device_upload_staged(tokens->device, arena, mark);
    if (!host) device_upload(tokens->device, crops.images.data, images, tensor_bytes(crops.images));
    return p;
}

LinearTokens *linear_tokens_create(const FeatureBackbone *backbone, Device *device,
                                   const LinearTokensSpec *spec)
{
    const VitConfig *config = &backbone->vit->config;
    CHECK(!backbone->hooks && spec->blocks >= 1 && spec->blocks <= config->depth && spec->pass_images >= 1);
    LinearTokens *tokens = memory_alloc(sizeof *tokens);
    *tokens = (LinearTokens){.backbone = backbone,
                             .device = device,
                             .spec = *spec,
                             .patches = vit_patches(backbone->vit, spec->height, spec->width),
                             .patch_blocks = spec->dense ? spec->blocks : 1};
    tokens->captures = memory_alloc_array((size_t)config->depth, sizeof *tokens->captures);
    tokens->class_tokens = memory_alloc_array((size_t)spec->blocks, sizeof *tokens->class_tokens);
    Arena plan = arena_measuring();
    layout(tokens, &plan, NULL, spec->pass_images);
    tokens->arena = device_arena_create(device, &plan);
    size_t row = (size_t)config->embed_dim * sizeof *tokens->host;
    int64_t rows = spec->most * (spec->blocks + tokens->patch_blocks * tokens->patches);
    tokens->host = device_alloc_host(device, (size_t)rows * row);
    for (int64_t b = 0; b < spec->blocks; b++)
        tokens->class_tokens[b] = tokens->host + b * spec->most * config->embed_dim;
    return tokens;
}

void linear_tokens_destroy(LinearTokens *tokens)
{
    if (!tokens) return;
    device_arena_destroy(tokens->device, &tokens->arena);
    device_free_host(tokens->device, tokens->host);
    memory_free(tokens->captures);
    memory_free(tokens->class_tokens);
    memory_free(tokens);
}

/* Of the blocks whose patch tokens are made, the earliest first. */
static float *patches_of(const LinearTokens *tokens, int64_t block)
{
    int64_t rows = tokens->spec.most * (tokens->spec.blocks + block * tokens->patches);
    return tokens->host + rows * tokens->backbone->vit->config.embed_dim;
}

/* Pictures [first, first + n) of a batch. */
static void run_pass(LinearTokens *tokens, const Ops *ops, uint8_t *images, int64_t first, int64_t n)
{
    const FeatureBackbone *backbone = tokens->backbone;
    const Vit *vit = backbone->vit;
    int64_t D = vit->config.embed_dim, depth = vit->config.depth, blocks = tokens->spec.blocks;
    arena_reset(&tokens->arena, ARENA_START);
    TokenPass p = layout(tokens, &tokens->arena, images, n);
    vit_forward(vit, ops, backbone->weights, &p.pass, NULL);
    for (int64_t b = 0; b < blocks; b++) {
        Tensor out = tensor_2d((float *)p.classes.data + b * n * D, DTYPE_F32, n, D);
        Tensor stats = tensor_2d(p.stats.data, DTYPE_F32, n, 2);
        vit_norm_forward(vit, ops, backbone->weights, tokens->captures[depth - blocks + b], p.class_rows, out,
                         stats, NULL);
        device_download(tokens->device, tokens->host + (b * tokens->spec.most + first) * D, out.data,
                        tensor_bytes(out));
    }
    for (int64_t b = 0; b < tokens->patch_blocks; b++) {
        vit_norm_forward(vit, ops, backbone->weights, tokens->captures[depth - tokens->patch_blocks + b],
                         p.patch_rows, p.patches, p.stats, NULL);
        device_download(tokens->device, patches_of(tokens, b) + first * tokens->patches * D, p.patches.data,
                        tensor_bytes(p.patches));
    }
    device_finish(tokens->device);
}

LinearProbeTokens linear_tokens_run(LinearTokens *tokens, const Ops *ops, uint8_t *images, int64_t n)
{
    const LinearTokensSpec *spec = &tokens->spec;
    CHECK(n >= 1 && n <= spec->most);
    int64_t pixels = VIT_IMAGE_CHANNELS * spec->height * spec->width;
    for (int64_t first = 0; first < n; first += spec->pass_images) {
        int64_t count = n - first < spec->pass_images ? n - first : spec->pass_images;
        run_pass(tokens, ops, images + first * pixels, first, count);
    }
    return (LinearProbeTokens){.rows = n,
                               .blocks = spec->blocks,
                               .patches = tokens->patches,
                               .class_tokens = tokens->class_tokens,
                               .patch_tokens = patches_of(tokens, tokens->patch_blocks - 1)};
}

const float *linear_tokens_patches(const LinearTokens *tokens, int64_t b)
{
    CHECK(tokens->spec.dense && b >= 0 && b < tokens->spec.blocks);
    return patches_of(tokens, b);
}

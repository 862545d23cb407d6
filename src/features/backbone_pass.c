/* backbone_pass.c - see backbone_pass.h. */
#include "features/backbone_pass.h"

OpsLimits backbone_pass_limits(const FeatureBackbone *backbone, int64_t n, int64_t height, int64_t width)
{
    const VitConfig *c = &backbone->vit->config;
    int64_t tokens = 1 + c->num_register_tokens + vit_patches(backbone->vit, height, width);
    int64_t pixels = VIT_IMAGE_CHANNELS * c->patch_size * c->patch_size;
    int64_t widest = 8 * c->embed_dim; /* gate and value of the widest feed-forward layer */
    return (OpsLimits){.rows = n * tokens,
                       .width = widest > pixels ? widest : pixels,
                       .max_seqlen = tokens,
                       .head_dim = c->embed_dim / c->num_heads,
                       .heads = c->num_heads,
                       .reduced = true};
}

/* Rows of the pack: class tokens, then patch tokens. */
static void fill_rows(const FeatureBackbone *backbone, const BackboneImages *images, const VitPass *pass,
                      int32_t *rows)
{
    int64_t patches = vit_patches(backbone->vit, images->height, images->width);
    int64_t offset = 1 + backbone->vit->config.num_register_tokens;
    for (int64_t i = 0; i < images->n && images->class_tokens; i++)
        *rows++ = (int32_t)vit_row(pass, 0, i);
    for (int64_t i = 0; i < images->n && images->patches; i++)
        for (int64_t j = 0; j < patches; j++)
            *rows++ = (int32_t)(vit_row(pass, 0, i) + offset + j);
}

BackbonePass backbone_pass_lay_out(const FeatureBackbone *backbone, Device *device,
                                   const BackboneImages *images, Arena *arena)
{
    const Vit *vit = backbone->vit;
    ArenaMark mark = arena_mark(arena);
    int64_t shape[] = {images->n, VIT_IMAGE_CHANNELS, images->height, images->width};
    VitCrops crops = {.sequences = images->n,
                      .height = images->height,
                      .width = images->width,
                      .images = tensor_view(images->images, DTYPE_U8, 4, shape),
                      .levels = backbone->levels};
    if (device_kind(device) != DEVICE_CPU)
        crops.images.data = arena_alloc(arena, (size_t)(shape[0] * shape[1] * shape[2] * shape[3]));
    VitInput input = {
        .set_count = 1, .sets = {crops}, .act = weights_act(backbone->weights), .blocks = images->blocks};
    int64_t each = (images->class_tokens ? 1 : 0) +
                   (images->patches ? vit_patches(vit, images->height, images->width) : 0);
    BackbonePass p = {.pass = vit_pass(vit, &input, arena)};
    int64_t count = images->n * each;
    int32_t *rows;
    p.rows = tensor_stage_1d(arena, DTYPE_I32, count, &rows);
    p.tokens = tensor_alloc_2d(arena, DTYPE_F32, count, vit->config.embed_dim);
    p.stats = tensor_alloc_2d(arena, DTYPE_F32, count, 2);
    if (arena_is_measuring(arena)) return p;
    fill_rows(backbone, images, &p.pass, rows);
    device_upload_staged(device, arena, mark);
    if (crops.images.data != images->images)
        device_upload(device, crops.images.data, images->images, tensor_bytes(crops.images));
    return p;
}

void backbone_pass_run(const FeatureBackbone *backbone, const Ops *ops, BackbonePass *pass)
{
    vit_forward(backbone->vit, ops, backbone->weights, &pass->pass, backbone->hooks);
    vit_norm_forward(backbone->vit, ops, backbone->weights, pass->pass.x, pass->rows, pass->tokens,
                     pass->stats, backbone->hooks);
}

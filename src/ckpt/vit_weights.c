/* vit_weights.c - see vit_weights.h. */
#include "ckpt/vit_weights.h"

#include "base/check.h"
#include "base/memory.h"
#include "ckpt/head_weights.h"

#include <stdio.h>
#include <string.h>

/* Bounds of the configuration's keys. */
enum { WIDTH_MAX = 65536, PATCH_MAX = 256, REGISTERS_MAX = 1024, GRID_MAX = VIT_WEIGHTS_GRID_MAX };

static const double LAYERSCALE = 1e-5;

/* The file's tensor for one of our parameters, or NULL. */
static const SafetensorsTensor *tensor_of(const SafetensorsFile *file, const VitNames *names,
                                          const char *reference)
{
    char name[sizeof((WeightPiece){0}).name];
    int parts;
    return vit_names_of(names, reference, 0, name, &parts) ? safetensors_find(file, name) : NULL;
}

static Status bad_shape(const SafetensorsFile *file, const SafetensorsTensor *tensor, const char *expected,
                        Error *error)
{
    char shape[128];
    safetensors_shape_text(shape, sizeof shape, tensor->ndim, tensor->shape);
    return status_fail(error, STATUS_INPUT, "%s: %.100s is %s, expected %s", file->path, tensor->name, shape,
                       expected);
}

static Status describe_patches(const SafetensorsFile *file, const VitNames *names, VitConfig *config,
                               Error *error)
{
    const SafetensorsTensor *t = tensor_of(file, names, "patch_embed.proj.weight");
    CHECK(t);
    if (t->ndim != 4 || t->shape[1] != VIT_IMAGE_CHANNELS || t->shape[2] != t->shape[3] || t->shape[0] < 1 ||
        t->shape[0] > WIDTH_MAX || t->shape[2] < 1 || t->shape[2] > PATCH_MAX)
        return bad_shape(file, t, "[width, 3, patch, patch]", error);
    config->embed_dim = t->shape[0];
    config->patch_size = t->shape[2];
    return STATUS_OK;
}

static Status describe_grid(const SafetensorsFile *file, const VitNames *names, VitConfig *config,
                            Error *error)
{
    const SafetensorsTensor *t = tensor_of(file, names, "pos_embed");
    if (!t) return status_fail(error, STATUS_INPUT, "%s: there is no position embedding in it", file->path);
    int64_t patches = t->ndim == 3 ? t->shape[1] - !names->folded : 0, grid = 0;
    while (grid <= GRID_MAX && grid * grid < patches)
        grid++;
    if (patches < 1 || grid * grid != patches)
        return bad_shape(file, t, names->folded ? "[1, n * n, width]" : "[1, 1 + n * n, width]", error);
    config->img_size = grid * config->patch_size;
    t = tensor_of(file, names, "register_tokens");
    if (t && (t->ndim != 3 || t->shape[1] < 1 || t->shape[1] > REGISTERS_MAX))
        return bad_shape(file, t, "[1, registers, width]", error);
    config->num_register_tokens = t ? t->shape[1] : 0;
    return STATUS_OK;
}

/* timm's names are those of both kinds; twice as many rows before the gate tell. */
static bool is_swiglu(const SafetensorsFile *file, const VitNames *names)
{
    const SafetensorsTensor *in = tensor_of(file, names, "blocks.0.mlp.w12.weight");
    const SafetensorsTensor *out = tensor_of(file, names, "blocks.0.mlp.w3.weight");
    if (names->naming != VIT_NAMES_TIMM) return in != NULL;
    return in && out && in->ndim == 2 && out->ndim == 2 && in->shape[0] / 2 == out->shape[1];
}

Status vit_weights_describe(const SafetensorsFile *file, const VitNames *names, VitConfig *config,
                            Error *error)
{
    bool swiglu = is_swiglu(file, names);
    *config =
        (VitConfig){.depth = names->depth,
                    .mlp_ratio = 4.0,
                    .swiglu = swiglu,
                    .qkv_bias = tensor_of(file, names, "blocks.0.attn.qkv.bias") != NULL,
                    .proj_bias = tensor_of(file, names, "blocks.0.attn.proj.bias") != NULL,
                    .ffn_bias = tensor_of(file, names,
                                          swiglu ? "blocks.0.mlp.w12.bias" : "blocks.0.mlp.fc1.bias") != NULL,
                    .layerscale = tensor_of(file, names, "blocks.0.ls1.gamma") != NULL ? LAYERSCALE : 0.0};
    TRY(describe_patches(file, names, config, error));
    return describe_grid(file, names, config, error);
}

static bool is_classifier(const char *name)
{
    return strncmp(name, "classifier.", strlen("classifier.")) == 0;
}

static bool is_head(const char *name)
{
    return strncmp(name, "dino_head.", strlen("dino_head.")) == 0 ||
           strncmp(name, "ibot_head.", strlen("ibot_head.")) == 0 || is_classifier(name);
}

static bool never(const char *name)
{
    (void)name;
    return false;
}

static WeightIgnored ignored_of(const VitNames *names, bool with_heads)
{
    return !names->prefix[0] ? never : with_heads ? is_classifier : is_head;
}

int64_t vit_weights_left_out(const SafetensorsFile *file, const VitNames *names, bool with_heads, char *text,
                             size_t size)
{
    return weight_pieces_ignored(file, ignored_of(names, with_heads), text, size);
}

Status vit_weights_load(const SafetensorsFile *file, const VitNames *names, const ParamTable *table,
                        float **flat, Error *error)
{
    WeightPieces pieces = {0};
    *flat = NULL;
    vit_names_pieces(names, table, &pieces);
    Status status = weight_pieces_match(&pieces, file, ignored_of(names, head_weights_in_table(table)),
                                        "the vision transformer that its shapes make", error);
    if (status == STATUS_OK) {
        *flat = memory_alloc_array((size_t)table->flat_count, sizeof **flat);
        status = weight_pieces_read(&pieces, file, *flat, error);
    }
    if (status == STATUS_OK && names->folded) {
        const Param *position = &table->params[param_table_find(table, PARAM_BACKBONE, "pos_embed")];
        for (int64_t i = 0; i < position->shape[2]; i++)
            (*flat)[position->offset + i] = -0.0f;
    }
    weight_pieces_fini(&pieces);
    if (status == STATUS_OK) return STATUS_OK;
    memory_free(*flat);
    *flat = NULL;
    return status;
}

/* The class token plus its position embedding in place of the class token; what was there goes to `saved`. */
static void fold(const ParamTable *table, float *flat, float *saved)
{
    const Param *token = &table->params[param_table_find(table, PARAM_BACKBONE, "cls_token")];
    const Param *position = &table->params[param_table_find(table, PARAM_BACKBONE, "pos_embed")];
    memcpy(saved, flat + token->offset, (size_t)token->count * sizeof *saved);
    for (int64_t i = 0; i < token->count; i++)
        flat[token->offset + i] += flat[position->offset + i];
}

Status vit_weights_save(const char *path, VitNaming naming, SafetensorsType type, const ParamTable *table,
                        float *flat, Error *error)
{
    bool registers = param_table_find(table, PARAM_BACKBONE, "register_tokens") >= 0;
    VitNames names = vit_names_plain(naming, registers);
    if (head_weights_in_table(table)) {
        CHECK(naming == VIT_NAMES_REFERENCE);
        snprintf(names.prefix, sizeof names.prefix, "backbone.");
    }
    const Param *token = &table->params[param_table_find(table, PARAM_BACKBONE, "cls_token")];
    float *saved = memory_alloc_array((size_t)token->count, sizeof *saved);
    WeightPieces pieces = {0};
    vit_names_pieces(&names, table, &pieces);
    if (names.folded) fold(table, flat, saved);
    Status status = weight_pieces_write(&pieces, path, type, flat, error);
    if (names.folded) memcpy(flat + token->offset, saved, (size_t)token->count * sizeof *saved);
    weight_pieces_fini(&pieces);
    memory_free(saved);
    return status;
}

void vit_weights_resample(const Vit *vit, const ParamTable *table, const float *from, const Vit *other,
                          const ParamTable *other_table, float *to, const Ops *ops)
{
    CHECK(table->count == other_table->count);
    int64_t width = vit->config.embed_dim;
    for (int i = 0; i < table->count; i++) {
        const Param *param = &table->params[i], *there = &other_table->params[i];
        const float *values = from + param->offset;
        if (i == vit->pos_embed && vit->grid != other->grid) {
            Tensor source = tensor_2d((void *)(uintptr_t)values, DTYPE_F32, param->shape[1], width);
            Tensor resampled = tensor_2d(to + there->offset, DTYPE_F32, there->shape[1], width);
            ops->pos_embed_forward(ops, resampled, source, other->grid, other->grid,
                                   vit->config.interpolate_offset, vit->config.interpolate_antialias);
            continue;
        }
        CHECK(param->count == there->count);
        memcpy(to + there->offset, values, (size_t)param->count * sizeof *to);
    }
}

/* vit_names.c - see vit_names.h. */
#include "ckpt/vit_names.h"

#include "base/check.h"
#include "ckpt/head_weights.h"
#include "nn/vit.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = sizeof((WeightPiece){0}).name };

static const char *const WORDS[] = {
    [VIT_NAMES_REFERENCE] = "reference", [VIT_NAMES_HUGGINGFACE] = "huggingface", [VIT_NAMES_TIMM] = "timm"};

/* Stems; `.weight` and `.bias` stay. '@' is query, key, value; "" is no such tensor. */
typedef struct {
    const char *ours, *huggingface, *timm;
} Row;

static const Row OUTSIDE[] = {
    {"cls_token", "embeddings.cls_token", "cls_token"},
    {"pos_embed", "embeddings.position_embeddings", "pos_embed"},
    {"register_tokens", "embeddings.register_tokens", "reg_token"},
    {"mask_token", "embeddings.mask_token", ""},
    {"patch_embed.proj", "embeddings.patch_embeddings.projection", "patch_embed.proj"},
    {"norm", "layernorm", "norm"},
    {0},
};

static const Row IN_BLOCK[] = {
    {"norm1", "norm1", "norm1"},
    {"attn.qkv", "attention.attention.@", "attn.qkv"},
    {"attn.proj", "attention.output.dense", "attn.proj"},
    {"ls1.gamma", "layer_scale1.lambda1", "ls1.gamma"},
    {"norm2", "norm2", "norm2"},
    {"mlp.fc1", "mlp.fc1", "mlp.fc1"},
    {"mlp.fc2", "mlp.fc2", "mlp.fc2"},
    {"mlp.w12", "mlp.weights_in", "mlp.fc1"},
    {"mlp.w3", "mlp.weights_out", "mlp.fc2"},
    {"ls2.gamma", "layer_scale2.lambda1", "ls2.gamma"},
    {0},
};

static const char *const QKV[] = {"query", "key", "value"};
enum { QKV_PARTS = 3 };

Status vit_names_parse(VitNaming *naming, const char *word, Error *error)
{
    *naming = VIT_NAMES_REFERENCE;
    if (!word) return STATUS_OK;
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(WORDS[i], word) == 0) return *naming = (VitNaming)i, STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--names %s: expected reference, huggingface or timm", word);
}

const char *vit_names_word(VitNaming naming)
{
    return WORDS[naming];
}

VitNames vit_names_plain(VitNaming naming, bool registers)
{
    return (VitNames){.naming = naming, .folded = naming == VIT_NAMES_TIMM && registers};
}

/* --- which naming a file has --- */

static bool has(const SafetensorsFile *file, const char *prefix, const char *name)
{
    char text[NAME_BYTES];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return safetensors_find(file, text) != NULL;
}

/* The number at *text, which ends with a dot and goes; -1: there is none. */
static int64_t take_number(const char **text)
{
    char *end;
    if (!isdigit((unsigned char)**text)) return -1;
    long long value = strtoll(*text, &end, 10);
    if (*end != '.' || value < 0) return -1;
    *text = end + 1;
    return value;
}

/* Counts blocks, and notes their chunks. */
static Status find_blocks(VitNames *names, const SafetensorsFile *file, Error *error)
{
    char head[64];
    int length = snprintf(head, sizeof head, "%s%s", names->prefix,
                          names->naming == VIT_NAMES_HUGGINGFACE ? "encoder.layer." : "blocks.");
    for (int64_t t = 0; t < file->count; t++) {
        const char *text = file->tensors[t].name;
        if (strncmp(text, head, (size_t)length) != 0) continue;
        text += length;
        int64_t block = take_number(&text), chunk = -1, second = take_number(&text);
        if (block < 0) continue;
        if (second >= 0 && names->naming == VIT_NAMES_REFERENCE) {
            chunk = block;
            block = second;
            names->chunked = true;
        }
        if (block >= VIT_NAMES_DEPTH_MAX)
            return status_fail(error, STATUS_INPUT, "%s: %.100s: more than %d blocks", file->path,
                               file->tensors[t].name, VIT_NAMES_DEPTH_MAX);
        if (chunk >= 0) names->chunks[block] = chunk;
        if (block + 1 > names->depth) names->depth = block + 1;
    }
    if (names->depth > 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: there are no blocks (%s...) in it", file->path, head);
}

Status vit_names_detect(VitNames *names, const SafetensorsFile *file, Error *error)
{
    *names = (VitNames){0};
    static const char *const models[] = {"", "dinov2.", "dinov2_with_registers."};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (!has(file, models[i], "embeddings.patch_embeddings.projection.weight")) continue;
        names->naming = VIT_NAMES_HUGGINGFACE;
        snprintf(names->prefix, sizeof names->prefix, "%s", models[i]);
        return find_blocks(names, file, error);
    }
    if (has(file, "backbone.", "patch_embed.proj.weight"))
        snprintf(names->prefix, sizeof names->prefix, "backbone.");
    else if (!has(file, "", "patch_embed.proj.weight"))
        return status_fail(error, STATUS_INPUT,
                           "%s: no vision transformer: neither patch_embed.proj.weight nor "
                           "embeddings.patch_embeddings.projection.weight is in it (%lld tensors)",
                           file->path, (long long)file->count);
    bool reference = has(file, names->prefix, "mask_token") || has(file, names->prefix, "register_tokens") ||
                     has(file, names->prefix, "blocks.0.mlp.w12.weight");
    names->folded = has(file, names->prefix, "reg_token");
    if (names->folded || !reference) names->naming = VIT_NAMES_TIMM;
    return find_blocks(names, file, error);
}

/* --- one tensor --- */

static const Row *find_row(const Row *rows, const char *name)
{
    for (; rows->ours; rows++) {
        size_t length = strlen(rows->ours);
        if (strncmp(rows->ours, name, length) == 0 && (name[length] == '\0' || name[length] == '.'))
            return rows;
    }
    return NULL;
}

static const char *theirs(const VitNames *names, const Row *row)
{
    return names->naming == VIT_NAMES_REFERENCE     ? row->ours
           : names->naming == VIT_NAMES_HUGGINGFACE ? row->huggingface
                                                    : row->timm;
}

/* "blocks.3." as the file says it. */
static void block_head(const VitNames *names, int64_t block, char *text, size_t size)
{
    if (names->naming == VIT_NAMES_HUGGINGFACE)
        snprintf(text, size, "encoder.layer.%lld.", (long long)block);
    else if (names->chunked)
        snprintf(text, size, "blocks.%lld.%lld.", (long long)names->chunks[block], (long long)block);
    else
        snprintf(text, size, "blocks.%lld.", (long long)block);
}

bool vit_names_of(const VitNames *names, const char *reference, int part, char *name, int *parts)
{
    static const char blocks[] = "blocks.";
    char head[64] = "";
    const Row *rows = OUTSIDE;
    const char *stem = reference;
    if (strncmp(reference, blocks, sizeof blocks - 1) == 0) {
        stem += sizeof blocks - 1;
        int64_t block = take_number(&stem);
        CHECK(block >= 0 && block < VIT_NAMES_DEPTH_MAX);
        block_head(names, block, head, sizeof head);
        rows = IN_BLOCK;
    }
    const Row *row = find_row(rows, stem);
    CHECK(row);
    const char *other = theirs(names, row), *tail = stem + strlen(row->ours), *at = strchr(other, '@');
    *parts = at ? QKV_PARTS : 1;
    if (!*other) return false;
    int length = at ? snprintf(name, NAME_BYTES, "%s%s%.*s%s%s", names->prefix, head, (int)(at - other),
                               other, QKV[part], tail)
                    : snprintf(name, NAME_BYTES, "%s%s%s%s", names->prefix, head, other, tail);
    CHECK(length > 0 && length < NAME_BYTES);
    return true;
}

void vit_names_pieces(const VitNames *names, const ParamTable *table, WeightPieces *pieces)
{
    for (int i = 0; i < table->count; i++) {
        const Param *param = &table->params[i];
        char name[NAME_BYTES];
        int64_t shape[TENSOR_MAX_DIMS], offset = param->offset;
        int parts;
        if (param->module != PARAM_BACKBONE) {
            head_weights_name(param, name, sizeof name);
            weight_pieces_add(pieces, name, param->ndim, param->shape, offset);
            continue;
        }
        if (!vit_names_of(names, param->name, 0, name, &parts)) continue;
        memcpy(shape, param->shape, sizeof shape);
        if (names->folded && strcmp(param->name, "pos_embed") == 0) {
            shape[1]--; /* the class token's */
            offset += shape[2];
        }
        shape[0] /= parts;
        for (int part = 0; part < parts; part++) {
            vit_names_of(names, param->name, part, name, &parts);
            offset += weight_pieces_add(pieces, name, param->ndim, shape, offset)->count;
        }
    }
}

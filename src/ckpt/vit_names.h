/* vit_names.h - how others call the tensors of a vision transformer.
 *
 * Sources: dinov2/models/vision_transformer.py (the reference; names of our tables, with a chunk number
 * before the block's where it was trained in chunks); transformers/models/dinov2 and dinov2_with_registers
 * (Hugging Face: query, key and value apart); timm/models/vision_transformer.py, _convert_dinov2 (timm: no
 * mask token; SwiGLU's w12 and w3 are fc1 and fc2; with registers the class token's position embedding is
 * added to the class token and left out of pos_embed).
 */
#ifndef DINOBATCH_CKPT_VIT_NAMES_H
#define DINOBATCH_CKPT_VIT_NAMES_H

#include "ckpt/weight_pieces.h"

typedef enum { VIT_NAMES_REFERENCE, VIT_NAMES_HUGGINGFACE, VIT_NAMES_TIMM } VitNaming;

enum { VIT_NAMES_DEPTH_MAX = 1024 };

/* Names as one file has them. */
typedef struct {
    VitNaming naming;
    char prefix[32]; /* "backbone." of the reference's checkpoints, "dinov2." or "dinov2_with_registers." of
                        Hugging Face's with a head, or "" */
    bool folded;     /* timm with registers: see above */
    bool chunked;
    int64_t chunks[VIT_NAMES_DEPTH_MAX]; /* with chunked: the number before each block's */
    int64_t depth;                       /* blocks that the file names */
} VitNames;

/* "reference", "huggingface", "timm"; NULL is the reference. */
Status vit_names_parse(VitNaming *naming, const char *word, Error *error);
const char *vit_names_word(VitNaming naming);

/* Names for writing. */
VitNames vit_names_plain(VitNaming naming, bool registers);

/* STATUS_INPUT: the file has no vision transformer of any naming, or blocks beyond VIT_NAMES_DEPTH_MAX. */
Status vit_names_detect(VitNames *names, const SafetensorsFile *file, Error *error);

/* The file's name of our parameter `reference` ("blocks.3.attn.qkv.weight"), of which it is part `part` of
 * `parts` (query, key, value); false: others have no such tensor. name[128]. */
bool vit_names_of(const VitNames *names, const char *reference, int part, char *name, int *parts);

/* Every parameter of a table that vit_build made, and of heads in it, as the file has it. */
void vit_names_pieces(const VitNames *names, const ParamTable *table, WeightPieces *pieces);

#endif

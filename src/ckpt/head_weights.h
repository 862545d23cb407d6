/* head_weights.h - the DINO and iBOT heads of a safetensors file, under the reference's names.
 *
 * Source: dinov2/train/ssl_meta_arch.py and layers/dino_head.py: beside "backbone." stand
 * "dino_head.mlp.0.weight", ..., "dino_head.last_layer.weight_g" and "weight_v", and the same of "ibot_head."
 * where that head is separate. What they are follows from the shapes. Others have no names for them.
 */
#ifndef DINOBATCH_CKPT_HEAD_WEIGHTS_H
#define DINOBATCH_CKPT_HEAD_WEIGHTS_H

#include "ckpt/vit_names.h"
#include "nn/dino_head.h"

typedef struct {
    DinoHeadConfig dino, ibot;
    bool separate; /* there is an iBOT head */
} HeadWeights;

/* Whether the file has any tensor of them. */
bool head_weights_there(const SafetensorsFile *file, const VitNames *names);

/* The heads that the file's shapes make; sizes without bounds yet. STATUS_INPUT: the tensors that tell are
 * missing or of impossible shapes. */
Status head_weights_describe(const SafetensorsFile *file, HeadWeights *heads, Error *error);

/* Whether a table has parameters of heads, and the name in a file of such a parameter. name[128]. */
bool head_weights_in_table(const ParamTable *table);
void head_weights_name(const Param *param, char *name, size_t size);

#endif

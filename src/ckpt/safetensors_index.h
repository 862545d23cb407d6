/* safetensors_index.h - inside src/ckpt only: weights in several safetensors files, and the index of them.
 *
 * Source: what transformers' save_pretrained writes: NAME.safetensors.index.json, an object whose
 * `weight_map` says for each tensor which file of the same folder it is in. It may be hostile: a file is
 * named without a path, and the index and the files must list the same tensors, each once.
 */
#ifndef DINOBATCH_CKPT_SAFETENSORS_INDEX_H
#define DINOBATCH_CKPT_SAFETENSORS_INDEX_H

#include "ckpt/safetensors.h"

/* As safetensors_open, of the index. */
Status safetensors_index_open(SafetensorsFile *file, const char *path, Error *error);

#endif

/* descriptor_weights.h - the copy-detection network's weights out of a safetensors file.
 *
 * The file is SSCD's state dict as it stands: torchvision's names behind "backbone.", counters of batches
 * with them, which are left out.
 */
#ifndef DINOBATCH_CKPT_DESCRIPTOR_WEIGHTS_H
#define DINOBATCH_CKPT_DESCRIPTOR_WEIGHTS_H

#include "ckpt/weight_pieces.h"
#include "nn/resnet.h"

/* Whether the file is about such a network, and which: SSCD's pooling and batch norm, which it does not say.
 */
bool descriptor_weights_detect(const SafetensorsFile *file, ResnetConfig *config);

/* *flat [table->flat_count] of the table that resnet_build made, memory_free. STATUS_INPUT:
 * weight_pieces_match, safetensors_read. */
Status descriptor_weights_load(const SafetensorsFile *file, const ParamTable *table, float **flat,
                               Error *error);

#endif

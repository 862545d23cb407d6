/* param_groups.h - per-parameter multipliers of learning rate and weight decay.
 *
 * Source: dinov2/utils/param_groups.py; golden README traps 8, 24, 25.
 */
#ifndef DINOBATCH_OPTIM_PARAM_GROUPS_H
#define DINOBATCH_OPTIM_PARAM_GROUPS_H

#include "tensor/param_table.h"

/* Fills lr_multiplier, wd_multiplier and is_last_layer of every parameter: layer-wise decay over a backbone
 * of `depth` blocks (exponent depth + 1 - layer), the patch embedding's extra factor, no weight decay for
 * biases, norms and LayerScale. */
void param_groups_assign(ParamTable *table, int64_t depth, double layerwise_decay,
                         double patch_embed_lr_mult);

#endif

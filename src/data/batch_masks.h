/* batch_masks.h - the masks of a training batch, drawn group by group.
 *
 * The draw of a group depends on (seed, step, group) alone: not on the ranks that groups are dealt to.
 */
#ifndef DINOBATCH_DATA_BATCH_MASKS_H
#define DINOBATCH_DATA_BATCH_MASKS_H

#include "config/config.h"
#include "data/batch.h"
#include "data/block_mask.h"

typedef struct {
    BlockMaskGrid grid;
    double probability, ratio_min, ratio_max; /* ibot.* */
    bool all; /* every patch: of a distillation, where iBOT is on all of them and none is hidden */
    uint64_t seed;
} BatchMasks;

/* Nothing is masked without iBOT. */
BatchMasks batch_masks_of(const Config *config);

/* Masks and upper bound of group `group` of the batch, for batch->step. scratch [2 * group_size * patches]
 * bytes. */
void batch_masks_draw(const BatchMasks *masks, Batch *batch, int64_t group, uint8_t *scratch);

#endif

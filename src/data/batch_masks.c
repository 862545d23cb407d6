/* batch_masks.c - from crop-major draws to the batch's sample-major masks. */
#include "data/batch_masks.h"

#include "data/augment.h"

#include <string.h>

BatchMasks batch_masks_of(const Config *config)
{
    return (BatchMasks){.grid = block_mask_grid(config->crops.global_crops_size, config->student.patch_size),
                        .probability =
                            config->ibot.loss_weight > 0 ? config->ibot.mask_sample_probability : 0.0,
                        .ratio_min = config->ibot.mask_ratio_min_max[0],
                        .ratio_max = config->ibot.mask_ratio_min_max[1],
                        .all = *config->distillation.checkpoint_path && config->ibot.loss_weight > 0,
                        .seed = (uint64_t)config->train.seed};
}

void batch_masks_draw(const BatchMasks *masks, Batch *batch, int64_t group, uint8_t *scratch)
{
    size_t patches = (size_t)batch->patches;
    int64_t B = batch->group_size, crops = AUGMENT_GLOBAL_CROPS * B;
    if (masks->all) {
        memset(batch->masks + (size_t)(group * crops) * patches, 1, (size_t)crops * patches);
        batch->upperbound[group] = crops * batch->patches;
        return;
    }
    Rng rng = rng_at(masks->seed, RNG_MASK, (uint64_t)batch->step, (uint64_t)(batch->first_group + group));
    BlockMaskCounts counts = block_mask_group(&masks->grid, crops, masks->probability, masks->ratio_min,
                                              masks->ratio_max, rng, scratch);
    batch->upperbound[group] = counts.upperbound;
    for (int64_t s = 0; s < B; s++)
        for (int64_t c = 0; c < AUGMENT_GLOBAL_CROPS; c++)
            memcpy(batch->masks + (size_t)((group * B + s) * AUGMENT_GLOBAL_CROPS + c) * patches,
                   scratch + (size_t)(c * B + s) * patches, patches);
}

/* random_batch.c - noise and masks. */
#include "bench/random_batch.h"

#include "base/rng.h"
#include "data/augment.h"
#include "data/block_mask.h"

#include <string.h>

static void fill(uint8_t *levels, int64_t count)
{
    Rng rng = rng_at(0, RNG_BENCH, 2, 0);
    for (int64_t i = 0; i < count; i++)
        levels[i] = (uint8_t)rng_u32(&rng);
}

void random_batch_init(Batch *batch, const Config *config, const SslGroups *groups, Device *device)
{
    int64_t side = config->crops.global_crops_size / config->student.patch_size;
    *batch = (Batch){.samples = groups->groups * groups->group_size,
                     .group_size = groups->group_size,
                     .groups = groups->groups,
                     .first_group = groups->first_group,
                     .local_count = config->crops.local_crops_number,
                     .global_size = config->crops.global_crops_size,
                     .local_size = config->crops.local_crops_size,
                     .patches = side * side,
                     .pixels = DTYPE_U8};
    batch_init(batch, device_kind(device) == DEVICE_CPU ? NULL : device);
    int64_t global = 3 * batch->global_size * batch->global_size;
    int64_t local = 3 * batch->local_size * batch->local_size;
    fill(batch->global_crops, batch->samples * AUGMENT_GLOBAL_CROPS * global);
    fill(batch->local_crops, batch->samples * batch->local_count * local);
}

void random_batch_advance(Batch *batch, const Config *config, int64_t step, uint8_t *scratch)
{
    batch->step = step;
    if (config->ibot.loss_weight <= 0) return;
    BlockMaskGrid grid = block_mask_grid(batch->global_size, config->student.patch_size);
    size_t patches = (size_t)batch->patches;
    for (int64_t group = 0; group < batch->groups; group++) {
        Rng rng = rng_at((uint64_t)config->train.seed, RNG_MASK, (uint64_t)step,
                         (uint64_t)(batch->first_group + group));
        BlockMaskCounts counts = block_mask_group(
            &grid, AUGMENT_GLOBAL_CROPS * batch->group_size, config->ibot.mask_sample_probability,
            config->ibot.mask_ratio_min_max[0], config->ibot.mask_ratio_min_max[1], rng, scratch);
        batch->upperbound[group] = counts.upperbound;
        for (int64_t s = 0; s < batch->group_size; s++)
            for (int64_t c = 0; c < AUGMENT_GLOBAL_CROPS; c++)
                memcpy(batch->masks +
                           (size_t)((group * batch->group_size + s) * AUGMENT_GLOBAL_CROPS + c) * patches,
                       scratch + (size_t)(c * batch->group_size + s) * patches, patches);
    }
}

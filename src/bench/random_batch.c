/* random_batch.c - noise and masks. */
#include "bench/random_batch.h"

#include "base/rng.h"
#include "data/augment.h"
#include "data/batch_masks.h"

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
    BatchMasks masks = batch_masks_of(config);
    for (int64_t group = 0; group < batch->groups; group++)
        batch_masks_draw(&masks, batch, group, scratch);
}

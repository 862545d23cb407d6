/* loader.c - what a task of the ring is for training: the masks of one group, or the crops of one sample. */
#include "data/loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/augment_part.h"
#include "data/batch_masks.h"
#include "data/loader_core.h"
#include "data/sampler.h"

#include <stdatomic.h>

enum { MAX_TRIES = 1000 }; /* images in a row that may be corrupt */

typedef struct {
    Batch batch;
    atomic_int_fast64_t corrupt;
} LoaderSlot;

struct Loader {
    LoaderParams params;
    LoaderCore core;
    BatchMasks masks;
    LoaderSlot *slots; /* [core.slots] */
};

/* Loads and draws for the image at `position` of the sample stream, or the first readable one after it. */
static Status load_sample(Loader *loader, LoaderScratch *scratch, LoaderSlot *slot, int64_t position,
                          int64_t *index, AugmentPart *plan, Error *error)
{
    const DataSet *set = loader->core.set;
    ImageChoosePart *choose = loader->params.scaled_decode ? augment_part_choose : augment_part_choose_all;
    ImagePart part;
    int64_t count = data_set_count(set), tries = count < MAX_TRIES ? count : MAX_TRIES;
    *index = sampler_index(count, loader->params.seed, position);
    for (int64_t i = 0; i < tries; i++, *index = (*index + 1) % count) {
        Error reason = {0};
        Status status =
            data_set_load_part(set, *index, &scratch->image, &part, choose, plan, &scratch->buffer, &reason);
        if (status == STATUS_OK) {
            augment_load_part(scratch->augment, &scratch->image, &part);
            return STATUS_OK;
        }
        TRY(loader_core_note(&loader->core, *index, slot->batch.step, status, &reason, error));
        atomic_fetch_add_explicit(&slot->corrupt, 1, memory_order_relaxed);
    }
    char location[DATA_SET_KEY_MAX];
    data_set_location(set, *index, location, sizeof location);
    return status_fail(error, STATUS_INPUT, "no readable image: %lld in a row are corrupt, from %.500s on",
                       (long long)tries, location);
}

static Status make_crops(Loader *loader, LoaderScratch *scratch, LoaderSlot *slot, int64_t sample,
                         Error *error)
{
    const LoaderParams *params = &loader->params;
    Batch *batch = &slot->batch;
    /* Groups of a rank are contiguous, so this is group * group_size + place. */
    int64_t place = params->first_group * params->group_size + sample;
    int64_t position = batch->step * params->total_groups * params->group_size + place;
    AugmentPart plan = augment_part_of(
        &params->augment, rng_at(params->seed, RNG_AUGMENT, (uint64_t)batch->step, (uint64_t)place));
    TRY(load_sample(loader, scratch, slot, position, &batch->indices[sample], &plan, error));
    int64_t global = 3 * batch->global_size * batch->global_size;
    int64_t local = 3 * batch->local_size * batch->local_size;
    uint8_t *global_crops = batch->global_crops, *local_crops = batch->local_crops;
    augment_crops(&params->augment, plan.draws, global_crops + sample * AUGMENT_GLOBAL_CROPS * global,
                  local_crops + sample * batch->local_count * local, scratch->augment);
    return STATUS_OK;
}

static int64_t begin_batch(void *context, int slot, int64_t round)
{
    Loader *loader = context;
    Batch *batch = &loader->slots[slot].batch;
    batch->step = round;
    atomic_store(&loader->slots[slot].corrupt, 0);
    return batch->groups + batch->samples;
}

static Status run_task(void *context, int worker, int slot, int64_t task, Error *error)
{
    Loader *loader = context;
    LoaderSlot *s = &loader->slots[slot];
    if (task >= s->batch.groups)
        return make_crops(loader, &loader->core.scratch[worker], s, task - s->batch.groups, error);
    batch_masks_draw(&loader->masks, &s->batch, task, loader->core.scratch[worker].masks);
    return STATUS_OK;
}

static void init_memory(Loader *loader)
{
    const LoaderParams *params = &loader->params;
    int64_t side = params->augment.global[0].size / params->patch_size;
    for (int t = 0; t < loader->core.threads; t++) /* crop-major */
        loader->core.scratch[t].masks =
            memory_alloc((size_t)(AUGMENT_GLOBAL_CROPS * params->group_size * side * side));
    loader->slots = memory_alloc_array((size_t)loader->core.slots, sizeof *loader->slots);
    for (int i = 0; i < loader->core.slots; i++) {
        Batch *batch = &loader->slots[i].batch;
        *batch = (Batch){.samples = params->groups * params->group_size,
                         .group_size = params->group_size,
                         .groups = params->groups,
                         .first_group = params->first_group,
                         .local_count = params->augment.local_count,
                         .global_size = params->augment.global[0].size,
                         .local_size = params->augment.local.size,
                         .patches = side * side,
                         .pixels = DTYPE_U8};
        batch_init(batch, params->device);
    }
}

Status loader_create(Loader **out, const LoaderParams *params, const DataSet *set, Error *error)
{
    *out = NULL;
    CHECK(params->groups >= 1 && params->group_size >= 1 && params->first_step >= 0 &&
          params->prefetch >= 0 && params->in_use >= 1);
    CHECK(params->first_group >= 0 && params->first_group + params->groups <= params->total_groups);
    CHECK(params->augment.global[0].size == params->augment.global[1].size);
    CHECK(params->patch_size >= 1 && params->augment.global[0].size % params->patch_size == 0);
    Loader *loader = memory_alloc(sizeof *loader);
    loader->params = *params;
    loader->masks = (BatchMasks){.grid = block_mask_grid(params->augment.global[0].size, params->patch_size),
                                 .probability = params->mask_probability,
                                 .ratio_min = params->mask_ratio_min,
                                 .ratio_max = params->mask_ratio_max,
                                 .all = params->mask_all,
                                 .seed = params->seed};
    loader_core_init(&loader->core, set, params->num_workers, params->prefetch, params->in_use);
    init_memory(loader);
    TaskRingParams tasks = {.context = loader,
                            .begin = begin_batch,
                            .run = run_task,
                            .first_round = params->first_step,
                            .last_round = INT64_MAX};
    Status status = loader_core_start(&loader->core, tasks, error);
    if (status == STATUS_OK)
        *out = loader;
    else
        loader_destroy(loader);
    return status;
}

size_t loader_bytes(const Loader *loader)
{
    return (size_t)loader->core.slots * batch_bytes(&loader->slots[0].batch);
}

void loader_destroy(Loader *loader)
{
    if (!loader) return;
    int slots = loader->core.slots;
    loader_core_fini(&loader->core);
    for (int i = 0; i < slots; i++)
        batch_fini(&loader->slots[i].batch);
    memory_free(loader->slots);
    memory_free(loader);
}

Status loader_next(Loader *loader, Batch **batch, Error *error)
{
    *batch = NULL;
    int slot;
    double wait;
    TRY(loader_core_next(&loader->core, &slot, &wait, error));
    CHECK(slot >= 0);
    LoaderSlot *s = &loader->slots[slot];
    s->batch.wait_seconds = wait;
    s->batch.corrupt = atomic_load(&s->corrupt);
    *batch = &s->batch;
    return STATUS_OK;
}

void loader_release(Loader *loader, Batch *batch)
{
    for (int i = 0; i < loader->core.slots; i++)
        if (batch == &loader->slots[i].batch) task_ring_release(loader->core.ring, i);
}

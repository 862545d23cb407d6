/* loader.c - what a task of the ring is for training: the masks of one group, or the crops of one sample. */
#include "data/loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/block_mask.h"
#include "data/corrupt_list.h"
#include "data/sampler.h"
#include "data/task_ring.h"

#include <stdatomic.h>
#include <string.h>

enum { MAX_TRIES = 1000 }; /* images in a row that may be corrupt */

/* Memory of one thread. */
typedef struct {
    Image image;
    DataBuffer buffer;
    AugmentScratch *augment;
    uint8_t *masks; /* [2 * group_size, patches] crop-major */
} Scratch;

typedef struct {
    Batch batch;
    atomic_int_fast64_t corrupt;
} LoaderSlot;

struct Loader {
    LoaderParams params;
    const DataSet *set;
    BlockMaskGrid grid;
    Scratch *scratch;  /* [threads] */
    LoaderSlot *slots; /* [slot_count] */
    int threads, slot_count;
    CorruptList *corrupt;
    TaskRing *ring;
};

/* Loads the image for `position` of the sample stream, or the first readable one after it. */
static Status load_sample(Loader *loader, Scratch *scratch, LoaderSlot *slot, int64_t position,
                          int64_t *index, Error *error)
{
    int64_t count = data_set_count(loader->set);
    int64_t tries = count < MAX_TRIES ? count : MAX_TRIES;
    *index = sampler_index(count, loader->params.seed, position);
    for (int64_t i = 0; i < tries; i++, *index = (*index + 1) % count) {
        Error reason = {0};
        Status status = data_set_load_image(loader->set, *index, &scratch->image, &scratch->buffer, &reason);
        if (status == STATUS_OK) return STATUS_OK;
        if (status != STATUS_INPUT) return status_fail(error, status, "%s", reason.text);
        corrupt_list_add(loader->corrupt, *index, reason.text);
        atomic_fetch_add_explicit(&slot->corrupt, 1, memory_order_relaxed);
    }
    char location[DATA_SET_KEY_MAX];
    data_set_location(loader->set, *index, location, sizeof location);
    return status_fail(error, STATUS_INPUT, "no readable image: %lld in a row are corrupt, from %.500s on",
                       (long long)tries, location);
}

static Status make_crops(Loader *loader, Scratch *scratch, LoaderSlot *slot, int64_t sample, Error *error)
{
    const LoaderParams *params = &loader->params;
    Batch *batch = &slot->batch;
    /* Groups of a rank are contiguous, so this is group * group_size + place. */
    int64_t place = params->first_group * params->group_size + sample;
    int64_t position = batch->step * params->total_groups * params->group_size + place;
    TRY(load_sample(loader, scratch, slot, position, &batch->indices[sample], error));
    size_t global = 3 * (size_t)(batch->global_size * batch->global_size);
    size_t local = 3 * (size_t)(batch->local_size * batch->local_size);
    augment_sample(&params->augment, &scratch->image,
                   rng_at(params->seed, RNG_AUGMENT, (uint64_t)batch->step, (uint64_t)place),
                   batch->global_crops + (size_t)sample * AUGMENT_GLOBAL_CROPS * global,
                   batch->local_crops + (size_t)(sample * batch->local_count) * local, scratch->augment);
    return STATUS_OK;
}

static void make_masks(Loader *loader, Scratch *scratch, Batch *batch, int64_t group)
{
    const LoaderParams *params = &loader->params;
    size_t patches = (size_t)batch->patches;
    Rng rng = rng_at(params->seed, RNG_MASK, (uint64_t)batch->step, (uint64_t)(batch->first_group + group));
    BlockMaskCounts counts =
        block_mask_group(&loader->grid, AUGMENT_GLOBAL_CROPS * params->group_size, params->mask_probability,
                         params->mask_ratio_min, params->mask_ratio_max, rng, scratch->masks);
    batch->upperbound[group] = counts.upperbound;
    for (int64_t s = 0; s < params->group_size; s++)
        for (int64_t c = 0; c < AUGMENT_GLOBAL_CROPS; c++)
            memcpy(batch->masks +
                       (size_t)((group * params->group_size + s) * AUGMENT_GLOBAL_CROPS + c) * patches,
                   scratch->masks + (size_t)(c * params->group_size + s) * patches, patches);
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
    Scratch *scratch = &loader->scratch[worker];
    LoaderSlot *s = &loader->slots[slot];
    if (task >= s->batch.groups) return make_crops(loader, scratch, s, task - s->batch.groups, error);
    make_masks(loader, scratch, &s->batch, task);
    return STATUS_OK;
}

static void init_memory(Loader *loader)
{
    const LoaderParams *params = &loader->params;
    int64_t side = params->augment.global[0].size / params->patch_size;
    loader->scratch = memory_alloc_array((size_t)loader->threads, sizeof *loader->scratch);
    for (int t = 0; t < loader->threads; t++) {
        loader->scratch[t].augment = augment_scratch_create();
        loader->scratch[t].masks =
            memory_alloc((size_t)(AUGMENT_GLOBAL_CROPS * params->group_size * side * side));
    }
    loader->slots = memory_alloc_array((size_t)loader->slot_count, sizeof *loader->slots);
    for (int i = 0; i < loader->slot_count; i++) {
        Batch *batch = &loader->slots[i].batch;
        *batch = (Batch){.samples = params->groups * params->group_size,
                         .group_size = params->group_size,
                         .groups = params->groups,
                         .first_group = params->first_group,
                         .local_count = params->augment.local_count,
                         .global_size = params->augment.global[0].size,
                         .local_size = params->augment.local.size,
                         .patches = side * side};
        batch_init(batch);
    }
}

Status loader_create(Loader **out, const LoaderParams *params, const DataSet *set, Error *error)
{
    *out = NULL;
    CHECK(params->groups >= 1 && params->group_size >= 1 && params->first_step >= 0 && params->prefetch >= 0);
    CHECK(params->first_group >= 0 && params->first_group + params->groups <= params->total_groups);
    CHECK(params->augment.global[0].size == params->augment.global[1].size);
    CHECK(params->patch_size >= 1 && params->augment.global[0].size % params->patch_size == 0);
    Loader *loader = memory_alloc(sizeof *loader);
    loader->params = *params;
    loader->set = set;
    loader->grid = block_mask_grid(params->augment.global[0].size, params->patch_size);
    loader->threads = params->num_workers > 0 ? params->num_workers : 1;
    int64_t ahead = params->num_workers == 0 ? 0 : params->prefetch > 1 ? params->prefetch : 1;
    loader->slot_count = (int)ahead + 1;
    loader->corrupt = corrupt_list_create();
    init_memory(loader);
    TaskRingParams ring = {.context = loader,
                           .begin = begin_batch,
                           .run = run_task,
                           .first_round = params->first_step,
                           .last_round = INT64_MAX,
                           .workers = params->num_workers,
                           .slots = loader->slot_count};
    Status status = task_ring_create(&loader->ring, &ring, error);
    if (status == STATUS_OK)
        *out = loader;
    else
        loader_destroy(loader);
    return status;
}

void loader_destroy(Loader *loader)
{
    if (!loader) return;
    task_ring_destroy(loader->ring);
    for (int t = 0; t < loader->threads; t++) {
        augment_scratch_destroy(loader->scratch[t].augment);
        image_destroy(&loader->scratch[t].image);
        data_buffer_destroy(&loader->scratch[t].buffer);
        memory_free(loader->scratch[t].masks);
    }
    for (int i = 0; i < loader->slot_count; i++)
        batch_fini(&loader->slots[i].batch);
    corrupt_list_destroy(loader->corrupt);
    memory_free(loader->scratch);
    memory_free(loader->slots);
    memory_free(loader);
}

Status loader_next(Loader *loader, Batch **batch, Error *error)
{
    *batch = NULL;
    int slot;
    double wait;
    TRY(task_ring_next(loader->ring, &slot, &wait, error));
    CHECK(slot >= 0);
    LoaderSlot *s = &loader->slots[slot];
    s->batch.wait_seconds = wait;
    s->batch.corrupt = atomic_load(&s->corrupt);
    *batch = &s->batch;
    return STATUS_OK;
}

void loader_release(Loader *loader, Batch *batch)
{
    for (int i = 0; i < loader->slot_count; i++)
        if (batch == &loader->slots[i].batch) task_ring_release(loader->ring, i);
}

bool loader_report(Loader *loader, char *text, size_t size)
{
    return corrupt_list_take(loader->corrupt, text, size);
}

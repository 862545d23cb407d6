/* eval_loader.c - what a task of the ring is for evaluation: one image, resized and cropped. */
#include "data/eval_loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/loader_core.h"

#include <string.h>

struct EvalLoader {
    EvalLoaderParams params;
    LoaderCore core;
    EvalBatch *batches; /* [core.slots] */
};

static size_t image_elements(const EvalLoader *loader)
{
    return 3 * (size_t)(loader->params.crop_size * loader->params.crop_size);
}

static int64_t begin_batch(void *context, int slot, int64_t round)
{
    EvalLoader *loader = context;
    const EvalLoaderParams *params = &loader->params;
    EvalBatch *batch = &loader->batches[slot];
    int64_t first = params->first + round * params->batch_size;
    int64_t left = params->last - first;
    batch->count = left < params->batch_size ? left : params->batch_size;
    for (int64_t i = 0; i < batch->count; i++)
        batch->indices[i] = first + i;
    return batch->count;
}

static Status run_task(void *context, int worker, int slot, int64_t task, Error *error)
{
    EvalLoader *loader = context;
    const EvalLoaderParams *params = &loader->params;
    LoaderScratch *scratch = &loader->core.scratch[worker];
    EvalBatch *batch = &loader->batches[slot];
    int64_t index = batch->indices[task], round = (index - params->first) / params->batch_size;
    uint8_t *crop = batch->images + (size_t)task * image_elements(loader);
    batch->labels[task] = data_set_label(loader->core.set, index);
    Error reason = {0};
    Status status = data_set_load_image(loader->core.set, index, &scratch->image, &scratch->buffer, &reason);
    batch->valid[task] = status == STATUS_OK;
    if (status == STATUS_OK)
        augment_eval(&scratch->image, params->resize_size, params->crop_size, crop, scratch->augment);
    else
        memset(crop, 0, image_elements(loader));
    return loader_core_note(&loader->core, index, round, status, &reason, error);
}

static void init_memory(EvalLoader *loader)
{
    size_t most = (size_t)loader->params.batch_size;
    loader->batches = memory_alloc_array((size_t)loader->core.slots, sizeof *loader->batches);
    for (int i = 0; i < loader->core.slots; i++) {
        EvalBatch *batch = &loader->batches[i];
        batch->images = memory_alloc(most * image_elements(loader));
        batch->labels = memory_alloc_array(most, sizeof *batch->labels);
        batch->indices = memory_alloc_array(most, sizeof *batch->indices);
        batch->valid = memory_alloc(most);
    }
}

Status eval_loader_create(EvalLoader **out, const EvalLoaderParams *params, const DataSet *set, Error *error)
{
    *out = NULL;
    CHECK(params->batch_size >= 1 && params->first >= 0 && params->first <= params->last);
    CHECK(params->last <= data_set_count(set));
    CHECK(params->crop_size >= 1 && params->crop_size <= params->resize_size);
    EvalLoader *loader = memory_alloc(sizeof *loader);
    loader->params = *params;
    loader_core_init(&loader->core, set, params->num_workers, params->prefetch, 1);
    init_memory(loader);
    int64_t images = params->last - params->first;
    TaskRingParams tasks = {.context = loader,
                            .begin = begin_batch,
                            .run = run_task,
                            .last_round = (images + params->batch_size - 1) / params->batch_size};
    Status status = loader_core_start(&loader->core, tasks, error);
    if (status == STATUS_OK)
        *out = loader;
    else
        eval_loader_destroy(loader);
    return status;
}

void eval_loader_destroy(EvalLoader *loader)
{
    if (!loader) return;
    int slots = loader->core.slots;
    loader_core_fini(&loader->core);
    for (int i = 0; i < slots; i++) {
        memory_free(loader->batches[i].images);
        memory_free(loader->batches[i].labels);
        memory_free(loader->batches[i].indices);
        memory_free(loader->batches[i].valid);
    }
    memory_free(loader->batches);
    memory_free(loader);
}

Status eval_loader_next(EvalLoader *loader, EvalBatch **batch, Error *error)
{
    *batch = NULL;
    int slot;
    double wait;
    TRY(loader_core_next(&loader->core, &slot, &wait, error));
    if (slot < 0) return STATUS_OK;
    loader->batches[slot].wait_seconds = wait;
    *batch = &loader->batches[slot];
    return STATUS_OK;
}

void eval_loader_release(EvalLoader *loader, EvalBatch *batch)
{
    for (int i = 0; i < loader->core.slots; i++)
        if (batch == &loader->batches[i]) task_ring_release(loader->core.ring, i);
}

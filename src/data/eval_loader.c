/* eval_loader.c - what a task of the ring is for evaluation: one image, resized. */
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

EvalSize eval_loader_size(EvalTransform transform, int64_t crop_size, int64_t height, int64_t width)
{
    if (transform != EVAL_SHORTER) return (EvalSize){crop_size, crop_size};
    int64_t shorter = height < width ? height : width, longer = height < width ? width : height;
    int64_t most = EVAL_LONGEST * crop_size;
    int64_t length =
        longer < EVAL_LONGEST * shorter ? (int64_t)((double)(crop_size * longer) / (double)shorter) : most;
    return height < width ? (EvalSize){crop_size, length} : (EvalSize){length, crop_size};
}

static size_t image_bytes(const EvalLoader *loader)
{
    int64_t crop = loader->params.crop_size;
    return 3 * (size_t)(crop * crop) * (loader->params.transform == EVAL_SHORTER ? EVAL_LONGEST : 1);
}

static void transform(const EvalLoaderParams *params, const LoaderScratch *scratch, EvalSize size,
                      uint8_t *out)
{
    if (params->transform == EVAL_CENTRE)
        augment_eval(&scratch->image, params->resize_size, params->crop_size, out, scratch->augment);
    else
        augment_resize(&scratch->image, size.height, size.width, out, scratch->augment);
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
    uint8_t *out = batch->images + (size_t)task * batch->image_bytes;
    batch->labels[task] = data_set_label(loader->core.set, index);
    Error reason = {0};
    Status status = data_set_load_image(loader->core.set, index, &scratch->image, &scratch->buffer, &reason);
    batch->valid[task] = status == STATUS_OK;
    int64_t height = status == STATUS_OK ? scratch->image.height : 1;
    int64_t width = status == STATUS_OK ? scratch->image.width : 1;
    batch->sizes[task] = eval_loader_size(params->transform, params->crop_size, height, width);
    if (status == STATUS_OK)
        transform(params, scratch, batch->sizes[task], out);
    else
        memset(out, 0, batch->image_bytes);
    return loader_core_note(&loader->core, index, round, status, &reason, error);
}

static void init_memory(EvalLoader *loader)
{
    size_t most = (size_t)loader->params.batch_size;
    loader->batches = memory_alloc_array((size_t)loader->core.slots, sizeof *loader->batches);
    for (int i = 0; i < loader->core.slots; i++) {
        EvalBatch *batch = &loader->batches[i];
        batch->image_bytes = image_bytes(loader);
        batch->images = memory_alloc(most * batch->image_bytes);
        batch->sizes = memory_alloc_array(most, sizeof *batch->sizes);
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
    CHECK(params->crop_size >= 1);
    CHECK(params->transform != EVAL_CENTRE || params->crop_size <= params->resize_size);
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
        memory_free(loader->batches[i].sizes);
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

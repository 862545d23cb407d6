/* eval_loader.c - what a task of the ring is for evaluation: one image, resized and cropped. */
#include "data/eval_loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/augment.h"
#include "data/corrupt_list.h"
#include "data/task_ring.h"

#include <string.h>

typedef struct {
    Image image;
    DataBuffer buffer;
    AugmentScratch *augment;
} Scratch;

struct EvalLoader {
    EvalLoaderParams params;
    const DataSet *set;
    Scratch *scratch;   /* [threads] */
    EvalBatch *batches; /* [slot_count] */
    int threads, slot_count;
    CorruptList *corrupt;
    TaskRing *ring;
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
    Scratch *scratch = &loader->scratch[worker];
    EvalBatch *batch = &loader->batches[slot];
    int64_t index = batch->indices[task];
    float *crop = batch->images + (size_t)task * image_elements(loader);
    batch->labels[task] = data_set_label(loader->set, index);
    Error reason = {0};
    Status status = data_set_load_image(loader->set, index, &scratch->image, &scratch->buffer, &reason);
    batch->valid[task] = status == STATUS_OK;
    if (status == STATUS_OK) {
        augment_eval(&scratch->image, params->resize_size, params->crop_size, params->mean, params->std, crop,
                     scratch->augment);
        return STATUS_OK;
    }
    if (status != STATUS_INPUT) return status_fail(error, status, "%s", reason.text);
    memset(crop, 0, image_elements(loader) * sizeof *crop);
    corrupt_list_add(loader->corrupt, index, reason.text);
    return STATUS_OK;
}

static void init_memory(EvalLoader *loader)
{
    size_t most = (size_t)loader->params.batch_size;
    loader->scratch = memory_alloc_array((size_t)loader->threads, sizeof *loader->scratch);
    for (int t = 0; t < loader->threads; t++)
        loader->scratch[t].augment = augment_scratch_create();
    loader->batches = memory_alloc_array((size_t)loader->slot_count, sizeof *loader->batches);
    for (int i = 0; i < loader->slot_count; i++) {
        EvalBatch *batch = &loader->batches[i];
        batch->images = memory_alloc_array(most * image_elements(loader), sizeof *batch->images);
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
    loader->set = set;
    loader->threads = params->num_workers > 0 ? params->num_workers : 1;
    int64_t ahead = params->num_workers == 0 ? 0 : params->prefetch > 1 ? params->prefetch : 1;
    loader->slot_count = (int)ahead + 1;
    loader->corrupt = corrupt_list_create();
    init_memory(loader);
    int64_t images = params->last - params->first;
    TaskRingParams ring = {.context = loader,
                           .begin = begin_batch,
                           .run = run_task,
                           .first_round = 0,
                           .last_round = (images + params->batch_size - 1) / params->batch_size,
                           .workers = params->num_workers,
                           .slots = loader->slot_count};
    Status status = task_ring_create(&loader->ring, &ring, error);
    if (status == STATUS_OK)
        *out = loader;
    else
        eval_loader_destroy(loader);
    return status;
}

void eval_loader_destroy(EvalLoader *loader)
{
    if (!loader) return;
    task_ring_destroy(loader->ring);
    for (int t = 0; t < loader->threads; t++) {
        augment_scratch_destroy(loader->scratch[t].augment);
        image_destroy(&loader->scratch[t].image);
        data_buffer_destroy(&loader->scratch[t].buffer);
    }
    for (int i = 0; i < loader->slot_count; i++) {
        memory_free(loader->batches[i].images);
        memory_free(loader->batches[i].labels);
        memory_free(loader->batches[i].indices);
        memory_free(loader->batches[i].valid);
    }
    corrupt_list_destroy(loader->corrupt);
    memory_free(loader->scratch);
    memory_free(loader->batches);
    memory_free(loader);
}

Status eval_loader_next(EvalLoader *loader, EvalBatch **batch, Error *error)
{
    *batch = NULL;
    int slot;
    double wait;
    TRY(task_ring_next(loader->ring, &slot, &wait, error));
    if (slot < 0) return STATUS_OK;
    loader->batches[slot].wait_seconds = wait;
    *batch = &loader->batches[slot];
    return STATUS_OK;
}

void eval_loader_release(EvalLoader *loader, EvalBatch *batch)
{
    for (int i = 0; i < loader->slot_count; i++)
        if (batch == &loader->batches[i]) task_ring_release(loader->ring, i);
}

bool eval_loader_report(EvalLoader *loader, char *text, size_t size)
{
    return corrupt_list_take(loader->corrupt, text, size);
}

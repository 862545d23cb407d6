/* eval_loader.c - what a task of the ring is for evaluation: one picture, resized, in all its views. */
#include "data/eval_loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/image/image_color.h"
#include "data/image/image_turn.h"
#include "data/loader_core.h"

#include <math.h>
#include <string.h>

struct EvalLoader {
    EvalLoaderParams params;
    ImageViews views;
    LoaderCore core;
    EvalBatch *batches; /* [core.slots] */
};

/* As many patches of both sides as are nearest; of too many as many as fit in the picture's shape. */
static EvalSize native_size(int64_t p, int64_t most, int64_t height, int64_t width)
{
    int64_t rows = (height + p / 2) / p, columns = (width + p / 2) / p;
    if (rows < 1) rows = 1;
    if (columns < 1) columns = 1;
    if (rows > most / columns) {
        double scale = sqrt((double)most / ((double)height * (double)width));
        rows = (int64_t)((double)height * scale);
        columns = (int64_t)((double)width * scale);
        if (rows < 1) rows = 1;
        if (columns < 1) columns = 1;
        if (columns == 1 && rows > most) rows = most;
        if (rows == 1 && columns > most) columns = most;
    }
    return (EvalSize){rows * p, columns * p};
}

EvalSize eval_loader_size(const EvalLoaderParams *params, int64_t height, int64_t width)
{
    int64_t crop_size = params->crop_size;
    if (params->transform == EVAL_WHOLE) return params->size;
    if (params->transform == EVAL_NATIVE)
        return native_size(params->patch_size, params->most_patches, height, width);
    if (params->transform != EVAL_SHORTER) return (EvalSize){crop_size, crop_size};
    int64_t shorter = height < width ? height : width, longer = height < width ? width : height;
    int64_t most = EVAL_LONGEST * crop_size;
    int64_t length =
        longer < EVAL_LONGEST * shorter ? (int64_t)((double)(crop_size * longer) / (double)shorter) : most;
    return height < width ? (EvalSize){crop_size, length} : (EvalSize){length, crop_size};
}

static size_t image_bytes(const EvalLoader *loader)
{
    const EvalLoaderParams *params = &loader->params;
    int64_t crop = params->crop_size, p = params->patch_size;
    if (params->transform == EVAL_WHOLE) return 3 * (size_t)(params->size.height * params->size.width);
    if (params->transform == EVAL_NATIVE) return 3 * (size_t)(params->most_patches * p * p);
    return 3 * (size_t)(crop * crop) * (params->transform == EVAL_SHORTER ? EVAL_LONGEST : 1);
}

/* Image `number` of a batch: `box` of the loaded picture. */
static void transform(const EvalLoader *loader, AugmentScratch *scratch, const AugmentBox *box,
                      EvalBatch *batch, int64_t number)
{
    const EvalLoaderParams *params = &loader->params;
    uint8_t *out = batch->images + (size_t)number * batch->image_bytes;
    EvalSize size = eval_loader_size(params, box->height, box->width);
    bool bilinear = params->transform == EVAL_SQUARE || params->transform == EVAL_SHORTER;
    ImageResizeFilter filter = bilinear ? IMAGE_RESIZE_BILINEAR : IMAGE_RESIZE_BICUBIC;
    batch->sizes[number] = size;
    if (params->transform == EVAL_CENTRE)
        augment_eval_box(box, params->resize_size, params->crop_size, out, scratch);
    else
        augment_resize_box(box, size.height, size.width, filter, out, scratch);
    if (params->grayscale) image_color_grayscale(out, size.height * size.width);
}

/* All views of the thread's picture, from image `first` of the batch on. */
static void make_views(const EvalLoader *loader, LoaderScratch *scratch, EvalBatch *batch, int64_t first)
{
    const ImageViews *views = &loader->views;
    const Image *loaded = NULL;
    for (int64_t i = 0; i < views->plain; i++) {
        const ImageView *view = &views->view[i];
        bool upright = view->degrees == 0.0;
        const Image *picture = upright ? &scratch->image : &scratch->turned;
        if (!upright) image_turn(&scratch->image, view->degrees, &scratch->turned);
        if (!upright || loaded != picture) augment_load(scratch->augment, picture);
        loaded = picture;
        ImageViewBox part = image_views_box(view, picture->height, picture->width);
        AugmentBox box = {part.top, part.left, part.height, part.width, false};
        transform(loader, scratch->augment, &box, batch, first + i);
        if (views->count == views->plain) continue;
        box.mirror = true;
        transform(loader, scratch->augment, &box, batch, first + views->plain + i);
    }
}

static int64_t begin_batch(void *context, int slot, int64_t round)
{
    EvalLoader *loader = context;
    const EvalLoaderParams *params = &loader->params;
    EvalBatch *batch = &loader->batches[slot];
    int64_t first = params->first + round * params->step, views = loader->views.count;
    int64_t left = params->last - first;
    int64_t pictures = left < params->batch_size ? left : params->batch_size;
    batch->count = pictures * views;
    for (int64_t i = 0; i < batch->count; i++)
        batch->indices[i] = first + i / views;
    return pictures;
}

static Status run_task(void *context, int worker, int slot, int64_t task, Error *error)
{
    EvalLoader *loader = context;
    const EvalLoaderParams *params = &loader->params;
    LoaderScratch *scratch = &loader->core.scratch[worker];
    EvalBatch *batch = &loader->batches[slot];
    int64_t views = loader->views.count, first = task * views;
    int64_t index = batch->indices[first], round = (index - params->first) / params->step;
    Error reason = {0};
    Status status = data_set_load_image(loader->core.set, index, &scratch->image, &scratch->buffer, &reason);
    for (int64_t i = first; i < first + views; i++) {
        batch->labels[i] = data_set_label(loader->core.set, index);
        batch->valid[i] = status == STATUS_OK;
        batch->sizes[i] = eval_loader_size(params, 1, 1);
    }
    if (status == STATUS_OK && params->upside_down) image_flip(&scratch->image);
    if (status == STATUS_OK)
        make_views(loader, scratch, batch, first);
    else
        memset(batch->images + (size_t)first * batch->image_bytes, 0, (size_t)views * batch->image_bytes);
    return loader_core_note(&loader->core, index, round, status, &reason, error);
}

static void init_memory(EvalLoader *loader)
{
    size_t most = (size_t)(loader->params.batch_size * loader->views.count);
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
    CHECK(params->step == 0 || params->step >= params->batch_size);
    CHECK(params->transform >= EVAL_WHOLE || params->crop_size >= 1);
    CHECK(params->transform != EVAL_CENTRE || params->crop_size <= params->resize_size);
    EvalLoader *loader = memory_alloc(sizeof *loader);
    loader->params = *params;
    if (params->step == 0) loader->params.step = params->batch_size;
    loader->views = params->views ? *params->views : image_views_whole();
    loader_core_init(&loader->core, set, params->num_workers, params->prefetch, 1);
    init_memory(loader);
    int64_t images = params->last - params->first, step = loader->params.step;
    TaskRingParams tasks = {
        .context = loader, .begin = begin_batch, .run = run_task, .last_round = (images + step - 1) / step};
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

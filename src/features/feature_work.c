/* feature_work.c - see feature_work.h. */
#include "features/feature_work.h"

#include "base/check.h"
#include "base/memory.h"
#include "features/patch_grid.h"

#include <math.h>
#include <string.h>

enum {
    PREFETCH = 2,
    PATCHES_MOST = 16384, /* of a batch whose patch tokens are kept, or whose pictures may be large */
};

struct FeatureWork {
    FeatureExtractor extractor; /* all borrowed */
    Device *device;
    Arena arena;
    float *tokens; /* the pass's tokens on the host */
    float *raw;    /* [images, columns] rows before whitening; NULL without */
    DescriptorPass *descriptor;
    uint8_t *images; /* of EVAL_NATIVE: those of one size, one after the other */
    int64_t *place;  /* [images] of those in the batch */
    int64_t *first;  /* [images + 1] patches before each image of the batch */
    bool *done;      /* [images] */
};

static bool is_native(const FeatureExtractor *extractor)
{
    return extractor->input.transform == EVAL_NATIVE;
}

/* Of pictures of one size. */
static EvalSize size_of(const FeatureInput *input)
{
    if (input->transform == EVAL_WHOLE) return input->size;
    return (EvalSize){input->crop_size, input->crop_size};
}

int64_t feature_work_patches(const FeatureExtractor *extractor)
{
    if (!extractor->backbone) return 0;
    if (is_native(extractor)) return extractor->input.most_patches;
    EvalSize size = size_of(&extractor->input);
    return vit_patches(extractor->backbone->vit, size.height, size.width);
}

EvalSize feature_work_grid(const FeatureExtractor *extractor, EvalSize size)
{
    int64_t p = extractor->backbone->vit->config.patch_size;
    return (EvalSize){size.height / p, size.width / p};
}

int64_t feature_work_pictures(const FeatureExtractor *extractor)
{
    int64_t images = extractor->input.batch_size, views = feature_extractor_views(extractor);
    if (extractor->backbone && (extractor->patches || extractor->input.transform >= EVAL_WHOLE)) {
        int64_t most = PATCHES_MOST / feature_work_patches(extractor);
        if (most < images) images = most;
    }
    return images > views ? images / views : 1;
}

static int64_t images_of(const FeatureExtractor *extractor)
{
    return feature_work_pictures(extractor) * feature_extractor_views(extractor);
}

static BackboneImages pass_images(const FeatureExtractor *extractor, uint8_t *images, int64_t n,
                                  EvalSize size)
{
    bool means = extractor->kind == FEATURE_MEAN_PATCH || extractor->kind == FEATURE_PATCH_GRID;
    return (BackboneImages){.images = images,
                            .n = n,
                            .height = size.height,
                            .width = size.width,
                            .class_tokens = extractor->kind == FEATURE_CLASS_TOKEN,
                            .patches = means || extractor->patches,
                            .blocks = extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.blocks : 0};
}

static void plan_backbone(FeatureWork *work)
{
    const FeatureExtractor *extractor = &work->extractor;
    int64_t n = images_of(extractor), p = extractor->backbone->vit->config.patch_size;
    EvalSize size = size_of(&extractor->input);
    if (is_native(extractor)) size = (EvalSize){p, feature_work_patches(extractor) * p};
    Arena plan = arena_measuring();
    BackboneImages largest = pass_images(extractor, NULL, n, size);
    BackbonePass pass = backbone_pass_lay_out(extractor->backbone, work->device, &largest, &plan);
    work->arena = device_arena_create(work->device, &plan);
    work->tokens = device_alloc_host(work->device, tensor_bytes(pass.tokens));
    work->place = memory_alloc_array((size_t)n, sizeof *work->place);
    work->first = memory_alloc_array((size_t)n + 1, sizeof *work->first);
    work->done = memory_alloc_array((size_t)n, sizeof *work->done);
    if (is_native(extractor))
        work->images = memory_alloc((size_t)(n * VIT_IMAGE_CHANNELS * size.height * size.width));
}

FeatureWork *feature_work_create(const FeatureExtractor *extractor, Device *device)
{
    FeatureWork *work = memory_alloc(sizeof *work);
    *work = (FeatureWork){.extractor = *extractor, .device = device};
    if (extractor->whitening)
        work->raw = memory_alloc_array((size_t)images_of(extractor),
                                       (size_t)feature_extractor_columns(extractor) * sizeof *work->raw);
    const FeatureInput *input = &extractor->input;
    if (extractor->kind == FEATURE_EMBEDDING)
        work->descriptor = descriptor_pass_create(extractor->descriptor, device, input->transform,
                                                  input->crop_size, images_of(extractor));
    else if (extractor->kind != FEATURE_RAW_PIXELS)
        plan_backbone(work);
    return work;
}

void feature_work_destroy(FeatureWork *work)
{
    if (!work) return;
    if (work->tokens) {
        device_arena_destroy(work->device, &work->arena);
        device_free_host(work->device, work->tokens);
    }
    descriptor_pass_destroy(work->descriptor);
    memory_free(work->raw);
    memory_free(work->images);
    memory_free(work->place);
    memory_free(work->first);
    memory_free(work->done);
    memory_free(work);
}

/* --- passes of images of one size --- */

/* Those of the size of image `at` that are not done; where sizes differ they are copied together. */
static BackboneImages collect(FeatureWork *work, const EvalBatch *batch, int64_t at)
{
    EvalSize size = batch->sizes[at];
    size_t bytes = (size_t)(VIT_IMAGE_CHANNELS * size.height * size.width);
    int64_t n = 0;
    for (int64_t i = at; i < batch->count; i++) {
        EvalSize other = batch->sizes[i];
        if (work->done[i] || other.height != size.height || other.width != size.width) continue;
        if (work->images)
            memcpy(work->images + (size_t)n * bytes, batch->images + (size_t)i * batch->image_bytes, bytes);
        work->done[i] = true;
        work->place[n++] = i;
    }
    return pass_images(&work->extractor, work->images ? work->images : batch->images, n, size);
}

/* The pass's tokens to where they belong. */
static void deal_out(const FeatureWork *work, const BackboneImages *images, float *rows, float *tokens)
{
    const FeatureExtractor *extractor = &work->extractor;
    int64_t D = extractor->backbone->vit->config.embed_dim, d = feature_extractor_columns(extractor);
    int64_t side = extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.side : 1;
    EvalSize grid = feature_work_grid(extractor, (EvalSize){images->height, images->width});
    int64_t each = grid.height * grid.width;
    const float *patches = work->tokens + (images->class_tokens ? images->n * D : 0);
    for (int64_t i = 0; i < images->n; i++) {
        int64_t place = work->place[i];
        const float *own = patches + i * each * D;
        if (images->class_tokens)
            memcpy(rows + place * d, work->tokens + i * D, (size_t)D * sizeof *rows);
        else if (d > 0)
            patch_grid_pool(rows + place * d, own, 1, grid.height, grid.width, side, D);
        if (extractor->patches)
            memcpy(tokens + work->first[place] * D, own, (size_t)(each * D) * sizeof *tokens);
    }
}

static void run_backbone(FeatureWork *work, const Ops *ops, const EvalBatch *batch, float *rows,
                         float *tokens)
{
    const FeatureExtractor *extractor = &work->extractor;
    work->first[0] = 0;
    for (int64_t i = 0; i < batch->count; i++) {
        EvalSize grid = feature_work_grid(extractor, batch->sizes[i]);
        work->first[i + 1] = work->first[i] + grid.height * grid.width;
        work->done[i] = false;
    }
    for (int64_t at = 0; at < batch->count; at++) {
        if (work->done[at]) continue;
        BackboneImages images = collect(work, batch, at);
        arena_reset(&work->arena, ARENA_START);
        BackbonePass pass = backbone_pass_lay_out(extractor->backbone, ops->device, &images, &work->arena);
        backbone_pass_run(extractor->backbone, ops, &pass);
        device_download(ops->device, work->tokens, pass.tokens.data, tensor_bytes(pass.tokens));
        device_finish(ops->device);
        deal_out(work, &images, rows, tokens);
    }
}

void feature_work_run(FeatureWork *work, const Ops *ops, const EvalBatch *batch, float *rows, float *tokens)
{
    const FeatureExtractor *extractor = &work->extractor;
    int64_t d = feature_extractor_columns(extractor);
    float *out = work->raw ? work->raw : rows;
    if (extractor->kind == FEATURE_EMBEDDING)
        descriptor_pass_run(work->descriptor, ops, batch, out);
    else if (extractor->kind != FEATURE_RAW_PIXELS)
        run_backbone(work, ops, batch, out, tokens);
    for (int64_t i = 0; i < batch->count * d && extractor->kind == FEATURE_RAW_PIXELS; i++)
        out[i] = (float)batch->images[i] / 255.0f;
    if (work->raw) whitening_apply(extractor->whitening, rows, work->raw, batch->count);
}

/* --- the pictures --- */

EvalLoaderParams feature_work_loader(const FeatureExtractor *extractor, int64_t first, int64_t last)
{
    const FeatureInput *input = &extractor->input;
    EvalLoaderParams params = {.transform = input->transform,
                               .resize_size = input->resize_size,
                               .crop_size = input->crop_size,
                               .size = input->size,
                               .most_patches = input->most_patches,
                               .batch_size = feature_work_pictures(extractor),
                               .views = extractor->views,
                               .upside_down = input->upside_down,
                               .grayscale = input->grayscale,
                               .first = first,
                               .last = last,
                               .num_workers = input->num_workers,
                               .prefetch = PREFETCH};
    if (extractor->backbone) params.patch_size = extractor->backbone->vit->config.patch_size;
    if (extractor->kind == FEATURE_RAW_PIXELS) {
        params.crop_size = feature_extractor_raw_size(input);
        double scale = (double)params.crop_size / (double)input->crop_size;
        params.resize_size = (int64_t)lround((double)input->resize_size * scale);
    }
    return params;
}

void feature_work_tell_corrupt(const DataSet *set, Comm *comm, Log *log)
{
    CorruptList *list = data_set_corrupt(set);
    int64_t before = corrupt_list_total(list);
    corrupt_list_tell(list, comm, log);
    if (corrupt_list_total(list) > before) corrupt_list_tell_total(list, log, "each is left out");
}

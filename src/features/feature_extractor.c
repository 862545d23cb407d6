/* feature_extractor.c - see feature_extractor.h. */
#include "features/feature_extractor.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "features/feature_work.h"
#include "run/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RAW_EDGE = 32, PROGRESS_LINES = 5 };

static const char *const LAYERS[] = {
    [FEATURE_CLASS_TOKEN] = "class_token", [FEATURE_MEAN_PATCH] = "mean_patch",
    [FEATURE_PATCH_GRID] = "grid",         [FEATURE_PATCHES] = "patch",
    [FEATURE_EMBEDDING] = "embedding",     [FEATURE_RAW_PIXELS] = "raw_pixels"};

void feature_extractor_layer(const FeatureExtractor *extractor, char out[FEATURE_LAYER])
{
    int length = snprintf(out, FEATURE_LAYER, "%s", LAYERS[extractor->kind]);
    if (extractor->kind == FEATURE_PATCH_GRID)
        snprintf(out + length, (size_t)(FEATURE_LAYER - length), ":%lld:%lld",
                 (long long)extractor->grid.blocks, (long long)extractor->grid.side);
}

/* "BLOCKS:SIDE" */
static bool parse_grid(FeatureGrid *grid, const char *text)
{
    int64_t *const numbers[] = {&grid->blocks, &grid->side};
    for (int i = 0; i < 2; i++) {
        size_t digits = strspn(text, "0123456789");
        if (digits == 0 || digits > 9 || text[digits] != (i == 0 ? ':' : '\0')) return false;
        *numbers[i] = strtoll(text, NULL, 10);
        if (*numbers[i] < 1) return false;
        text += digits + 1;
    }
    return true;
}

/* A word without "+patch". */
static bool parse_row(FeatureExtractor *extractor, const char *layer)
{
    static const FeatureKind kinds[] = {FEATURE_CLASS_TOKEN, FEATURE_MEAN_PATCH};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        extractor->kind = kinds[i];
        if (strcmp(layer, LAYERS[kinds[i]]) == 0) return true;
    }
    extractor->kind = FEATURE_PATCH_GRID;
    return strncmp(layer, "grid:", 5) == 0 && parse_grid(&extractor->grid, layer + 5);
}

Status feature_extractor_parse_layer(FeatureExtractor *extractor, const char *layer, Error *error)
{
    static const char ALSO[] = "+patch";
    char row[FEATURE_LAYER];
    size_t length = strlen(layer), also = sizeof ALSO - 1;
    extractor->patches = length > also && strcmp(layer + length - also, ALSO) == 0;
    snprintf(row, sizeof row, "%.*s", (int)(extractor->patches ? length - also : length), layer);
    if (length < sizeof row && parse_row(extractor, row) &&
        !(extractor->patches && extractor->kind == FEATURE_PATCH_GRID))
        return STATUS_OK;
    if (strcmp(layer, LAYERS[FEATURE_PATCHES]) == 0) {
        extractor->kind = FEATURE_PATCHES;
        extractor->patches = true;
        return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT,
                       "layer %s: expected class_token, mean_patch, either with +patch, patch, or "
                       "grid:BLOCKS:SIDE, numbers from 1",
                       layer);
}

/* Of so many patches down and across. */
static Status check_grid(const FeatureExtractor *extractor, EvalSize patches, Error *error)
{
    int64_t depth = extractor->backbone->vit->config.depth;
    const FeatureGrid *grid = &extractor->grid;
    if (extractor->kind != FEATURE_PATCH_GRID) return STATUS_OK;
    if (grid->blocks > depth)
        return status_fail(error, STATUS_INPUT, "layer grid:%lld:%lld: the network has only %lld blocks",
                           (long long)grid->blocks, (long long)grid->side, (long long)depth);
    if (extractor->input.transform == EVAL_NATIVE)
        return status_fail(error, STATUS_INPUT,
                           "layer grid:%lld:%lld: pictures of their own sizes may have fewer patches",
                           (long long)grid->blocks, (long long)grid->side);
    if (grid->side > patches.height || grid->side > patches.width)
        return status_fail(error, STATUS_INPUT,
                           "layer grid:%lld:%lld: a picture has only %lld x %lld patches",
                           (long long)grid->blocks, (long long)grid->side, (long long)patches.height,
                           (long long)patches.width);
    return STATUS_OK;
}

/* EVAL_WHOLE and EVAL_NATIVE. */
static Status check_whole(const FeatureExtractor *extractor, Error *error)
{
    const FeatureInput *input = &extractor->input;
    int64_t p = extractor->backbone->vit->config.patch_size;
    if (input->transform == EVAL_NATIVE) return check_grid(extractor, (EvalSize){0}, error);
    if (input->size.height % p != 0 || input->size.width % p != 0)
        return status_fail(error, STATUS_INPUT,
                           "size %lldx%lld: sides are not multiples of the patch size %lld",
                           (long long)input->size.height, (long long)input->size.width, (long long)p);
    return check_grid(extractor, feature_work_grid(extractor, input->size), error);
}

Status feature_extractor_check(const FeatureExtractor *extractor, Error *error)
{
    const FeatureInput *input = &extractor->input;
    if (extractor->kind == FEATURE_EMBEDDING) return STATUS_OK;
    if (input->transform >= EVAL_WHOLE) return check_whole(extractor, error);
    if (input->crop_size > input->resize_size)
        return status_fail(error, STATUS_INPUT,
                           "evaluation.crop_size: %lld is larger than evaluation.resize_size %lld",
                           (long long)input->crop_size, (long long)input->resize_size);
    if (extractor->kind == FEATURE_RAW_PIXELS) return STATUS_OK;
    int64_t p = extractor->backbone->vit->config.patch_size;
    if (input->crop_size % p != 0)
        return status_fail(error, STATUS_INPUT,
                           "evaluation.crop_size: %lld is not a multiple of the patch size %lld",
                           (long long)input->crop_size, (long long)p);
    return check_grid(extractor, (EvalSize){input->crop_size / p, input->crop_size / p}, error);
}

int64_t feature_extractor_views(const FeatureExtractor *extractor)
{
    return extractor->views ? extractor->views->count : 1;
}

int64_t feature_extractor_raw_size(const FeatureInput *input)
{
    return input->crop_size < RAW_EDGE ? input->crop_size : RAW_EDGE;
}

int64_t feature_extractor_columns(const FeatureExtractor *extractor)
{
    int64_t edge = feature_extractor_raw_size(&extractor->input);
    if (extractor->kind == FEATURE_RAW_PIXELS) return VIT_IMAGE_CHANNELS * edge * edge;
    if (extractor->kind == FEATURE_EMBEDDING) return extractor->descriptor->resnet->config.dims;
    int64_t D = extractor->backbone->vit->config.embed_dim;
    if (extractor->kind == FEATURE_PATCHES) return 0;
    return extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.side * extractor->grid.side * D : D;
}

OpsLimits feature_extractor_limits(const FeatureExtractor *extractor)
{
    if (extractor->kind == FEATURE_RAW_PIXELS) return (OpsLimits){0};
    if (extractor->kind == FEATURE_EMBEDDING) return resnet_limits(extractor->descriptor->resnet);
    int64_t p = extractor->backbone->vit->config.patch_size, patches = feature_work_patches(extractor);
    int64_t images = feature_work_pictures(extractor) * feature_extractor_views(extractor);
    return backbone_pass_limits(extractor->backbone, images, p, patches * p);
}

void feature_extractor_patch_tokens(const FeatureBackbone *backbone, const Ops *ops, uint8_t *images,
                                    int64_t n, int64_t height, int64_t width, float *out)
{
    BackboneImages all = {.images = images, .n = n, .height = height, .width = width, .patches = true};
    Arena plan = arena_measuring();
    backbone_pass_lay_out(backbone, ops->device, &all, &plan);
    Arena arena = device_arena_create(ops->device, &plan);
    BackbonePass pass = backbone_pass_lay_out(backbone, ops->device, &all, &arena);
    backbone_pass_run(backbone, ops, &pass);
    device_download(ops->device, out, pass.tokens.data, tensor_bytes(pass.tokens));
    device_arena_destroy(ops->device, &arena);
}

/* --- all batches of a rank --- */

/* Moves the rows of readable images to the front of the batch's rows and counts them in. */
static void keep_valid(FeatureRows *rows, const EvalBatch *batch)
{
    float *values = rows->values + rows->count * rows->d;
    int64_t kept = 0;
    for (int64_t i = 0; i < batch->count; i++) {
        if (!batch->valid[i]) continue;
        if (kept != i)
            memcpy(values + kept * rows->d, values + i * rows->d, (size_t)rows->d * sizeof *values);
        rows->labels[rows->count + kept] = batch->labels[i];
        rows->indices[rows->count + kept] = batch->indices[i];
        kept++;
    }
    rows->count += kept;
    rows->skipped += batch->count - kept; /* images; feature_extractor_run makes them pictures */
    rows->wait_seconds += batch->wait_seconds;
}

static void part_of_rank(int64_t n, int rank, int ranks, int64_t *first, int64_t *last)
{
    int64_t base = n / ranks, longer = n % ranks;
    *first = rank * base + (rank < longer ? rank : longer);
    *last = *first + base + (rank < longer);
}

/* All batches of this rank's part, and as many passes as the rank with the most batches makes, whatever
 * happens: gathering sharded weights is everybody's work. Collective if the backbone's hooks are. */
static Status extract_part(const FeatureExtractor *extractor, const Ops *ops, FeatureWork *work,
                           EvalLoader *loader, int64_t images, int64_t passes, FeatureRows *rows,
                           Error *error)
{
    Progress progress =
        progress_begin(extractor->log, extractor->what, 0, images, images / PROGRESS_LINES + 1);
    progress.unit = "images";
    Status status = STATUS_OK;
    int64_t made = 0;
    for (;; made++) {
        EvalBatch *batch = NULL;
        status = eval_loader_next(loader, &batch, error);
        if (status != STATUS_OK || !batch) break;
        feature_work_run(work, ops, batch, rows->values + rows->count * rows->d, NULL);
        keep_valid(rows, batch);
        eval_loader_release(loader, batch);
        progress_update(&progress, (rows->count + rows->skipped) / feature_extractor_views(extractor), "");
    }
    for (; made < passes && extractor->backbone; made++)
        vit_walk_forward(extractor->backbone->vit, extractor->backbone->hooks);
    progress_end(&progress);
    return status;
}

Status feature_extractor_run(const FeatureExtractor *extractor, const Ops *ops, Comm *comm,
                             const DataSet *set, FeatureRows *rows, Error *error)
{
    double start = clock_seconds();
    int64_t first, last;
    part_of_rank(data_set_count(set), comm_rank(comm), comm_size(comm), &first, &last);
    FeatureExtractor bounded = *extractor; /* no room for a batch that a small set never fills */
    int64_t views = feature_extractor_views(extractor), most = last > first ? (last - first) * views : views;
    if (most < bounded.input.batch_size) bounded.input.batch_size = most;
    extractor = &bounded;
    const Whitening *whitening = extractor->whitening;
    *rows = (FeatureRows){0};
    TRY(comm_agree(comm, feature_extractor_check(extractor, error), error));
    feature_rows_init(rows, (last - first) * views,
                      whitening ? whitening_columns(whitening) : feature_extractor_columns(extractor));
    CHECK(extractor->kind != FEATURE_PATCH_GRID || !extractor->backbone->hooks); /* they expect all blocks */
    CHECK(!extractor->patches && extractor->kind != FEATURE_PATCHES &&
          extractor->input.transform != EVAL_NATIVE);

    FeatureWork *work = feature_work_create(extractor, ops->device);
    EvalLoaderParams params = feature_work_loader(extractor, first, last);
    EvalLoader *loader = NULL;
    int64_t passes = (last - first + params.batch_size - 1) / params.batch_size;
    comm_all_reduce(comm, &passes, 1, DTYPE_I64, COMM_MAX, NULL);
    Status status = comm_agree(comm, eval_loader_create(&loader, &params, set, error), error);
    if (status == STATUS_OK)
        status = comm_agree(
            comm, extract_part(extractor, ops, work, loader, last - first, passes, rows, error), error);
    if (status == STATUS_OK) feature_work_tell_corrupt(set, comm, extractor->log);
    eval_loader_destroy(loader);
    feature_work_destroy(work);
    TRY(status);

    comm_all_reduce(comm, &rows->skipped, 1, DTYPE_I64, COMM_SUM, NULL);
    rows->skipped /= views;
    feature_rows_number(rows, comm);
    rows->seconds = clock_seconds() - start;
    if (rows->total == 0)
        return status_fail(error, STATUS_INPUT, "none of the %lld images can be read",
                           (long long)rows->skipped);
    return STATUS_OK;
}

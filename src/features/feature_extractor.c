/* feature_extractor.c - see feature_extractor.h. */
#include "features/feature_extractor.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "features/patch_grid.h"
#include "run/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RAW_EDGE = 32, PREFETCH = 2, PROGRESS_LINES = 5 };

static const char *const LAYERS[] = {[FEATURE_CLASS_TOKEN] = "class_token",
                                     [FEATURE_MEAN_PATCH] = "mean_patch",
                                     [FEATURE_PATCH_GRID] = "grid",
                                     [FEATURE_EMBEDDING] = "embedding",
                                     [FEATURE_RAW_PIXELS] = "raw_pixels"};

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

Status feature_extractor_parse_layer(FeatureExtractor *extractor, const char *layer, Error *error)
{
    static const FeatureKind kinds[] = {FEATURE_CLASS_TOKEN, FEATURE_MEAN_PATCH};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        extractor->kind = kinds[i];
        if (strcmp(layer, LAYERS[kinds[i]]) == 0) return STATUS_OK;
    }
    extractor->kind = FEATURE_PATCH_GRID;
    if (strncmp(layer, "grid:", 5) == 0 && parse_grid(&extractor->grid, layer + 5)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "layer %s: expected class_token, mean_patch or grid:BLOCKS:SIDE, numbers from 1",
                       layer);
}

/* Of edge x edge patches. */
static Status check_grid(const FeatureExtractor *extractor, int64_t edge, Error *error)
{
    int64_t depth = extractor->backbone->vit->config.depth;
    const FeatureGrid *grid = &extractor->grid;
    if (extractor->kind != FEATURE_PATCH_GRID) return STATUS_OK;
    if (grid->blocks > depth)
        return status_fail(error, STATUS_INPUT, "layer grid:%lld:%lld: the network has only %lld blocks",
                           (long long)grid->blocks, (long long)grid->side, (long long)depth);
    if (grid->side > edge)
        return status_fail(error, STATUS_INPUT,
                           "layer grid:%lld:%lld: a picture has only %lld x %lld patches",
                           (long long)grid->blocks, (long long)grid->side, (long long)edge, (long long)edge);
    return STATUS_OK;
}

Status feature_extractor_check(const FeatureExtractor *extractor, Error *error)
{
    const FeatureInput *input = &extractor->input;
    if (extractor->kind == FEATURE_EMBEDDING) return STATUS_OK;
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
    return check_grid(extractor, input->crop_size / p, error);
}

int64_t feature_extractor_views(const FeatureExtractor *extractor)
{
    return extractor->views ? extractor->views->count : 1;
}

/* Of one batch. */
static int64_t pictures_of(const FeatureExtractor *extractor)
{
    int64_t pictures = extractor->input.batch_size / feature_extractor_views(extractor);
    return pictures > 0 ? pictures : 1;
}

static int64_t images_of(const FeatureExtractor *extractor)
{
    return pictures_of(extractor) * feature_extractor_views(extractor);
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
    return extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.side * extractor->grid.side * D : D;
}

static OpsLimits backbone_limits(const FeatureBackbone *backbone, int64_t n, int64_t height, int64_t width)
{
    const VitConfig *c = &backbone->vit->config;
    int64_t tokens = 1 + c->num_register_tokens + vit_patches(backbone->vit, height, width);
    int64_t pixels = VIT_IMAGE_CHANNELS * c->patch_size * c->patch_size;
    int64_t widest = 8 * c->embed_dim; /* gate and value of the widest feed-forward layer */
    return (OpsLimits){.rows = n * tokens,
                       .width = widest > pixels ? widest : pixels,
                       .max_seqlen = tokens,
                       .head_dim = c->embed_dim / c->num_heads,
                       .heads = c->num_heads,
                       .reduced = true};
}

OpsLimits feature_extractor_limits(const FeatureExtractor *extractor)
{
    if (extractor->kind == FEATURE_RAW_PIXELS) return (OpsLimits){0};
    if (extractor->kind == FEATURE_EMBEDDING) return resnet_limits(extractor->descriptor->resnet);
    int64_t crop = extractor->input.crop_size;
    return backbone_limits(extractor->backbone, images_of(extractor), crop, crop);
}

/* --- one pass through the network --- */

/* What a pass of n images needs; lives in the arena. */
typedef struct {
    VitPass pass;
    int64_t row_count; /* tokens that the final norm is computed for */
    Tensor rows;       /* [row_count] int32 */
    Tensor tokens;     /* [row_count, D] fp32 */
    Tensor stats;      /* [row_count, 2] fp32 */
} FeaturePass;

typedef struct {
    uint8_t *images; /* [n, 3, height, width] grey levels */
    int64_t n, height, width;
    bool patches;   /* all patch tokens, else the class tokens */
    int64_t blocks; /* as of VitInput */
} FeatureImages;

/* On a real arena the images are on their way to the device when it returns. */
static FeaturePass layout_pass(const FeatureBackbone *backbone, Device *device, const FeatureImages *images,
                               Arena *arena)
{
    const Vit *vit = backbone->vit;
    ArenaMark mark = arena_mark(arena);
    int64_t shape[] = {images->n, VIT_IMAGE_CHANNELS, images->height, images->width};
    VitCrops crops = {.sequences = images->n,
                      .height = images->height,
                      .width = images->width,
                      .images = tensor_view(images->images, DTYPE_U8, 4, shape),
                      .levels = backbone->levels};
    if (device_kind(device) != DEVICE_CPU)
        crops.images.data = arena_alloc(arena, (size_t)(shape[0] * shape[1] * shape[2] * shape[3]));
    VitInput input = {
        .set_count = 1, .sets = {crops}, .act = weights_act(backbone->weights), .blocks = images->blocks};
    int64_t each = images->patches ? vit_patches(vit, images->height, images->width) : 1;
    FeaturePass p = {.pass = vit_pass(vit, &input, arena), .row_count = images->n * each};
    int32_t *rows;
    p.rows = tensor_stage_1d(arena, DTYPE_I32, p.row_count, &rows);
    p.tokens = tensor_alloc_2d(arena, DTYPE_F32, p.row_count, vit->config.embed_dim);
    p.stats = tensor_alloc_2d(arena, DTYPE_F32, p.row_count, 2);
    if (arena_is_measuring(arena)) return p;

    int64_t offset = images->patches ? 1 + vit->config.num_register_tokens : 0;
    for (int64_t i = 0; i < images->n; i++)
        for (int64_t j = 0; j < each; j++)
            *rows++ = (int32_t)(vit_row(&p.pass, 0, i) + offset + j);
    device_upload_staged(device, arena, mark);
    if (crops.images.data != images->images)
        device_upload(device, crops.images.data, images->images, tensor_bytes(crops.images));
    return p;
}

/* pass->tokens [row_count, D]. */
static void run_pass(const FeatureBackbone *backbone, const Ops *ops, FeaturePass *p)
{
    vit_forward(backbone->vit, ops, backbone->weights, &p->pass, backbone->hooks);
    vit_norm_forward(backbone->vit, ops, backbone->weights, p->pass.x, p->rows, p->tokens, p->stats,
                     backbone->hooks);
}

void feature_extractor_patch_tokens(const FeatureBackbone *backbone, const Ops *ops, uint8_t *images,
                                    int64_t n, int64_t height, int64_t width, float *out)
{
    FeatureImages all = {.images = images, .n = n, .height = height, .width = width, .patches = true};
    Arena plan = arena_measuring();
    layout_pass(backbone, ops->device, &all, &plan);
    Arena arena = device_arena_create(ops->device, &plan);
    FeaturePass p = layout_pass(backbone, ops->device, &all, &arena);
    run_pass(backbone, ops, &p);
    device_download(ops->device, out, p.tokens.data, tensor_bytes(p.tokens));
    device_arena_destroy(ops->device, &arena);
}

/* --- batches --- */

static FeatureImages batch_images(const FeatureExtractor *extractor, uint8_t *images, int64_t n)
{
    int64_t edge = extractor->input.crop_size;
    return (FeatureImages){.images = images,
                           .n = n,
                           .height = edge,
                           .width = edge,
                           .patches = extractor->kind != FEATURE_CLASS_TOKEN,
                           .blocks = extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.blocks : 0};
}

/* Memory of one batch. */
typedef struct {
    Arena arena;
    float *tokens; /* the pass's tokens on the host */
    float *raw;    /* [images, columns] rows before whitening; NULL without */
    DescriptorPass *descriptor;
} FeatureWork;

static FeatureWork work_create(const FeatureExtractor *extractor, Device *device)
{
    FeatureWork work = {0};
    if (extractor->whitening)
        work.raw = memory_alloc_array((size_t)images_of(extractor),
                                      (size_t)feature_extractor_columns(extractor) * sizeof *work.raw);
    if (extractor->kind == FEATURE_RAW_PIXELS) return work;
    if (extractor->kind == FEATURE_EMBEDDING) {
        const FeatureInput *input = &extractor->input;
        work.descriptor = descriptor_pass_create(extractor->descriptor, device, input->transform,
                                                 input->crop_size, images_of(extractor));
        return work;
    }
    Arena plan = arena_measuring();
    FeatureImages largest = batch_images(extractor, NULL, images_of(extractor));
    FeaturePass p = layout_pass(extractor->backbone, device, &largest, &plan);
    work.arena = device_arena_create(device, &plan);
    work.tokens = device_alloc_host(device, tensor_bytes(p.tokens));
    return work;
}

static void work_destroy(FeatureWork *work, Device *device)
{
    memory_free(work->raw);
    descriptor_pass_destroy(work->descriptor);
    if (!work->tokens) return;
    device_arena_destroy(device, &work->arena);
    device_free_host(device, work->tokens);
}

/* out[batch->count, columns]. */
static void compute_raw(const FeatureExtractor *extractor, const Ops *ops, FeatureWork *work,
                        const EvalBatch *batch, float *out)
{
    int64_t d = feature_extractor_columns(extractor), n = batch->count;
    uint8_t *images = batch->images;
    if (extractor->kind == FEATURE_EMBEDDING) {
        descriptor_pass_run(work->descriptor, ops, batch, out);
        return;
    }
    if (extractor->kind == FEATURE_RAW_PIXELS) {
        for (int64_t i = 0; i < n * d; i++)
            out[i] = (float)images[i] / 255.0f;
        return;
    }
    arena_reset(&work->arena, ARENA_START);
    FeatureImages all = batch_images(extractor, images, n);
    FeaturePass p = layout_pass(extractor->backbone, ops->device, &all, &work->arena);
    run_pass(extractor->backbone, ops, &p);
    device_download(ops->device, work->tokens, p.tokens.data, tensor_bytes(p.tokens));
    device_finish(ops->device);
    if (extractor->kind == FEATURE_CLASS_TOKEN) {
        memcpy(out, work->tokens, (size_t)(n * d) * sizeof *out);
        return;
    }
    const VitConfig *config = &extractor->backbone->vit->config;
    int64_t side = extractor->kind == FEATURE_PATCH_GRID ? extractor->grid.side : 1;
    patch_grid_pool(out, work->tokens, n, all.height / config->patch_size, side, config->embed_dim);
}

/* out[batch->count, columns of rows]. */
static void compute_batch(const FeatureExtractor *extractor, const Ops *ops, FeatureWork *work,
                          const EvalBatch *batch, float *out)
{
    compute_raw(extractor, ops, work, batch, work->raw ? work->raw : out);
    if (work->raw) whitening_apply(extractor->whitening, out, work->raw, batch->count);
}

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

static EvalLoaderParams loader_params(const FeatureExtractor *extractor, int64_t first, int64_t last)
{
    const FeatureInput *input = &extractor->input;
    EvalLoaderParams params = {.transform = input->transform,
                               .resize_size = input->resize_size,
                               .crop_size = input->crop_size,
                               .batch_size = pictures_of(extractor),
                               .views = extractor->views,
                               .upside_down = input->upside_down,
                               .first = first,
                               .last = last,
                               .num_workers = input->num_workers,
                               .prefetch = PREFETCH};
    if (extractor->kind == FEATURE_RAW_PIXELS) {
        params.crop_size = feature_extractor_raw_size(input);
        double scale = (double)params.crop_size / (double)input->crop_size;
        params.resize_size = (int64_t)lround((double)input->resize_size * scale);
    }
    return params;
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
        compute_batch(extractor, ops, work, batch, rows->values + rows->count * rows->d);
        keep_valid(rows, batch);
        eval_loader_release(loader, batch);
        progress_update(&progress, (rows->count + rows->skipped) / feature_extractor_views(extractor), "");
    }
    for (; made < passes && extractor->backbone; made++)
        vit_walk_forward(extractor->backbone->vit, extractor->backbone->hooks);
    progress_end(&progress);
    return status;
}

/* Names what earlier passes over the set have not met, and then how many there are. Collective over COMM. */
static void tell_corrupt(CorruptList *list, Comm *comm, Log *log)
{
    int64_t before = corrupt_list_total(list);
    corrupt_list_tell(list, comm, log);
    if (corrupt_list_total(list) > before) corrupt_list_tell_total(list, log, "each is left out");
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

    FeatureWork work = work_create(extractor, ops->device);
    EvalLoaderParams params = loader_params(extractor, first, last);
    EvalLoader *loader = NULL;
    int64_t passes = (last - first + pictures_of(extractor) - 1) / pictures_of(extractor);
    comm_all_reduce(comm, &passes, 1, DTYPE_I64, COMM_MAX, NULL);
    Status status = comm_agree(comm, eval_loader_create(&loader, &params, set, error), error);
    if (status == STATUS_OK)
        status = comm_agree(
            comm, extract_part(extractor, ops, &work, loader, last - first, passes, rows, error), error);
    if (status == STATUS_OK) tell_corrupt(data_set_corrupt(set), comm, extractor->log);
    eval_loader_destroy(loader);
    work_destroy(&work, ops->device);
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

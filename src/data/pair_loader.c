/* pair_loader.c - what a task of the ring is: one sample of a step, or one view of a picture. */
#include "data/pair_loader.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/image/image_color.h"
#include "data/image/image_limits.h"
#include "data/loader_core.h"
#include "data/sampler.h"

#include <math.h>
#include <string.h>

enum { DRAW = 3 /* step of RNG_EVALUATION */, AHEAD = 2 };

/* Memory of one thread beside the core's. */
typedef struct {
    GrayImage mask;
    uint8_t *picture; /* [3, rows, columns] */
    size_t picture_bytes;
} PairScratch;

struct PairLoader {
    PairLoaderParams params;
    PairView *views;
    LoaderCore core;
    PairScratch *scratch; /* [core.threads] */
    PairBatch *batches;   /* [core.slots] */
    int64_t *rounds;      /* [core.slots] that a slot is of */
};

/* A window of a scaled picture. */
typedef struct {
    int64_t height, width;            /* of the scaled picture */
    int64_t top, left, rows, columns; /* of the window in it */
    bool mirror;
} Window;

/* --- geometry --- */

static Status scaled(const PairLoader *loader, const Image *image, double scale, Window *window, Error *error)
{
    double shorter = (double)(image->height < image->width ? image->height : image->width);
    if (loader->params.size) scale *= (double)loader->params.size / shorter;
    double height = fmax(1.0, rint((double)image->height * scale));
    double width = fmax(1.0, rint((double)image->width * scale));
    *window = (Window){.height = (int64_t)height,
                       .width = (int64_t)width,
                       .rows = (int64_t)height,
                       .columns = (int64_t)width};
    if (height * width <= IMAGE_LIMITS_MAX_PIXELS) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "is scaled to %.0f x %.0f pixels, more than %d in all", width,
                       height, IMAGE_LIMITS_MAX_PIXELS);
}

/* Always four numbers, whatever they decide. */
static Status draw_window(const PairLoader *loader, int64_t place, const Image *image, Window *window,
                          Error *error)
{
    const PairLoaderParams *params = &loader->params;
    Rng rng = rng_at(params->seed, RNG_EVALUATION, DRAW, (uint64_t)place);
    double scale = exp(rng_uniform(&rng, log(params->scale[0]), log(params->scale[1])));
    double down = rng_uniform01(&rng), right = rng_uniform01(&rng);
    bool mirror = rng_uniform01(&rng) < params->flip;
    TRY(scaled(loader, image, scale, window, error));
    window->mirror = mirror;
    if (!params->crop) return STATUS_OK;
    window->rows = params->crop < window->height ? params->crop : window->height;
    window->columns = params->crop < window->width ? params->crop : window->width;
    window->top = (int64_t)(down * (double)(window->height - window->rows + 1));
    window->left = (int64_t)(right * (double)(window->width - window->columns + 1));
    return STATUS_OK;
}

static int64_t padded(int64_t length, int64_t patch)
{
    return (length + patch - 1) / patch * patch;
}

/* Frames of crops have one size. */
static void place_frame(const PairLoaderParams *params, const Window *window, PairSample *sample)
{
    int64_t crop = params->views ? 0 : params->crop, p = params->patch_size;
    sample->rows = window->rows;
    sample->columns = window->columns;
    sample->height = padded(crop ? crop : window->rows, p);
    sample->width = padded(crop ? crop : window->columns, p);
    sample->top = (sample->height - sample->rows) / 2;
    sample->left = (sample->width - sample->columns) / 2;
}

/* --- pixels --- */

static void *grown(void *old, size_t *bytes, size_t wanted)
{
    if (wanted <= *bytes) return old;
    memory_free(old);
    *bytes = wanted;
    return memory_alloc(wanted);
}

static void fill_frame(const PairLoader *loader, LoaderScratch *core, PairScratch *own, const Window *window,
                       PairSample *sample)
{
    place_frame(&loader->params, window, sample);
    int64_t area = sample->height * sample->width, part = sample->rows * sample->columns;
    sample->planes = grown(sample->planes, &sample->bytes, (size_t)(3 * area));
    own->picture = grown(own->picture, &own->picture_bytes, (size_t)(3 * part));
    AugmentWindow wanted = {.height = window->height,
                            .width = window->width,
                            .top = window->top,
                            .left = window->left,
                            .rows = window->rows,
                            .columns = window->columns,
                            .mirror = window->mirror};
    augment_load(core->augment, &core->image);
    augment_resize_window(&wanted, own->picture, core->augment);
    if (loader->params.grayscale) image_color_grayscale(own->picture, part);
    for (int c = 0; c < 3; c++) {
        memset(sample->planes + c * area, loader->params.padding[c], (size_t)area);
        for (int64_t y = 0; y < sample->rows; y++)
            memcpy(sample->planes + c * area + (sample->top + y) * sample->width + sample->left,
                   own->picture + c * part + y * sample->columns, (size_t)sample->columns);
    }
}

/* The pixel under the centre of pixel i of `length` scaled ones. */
static int64_t nearest(int64_t i, int64_t length, int64_t source)
{
    return (2 * i + 1) * source / (2 * length);
}

/* The window of the mask, pixel for pixel that of the picture. */
static void cut_mask(const GrayImage *whole, const Window *window, GrayImage *out)
{
    gray_image_reserve(out, window->columns, window->rows);
    for (int64_t y = 0; y < window->rows; y++) {
        int64_t row = nearest(window->top + y, window->height, whole->height);
        for (int64_t x = 0; x < window->columns; x++) {
            int64_t column = nearest(window->left + x, window->width, whole->width);
            int64_t at = window->mirror ? window->columns - 1 - x : x;
            out->values[y * window->columns + at] = whole->values[row * whole->width + column];
        }
    }
}

/* --- reading --- */

static Status check_mask(const PairLoaderParams *params, const Image *image, const GrayImage *mask,
                         Error *error)
{
    if (mask->bits != params->mask_bits)
        return status_fail(error, STATUS_INPUT, "its mask has %d bits a pixel, expected %d", mask->bits,
                           params->mask_bits);
    if (mask->width != image->width || mask->height != image->height)
        return status_fail(error, STATUS_INPUT, "its mask has %lld x %lld pixels, the picture %lld x %lld",
                           (long long)mask->width, (long long)mask->height, (long long)image->width,
                           (long long)image->height);
    for (int64_t i = 0; params->classes && i < mask->width * mask->height; i++)
        if (mask->values[i] >= params->classes && mask->values[i] != params->ignore)
            return status_fail(error, STATUS_INPUT,
                               "its mask has class %d, expected 0 to %lld, or %lld where none is meant",
                               mask->values[i], (long long)params->classes - 1, (long long)params->ignore);
    return STATUS_OK;
}

/* Puts the picture in front of the message of a failure. */
static Status located(const PairLoader *loader, int64_t index, Status status, Error *error)
{
    if (status == STATUS_OK) return status;
    char where[DATA_SET_KEY_MAX];
    data_set_location(loader->core.set, index, where, sizeof where);
    return status_prefix(error, status, "%s", where);
}

static Status load_pair(PairLoader *loader, int worker, int64_t index, GrayImage *mask, Error *error)
{
    LoaderScratch *scratch = &loader->core.scratch[worker];
    const DataSet *set = loader->core.set;
    TRY(data_set_load_image(set, index, &scratch->image, &scratch->buffer, error));
    if (!mask) return STATUS_OK;
    TRY(data_set_load_mask(set, index, mask, &scratch->buffer, error));
    return located(loader, index, check_mask(&loader->params, &scratch->image, mask, error), error);
}

static Status run_training(PairLoader *loader, int worker, int64_t round, int64_t task, PairSample *sample,
                           Error *error)
{
    const PairLoaderParams *params = &loader->params;
    PairScratch *own = &loader->scratch[worker];
    int64_t place = (params->step + round) * params->batch_size + params->first + task;
    int64_t index = sampler_index(data_set_count(loader->core.set), params->seed, place);
    Window window;
    TRY(load_pair(loader, worker, index, &own->mask, error));
    Status status = draw_window(loader, place, &loader->core.scratch[worker].image, &window, error);
    TRY(located(loader, index, status, error));
    fill_frame(loader, &loader->core.scratch[worker], own, &window, sample);
    cut_mask(&own->mask, &window, &sample->mask);
    return STATUS_OK;
}

static Status run_test(PairLoader *loader, int worker, int64_t round, int64_t task, PairSample *sample,
                       Error *error)
{
    Window window;
    int64_t index = loader->params.first + round;
    const PairView *view = &loader->views[task];
    TRY(load_pair(loader, worker, index, task == 0 ? &sample->mask : NULL, error));
    Status status = scaled(loader, &loader->core.scratch[worker].image, view->scale, &window, error);
    TRY(located(loader, index, status, error));
    window.mirror = sample->mirrored = view->mirror;
    fill_frame(loader, &loader->core.scratch[worker], &loader->scratch[worker], &window, sample);
    return STATUS_OK;
}

static int64_t begin_round(void *context, int slot, int64_t round)
{
    PairLoader *loader = context;
    loader->rounds[slot] = round;
    return loader->batches[slot].count;
}

static Status run_task(void *context, int worker, int slot, int64_t task, Error *error)
{
    PairLoader *loader = context;
    PairSample *sample = &loader->batches[slot].samples[task];
    return loader->params.views ? run_test(loader, worker, loader->rounds[slot], task, sample, error)
                                : run_training(loader, worker, loader->rounds[slot], task, sample, error);
}

/* --- the loader --- */

Status pair_loader_create(PairLoader **out, const PairLoaderParams *params, const DataSet *set, Error *error)
{
    CHECK(data_set_has_masks(set) && params->first >= 0 && params->count >= 0);
    *out = NULL;
    PairLoader *loader = memory_alloc(sizeof *loader);
    loader->params = *params;
    loader_core_init(&loader->core, set, params->num_workers, AHEAD, 1);
    int64_t each = params->views ? params->view_count : params->count;
    if (params->views) {
        loader->views = memory_alloc_array((size_t)each, sizeof *loader->views);
        memcpy(loader->views, params->views, (size_t)each * sizeof *loader->views);
    }
    loader->scratch = memory_alloc_array((size_t)loader->core.threads, sizeof *loader->scratch);
    loader->rounds = memory_alloc_array((size_t)loader->core.slots, sizeof *loader->rounds);
    loader->batches = memory_alloc_array((size_t)loader->core.slots, sizeof *loader->batches);
    for (int i = 0; i < loader->core.slots; i++) {
        loader->batches[i].count = each;
        loader->batches[i].samples = memory_alloc_array((size_t)each, sizeof *loader->batches[i].samples);
    }
    TaskRingParams tasks = {.context = loader,
                            .begin = begin_round,
                            .run = run_task,
                            .last_round = params->views ? params->count : params->step_end - params->step};
    Status status = loader_core_start(&loader->core, tasks, error);
    if (status == STATUS_OK)
        *out = loader;
    else
        pair_loader_destroy(loader);
    return status;
}

void pair_loader_destroy(PairLoader *loader)
{
    if (!loader) return;
    int slots = loader->core.slots, threads = loader->core.threads;
    loader_core_fini(&loader->core);
    for (int t = 0; t < threads; t++) {
        gray_image_destroy(&loader->scratch[t].mask);
        memory_free(loader->scratch[t].picture);
    }
    for (int i = 0; i < slots; i++) {
        for (int64_t s = 0; s < loader->batches[i].count; s++) {
            gray_image_destroy(&loader->batches[i].samples[s].mask);
            memory_free(loader->batches[i].samples[s].planes);
        }
        memory_free(loader->batches[i].samples);
    }
    memory_free(loader->batches);
    memory_free(loader->scratch);
    memory_free(loader->rounds);
    memory_free(loader->views);
    memory_free(loader);
}

Status pair_loader_next(PairLoader *loader, PairBatch **batch, Error *error)
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

void pair_loader_release(PairLoader *loader, PairBatch *batch)
{
    for (int i = 0; i < loader->core.slots; i++)
        if (batch == &loader->batches[i]) task_ring_release(loader->core.ring, i);
}

/* job_visualize.c - pictures of what a model sees and how a training went.
 *
 *   dinobatch visualize pca --model CHECKPOINT|RUN_FOLDER --data SPEC --output FILE.png
 *                           [--which teacher|student] [--count N] [--size PIXELS]
 *                           [--columns N] [--background]
 *   dinobatch visualize curves --run RUN_FOLDER --output FILE.png
 *   dinobatch visualize duplicates --curation dedup.h5 --data SPEC... --output FILE.png
 *                                  [--count N] [--columns N] [--size PIXELS]
 *   dinobatch visualize neighbours --curation retrieve_NAME.h5 --data SPEC... --queries SPEC...
 *                                  --output FILE.png [--count N] [--columns N] [--size PIXELS]
 */
#include "job_visualize.h"

#include "base/memory.h"
#include "data/data_spec.h"
#include "data/eval_loader.h"
#include "eval/eval_knn.h"
#include "eval/eval_model.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "report/pca_picture.h"
#include "report/training_curves.h"
#include "run/run_folder.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_visualize_options[] = {
    {"output", "FILE.png", "the picture", false},
    {"model", "PATH", "pca: checkpoint file, or run folder (its newest checkpoint)", false},
    {"which", "teacher|student", "pca: whose weights (default: teacher)", false},
    {"data", "SPEC",
     "pca: images, as a data set spec, of which evenly spaced ones are taken; duplicates, neighbours: the "
     "pool's, by one option each where it has several",
     true},
    {"count", "N", "pca: images (default: 8); duplicates, neighbours: rows of pictures (default: 16)", false},
    {"size", "PIXELS",
     "pca: edge of the network's input (default: four times the training's, 448 at most); duplicates, "
     "neighbours: edge of a picture (default: 96)",
     false},
    {"columns", "N", "pca: images a row (default: 8); duplicates, neighbours: pictures a row (default: 9)",
     false},
    {"curation", "FILE", "duplicates: file of curate dedup; neighbours: of curate retrieve", false},
    {"queries", "SPEC", "neighbours: the query set's images, as a data set spec", true},
    {"background", NULL, "pca: colour every patch, not the foreground only", false},
    {"run", "FOLDER", "curves: a training's run folder", false},
    {0},
};

enum { COUNT_DEFAULT = 8, COUNT_MAX = 256, SIZE_MOST = 448, SIZE_FACTOR = 4, SIZE_MAX_ASKED = 4096 };

Status job_visualize_number(const JobContext *context, const char *name, int64_t fallback, int64_t most,
                            int64_t *value, Error *error)
{
    const char *text = options_get(context->options, name);
    *value = fallback;
    if (!text) return STATUS_OK;
    *value = data_spec_number(text, strlen(text));
    if (*value >= 1 && *value <= most) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected a number from 1 to %lld", name, text,
                       (long long)most);
}

static void print_result(const JobContext *context, const char *what, const char *output)
{
    if (comm_rank(context->comm) != 0) return;
    if (!context->json) {
        printf("%s\n", output);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", what);
    cJSON_AddStringToObject(tree, "output", output);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* --- pca --- */

typedef struct {
    const char *data, *output;
    int64_t count, size, columns;
    bool background;
} PcaRequest;

static Status parse_pca(const JobContext *context, PcaRequest *request, Error *error)
{
    const Options *options = context->options;
    *request = (PcaRequest){.data = options_get(options, "data"),
                            .output = options_get(options, "output"),
                            .background = options_get(options, "background") != NULL};
    if (!options_get(options, "model"))
        return status_fail(error, STATUS_INPUT, "visualize pca needs --model PATH");
    if (!request->data) return status_fail(error, STATUS_INPUT, "visualize pca needs --data SPEC");
    TRY(job_visualize_number(context, "count", COUNT_DEFAULT, COUNT_MAX, &request->count, error));
    TRY(job_visualize_number(context, "columns", COUNT_DEFAULT, COUNT_MAX, &request->columns, error));
    return job_visualize_number(context, "size", 0, SIZE_MAX_ASKED, &request->size, error);
}

/* Edge of the input: finer than in training, so that the grid of patches shows something. */
static Status input_size(const PcaRequest *request, const EvalModel *model, int64_t *size, Error *error)
{
    int64_t p = model->vit.config.patch_size, trained = model->vit.config.img_size;
    *size = request->size;
    if (*size == 0) {
        int64_t most = trained > SIZE_MOST ? trained : SIZE_MOST;
        *size = SIZE_FACTOR * trained < most ? SIZE_FACTOR * trained : most;
        *size -= *size % p;
    }
    if (*size % p == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--size %lld: not a multiple of the patch size %lld",
                       (long long)*size, (long long)p);
}

/* rgb[n, size, size, 3] of images[n, 3, size, size]. */
static void to_pixels(uint8_t *rgb, const uint8_t *images, int64_t n, int64_t size)
{
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++)
            for (int64_t at = 0; at < size * size; at++)
                rgb[(i * size * size + at) * 3 + c] = images[(i * 3 + c) * size * size + at];
}

static Status draw_batch(const JobContext *context, const PcaRequest *request, const EvalModel *model,
                         const EvalBatch *batch, int64_t size, Error *error)
{
    int64_t n = batch->count, grid = size / model->vit.config.patch_size, d = model->vit.config.embed_dim;
    FeatureExtractor extractor = {.kind = FEATURE_MEAN_PATCH,
                                  .input = {.crop_size = size, .resize_size = size, .batch_size = 1},
                                  .backbone = &model->backbone};
    OpsLimits limits = feature_extractor_limits(&extractor);
    OpsOptions options;
    TRY(ops_options_from(&options, &model->config, context->device, job_threads(context, &model->config),
                         error));
    Ops *ops = ops_create(context->device, &limits, &options);
    float *tokens = memory_alloc_array((size_t)(n * grid * grid), (size_t)d * sizeof *tokens);
    for (int64_t i = 0; i < n; i++)
        feature_extractor_patch_tokens(&model->backbone, ops, batch->images + i * 3 * size * size, 1, size,
                                       size, tokens + i * grid * grid * d);
    ops_destroy(ops);
    uint8_t *rgb = memory_alloc_array((size_t)n, (size_t)(3 * size * size));
    to_pixels(rgb, batch->images, n, size);

    PcaPictureInput input = {.images = n,
                             .grid_height = grid,
                             .grid_width = grid,
                             .d = d,
                             .tokens = tokens,
                             .patch_size = model->vit.config.patch_size,
                             .rgb = rgb,
                             .keep_background = request->background};
    PcaColors colors;
    pca_picture_colors(&colors, &input);
    log_info(context->log,
             "PCA of %lld patches; the three components hold %.0f, %.0f and %.0f %% of the variance",
             (long long)(n * grid * grid), 100 * colors.explained[0], 100 * colors.explained[1],
             100 * colors.explained[2]);
    Picture picture;
    pca_picture_draw(&picture, &input, &colors, request->columns);
    Status status = picture_write(&picture, request->output, error);
    picture_fini(&picture);
    pca_picture_colors_fini(&colors);
    memory_free(rgb);
    memory_free(tokens);
    return status;
}

/* Unreadable images are left out of the picture. */
static void drop_invalid(EvalBatch *batch, int64_t size)
{
    int64_t kept = 0, elements = 3 * size * size;
    for (int64_t i = 0; i < batch->count; i++) {
        if (!batch->valid[i]) continue;
        if (kept != i)
            memcpy(batch->images + kept * elements, batch->images + i * elements, (size_t)elements);
        kept++;
    }
    batch->count = kept;
}

static Status draw_pca(const JobContext *context, const PcaRequest *request, const EvalModel *model,
                       Error *error)
{
    int64_t size;
    TRY(input_size(request, model, &size, error));
    DataSet *set = NULL;
    TRY(eval_sets_open_data(&set, request->data, request->count, error));
    EvalLoaderParams params = {.resize_size = size,
                               .crop_size = size,
                               .batch_size = data_set_count(set),
                               .last = data_set_count(set)};
    EvalLoader *loader = NULL;
    EvalBatch *batch = NULL;
    Status status = eval_loader_create(&loader, &params, set, error);
    if (status == STATUS_OK) status = eval_loader_next(loader, &batch, error);
    if (status == STATUS_OK) {
        corrupt_list_tell(data_set_corrupt(set), NULL, context->log);
        drop_invalid(batch, size);
        status = batch->count > 0 ? draw_batch(context, request, model, batch, size, error)
                                  : status_fail(error, STATUS_INPUT,
                                                "--data %s: none of the images can be read", request->data);
        eval_loader_release(loader, batch);
    }
    eval_loader_destroy(loader);
    data_set_destroy(set);
    return status;
}

/* A handful of images: rank 0 computes, the others wait. Collective over COMM. */
static Status visualize_pca(JobContext *context, Error *error)
{
    PcaRequest request;
    TRY(parse_pca(context, &request, error));
    TRY(job_open_device(context, error));
    CheckpointRole role;
    TRY(eval_model_role(&role, options_get(context->options, "which"), error));
    EvalModel model;
    Status status = eval_model_load(&model, options_get(context->options, "model"), role, context->options,
                                    context->comm, context->log, error);
    if (status == STATUS_OK) {
        eval_model_place(&model, context->device);
        if (comm_rank(context->comm) == 0) status = draw_pca(context, &request, &model, error);
        status = comm_agree(context->comm, status, error);
    }
    eval_model_fini(&model);
    if (status == STATUS_OK) print_result(context, "visualize pca", request.output);
    return status;
}

/* --- curves --- */

static Status visualize_curves(const JobContext *context, Error *error)
{
    const char *run = options_get(context->options, "run"), *output = options_get(context->options, "output");
    if (!run) return status_fail(error, STATUS_INPUT, "visualize curves needs --run FOLDER");
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) status = training_curves_draw(run, output, error);
    TRY(comm_agree(context->comm, status, error));
    print_result(context, "visualize curves", output);
    return STATUS_OK;
}

/* Either contact sheet. */
static Status visualize_sheet(const JobContext *context, const char *what,
                              Status (*draw)(const JobContext *context, Error *error), Error *error)
{
    TRY(draw(context, error));
    print_result(context, what, options_get(context->options, "output"));
    return STATUS_OK;
}

Status job_visualize(JobContext *context, Error *error)
{
    const char *what = context->options->words[0];
    if (!options_get(context->options, "output"))
        return status_fail(error, STATUS_INPUT, "visualize needs --output FILE.png");
    if (strcmp(what, "pca") == 0) return visualize_pca(context, error);
    if (strcmp(what, "curves") == 0) return visualize_curves(context, error);
    if (strcmp(what, "duplicates") == 0)
        return visualize_sheet(context, "visualize duplicates", job_visualize_duplicates, error);
    if (strcmp(what, "neighbours") == 0)
        return visualize_sheet(context, "visualize neighbours", job_visualize_neighbours, error);
    return status_fail(error, STATUS_INPUT, "visualize %s: expected pca, curves, duplicates or neighbours",
                       what);
}

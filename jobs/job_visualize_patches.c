/* job_visualize_patches.c - pictures of what a network makes of patches: PCA colours, matches between two
 * pictures, attention of the class token.
 *
 * A handful of pictures: rank 0 computes, the others wait.
 */
#include "base/memory.h"
#include "eval/eval_model.h"
#include "eval/eval_sets.h"
#include "job_threads.h"
#include "job_visualize.h"
#include "ops/ops_options.h"
#include "report/attention_picture.h"
#include "report/patch_matches.h"
#include "report/pca_picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_DEFAULT = 8, COUNT_ATTENTION = 4, COUNT_MATCHES = 2, COUNT_MAX = 256, LINES = 20 };
enum { SIZE_MOST = 448, SIZE_FACTOR = 4, SIZE_MAX_ASKED = 4096, DRAWN = 224 };

typedef struct {
    const char *what, *data, *output;
    int64_t count, size, drawn, columns, lines;
    int64_t block; /* from 1; 0: the last one */
    double mass;
    bool captions;
    PcaOptions pca;
} Request;

/* A number that --NAME gives; *given says whether it does. */
static Status parse_real(const Options *options, const char *name, double least, double most, double *value,
                         bool *given, Error *error)
{
    const char *text = options_get(options, name);
    *given = text != NULL;
    if (!text) return STATUS_OK;
    char *end;
    *value = strtod(text, &end);
    if (end != text && !*end && *value >= least && *value <= most) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected a number from %g to %g", name, text, least,
                       most);
}

static Status parse_foreground(const Options *options, PcaOptions *pca, Error *error)
{
    static const char *const words[] = {[PCA_FOREGROUND_AUTO] = "auto",
                                        [PCA_FOREGROUND_ABOVE] = "above",
                                        [PCA_FOREGROUND_BELOW] = "below",
                                        [PCA_FOREGROUND_ALL] = "all"};
    const char *word = options_get(options, "foreground");
    TRY(parse_real(options, "threshold", -10, 10, &pca->threshold, &pca->has_threshold, error));
    if (!word) return STATUS_OK;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        pca->foreground = (PcaForeground)i;
        if (strcmp(word, words[i]) == 0) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--foreground %s: expected auto, above, below or all", word);
}

static Status parse(const JobContext *context, const char *what, int64_t count, Request *request,
                    Error *error)
{
    const Options *options = context->options;
    bool given;
    *request = (Request){.what = what,
                         .data = options_get(options, "data"),
                         .output = options_get(options, "output"),
                         .captions = !options_get(options, "no-captions")};
    if (!options_get(options, "model"))
        return status_fail(error, STATUS_INPUT, "visualize %s needs --model PATH", what);
    if (!request->data) return status_fail(error, STATUS_INPUT, "visualize %s needs --data SPEC", what);
    TRY(job_visualize_number(context, "count", count, COUNT_MAX, &request->count, error));
    TRY(job_visualize_number(context, "columns", COUNT_DEFAULT, COUNT_MAX, &request->columns, error));
    TRY(job_visualize_number(context, "size", 0, SIZE_MAX_ASKED, &request->size, error));
    TRY(job_visualize_number(context, "drawn", DRAWN, SIZE_MAX_ASKED, &request->drawn, error));
    TRY(job_visualize_number(context, "block", 0, COUNT_MAX, &request->block, error));
    TRY(job_visualize_number(context, "lines", LINES, COUNT_MAX, &request->lines, error));
    TRY(parse_real(options, "mass", 0, 1, &request->mass, &given, error));
    return parse_foreground(options, &request->pca, error);
}

/* The shorter side of the input: finer than in training, so that the grid of patches shows something. */
static Status choose_size(const Request *request, const EvalModel *model, int64_t *size, Error *error)
{
    int64_t p = model->vit.config.patch_size, trained = model->vit.config.img_size;
    int64_t most = trained > SIZE_MOST ? trained : SIZE_MOST;
    *size = request->size;
    if (*size == 0) *size = SIZE_FACTOR * trained < most ? SIZE_FACTOR * trained : most;
    if (*size >= p) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--size %lld: a patch has %lld pixels", (long long)*size,
                       (long long)p);
}

/* --- what is drawn of them --- */

/* The pictures and the network. */
typedef struct {
    const JobContext *context;
    const Request *request;
    const FeatureBackbone *backbone;
    const Ops *ops;
    PatchPictures pictures;
} Scene;

static void find_colors(Scene *scene, PcaColors *colors)
{
    static const char *const sides[] = {"below", "above"};
    patch_pictures_compute(&scene->pictures, scene->backbone, scene->ops);
    pca_picture_colors(colors, &scene->pictures, &scene->request->pca);
    if (scene->request->pca.foreground != PCA_FOREGROUND_ALL)
        log_info(scene->context->log,
                 "foreground: %s %.2f standard deviations of the first component, %.0f %%",
                 sides[colors->above], colors->threshold, 100 * colors->share);
}

static Status draw_pca(Scene *scene, Picture *picture, Error *error)
{
    (void)error;
    PcaColors colors;
    find_colors(scene, &colors);
    log_info(scene->context->log,
             "PCA of %lld patches; the three components hold %.0f, %.0f and %.0f %% of the variance",
             (long long)scene->pictures.patches, 100 * colors.explained[0], 100 * colors.explained[1],
             100 * colors.explained[2]);
    pca_picture_draw(picture, &scene->pictures, &colors, scene->request->columns);
    pca_picture_colors_fini(&colors);
    return STATUS_OK;
}

static Status draw_matches(Scene *scene, Picture *picture, Error *error)
{
    if (scene->pictures.count < 2)
        return status_fail(error, STATUS_INPUT,
                           "visualize matches needs two pictures, --data %s has one that can be read",
                           scene->request->data);
    PcaColors colors;
    PictureOverlay overlay;
    picture_overlay_init(&overlay);
    find_colors(scene, &colors);
    int64_t lines =
        patch_matches_draw(picture, &scene->pictures, colors.foreground, scene->request->lines, &overlay);
    log_info(scene->context->log, "%lld pairs of pictures, %lld matches",
             (long long)scene->pictures.count / 2, (long long)lines);
    pca_picture_colors_fini(&colors);
    return picture_overlay_finish(&overlay, picture, scene->request->output, error);
}

static Status draw_attention(Scene *scene, Picture *picture, Error *error)
{
    const Request *request = scene->request;
    const VitConfig *config = &scene->backbone->vit->config;
    if (request->block > config->depth)
        return status_fail(error, STATUS_INPUT, "--block %lld: the network has %lld blocks",
                           (long long)request->block, (long long)config->depth);
    int64_t block = (request->block > 0 ? request->block : config->depth) - 1;
    AttentionPictureInput input = {.heads = config->num_heads, .mass = request->mass};
    float *weights =
        memory_alloc_array((size_t)(config->num_heads * scene->pictures.patches), sizeof *weights);
    attention_picture_compute(weights, &scene->pictures, scene->backbone, scene->ops, block);
    input.weights = weights;
    PictureOverlay overlay;
    picture_overlay_init(&overlay);
    attention_picture_draw(picture, &scene->pictures, &input, request->captions ? &overlay : NULL);
    memory_free(weights);
    return picture_overlay_finish(&overlay, picture, request->output, error);
}

typedef Status DrawScene(Scene *scene, Picture *picture, Error *error);

/* On rank 0. */
static Status draw(Scene *scene, const EvalModel *model, DrawScene *draw_scene, Error *error)
{
    const Request *request = scene->request;
    const JobContext *context = scene->context;
    PatchPicturesParams params = {.patch_size = model->vit.config.patch_size,
                                  .drawn = request->drawn,
                                  .grayscale = eval_sets_input(&model->config).grayscale};
    OpsOptions options;
    TRY(choose_size(request, model, &params.size, error));
    TRY(ops_options_from(&options, &model->config, context->device, job_threads(context, &model->config),
                         error));
    DataSet *set = NULL;
    TRY(eval_sets_open_data(&set, request->data, request->count, error));
    Status status = patch_pictures_load(&scene->pictures, &params, set, context->log, error);
    if (status == STATUS_INPUT) status_prefix(error, status, request->data);
    Picture picture = {0};
    if (status == STATUS_OK) {
        OpsLimits limits = patch_pictures_limits(&scene->pictures, scene->backbone);
        Ops *ops = ops_create(context->device, &limits, &options);
        scene->ops = ops;
        status = draw_scene(scene, &picture, error);
        ops_destroy(ops);
    }
    if (status == STATUS_OK) status = picture_write(&picture, request->output, error);
    picture_fini(&picture);
    patch_pictures_fini(&scene->pictures);
    data_set_destroy(set);
    return status;
}

static Status visualize(JobContext *context, const char *what, int64_t count, DrawScene *draw_scene,
                        Error *error)
{
    Request request;
    TRY(parse(context, what, count, &request, error));
    TRY(job_open_device(context, error));
    CheckpointRole role;
    TRY(eval_model_role(&role, options_get(context->options, "which"), error));
    EvalModel model;
    Status status = eval_model_load(&model, options_get(context->options, "model"), role, context->options,
                                    context->comm, context->log, error);
    if (status == STATUS_OK) {
        eval_model_place(&model, context->device);
        Scene scene = {.context = context, .request = &request, .backbone = &model.backbone};
        if (comm_rank(context->comm) == 0) status = draw(&scene, &model, draw_scene, error);
        status = comm_agree(context->comm, status, error);
    }
    eval_model_fini(&model);
    return status;
}

Status job_visualize_pca(JobContext *context, Error *error)
{
    return visualize(context, "pca", COUNT_DEFAULT, draw_pca, error);
}

Status job_visualize_matches(JobContext *context, Error *error)
{
    return visualize(context, "matches", COUNT_MATCHES, draw_matches, error);
}

Status job_visualize_attention(JobContext *context, Error *error)
{
    return visualize(context, "attention", COUNT_ATTENTION, draw_attention, error);
}

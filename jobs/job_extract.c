/* job_extract.c - features of a data set by the backbone of a checkpoint, or by a copy-detection network, as
 * a `features` file.
 *
 *   dinobatch extract --model CHECKPOINT|RUN_FOLDER|untrained|raw-pixels|sscd:FILE --data SPEC
 *                     --output-dir DIR|FILE.h5 [--which teacher|student]
 *                     [--layer class_token|mean_patch|grid:BLOCKS:SIDE] [--resize centre|square|shorter]
 *                     [--center FEATURES | --whiten FEATURES] [--whiten-ridge SHARE] [--whiten-dims K]
 *                     [--views LIST] [--upside-down]
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "data/data_spec.h"
#include "eval/descriptor_model.h"
#include "eval/eval_knn.h"
#include "eval/eval_model.h"
#include "features/features_file.h"
#include "features/whitening.h"
#include "job.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const OptionSpec job_extract_options[] = {
    {"model", "PATH",
     "checkpoint file, or run folder (its newest checkpoint); sscd:FILE: a copy detector; untrained: the "
     "configuration's network at its first step; raw-pixels: no network",
     false},
    {"which", "teacher|student", "whose weights (default: teacher)", false},
    {"data", "SPEC", "images, as a data set spec", false},
    {"layer", "NAME",
     "what a row is: class_token (default), mean_patch, or grid:BLOCKS:SIDE: patch tokens behind the first "
     "BLOCKS blocks and the final norm, averaged over SIDE x SIDE places",
     false},
    {"resize", "centre|square|shorter",
     "centre: the middle square, as DINOv2 evaluates (default); square: all of a picture to a square "
     "(default of sscd, 320 x 320); shorter, of sscd alone: its shorter side to 288 and the longer in "
     "proportion, 1152 at most",
     false},
    {"center", "FEATURES", "take that file's mean off each row, then scale it to unit length", false},
    {"whiten", "FEATURES", "the same, and make that file's covariance one", false},
    {"whiten-ridge", "SHARE",
     "of its mean variance, added to every variance before (default 1e-6): the more, the less small ones "
     "count",
     false},
    {"whiten-dims", "K", "a row becomes its whitened coordinates along the K leading directions", false},
    {"views", "LIST",
     "rows for parts of each picture, too, by commas: mirror, crop:SIDE:GRID (GRID x GRID crops of SIDE of "
     "each side), rotate:DEGREES (both ways)",
     false},
    {"upside-down", NULL,
     "turn every picture upside down first: probes that have no copies, to see how alike unrelated pictures "
     "get; for nothing else",
     false},
    {0},
};

/* SSCD's README, "Preprocessing". */
enum { SQUARE_EDGE = 320, SHORTER_EDGE = 288 };

static const char SSCD_PREFIX[] = "sscd:";

typedef enum { SUBJECT_CHECKPOINT, SUBJECT_UNTRAINED, SUBJECT_PIXELS, SUBJECT_SSCD } Subject;

typedef struct {
    const char *model, *data;
    Subject subject;
    CheckpointRole role;
    FeatureKind kind;
    FeatureGrid grid;
    char layer[FEATURE_LAYER];
    EvalTransform transform;
    WhiteningOptions whitening;
    const char *whitening_file;
    ImageViews views;
    bool upside_down;
    char output[CHECKPOINT_PATH_MAX]; /* the file */
} Request;

static Status parse_output(const char *text, Request *request, Error *error)
{
    if (!text) return status_fail(error, STATUS_INPUT, "extract needs --output-dir DIR or FILE.h5");
    size_t length = strlen(text);
    bool is_file = length > 3 && strcmp(text + length - 3, ".h5") == 0;
    if (length + sizeof "/features.h5" > sizeof request->output)
        return status_fail(error, STATUS_INPUT, "--output-dir: the path is too long");
    snprintf(request->output, sizeof request->output, "%s%s", text, is_file ? "" : "/features.h5");
    return STATUS_OK;
}

static Subject subject_of(const char *model)
{
    if (strncmp(model, SSCD_PREFIX, sizeof SSCD_PREFIX - 1) == 0) return SUBJECT_SSCD;
    if (strcmp(model, "untrained") == 0) return SUBJECT_UNTRAINED;
    return strcmp(model, "raw-pixels") == 0 ? SUBJECT_PIXELS : SUBJECT_CHECKPOINT;
}

/* --layer, and what a row is without it. */
static Status parse_layer(const char *layer, Request *request, Error *error)
{
    FeatureExtractor row = {.kind = request->subject == SUBJECT_SSCD     ? FEATURE_EMBEDDING
                                    : request->subject == SUBJECT_PIXELS ? FEATURE_RAW_PIXELS
                                                                         : FEATURE_CLASS_TOKEN};
    if (layer && feature_extractor_parse_layer(&row, layer, error) != STATUS_OK)
        return status_prefix(error, STATUS_INPUT, "--layer");
    request->kind = row.kind;
    request->grid = row.grid;
    feature_extractor_layer(&row, request->layer);
    return STATUS_OK;
}

/* --which and --layer, which are about vision transformers. */
static Status parse_kind(const Options *options, Request *request, Error *error)
{
    const char *which = options_get(options, "which"), *layer = options_get(options, "layer");
    bool is_vit = request->subject == SUBJECT_CHECKPOINT || request->subject == SUBJECT_UNTRAINED;
    if (layer && !is_vit)
        return status_fail(error, STATUS_INPUT, "--layer is not for --model %s", request->model);
    if (which && request->subject != SUBJECT_CHECKPOINT)
        return status_fail(error, STATUS_INPUT, "--which is not for --model %s", request->model);
    TRY(eval_model_role(&request->role, which, error));
    return parse_layer(layer, request, error);
}

static Status parse_resize(const Options *options, Request *request, Error *error)
{
    static const char *const names[] = {
        [EVAL_CENTRE] = "centre", [EVAL_SQUARE] = "square", [EVAL_SHORTER] = "shorter"};
    bool is_sscd = request->subject == SUBJECT_SSCD;
    EvalTransform wrong = is_sscd ? EVAL_CENTRE : EVAL_SHORTER;
    const char *resize = options_get(options, "resize");
    request->transform = is_sscd ? EVAL_SQUARE : EVAL_CENTRE;
    if (!resize) return STATUS_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        request->transform = (EvalTransform)i;
        if (strcmp(resize, names[i]) == 0 && request->transform != wrong) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--resize %s: expected square or %s with this model", resize,
                       is_sscd ? "shorter" : "centre");
}

static Status parse_ridge(const Options *options, Request *request, Error *error)
{
    const char *text = options_get(options, "whiten-ridge");
    request->whitening.ridge = WHITENING_RIDGE;
    if (!text) return STATUS_OK;
    if (request->whitening.kind != WHITENING_FULL)
        return status_fail(error, STATUS_INPUT, "--whiten-ridge is for --whiten");
    char *end;
    request->whitening.ridge = strtod(text, &end);
    if (end != text && !*end && request->whitening.ridge > 0 && isfinite(request->whitening.ridge))
        return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--whiten-ridge %s: expected a number above 0", text);
}

static Status parse_dims(const Options *options, Request *request, Error *error)
{
    const char *text = options_get(options, "whiten-dims");
    if (!text) return STATUS_OK;
    if (request->whitening.kind != WHITENING_FULL)
        return status_fail(error, STATUS_INPUT, "--whiten-dims is for --whiten");
    request->whitening.dims = data_spec_number(text, strlen(text));
    if (request->whitening.dims >= 1) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--whiten-dims %s: expected a number from 1", text);
}

static Status parse(const JobContext *context, Request *request, Error *error)
{
    const Options *options = context->options;
    *request = (Request){.model = options_get(options, "model"), .data = options_get(options, "data")};
    if (!request->model)
        return status_fail(error, STATUS_INPUT,
                           "extract needs --model PATH, sscd:FILE, untrained or raw-pixels");
    if (!request->data) return status_fail(error, STATUS_INPUT, "extract needs --data SPEC");
    request->subject = subject_of(request->model);
    TRY(parse_kind(options, request, error));
    TRY(parse_resize(options, request, error));
    if (request->subject == SUBJECT_SSCD) request->model += sizeof SSCD_PREFIX - 1;
    const char *center = options_get(options, "center"), *whiten = options_get(options, "whiten");
    if (center && whiten) return status_fail(error, STATUS_INPUT, "--center and --whiten: choose one");
    request->whitening.kind = whiten ? WHITENING_FULL : center ? WHITENING_CENTER : WHITENING_NONE;
    TRY(parse_ridge(options, request, error));
    TRY(parse_dims(options, request, error));
    request->whitening_file = whiten ? whiten : center;
    request->upside_down = options_get(options, "upside-down") != NULL;
    const char *views = options_get(options, "views");
    request->views = image_views_whole();
    if (views && image_views_parse(&request->views, views, error) != STATUS_OK)
        return status_prefix(error, STATUS_INPUT, "--views");
    return parse_output(options->output_dir, request, error);
}

/* --- models --- */

/* Either network. */
typedef struct {
    EvalModel checkpoint;
    DescriptorModel descriptor;
    const Config *config; /* how it is evaluated */
} Model;

static Status load_model(Model *model, const JobContext *context, const Request *request, Error *error)
{
    *model = (Model){.config = context->config};
    if (request->subject == SUBJECT_PIXELS) return STATUS_OK;
    if (request->subject == SUBJECT_SSCD)
        return descriptor_model_load(&model->descriptor, request->model, context->comm, error);
    if (request->subject == SUBJECT_UNTRAINED)
        return eval_model_untrained(&model->checkpoint, context->config, error);
    model->config = &model->checkpoint.config;
    return eval_model_load(&model->checkpoint, request->model, request->role, context->options, context->comm,
                           context->log, error);
}

static void place_model(Model *model, const Request *request, Device *device)
{
    Dtype wanted = (Dtype)model->config->compute_precision.teacher.backbone.mixed_precision.param_dtype;
    if (request->subject == SUBJECT_SSCD)
        descriptor_model_place(&model->descriptor, device, wanted);
    else if (request->subject != SUBJECT_PIXELS)
        eval_model_place(&model->checkpoint, device);
}

static void model_fini(Model *model, const Request *request)
{
    if (request->subject == SUBJECT_SSCD)
        descriptor_model_fini(&model->descriptor);
    else if (request->subject != SUBJECT_PIXELS)
        eval_model_fini(&model->checkpoint);
}

static FeatureExtractor extractor_of(const JobContext *context, const Request *request, const Model *model)
{
    FeatureExtractor extractor = {.kind = request->kind,
                                  .grid = request->grid,
                                  .input = eval_sets_input(model->config),
                                  .views = &request->views,
                                  .backbone = &model->checkpoint.backbone,
                                  .log = context->log,
                                  .what = "features"};
    extractor.input.transform = request->transform;
    extractor.input.upside_down = request->upside_down;
    if (request->subject == SUBJECT_PIXELS) extractor.backbone = NULL;
    if (request->subject != SUBJECT_SSCD) return extractor;
    extractor.backbone = NULL;
    extractor.descriptor = &model->descriptor.descriptor;
    extractor.input.crop_size = request->transform == EVAL_SQUARE ? SQUARE_EDGE : SHORTER_EDGE;
    return extractor;
}

/* All of a file's description but the configuration. */
static FeaturesMeta meta_of(const Request *request, const Model *model, int64_t input_size)
{
    static const char *const archs[] = {[CONFIG_ARCH_VIT_SMALL] = "vit_small",
                                        [CONFIG_ARCH_VIT_BASE] = "vit_base",
                                        [CONFIG_ARCH_VIT_LARGE] = "vit_large",
                                        [CONFIG_ARCH_VIT_GIANT2] = "vit_giant2",
                                        [CONFIG_ARCH_VIT_CUSTOM] = "vit_custom"};
    const char *arch = archs[model->config->student.arch];
    if (request->subject == SUBJECT_PIXELS) arch = "none";
    if (request->subject == SUBJECT_SSCD) arch = descriptor_file_arch(model->descriptor.meta.config.arch);
    return (FeaturesMeta){.model = request->subject == SUBJECT_CHECKPOINT ? model->checkpoint.path
                                                                          : request->model,
                          .arch = arch,
                          .layer = request->layer,
                          .data = request->data,
                          .version = version_number(),
                          .input_size = input_size,
                          .views = request->views.count,
                          .upside_down = request->upside_down,
                          .view_list = request->views.text[0] ? request->views.text : NULL};
}

/* --- writing --- */

typedef struct {
    FeaturesFile file;
    const DataSet *set;
} Writer;

static Status write_rows(void *context, int64_t first, int64_t count, const float *values,
                         const int64_t *labels, const int64_t *indices, Error *error)
{
    Writer *writer = context;
    size_t room = writer->file.key_bytes + 1;
    char *text = memory_alloc_array((size_t)count, room);
    const char **keys = memory_alloc_array((size_t)count, sizeof *keys);
    for (int64_t i = 0; i < count; i++) {
        keys[i] = text + (size_t)i * room;
        data_set_key(writer->set, indices[i], text + (size_t)i * room, room);
    }
    Status status = features_file_write(&writer->file, first, count, values, labels, keys, error);
    memory_free(keys);
    memory_free(text);
    return status;
}

static size_t longest_key(const DataSet *set)
{
    char key[DATA_SET_KEY_MAX];
    size_t longest = 1;
    for (int64_t i = 0; i < data_set_count(set); i++) {
        data_set_key(set, i, key, sizeof key);
        size_t length = strlen(key);
        if (length > longest) longest = length;
    }
    return longest;
}

static Status start_file(Writer *writer, const Request *request, const FeaturesMeta *meta,
                         const FeatureRows *rows, Error *error)
{
    TRY(atomic_file_make_parent(request->output, error));
    return features_file_create(&writer->file, request->output, rows->total, rows->d,
                                data_set_class_count(writer->set), longest_key(writer->set), meta, error);
}

/* Collective over COMM; rank 0 writes. */
static Status write_file(const JobContext *context, const Request *request, const Model *model,
                         const DataSet *set, const FeatureRows *rows, int64_t input_size, Error *error)
{
    bool writes = comm_rank(context->comm) == 0;
    Writer writer = {.set = set};
    char *config = config_dump(model->config), suffix[WHITENING_SUFFIX];
    char layer[FEATURE_LAYER + WHITENING_SUFFIX];
    FeaturesMeta meta = meta_of(request, model, input_size);
    whitening_suffix(&request->whitening, suffix);
    snprintf(layer, sizeof layer, "%s%s", request->layer, suffix);
    meta.layer = layer;
    meta.config = config;
    meta.whitening = request->whitening_file;
    Status status = writes ? start_file(&writer, request, &meta, rows, error) : STATUS_OK;
    bool started = writes && status == STATUS_OK;
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) status = feature_rows_gather(rows, context->comm, write_rows, &writer, error);
    if (started && status == STATUS_OK)
        status = features_file_commit(&writer.file, error);
    else if (started)
        features_file_abandon(&writer.file);
    memory_free(config);
    return comm_agree(context->comm, status, error);
}

static void print_result(const JobContext *context, const Request *request, const FeatureRows *rows)
{
    if (comm_rank(context->comm) != 0) return;
    int64_t views = request->views.count, pictures = rows->total / views + rows->skipped;
    double rate = (double)pictures / rows->seconds;
    if (!context->json) {
        printf("%s: %lld rows of %lld, %lld images skipped, %.1f images/s\n", request->output,
               (long long)rows->total, (long long)rows->d, (long long)rows->skipped, rate);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "extract");
    cJSON_AddStringToObject(tree, "output", request->output);
    cJSON_AddNumberToObject(tree, "rows", (double)rows->total);
    cJSON_AddNumberToObject(tree, "views", (double)views);
    cJSON_AddNumberToObject(tree, "columns", (double)rows->d);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)rows->skipped);
    cJSON_AddNumberToObject(tree, "images_per_s", rate);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

static Status extract(const JobContext *context, const Request *request, const Model *model,
                      const DataSet *set, Error *error)
{
    FeatureExtractor extractor = extractor_of(context, request, model);
    TRY(feature_extractor_check(&extractor, error));
    OpsLimits limits = feature_extractor_limits(&extractor);
    OpsOptions options;
    Status status = ops_options_from(&options, model->config, context->device,
                                     job_threads(context, model->config), error);
    TRY(comm_agree(context->comm, status, error));
    Whitening whitening = {0};
    FeaturesMeta expected = meta_of(request, model, extractor.input.crop_size);
    if (request->whitening.kind != WHITENING_NONE) {
        extractor.whitening = &whitening;
        status = whitening_learn(&whitening, &request->whitening, request->whitening_file, &expected,
                                 feature_extractor_columns(&extractor), context->comm, error);
    }
    Ops *ops = ops_create(context->device, &limits, &options);
    FeatureRows rows = {0};
    if (status == STATUS_OK)
        status = feature_extractor_run(&extractor, ops, context->comm, set, &rows, error);
    if (status == STATUS_OK)
        status = write_file(context, request, model, set, &rows, extractor.input.crop_size, error);
    if (status == STATUS_OK) print_result(context, request, &rows);
    feature_rows_fini(&rows);
    ops_destroy(ops);
    whitening_fini(&whitening);
    return status;
}

Status job_extract(JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context, &request, error));
    TRY(job_open_device(context, error));
    Model model;
    DataSet *set = NULL;
    Status status = load_model(&model, context, &request, error);
    if (status == STATUS_OK) {
        status = eval_sets_open_data(&set, request.data, model.config->evaluation.limit, error);
        status = comm_agree(context->comm, status, error);
    }
    if (status == STATUS_OK) {
        place_model(&model, &request, context->device);
        status = extract(context, &request, &model, set, error);
    }
    data_set_destroy(set);
    model_fini(&model, &request);
    return status;
}

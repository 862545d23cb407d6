/* job_extract.c - features of a data set by the backbone of a checkpoint, or by a copy-detection network, as
 * a `features` file.
 *
 *   dinobatch extract --model CHECKPOINT|RUN_FOLDER --data SPEC --output-dir DIR|FILE.h5
 *                     [--which teacher|student] [--layer class_token|mean_patch]
 *                     [--center FEATURES | --whiten FEATURES]
 *   dinobatch extract --model sscd:FILE --data SPEC --output-dir DIR|FILE.h5
 *                     [--resize square|shorter] [--center FEATURES | --whiten FEATURES]
 */
#include "base/atomic_file.h"
#include "base/memory.h"
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
#include <stdio.h>
#include <string.h>

const OptionSpec job_extract_options[] = {
    {"model", "PATH", "checkpoint file, or run folder (its newest checkpoint); sscd:FILE: a copy detector",
     false},
    {"which", "teacher|student", "whose weights (default: teacher)", false},
    {"data", "SPEC", "images, as a data set spec", false},
    {"layer", "class_token|mean_patch", "what a row is (default: class_token)", false},
    {"resize", "square|shorter",
     "of sscd: all of a picture to 320 x 320 (default), or its shorter side to 288 and the longer in "
     "proportion, 1152 at most",
     false},
    {"center", "FEATURES", "take that file's mean off each row, then scale it to unit length", false},
    {"whiten", "FEATURES", "the same, and make that file's covariance one", false},
    {0},
};

/* SSCD's README, "Preprocessing". */
enum { SQUARE_EDGE = 320, SHORTER_EDGE = 288 };

static const char SSCD_PREFIX[] = "sscd:";

typedef struct {
    const char *model, *data;
    bool is_descriptor;
    CheckpointRole role;
    FeatureKind kind;
    EvalTransform transform;
    WhiteningKind whitening;
    const char *whitening_file;
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

/* What is for a checkpoint alone. */
static Status parse_checkpoint(const Options *options, Request *request, Error *error)
{
    TRY(eval_model_role(&request->role, options_get(options, "which"), error));
    if (options_get(options, "resize"))
        return status_fail(error, STATUS_INPUT,
                           "--resize is for --model sscd:FILE; evaluation.resize_size here");
    const char *layer = options_get(options, "layer");
    request->kind = FEATURE_CLASS_TOKEN;
    if (layer && strcmp(layer, feature_extractor_layer(FEATURE_MEAN_PATCH)) == 0)
        request->kind = FEATURE_MEAN_PATCH;
    else if (layer && strcmp(layer, feature_extractor_layer(FEATURE_CLASS_TOKEN)) != 0)
        return status_fail(error, STATUS_INPUT, "--layer %s: expected class_token or mean_patch", layer);
    return STATUS_OK;
}

/* What is for a copy detector alone. */
static Status parse_descriptor(const Options *options, Request *request, Error *error)
{
    request->model += sizeof SSCD_PREFIX - 1;
    request->kind = FEATURE_EMBEDDING;
    request->transform = EVAL_SQUARE;
    if (options_get(options, "which") || options_get(options, "layer"))
        return status_fail(error, STATUS_INPUT, "--which and --layer are for checkpoints, not for sscd:");
    const char *resize = options_get(options, "resize");
    if (!resize || strcmp(resize, "square") == 0) return STATUS_OK;
    request->transform = EVAL_SHORTER;
    if (strcmp(resize, "shorter") == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--resize %s: expected square or shorter", resize);
}

static Status parse(const JobContext *context, Request *request, Error *error)
{
    const Options *options = context->options;
    *request = (Request){.model = options_get(options, "model"), .data = options_get(options, "data")};
    if (!request->model) return status_fail(error, STATUS_INPUT, "extract needs --model PATH or sscd:FILE");
    if (!request->data) return status_fail(error, STATUS_INPUT, "extract needs --data SPEC");
    request->is_descriptor = strncmp(request->model, SSCD_PREFIX, sizeof SSCD_PREFIX - 1) == 0;
    TRY(request->is_descriptor ? parse_descriptor(options, request, error)
                               : parse_checkpoint(options, request, error));
    const char *center = options_get(options, "center"), *whiten = options_get(options, "whiten");
    if (center && whiten) return status_fail(error, STATUS_INPUT, "--center and --whiten: choose one");
    request->whitening = whiten ? WHITENING_FULL : center ? WHITENING_CENTER : WHITENING_NONE;
    request->whitening_file = whiten ? whiten : center;
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
    if (request->is_descriptor)
        return descriptor_model_load(&model->descriptor, request->model, context->comm, error);
    model->config = &model->checkpoint.config;
    return eval_model_load(&model->checkpoint, request->model, request->role, context->options, context->comm,
                           context->log, error);
}

static void place_model(Model *model, const Request *request, Device *device)
{
    Dtype wanted = (Dtype)model->config->compute_precision.teacher.backbone.mixed_precision.param_dtype;
    if (request->is_descriptor)
        descriptor_model_place(&model->descriptor, device, wanted);
    else
        eval_model_place(&model->checkpoint, device);
}

static void model_fini(Model *model, const Request *request)
{
    if (request->is_descriptor)
        descriptor_model_fini(&model->descriptor);
    else
        eval_model_fini(&model->checkpoint);
}

static FeatureExtractor extractor_of(const JobContext *context, const Request *request, const Model *model)
{
    FeatureExtractor extractor = {.kind = request->kind,
                                  .input = eval_knn_input(model->config),
                                  .backbone = &model->checkpoint.backbone,
                                  .log = context->log,
                                  .what = "features"};
    if (!request->is_descriptor) return extractor;
    extractor.backbone = NULL;
    extractor.descriptor = &model->descriptor.descriptor;
    extractor.input.transform = request->transform;
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
    bool is_descriptor = request->is_descriptor;
    return (FeaturesMeta){.model = is_descriptor ? request->model : model->checkpoint.path,
                          .arch = is_descriptor ? descriptor_file_arch(model->descriptor.meta.config.arch)
                                                : archs[model->config->student.arch],
                          .layer = feature_extractor_layer(request->kind),
                          .data = request->data,
                          .version = version_number(),
                          .input_size = input_size};
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
    char *config = config_dump(model->config), layer[64];
    FeaturesMeta meta = meta_of(request, model, input_size);
    snprintf(layer, sizeof layer, "%s%s", meta.layer, whitening_suffix(request->whitening));
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
    if (!context->json) {
        printf("%s: %lld rows of %lld, %lld images skipped, %.1f images/s\n", request->output,
               (long long)rows->total, (long long)rows->d, (long long)rows->skipped,
               (double)(rows->total + rows->skipped) / rows->seconds);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "extract");
    cJSON_AddStringToObject(tree, "output", request->output);
    cJSON_AddNumberToObject(tree, "rows", (double)rows->total);
    cJSON_AddNumberToObject(tree, "columns", (double)rows->d);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)rows->skipped);
    cJSON_AddNumberToObject(tree, "images_per_s", (double)(rows->total + rows->skipped) / rows->seconds);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* The rows, made and, where it is asked for, whitened. Collective over COMM. */
static Status make_rows(const JobContext *context, const FeatureExtractor *extractor,
                        const Whitening *whitening, const Ops *ops, const DataSet *set, FeatureRows *rows,
                        Error *error)
{
    TRY(feature_extractor_run(extractor, ops, context->comm, set, rows, error));
    if (whitening->kind != WHITENING_NONE) whitening_apply(whitening, rows->values, rows->count);
    return STATUS_OK;
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
    if (request->whitening != WHITENING_NONE)
        status = whitening_learn(&whitening, request->whitening, request->whitening_file, &expected,
                                 feature_extractor_columns(&extractor), context->comm, error);
    Ops *ops = ops_create(context->device, &limits, &options);
    FeatureRows rows = {0};
    if (status == STATUS_OK) status = make_rows(context, &extractor, &whitening, ops, set, &rows, error);
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
        status = eval_knn_open_data(&set, request.data, model.config->evaluation.limit, error);
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

/* job_extract.c - features of a data set by the backbone of a checkpoint, or by a copy-detection network, as
 * a `features` file.
 *
 *   dinobatch extract --model CHECKPOINT|RUN_FOLDER|untrained|raw-pixels|sscd:FILE --data SPEC
 *                     --output-dir DIR|FILE.h5 [--which teacher|student]
 *                     [--layer
 * class_token|mean_patch|patch|class_token+patch|mean_patch+patch|grid:BLOCKS:SIDE]
 *                     [--resize centre|square|shorter | --size HEIGHTxWIDTH|native[:PATCHES]]
 *                     [--dtype float32|float16] [--center FEATURES | --whiten FEATURES]
 *                     [--whiten-ridge SHARE] [--whiten-dims K] [--views LIST] [--upside-down]
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "eval/descriptor_model.h"
#include "eval/eval_sets.h"
#include "features/feature_stream.h"
#include "features/features_file.h"
#include "job.h"
#include "job_extract_request.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
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
     "BLOCKS blocks and the final norm, averaged over SIDE x SIDE places. patch: all patch tokens; "
     "class_token+patch, mean_patch+patch: these beside the row",
     false},
    {"size", "HxW|native",
     "all of a picture, by a ViT at HEIGHTxWIDTH pixels, or native: at its own size, sides rounded to whole "
     "patches, and scaled down where these are more than 4096 (native:PATCHES: another number). Without it "
     "evaluation.crop_size and --resize decide",
     false},
    {"dtype", "float32|float16", "of the numbers in the file (default: float32)", false},
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

/* --- models --- */

/* Either network. */
typedef struct {
    EvalModel checkpoint;
    DescriptorModel descriptor;
    const Config *config; /* how it is evaluated */
} Model;

static Status load_model(Model *model, const JobContext *context, const ExtractRequest *request, Error *error)
{
    *model = (Model){.config = context->config};
    if (request->subject == EXTRACT_PIXELS) return STATUS_OK;
    if (request->subject == EXTRACT_SSCD)
        return descriptor_model_load(&model->descriptor, request->model, context->comm, error);
    if (request->subject == EXTRACT_UNTRAINED)
        return eval_model_untrained(&model->checkpoint, context->config, error);
    model->config = &model->checkpoint.config;
    return eval_model_load(&model->checkpoint, request->model, request->role, context->options, context->comm,
                           context->log, error);
}

static void place_model(Model *model, const ExtractRequest *request, Device *device)
{
    Dtype wanted = (Dtype)model->config->compute_precision.teacher.backbone.mixed_precision.param_dtype;
    if (request->subject == EXTRACT_SSCD)
        descriptor_model_place(&model->descriptor, device, wanted);
    else if (request->subject != EXTRACT_PIXELS)
        eval_model_place(&model->checkpoint, device);
}

static void model_fini(Model *model, const ExtractRequest *request)
{
    if (request->subject == EXTRACT_SSCD)
        descriptor_model_fini(&model->descriptor);
    else if (request->subject != EXTRACT_PIXELS)
        eval_model_fini(&model->checkpoint);
}

static FeatureExtractor extractor_of(const JobContext *context, const ExtractRequest *request,
                                     const Model *model)
{
    FeatureExtractor extractor = {.kind = request->kind,
                                  .grid = request->grid,
                                  .patches = request->patches,
                                  .input = eval_sets_input(model->config),
                                  .views = &request->views,
                                  .backbone = &model->checkpoint.backbone,
                                  .log = context->log,
                                  .what = "features"};
    extractor.input.transform = request->transform;
    extractor.input.size = request->size;
    extractor.input.most_patches = request->most_patches;
    extractor.input.upside_down = request->upside_down;
    if (request->subject == EXTRACT_PIXELS) extractor.backbone = NULL;
    if (request->subject != EXTRACT_SSCD) return extractor;
    extractor.backbone = NULL;
    extractor.descriptor = &model->descriptor.descriptor;
    extractor.input.crop_size = request->transform == EVAL_SQUARE ? SQUARE_EDGE : SHORTER_EDGE;
    return extractor;
}

/* Pixels a side of what the model sees, for a file. */
static int64_t input_size(const FeatureInput *input)
{
    if (input->transform == EVAL_NATIVE) return 0;
    if (input->transform != EVAL_WHOLE) return input->crop_size;
    return input->size.height < input->size.width ? input->size.height : input->size.width;
}

static FeaturesPatches patches_of(const FeatureExtractor *extractor)
{
    const FeatureInput *input = &extractor->input;
    if (!extractor->patches) return (FeaturesPatches){0};
    const VitConfig *vit = &extractor->backbone->vit->config;
    EvalSize size =
        input->transform == EVAL_WHOLE ? input->size : (EvalSize){input->crop_size, input->crop_size};
    return (FeaturesPatches){.kind =
                                 input->transform == EVAL_NATIVE ? FEATURES_PATCH_ROWS : FEATURES_PATCH_GRID,
                             .height = size.height / vit->patch_size,
                             .width = size.width / vit->patch_size,
                             .most = input->most_patches,
                             .columns = vit->embed_dim};
}

/* All of a file's description but the configuration and what whitening makes of a row. */
static FeaturesMeta meta_of(const ExtractRequest *request, const Model *model,
                            const FeatureExtractor *extractor)
{
    static const char *const archs[] = {[CONFIG_ARCH_VIT_SMALL] = "vit_small",
                                        [CONFIG_ARCH_VIT_BASE] = "vit_base",
                                        [CONFIG_ARCH_VIT_LARGE] = "vit_large",
                                        [CONFIG_ARCH_VIT_GIANT2] = "vit_giant2",
                                        [CONFIG_ARCH_VIT_CUSTOM] = "vit_custom"};
    const char *arch = archs[model->config->student.arch];
    if (request->subject == EXTRACT_PIXELS) arch = "none";
    if (request->subject == EXTRACT_SSCD) arch = descriptor_file_arch(model->descriptor.meta.config.arch);
    return (FeaturesMeta){.model = request->subject == EXTRACT_CHECKPOINT ? model->checkpoint.path
                                                                          : request->model,
                          .arch = arch,
                          .layer = request->layer,
                          .data = request->data,
                          .version = version_number(),
                          .input_size = input_size(&extractor->input),
                          .size = request->size_text[0] ? request->size_text : NULL,
                          .views = request->views.count,
                          .upside_down = request->upside_down,
                          .view_list = request->views.text[0] ? request->views.text : NULL,
                          .half = request->half,
                          .patches = patches_of(extractor)};
}

/* --- writing --- */

typedef struct {
    FeaturesFile file;
    const DataSet *set;
} Writer;

static Status write_piece(void *context, const FeaturePiece *piece, Error *error)
{
    Writer *writer = context;
    size_t room = writer->file.key_bytes + 1;
    char *text = memory_alloc_array((size_t)piece->count, room);
    const char **keys = memory_alloc_array((size_t)piece->count, sizeof *keys);
    for (int64_t i = 0; i < piece->count; i++) {
        keys[i] = text + (size_t)i * room;
        data_set_key(writer->set, piece->indices[i], text + (size_t)i * room, room);
    }
    Status status = features_file_write(&writer->file, piece->first, piece->count, piece->values,
                                        piece->labels, keys, error);
    if (status == STATUS_OK && piece->tokens)
        status = features_file_write_patches(&writer->file, piece->first, piece->count, piece->grids,
                                             piece->tokens, error);
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

/* Rank 0's file, of as many rows as there are if every picture is readable. */
static Status start_file(Writer *writer, const ExtractRequest *request, const Model *model,
                         const FeatureExtractor *extractor, Error *error)
{
    char suffix[WHITENING_SUFFIX], layer[FEATURE_LAYER + WHITENING_SUFFIX];
    const Whitening *whitening = extractor->whitening;
    FeaturesMeta meta = meta_of(request, model, extractor);
    whitening_suffix(&request->whitening, suffix);
    snprintf(layer, sizeof layer, "%s%s", request->layer, suffix);
    meta.layer = layer;
    meta.whitening = request->whitening_file;
    TRY(atomic_file_make_parent(request->output, error));
    char *config = config_dump(model->config);
    meta.config = config;
    Status status = features_file_create(
        &writer->file, request->output, data_set_count(writer->set) * request->views.count,
        whitening ? whitening_columns(whitening) : feature_extractor_columns(extractor),
        data_set_class_count(writer->set), longest_key(writer->set), &meta, error);
    memory_free(config);
    return status;
}

/* Collective over COMM; rank 0 writes. */
static Status write_file(const JobContext *context, const ExtractRequest *request, const Model *model,
                         const FeatureExtractor *extractor, const Ops *ops, const DataSet *set,
                         FeatureStreamResult *result, Error *error)
{
    bool writes = comm_rank(context->comm) == 0;
    Writer writer = {.set = set};
    Status status = writes ? start_file(&writer, request, model, extractor, error) : STATUS_OK;
    bool started = writes && status == STATUS_OK;
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK)
        status = feature_stream_run(extractor, ops, context->comm, set, write_piece, &writer, result, error);
    if (started && status == STATUS_OK)
        status = features_file_commit(&writer.file, error);
    else if (started)
        features_file_abandon(&writer.file);
    return comm_agree(context->comm, status, error);
}

static void print_result(const JobContext *context, const ExtractRequest *request,
                         const FeatureExtractor *extractor, const FeatureStreamResult *result)
{
    if (comm_rank(context->comm) != 0) return;
    const Whitening *whitening = extractor->whitening;
    int64_t columns = whitening ? whitening_columns(whitening) : feature_extractor_columns(extractor);
    int64_t views = request->views.count, pictures = result->rows / views + result->skipped;
    double rate = (double)pictures / result->seconds;
    if (!context->json) {
        printf("%s: %lld rows", request->output, (long long)result->rows);
        if (columns) printf(" of %lld", (long long)columns);
        printf("%s, %lld images skipped, %.1f images/s\n",
               !extractor->patches ? ""
               : columns           ? " and patch tokens"
                                   : " of patch tokens",
               (long long)result->skipped, rate);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "extract");
    cJSON_AddStringToObject(tree, "output", request->output);
    cJSON_AddNumberToObject(tree, "rows", (double)result->rows);
    cJSON_AddNumberToObject(tree, "views", (double)views);
    cJSON_AddNumberToObject(tree, "columns", (double)columns);
    cJSON_AddBoolToObject(tree, "patch_tokens", extractor->patches);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)result->skipped);
    cJSON_AddNumberToObject(tree, "images_per_s", rate);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

static Status extract(const JobContext *context, const ExtractRequest *request, const Model *model,
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
    FeaturesMeta expected = meta_of(request, model, &extractor);
    if (request->whitening.kind != WHITENING_NONE) {
        extractor.whitening = &whitening;
        status = whitening_learn(&whitening, &request->whitening, request->whitening_file, &expected,
                                 feature_extractor_columns(&extractor), context->comm, error);
    }
    Ops *ops = ops_create(context->device, &limits, &options);
    FeatureStreamResult result = {0};
    if (status == STATUS_OK)
        status = write_file(context, request, model, &extractor, ops, set, &result, error);
    if (status == STATUS_OK) print_result(context, request, &extractor, &result);
    ops_destroy(ops);
    whitening_fini(&whitening);
    return status;
}

Status job_extract(JobContext *context, Error *error)
{
    ExtractRequest request;
    TRY(job_extract_request_parse(&request, context->options, error));
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

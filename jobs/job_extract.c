/* job_extract.c - features of a data set by the backbone of a checkpoint, as a `features` file.
 *
 *   dinobatch extract --model CHECKPOINT|RUN_FOLDER --data SPEC --output-dir DIR|FILE.h5
 *                     [--which teacher|student] [--layer class_token|mean_patch]
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "eval/eval_knn.h"
#include "eval/eval_model.h"
#include "features/features_file.h"
#include "job.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_extract_options[] = {
    {"model", "PATH", "checkpoint file, or run folder (its newest checkpoint)", false},
    {"which", "teacher|student", "whose weights (default: teacher)", false},
    {"data", "SPEC", "images, as a data set spec", false},
    {"layer", "class_token|mean_patch", "what a row is (default: class_token)", false},
    {0},
};

typedef struct {
    const char *model, *data;
    CheckpointRole role;
    FeatureKind kind;
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

static Status parse(const JobContext *context, Request *request, Error *error)
{
    const Options *options = context->options;
    *request = (Request){.model = options_get(options, "model"), .data = options_get(options, "data")};
    if (!request->model) return status_fail(error, STATUS_INPUT, "extract needs --model PATH");
    if (!request->data) return status_fail(error, STATUS_INPUT, "extract needs --data SPEC");
    TRY(eval_model_role(&request->role, options_get(options, "which"), error));
    const char *layer = options_get(options, "layer");
    request->kind = FEATURE_CLASS_TOKEN;
    if (layer && strcmp(layer, feature_extractor_layer(FEATURE_MEAN_PATCH)) == 0)
        request->kind = FEATURE_MEAN_PATCH;
    else if (layer && strcmp(layer, feature_extractor_layer(FEATURE_CLASS_TOKEN)) != 0)
        return status_fail(error, STATUS_INPUT, "--layer %s: expected class_token or mean_patch", layer);
    return parse_output(options->output_dir, request, error);
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

static Status start_file(Writer *writer, const Request *request, const EvalModel *model,
                         const FeatureRows *rows, const char *config, int64_t input_size, Error *error)
{
    static const char *const archs[] = {[CONFIG_ARCH_VIT_SMALL] = "vit_small",
                                        [CONFIG_ARCH_VIT_BASE] = "vit_base",
                                        [CONFIG_ARCH_VIT_LARGE] = "vit_large",
                                        [CONFIG_ARCH_VIT_GIANT2] = "vit_giant2",
                                        [CONFIG_ARCH_VIT_CUSTOM] = "vit_custom"};
    FeaturesMeta meta = {.model = model->path,
                         .arch = archs[model->config.student.arch],
                         .layer = feature_extractor_layer(request->kind),
                         .data = request->data,
                         .config = config,
                         .version = version_number(),
                         .input_size = input_size};
    TRY(atomic_file_make_parent(request->output, error));
    return features_file_create(&writer->file, request->output, rows->total, rows->d,
                                data_set_class_count(writer->set), longest_key(writer->set), &meta, error);
}

/* Collective over COMM; rank 0 writes. */
static Status write_file(const JobContext *context, const Request *request, const EvalModel *model,
                         const DataSet *set, const FeatureRows *rows, int64_t input_size, Error *error)
{
    bool writes = comm_rank(context->comm) == 0;
    Writer writer = {.set = set};
    char *config = config_dump(&model->config);
    Status status = writes ? start_file(&writer, request, model, rows, config, input_size, error) : STATUS_OK;
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

static Status extract(const JobContext *context, const Request *request, const EvalModel *model,
                      const DataSet *set, Error *error)
{
    FeatureExtractor extractor = {.kind = request->kind,
                                  .input = eval_knn_input(&model->config),
                                  .backbone = &model->backbone,
                                  .log = context->log,
                                  .what = "features"};
    TRY(feature_extractor_check(&extractor, error));
    OpsLimits limits = feature_extractor_limits(&extractor);
    OpsOptions options;
    Status status = ops_options_from(&options, &model->config, context->device,
                                     job_threads(context, &model->config), error);
    TRY(comm_agree(context->comm, status, error));
    Ops *ops = ops_create(context->device, &limits, &options);
    FeatureRows rows = {0};
    status = feature_extractor_run(&extractor, ops, context->comm, set, &rows, error);
    if (status == STATUS_OK)
        status = write_file(context, request, model, set, &rows, extractor.input.crop_size, error);
    if (status == STATUS_OK) print_result(context, request, &rows);
    feature_rows_fini(&rows);
    ops_destroy(ops);
    return status;
}

Status job_extract(JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context, &request, error));
    TRY(job_open_device(context, error));
    EvalModel model;
    DataSet *set = NULL;
    Status status = eval_model_load(&model, request.model, request.role, context->options, context->comm,
                                    context->log, error);
    if (status == STATUS_OK) {
        status = eval_knn_open_data(&set, request.data, model.config.evaluation.limit, error);
        status = comm_agree(context->comm, status, error);
    }
    if (status == STATUS_OK) {
        eval_model_place(&model, context->device);
        status = extract(context, &request, &model, set, error);
    }
    data_set_destroy(set);
    eval_model_fini(&model);
    return status;
}

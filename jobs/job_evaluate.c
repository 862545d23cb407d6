/* job_evaluate.c - figures of a trained backbone.
 *
 *   dinobatch evaluate knn --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *                          [--untrained] [--raw-pixels]
 *   dinobatch evaluate knn --train-features FILE --val-features FILE
 *
 * Writes knn.json and knn.h5 (kind `result`) into --output-dir.
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "eval/eval_knn.h"
#include "eval/eval_model.h"
#include "features/features_file.h"
#include "h5/result_file.h"
#include "job.h"
#include "job_threads.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_evaluate_options[] = {
    {"model", "PATH", "checkpoint file, or run folder (its newest checkpoint)", false},
    {"which", "teacher|student", "whose weights (default: teacher)", false},
    {"train-data", "SPEC", "labelled images that vote (default: evaluation.train_dataset_path)", false},
    {"val-data", "SPEC", "labelled images that are classified (default: evaluation.val_dataset_path)", false},
    {"train-features", "FILE", "features that vote, in place of a model and images", false},
    {"val-features", "FILE", "features that are classified", false},
    {"untrained", NULL, "also the same network with its initial weights", false},
    {"raw-pixels", NULL, "also the pixels themselves, 32 x 32 at most", false},
    {0},
};

/* What was evaluated: a line of the table. */
typedef struct {
    const char *name; /* of figures and in JSON: "trained", ... */
    char label[64];   /* in the table */
    EvalKnnResult result;
} Row;

enum { ROWS_MAX = 4 };

typedef struct {
    Row rows[ROWS_MAX];
    int count;
    char subject[2 * CHECKPOINT_PATH_MAX]; /* the checkpoint or the features files */
    char *config;                          /* resolved, YAML; owned */
} Report;

static Row *add_row(Report *report, const char *name)
{
    Row *row = &report->rows[report->count++];
    *row = (Row){.name = name};
    return row;
}

/* --- on a model and images --- */

static Status take_data(const JobContext *context, Config *config, Error *error)
{
    const char *train = options_get(context->options, "train-data");
    const char *val = options_get(context->options, "val-data");
    if (train)
        TRY(config_override_text(config, "evaluation.train_dataset_path", train, "--train-data", error));
    if (val) TRY(config_override_text(config, "evaluation.val_dataset_path", val, "--val-data", error));
    return STATUS_OK;
}

static Status run_untrained(EvalKnn *eval, Device *device, const Config *config, Report *report, Error *error)
{
    EvalModel model;
    Status status = eval_model_untrained(&model, config, error);
    Row *row = add_row(report, "untrained");
    snprintf(row->label, sizeof row->label, "untrained, seed %lld", (long long)config->train.seed);
    if (status == STATUS_OK) {
        eval_model_place(&model, device);
        status = eval_knn_run(eval, FEATURE_CLASS_TOKEN, &model.backbone, &row->result, error);
    }
    eval_model_fini(&model);
    return status;
}

/* All that was asked for, on one pair of data sets. model NULL: baselines only. */
static Status run_rows(const JobContext *context, const Config *config, const EvalModel *model,
                       Report *report, Error *error)
{
    EvalKnnParams params = {.config = config,
                            .comm = context->comm,
                            .log = context->log,
                            .device = context->device,
                            .raw_only = !model && !options_get(context->options, "untrained"),
                            .threads = job_threads(context, config)};
    EvalKnn *eval = NULL;
    TRY(eval_knn_create(&eval, &params, error));
    Status status = STATUS_OK;
    if (model) {
        Row *row = add_row(report, "trained");
        snprintf(row->label, sizeof row->label, "%s, iteration %lld",
                 model->role == CHECKPOINT_TEACHER ? "teacher" : "student", (long long)model->iteration);
        status = eval_knn_run(eval, FEATURE_CLASS_TOKEN, &model->backbone, &row->result, error);
    }
    if (status == STATUS_OK && options_get(context->options, "untrained"))
        status = run_untrained(eval, context->device, config, report, error);
    if (status == STATUS_OK && options_get(context->options, "raw-pixels")) {
        Row *row = add_row(report, "raw_pixels");
        snprintf(row->label, sizeof row->label, "raw pixels");
        status = eval_knn_run(eval, FEATURE_RAW_PIXELS, NULL, &row->result, error);
    }
    eval_knn_destroy(eval);
    return status;
}

static Status run_on_images(JobContext *context, Report *report, Error *error)
{
    const char *path = options_get(context->options, "model");
    TRY(job_open_device(context, error));
    if (!path) {
        if (!options_get(context->options, "untrained") && !options_get(context->options, "raw-pixels"))
            return status_fail(
                error, STATUS_INPUT,
                "evaluate knn needs --model PATH, or --train-features and --val-features, or a "
                "baseline (--untrained, --raw-pixels)");
        TRY(take_data(context, context->config, error));
        report->config = config_dump(context->config);
        snprintf(report->subject, sizeof report->subject, "no checkpoint");
        return run_rows(context, context->config, NULL, report, error);
    }
    CheckpointRole role;
    TRY(eval_model_role(&role, options_get(context->options, "which"), error));
    EvalModel model;
    Status status = eval_model_load(&model, path, role, context->options, context->comm, context->log, error);
    if (status == STATUS_OK) status = take_data(context, &model.config, error);
    if (status == STATUS_OK) {
        report->config = config_dump(&model.config);
        snprintf(report->subject, sizeof report->subject, "%s", model.path);
        eval_model_place(&model, context->device);
        status = run_rows(context, &model.config, &model, report, error);
    }
    eval_model_fini(&model);
    return status;
}

/* --- on features --- */

/* This rank's part of a file. Not collective. */
static Status read_part(const FeaturesFile *file, const char *path, int rank, int ranks, FeatureRows *rows,
                        Error *error)
{
    if (file->meta.views > 1)
        return status_fail(error, STATUS_INPUT,
                           "%s: has %lld views of each picture; k-NN wants features without --views", path,
                           (long long)file->meta.views);
    if (file->meta.upside_down)
        return status_fail(error, STATUS_INPUT, "%s: is of pictures upside down", path);
    int64_t first = file->n * rank / ranks, last = file->n * (rank + 1) / ranks;
    feature_rows_init(rows, last - first, file->d);
    rows->count = last - first;
    TRY(features_file_read(file, first, rows->count, rows->values, rows->labels, error));
    for (int64_t i = 0; i < rows->count; i++)
        if (rows->labels[i] < 0 || rows->labels[i] >= file->classes)
            return status_fail(error, STATUS_INPUT, "%s: row %lld has no label, and k-NN needs one", path,
                               (long long)(first + i));
    return STATUS_OK;
}

/* Collective over COMM. */
static Status read_features(const JobContext *context, const char *path, FeatureRows *rows, int64_t *classes,
                            Error *error)
{
    FeaturesFile file = {0};
    Status status = features_file_open(&file, path, error);
    if (status == STATUS_OK) {
        *classes = file.classes > *classes ? file.classes : *classes;
        status = read_part(&file, path, comm_rank(context->comm), comm_size(context->comm), rows, error);
        features_file_close(&file);
    }
    TRY(comm_agree(context->comm, status, error));
    feature_rows_number(rows, context->comm);
    return STATUS_OK;
}

static Status run_on_features(const JobContext *context, const char *train_path, const char *val_path,
                              Report *report, Error *error)
{
    if (!train_path || !val_path)
        return status_fail(error, STATUS_INPUT, "--train-features and --val-features go together");
    EvalKnnParams params = {.config = context->config,
                            .comm = context->comm,
                            .log = context->log,
                            .threads = job_threads(context, context->config)};
    FeatureRows train = {0}, val = {0};
    int64_t classes = 0;
    report->config = config_dump(context->config);
    snprintf(report->subject, sizeof report->subject, "%s, %s", train_path, val_path);
    Row *row = add_row(report, "features");
    snprintf(row->label, sizeof row->label, "features");
    Status status = read_features(context, train_path, &train, &classes, error);
    if (status == STATUS_OK) status = read_features(context, val_path, &val, &classes, error);
    if (status == STATUS_OK) status = eval_knn_vote(&params, &train, &val, classes, &row->result, error);
    feature_rows_fini(&train);
    feature_rows_fini(&val);
    return status;
}

/* --- results --- */

static double chance(const Report *report)
{
    return 100.0 / (double)report->rows[0].result.classes;
}

static void print_table(const Report *report)
{
    const EvalKnnResult *first = &report->rows[0].result;
    printf("k-NN top-1 in %%, %lld training and %lld validation images of %lld classes, temperature %g\n",
           (long long)first->train_images, (long long)first->val_images, (long long)first->classes,
           first->temperature);
    printf("%-32s", "");
    for (int i = 0; i < first->count; i++)
        printf("  k = %-5lld", (long long)first->k[i]);
    printf("\n%-32s", "chance");
    for (int i = 0; i < first->count; i++)
        printf("  %7.2f  ", chance(report));
    for (int r = 0; r < report->count; r++) {
        printf("\n%-32s", report->rows[r].label);
        for (int i = 0; i < first->count; i++)
            printf("  %7.2f  ", 100.0 * report->rows[r].result.score[i].top1);
    }
    printf("\n");
    fflush(stdout);
}

/* The figures of the first row at the top, those of the others as objects. memory_free. */
static char *report_json(const Report *report)
{
    char *text = eval_knn_json(&report->rows[0].result);
    cJSON *tree = cJSON_Parse(text);
    memory_free(text);
    cJSON_AddStringToObject(tree, "subject", report->subject);
    cJSON_AddStringToObject(tree, "row", report->rows[0].name);
    cJSON_AddNumberToObject(tree, "chance_top1", chance(report));
    for (int r = 1; r < report->count; r++) {
        text = eval_knn_json(&report->rows[r].result);
        cJSON_AddItemToObject(tree, report->rows[r].name, cJSON_Parse(text));
        memory_free(text);
    }
    char *printed = cJSON_PrintUnformatted(tree);
    char *copy = memory_strdup(printed);
    cJSON_free(printed);
    cJSON_Delete(tree);
    return copy;
}

enum { FIGURES_PER_K = 3, FIGURES_MAX = ROWS_MAX * CONFIG_LIST_MAX * FIGURES_PER_K, FIGURE_NAME = 96 };

static Status write_result(const Report *report, const char *path, Error *error)
{
    char(*names)[FIGURE_NAME] = memory_alloc(FIGURES_MAX * sizeof *names);
    Figure *figures = memory_alloc_array(FIGURES_MAX, sizeof *figures);
    int64_t count = 0;
    for (int r = 0; r < report->count; r++) {
        const EvalKnnResult *result = &report->rows[r].result;
        for (int i = 0; i < result->count; i++) {
            const char *words[FIGURES_PER_K] = {"top1", "top5", "top1_per_class"};
            double values[FIGURES_PER_K] = {result->score[i].top1, result->score[i].top5,
                                            result->score[i].top1_per_class};
            for (int f = 0; f < FIGURES_PER_K; f++, count++) {
                char name[EVAL_KNN_NAME_BYTES];
                eval_knn_name(name, words[f], result->k[i]);
                snprintf(names[count], FIGURE_NAME, "%s%s%s", r ? report->rows[r].name : "", r ? "_" : "",
                         name);
                figures[count] = (Figure){.name = names[count],
                                          .unit = "%",
                                          .value = 100.0 * values[f],
                                          .published = NAN,
                                          .source = ""};
            }
        }
    }
    Result result = {.job = "evaluate knn",
                     .subject = report->subject,
                     .config = report->config,
                     .version = version_number(),
                     .figures = figures,
                     .count = count};
    Status status = result_file_write(path, &result, error);
    memory_free(figures);
    memory_free(names);
    return status;
}

/* knn.json and knn.h5 in `folder`. */
static Status write_files(const Report *report, const char *folder, const char *json, Error *error)
{
    char path[CHECKPOINT_PATH_MAX];
    TRY(atomic_file_make_folder(folder, error));
    snprintf(path, sizeof path, "%s/knn.json", folder);
    size_t size = strlen(json) + 2;
    char *line = memory_alloc(size);
    snprintf(line, size, "%s\n", json);
    Status status = atomic_file_write_text(path, line, error);
    memory_free(line);
    TRY(status);
    snprintf(path, sizeof path, "%s/knn.h5", folder);
    return write_result(report, path, error);
}

static Status tell(const JobContext *context, const Report *report, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        char *json = report_json(report);
        const char *folder = context->options->output_dir;
        if (folder) status = write_files(report, folder, json, error);
        print_table(report);
        if (context->json) printf("%s\n", json);
        memory_free(json);
    }
    return comm_agree(context->comm, status, error);
}

Status job_evaluate(JobContext *context, Error *error)
{
    const char *what = context->options->words[0];
    if (strcmp(what, "knn") != 0) return status_fail(error, STATUS_INPUT, "evaluate %s: expected knn", what);
    const char *train = options_get(context->options, "train-features");
    const char *val = options_get(context->options, "val-features");
    Report report = {0};
    Status status = train || val ? run_on_features(context, train, val, &report, error)
                                 : run_on_images(context, &report, error);
    if (status == STATUS_OK) status = tell(context, &report, error);
    memory_free(report.config);
    return status;
}

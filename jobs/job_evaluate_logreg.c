/* job_evaluate_logreg.c - logistic regression on the features of a backbone.
 *
 *   dinobatch evaluate logreg --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *   dinobatch evaluate logreg --train-features FILE --val-features FILE
 *
 * Writes logreg.json and logreg.h5 (kind `result`) into --output-dir.
 */
#include "base/memory.h"
#include "eval/eval_logreg.h"
#include "evaluate_job.h"
#include "job_threads.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

typedef struct {
    EvalLogregResult result;
    char subject[2 * CHECKPOINT_PATH_MAX];
    char *config; /* owned */
} Report;

static EvalParams params_of(const JobContext *context, const Config *config)
{
    return (EvalParams){.config = config,
                        .comm = context->comm,
                        .log = context->log,
                        .device = context->device,
                        .threads = job_threads(context, config)};
}

static Status run_on_images(JobContext *context, Report *report, Error *error)
{
    TRY(job_open_device(context, error));
    EvalModel model;
    EvalSets *sets = NULL;
    FeatureRows train = {0}, val = {0};
    Status status = evaluate_job_load(context, &model, error);
    EvalParams params = params_of(context, &model.config);
    if (status == STATUS_OK) {
        report->config = config_dump(&model.config);
        snprintf(report->subject, sizeof report->subject, "%s", model.path);
        status = eval_sets_open(&sets, &params, "logistic regression", error);
    }
    if (status == STATUS_OK)
        status = eval_sets_extract(sets, FEATURE_CLASS_TOKEN, &model.backbone, &train, &val, error);
    if (status == STATUS_OK)
        status = eval_logreg_run(&params, &train, &val, eval_sets_classes(sets), &report->result, error);
    feature_rows_fini(&train);
    feature_rows_fini(&val);
    eval_sets_close(sets);
    eval_model_fini(&model);
    return status;
}

static Status run_on_features(const JobContext *context, const char *train_path, const char *val_path,
                              Report *report, Error *error)
{
    if (!train_path || !val_path)
        return status_fail(error, STATUS_INPUT, "--train-features and --val-features go together");
    EvalParams params = params_of(context, context->config);
    FeatureRows train = {0}, val = {0};
    int64_t classes = 0;
    const char *what = "logistic regression";
    report->config = config_dump(context->config);
    snprintf(report->subject, sizeof report->subject, "%s, %s", train_path, val_path);
    Status status = evaluate_job_read_features(context, train_path, what, &train, &classes, error);
    if (status == STATUS_OK)
        status = evaluate_job_read_features(context, val_path, what, &val, &classes, error);
    if (status == STATUS_OK) status = eval_logreg_run(&params, &train, &val, classes, &report->result, error);
    feature_rows_fini(&train);
    feature_rows_fini(&val);
    return status;
}

/* --- results --- */

/* cJSON_free */
static char *report_json(const Report *report)
{
    const EvalLogregResult *result = &report->result;
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "evaluate logreg");
    cJSON_AddNumberToObject(tree, "logreg_top1", 100.0 * result->accuracy.top1);
    cJSON_AddNumberToObject(tree, "logreg_top5", 100.0 * result->accuracy.top5);
    cJSON_AddNumberToObject(tree, "logreg_top1_per_class", 100.0 * result->accuracy.top1_per_class);
    cJSON_AddNumberToObject(tree, "c", result->tries[result->best].c);
    cJSON_AddNumberToObject(tree, "objective", result->fit.objective);
    cJSON_AddNumberToObject(tree, "iterations", (double)result->fit.iterations);
    cJSON_AddBoolToObject(tree, "converged", result->fit.converged);
    cJSON *sweep = cJSON_AddArrayToObject(tree, "sweep");
    for (int64_t i = 0; i < result->count; i++) {
        const EvalLogregTry *try = &result->tries[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "c", try->c);
        cJSON_AddNumberToObject(item, "held_out_top1", 100.0 * try->held_out.top1);
        cJSON_AddNumberToObject(item, "objective", try->fit.objective);
        cJSON_AddNumberToObject(item, "iterations", (double)try->fit.iterations);
        cJSON_AddBoolToObject(item, "converged", try->fit.converged);
        cJSON_AddItemToArray(sweep, item);
    }
    cJSON_AddNumberToObject(tree, "train_images", (double)result->train_images);
    cJSON_AddNumberToObject(tree, "held_out_images", (double)result->held_out_images);
    cJSON_AddNumberToObject(tree, "val_images", (double)result->val_images);
    cJSON_AddNumberToObject(tree, "classes", (double)result->classes);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)result->skipped);
    cJSON_AddNumberToObject(tree, "seconds", result->seconds);
    cJSON_AddStringToObject(tree, "subject", report->subject);
    char *text = cJSON_PrintUnformatted(tree);
    cJSON_Delete(tree);
    return text;
}

enum { FIGURES = 5, FIGURE_NAME = 64 };

static Figure figure_of(const char *name, const char *unit, double value)
{
    return (Figure){.name = name, .unit = unit, .value = value, .published = NAN, .source = ""};
}

static Status write_files(const Report *report, const char *folder, const char *json, Error *error)
{
    const EvalLogregResult *result = &report->result;
    size_t most = FIGURES + (size_t)result->count;
    char(*names)[FIGURE_NAME] = memory_alloc_array((size_t)result->count, sizeof *names);
    Figure *figures = memory_alloc_array(most, sizeof *figures);
    int64_t count = 0;
    figures[count++] = figure_of("logreg_top1", "%", 100.0 * result->accuracy.top1);
    figures[count++] = figure_of("logreg_top5", "%", 100.0 * result->accuracy.top5);
    figures[count++] = figure_of("logreg_top1_per_class", "%", 100.0 * result->accuracy.top1_per_class);
    figures[count++] = figure_of("logreg_c", "1", result->tries[result->best].c);
    figures[count++] = figure_of("logreg_objective", "nats", result->fit.objective);
    for (int64_t i = 0; i < result->count; i++) {
        snprintf(names[i], FIGURE_NAME, "logreg_held_out_top1_c%.6g", result->tries[i].c);
        figures[count++] = figure_of(names[i], "%", 100.0 * result->tries[i].held_out.top1);
    }
    Result file = {.job = "evaluate logreg",
                   .subject = report->subject,
                   .config = report->config,
                   .version = version_number(),
                   .figures = figures,
                   .count = count};
    Status status = evaluate_job_write(folder, "logreg", json, &file, error);
    memory_free(figures);
    memory_free(names);
    return status;
}

static Status tell(const JobContext *context, const Report *report, Error *error)
{
    const EvalLogregResult *result = &report->result;
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        char *json = report_json(report);
        const char *folder = context->options->output_dir;
        if (folder) status = write_files(report, folder, json, error);
        printf("logistic regression: top-1 %.2f %%, top-5 %.2f %% of %lld validation images; C = %.6g of "
               "%lld, chosen on %lld of %lld training images; objective %.9g%s\n",
               100.0 * result->accuracy.top1, 100.0 * result->accuracy.top5, (long long)result->val_images,
               result->tries[result->best].c, (long long)result->count, (long long)result->held_out_images,
               (long long)result->train_images, result->fit.objective,
               result->fit.converged ? "" : " (not at its end)");
        if (context->json) printf("%s\n", json);
        fflush(stdout);
        cJSON_free(json);
    }
    return comm_agree(context->comm, status, error);
}

Status job_evaluate_logreg(JobContext *context, Error *error)
{
    const char *train = options_get(context->options, "train-features");
    const char *val = options_get(context->options, "val-features");
    if (!train && !val && !options_get(context->options, "model"))
        return status_fail(error, STATUS_INPUT,
                           "evaluate logreg needs --model PATH, or --train-features and --val-features");
    Report report = {0};
    Status status = train || val ? run_on_features(context, train, val, &report, error)
                                 : run_on_images(context, &report, error);
    if (status == STATUS_OK) status = tell(context, &report, error);
    eval_logreg_fini(&report.result);
    memory_free(report.config);
    return status;
}

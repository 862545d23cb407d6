/* job_evaluate_linear.c - linear classifiers on a frozen backbone.
 *
 *   dinobatch evaluate linear --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *                             [--test-data SPEC]...
 *
 * Writes linear.json and linear.h5 (kind `result`) into --output-dir. With an output folder the training can
 * be stopped: linear.partial there is what the next start goes on from.
 */
#include "base/memory.h"
#include "eval/eval_linear.h"
#include "eval/linear_state.h"
#include "evaluate_job.h"
#include "job_threads.h"
#include "run/signals.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

static Status train_and_test(const JobContext *context, const EvalModel *model, const char *state,
                             EvalLinearResult *result, Error *error)
{
    const Options *options = context->options;
    EvalParams params = {.config = &model->config,
                         .comm = context->comm,
                         .log = context->log,
                         .device = context->device,
                         .threads = job_threads(context, &model->config)};
    EvalLinear eval = {.params = &params,
                       .backbone = &model->backbone,
                       .subject = model->path,
                       .resume = !options->no_resume};
    eval.test_count = options_get_all(options, "test-data", &eval.test_specs);
    if (*state) {
        eval.state_path = state;
        signals_install(true, comm_rank(context->comm)); /* from here on there is something to save */
    }
    return eval_linear_run(&eval, result, error);
}

/* --- results --- */

static void add_accuracy(cJSON *item, const char *name, double share)
{
    cJSON_AddNumberToObject(item, name, 100.0 * share);
}

static cJSON *classifier_json(const EvalLinearResult *result, int c)
{
    const LinearClassifier *classifier = &result->classifiers[c];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", classifier->name);
    cJSON_AddNumberToObject(item, "last_blocks", (double)classifier->last_blocks);
    cJSON_AddBoolToObject(item, "avgpool", classifier->avgpool);
    cJSON_AddNumberToObject(item, "learning_rate", classifier->scaled_lr);
    cJSON_AddNumberToObject(item, "loss", result->losses[c]); /* null where it diverged */
    add_accuracy(item, "val_top1", result->sets[0].accuracy[c].top1);
    cJSON *tests = cJSON_AddArrayToObject(item, "test_top1");
    for (int s = 1; s < result->set_count; s++)
        cJSON_AddItemToArray(tests, cJSON_CreateNumber(100.0 * result->sets[s].accuracy[c].top1));
    return item;
}

/* cJSON_free */
static char *report_json(const EvalLinearResult *result, const char *subject)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "evaluate linear");
    const Accuracy *best = &result->sets[0].accuracy[result->best];
    add_accuracy(tree, "linear_top1", best->top1);
    add_accuracy(tree, "linear_top5", best->top5);
    add_accuracy(tree, "linear_top1_per_class", best->top1_per_class);
    cJSON_AddStringToObject(tree, "best", result->classifiers[result->best].name);
    cJSON *sets = cJSON_AddArrayToObject(tree, "tests");
    for (int s = 1; s < result->set_count; s++) {
        const EvalLinearSet *set = &result->sets[s];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "data", set->spec);
        add_accuracy(item, "linear_top1", set->accuracy[result->best].top1);
        add_accuracy(item, "linear_top5", set->accuracy[result->best].top5);
        add_accuracy(item, "linear_top1_per_class", set->accuracy[result->best].top1_per_class);
        cJSON_AddNumberToObject(item, "images", (double)set->accuracy[0].queries);
        cJSON_AddNumberToObject(item, "skipped_images", (double)set->skipped);
        cJSON_AddItemToArray(sets, item);
    }
    cJSON *classifiers = cJSON_AddArrayToObject(tree, "classifiers");
    for (int c = 0; c < result->count; c++)
        cJSON_AddItemToArray(classifiers, classifier_json(result, c));
    cJSON_AddNumberToObject(tree, "train_images", (double)result->train_images);
    cJSON_AddNumberToObject(tree, "val_images", (double)best->queries);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)result->sets[0].skipped);
    cJSON_AddNumberToObject(tree, "classes", (double)result->classes);
    cJSON_AddNumberToObject(tree, "iterations", (double)result->iterations);
    cJSON_AddNumberToObject(tree, "batch_size", (double)result->batch_size);
    cJSON_AddNumberToObject(tree, "seconds", result->seconds);
    cJSON_AddNumberToObject(tree, "train_seconds", result->train_seconds);
    cJSON_AddNumberToObject(tree, "wait_seconds", result->wait_seconds);
    cJSON_AddNumberToObject(tree, "backbone_seconds", result->backbone_seconds);
    cJSON_AddNumberToObject(tree, "classifier_seconds", result->classifier_seconds);
    cJSON_AddNumberToObject(tree, "steps", (double)result->steps);
    cJSON_AddStringToObject(tree, "subject", subject);
    char *text = cJSON_PrintUnformatted(tree);
    cJSON_Delete(tree);
    return text;
}

enum { FIGURE_NAME = 128 };

static Status write_files(const EvalLinearResult *result, const EvalModel *model, const char *folder,
                          const char *json, Error *error)
{
    size_t most = (size_t)(result->set_count * (result->count + 1));
    char(*names)[FIGURE_NAME] = memory_alloc_array(most, sizeof *names);
    Figure *figures = memory_alloc_array(most, sizeof *figures);
    int64_t count = 0;
    for (int s = 0; s < result->set_count; s++) {
        char set[16];
        snprintf(set, sizeof set, s ? "test%d" : "val", s);
        for (int c = -1; c < result->count; c++, count++) {
            int of = c < 0 ? result->best : c;
            snprintf(names[count], FIGURE_NAME, "linear_top1_%s_%s", set,
                     c < 0 ? "best" : result->classifiers[c].name);
            figures[count] = (Figure){.name = names[count],
                                      .unit = "%",
                                      .value = 100.0 * result->sets[s].accuracy[of].top1,
                                      .published = NAN,
                                      .source = ""};
        }
    }
    char *config = config_dump(&model->config);
    Result file = {.job = "evaluate linear",
                   .subject = model->path,
                   .config = config,
                   .version = version_number(),
                   .figures = figures,
                   .count = count};
    Status status = evaluate_job_write(folder, "linear", json, &file, error);
    memory_free(config);
    memory_free(figures);
    memory_free(names);
    return status;
}

static Status tell(const JobContext *context, const EvalModel *model, const EvalLinearResult *result,
                   Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        char *json = report_json(result, model->path);
        const char *folder = context->options->output_dir;
        if (folder) status = write_files(result, model, folder, json, error);
        printf("linear: %s is the best of %d\n", result->classifiers[result->best].name, result->count);
        for (int s = 0; s < result->set_count; s++) {
            const EvalLinearSet *set = &result->sets[s];
            const Accuracy *best = &set->accuracy[result->best];
            printf("  %-10s  top-1 %6.2f %%  top-5 %6.2f %%  of %lld images  %s\n", s ? "test" : "validation",
                   100.0 * best->top1, 100.0 * best->top5, (long long)best->queries, set->spec);
        }
        if (context->json) printf("%s\n", json);
        fflush(stdout);
        cJSON_free(json);
    }
    return comm_agree(context->comm, status, error);
}

Status job_evaluate_linear(JobContext *context, Error *error)
{
    const Options *options = context->options;
    if (!options_get(options, "model"))
        return status_fail(error, STATUS_INPUT, "evaluate linear needs --model PATH");
    TRY(job_open_device(context, error));
    EvalModel model;
    EvalLinearResult result = {0};
    char state[CHECKPOINT_PATH_MAX] = "";
    if (options->output_dir) snprintf(state, sizeof state, "%s/linear.partial", options->output_dir);
    Status status = evaluate_job_load(context, &model, error);
    if (status == STATUS_OK) status = train_and_test(context, &model, state, &result, error);
    if (status == STATUS_OK) status = tell(context, &model, &result, error);
    if (status == STATUS_OK && *state && comm_rank(context->comm) == 0) linear_state_remove(state);
    eval_linear_fini(&result);
    eval_model_fini(&model);
    return status;
}

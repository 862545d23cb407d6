/* train_job.c - data, state, evaluation and result of a training job. */
#include "train_job.h"

#include "base/memory.h"
#include "data/data_set.h"
#include "eval/eval_knn.h"
#include "job_threads.h"
#include "train/train_loop.h"

#include <cjson/cJSON.h>
#include <omp.h>
#include <stdio.h>

static Status open_data(JobContext *context, DataSet **set, Error *error)
{
    const char *spec = context->config->train.dataset_path;
    TRY(comm_agree(context->comm, data_set_create(set, spec, error), error));
    for (int64_t i = 0; data_set_note(*set, i); i++)
        log_warning(context->log, "%s", data_set_note(*set, i));
    log_info(context->log, "%s: %lld images, %lld classes", spec, (long long)data_set_count(*set),
             (long long)data_set_class_count(*set));
    return STATUS_OK;
}

static void print_result(const JobContext *context, const TrainLoopResult *result, const char *folder)
{
    if (comm_rank(context->comm) != 0) return;
    if (!context->json) {
        printf("%s: iterations %lld to %lld, loss %.4f, %.1f images/s, %s\n", folder,
               (long long)result->first_iteration, (long long)(result->first_iteration + result->iterations),
               result->final_loss, result->images_per_s,
               result->checkpoint[0] ? result->checkpoint : "no checkpoint");
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "output_dir", folder);
    cJSON_AddNumberToObject(tree, "first_iteration", (double)result->first_iteration);
    cJSON_AddNumberToObject(tree, "iterations", (double)result->iterations);
    cJSON_AddNumberToObject(tree, "total_loss", result->final_loss);
    cJSON_AddNumberToObject(tree, "images_per_s", result->images_per_s);
    cJSON_AddStringToObject(tree, "checkpoint", result->checkpoint);
    char *text = cJSON_PrintUnformatted(tree);
    printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* What the loop's evaluation callback works on. */
typedef struct {
    JobContext *job;
    EvalKnn *knn;
} Evaluation;

static Status evaluate(void *context, TrainState *state, int64_t iteration, Error *error)
{
    const Evaluation *evaluation = context;
    const SslNetwork *model = ssl_meta_arch_model(&state->ssl);
    FeatureBackbone backbone = {.vit = &model->vit,
                                .weights = &model->weights[PARAM_BACKBONE],
                                .hooks = &model->hooks,
                                .levels = state->ssl.levels};
    EvalKnnResult result;
    TRY(eval_knn_run(evaluation->knn, FEATURE_CLASS_TOKEN, &backbone, &result, error));
    char relative[64], *json = eval_knn_json(&result);
    snprintf(relative, sizeof relative, "eval/training_%lld/knn.json", (long long)iteration);
    Status status = run_folder_write(&evaluation->job->run->folder, relative, json, error);
    log_info(evaluation->job->log, "iteration %lld: k-NN %s", (long long)iteration, json);
    memory_free(json);
    return status;
}

/* Opens the evaluation's data before the first step, so that a wrong path does not cost a training. */
static Status open_evaluation(JobContext *context, Evaluation *evaluation, Error *error)
{
    const Config *config = context->config;
    *evaluation = (Evaluation){.job = context};
    bool wanted = config->evaluation.eval_period_iterations > 0 && config->evaluation.train_dataset_path[0] &&
                  config->evaluation.val_dataset_path[0];
    if (!wanted) return STATUS_OK;
    EvalParams params = {.config = config,
                         .comm = context->comm,
                         .log = context->log,
                         .device = context->device,
                         .threads = omp_get_max_threads()};
    return eval_knn_create(&evaluation->knn, &params, error);
}

/* From the state's initial weights to the last step. The run folder is opened when the start is accepted. */
static Status train(JobContext *context, const DataSet *set, TrainStart *start, TrainState *state,
                    const TrainLoopOptions *options, Error *error)
{
    Config *config = context->config;
    Status status = train_state_init(state, config, context->comm, context->device, omp_get_max_threads(),
                                     context->log, error);
    TRY(comm_agree(context->comm, status, error));
    TRY(train_start_load(start, state, context->options->allow_config_change, context->log, error));
    char *resolved = config_dump(config); /* with the batch size that was derived */
    status = run_open_folder(context->run, config->train.output_dir, resolved, device_name(context->device),
                             error);
    memory_free(resolved);
    TRY(status);
    TrainLoopResult result;
    status = train_loop(context->run, state, set, start, options, &result, error);
    if (status == STATUS_OK || status == STATUS_REQUEUE)
        print_result(context, &result, context->run->folder.path);
    return status;
}

static Status prepare_and_train(JobContext *context, const DataSet *set, Error *error)
{
    TrainStart start;
    Evaluation evaluation;
    TrainState state = {0};
    TrainLoopOptions options = {0};
    TRY(train_start_find(&start, context->config, !context->options->no_resume, context->comm, context->log,
                         error));
    TRY(open_evaluation(context, &evaluation, error));
    if (evaluation.knn) {
        options.evaluate = evaluate;
        options.evaluate_context = &evaluation;
    }
    Status status = train(context, set, &start, &state, &options, error);
    train_state_fini(&state);
    if (evaluation.knn) eval_knn_destroy(evaluation.knn);
    return status;
}

Status train_job_run(JobContext *context, Error *error)
{
    Config *config = context->config;
    TRY(job_open_device(context, error));
    omp_set_num_threads(job_threads(context, config));
    DataSet *set = NULL;
    TRY(open_data(context, &set, error));
    Status status = prepare_and_train(context, set, error);
    data_set_destroy(set);
    return status;
}

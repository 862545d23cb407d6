/* job_evaluate_retrieval.c - mean average precision of retrieval with the features of a backbone.
 *
 *   dinobatch evaluate retrieval --train-features FILE --val-features FILE [--truth FILE.json]
 *   dinobatch evaluate retrieval --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *                                [--truth FILE.json]
 *
 * The training set is the database, the validation set asks. Without --truth a query should find the pictures
 * of its class. Writes retrieval.json and retrieval.h5 (kind `result`) into --output-dir.
 */
#include "base/memory.h"
#include "eval/eval_retrieval.h"
#include "eval/eval_sets.h"
#include "evaluate_job.h"
#include "job_threads.h"
#include "ops/ops_options.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    EvalRetrievalResult result;
    int64_t skipped; /* pictures that could not be read */
    char subject[2 * CHECKPOINT_PATH_MAX];
    const char *truth; /* path, or NULL; borrowed */
    char *config;      /* resolved, YAML; owned */
} Report;

/* Both sides are ready. Collective over COMM. */
static Status run_sets(const JobContext *context, const Config *config, const RetrievalSet *database,
                       const RetrievalSet *queries, bool same_data, Report *report, Error *error)
{
    Comm *comm = context->comm;
    RetrievalTruth truth = {0};
    Status status = STATUS_OK;
    if (report->truth) status = comm_agree(comm, retrieval_truth_load(&truth, report->truth, error), error);
    if (status == STATUS_OK)
        status = eval_retrieval_run(database, queries, report->truth ? &truth : NULL, same_data,
                                    job_threads(context, config), comm, &report->result, error);
    retrieval_truth_fini(&truth);
    return status;
}

/* --- on a model and images --- */

static Status extract(const JobContext *context, const EvalModel *model, const DataSet *data, bool database,
                      FeatureRows *rows, Error *error)
{
    FeatureExtractor extractor = {.kind = FEATURE_CLASS_TOKEN,
                                  .input = eval_sets_input(&model->config),
                                  .backbone = &model->backbone,
                                  .log = context->log,
                                  .what = database ? "retrieval: features of the database"
                                                   : "retrieval: features of the queries"};
    TRY(feature_extractor_check(&extractor, error));
    OpsLimits limits = feature_extractor_limits(&extractor);
    OpsOptions options;
    Status status = ops_options_from(&options, &model->config, context->device,
                                     job_threads(context, &model->config), error);
    TRY(comm_agree(context->comm, status, error));
    Ops *ops = ops_create(context->device, &limits, &options);
    status = feature_extractor_run(&extractor, ops, context->comm, data, rows, error);
    ops_destroy(ops);
    return status;
}

/* Opens data set `key` of the configuration. Not collective. */
static Status open_data(const EvalModel *model, const char *key, const char *spec, DataSet **data,
                        Error *error)
{
    if (*spec == '\0') return status_fail(error, STATUS_INPUT, "%s: not given, and retrieval needs it", key);
    Status status = eval_sets_open_data(data, spec, model->config.evaluation.limit, error);
    return status == STATUS_OK ? status : status_prefix(error, status, "%s", key);
}

static Status run_model(const JobContext *context, const EvalModel *model, Report *report, Error *error)
{
    const char *specs[] = {model->config.evaluation.train_dataset_path,
                           model->config.evaluation.val_dataset_path};
    DataSet *data[2] = {0};
    FeatureRows rows[2] = {0};
    RetrievalSet sets[2] = {0};
    Status status = open_data(model, "evaluation.train_dataset_path", specs[0], &data[0], error);
    if (status == STATUS_OK)
        status = open_data(model, "evaluation.val_dataset_path", specs[1], &data[1], error);
    status = comm_agree(context->comm, status, error);
    for (int i = 0; i < 2 && status == STATUS_OK; i++) {
        status = extract(context, model, data[i], i == 0, &rows[i], error);
        if (status != STATUS_OK) break;
        retrieval_set_take(&sets[i], specs[i], &rows[i], data[i]);
        report->skipped += rows[i].skipped;
    }
    if (status == STATUS_OK)
        status = run_sets(context, &model->config, &sets[0], &sets[1],
                          retrieval_set_same_data(specs[0], specs[1]), report, error);
    for (int i = 0; i < 2; i++) {
        retrieval_set_fini(&sets[i]);
        feature_rows_fini(&rows[i]);
        data_set_destroy(data[i]);
    }
    return status;
}

static Status run_on_images(JobContext *context, Report *report, Error *error)
{
    TRY(job_open_device(context, error));
    EvalModel model;
    Status status = evaluate_job_load(context, &model, error);
    if (status == STATUS_OK) {
        report->config = config_dump(&model.config);
        snprintf(report->subject, sizeof report->subject, "%s", model.path);
        status = run_model(context, &model, report, error);
    }
    eval_model_fini(&model);
    return status;
}

/* --- on features --- */

static Status run_on_features(const JobContext *context, const char *train, const char *val, Report *report,
                              Error *error)
{
    if (!train || !val)
        return status_fail(error, STATUS_INPUT, "--train-features and --val-features go together");
    report->config = config_dump(context->config);
    snprintf(report->subject, sizeof report->subject, "%s, %s", train, val);
    RetrievalSet database = {0}, queries = {0};
    Status status = retrieval_set_open(&database, train, context->comm, error);
    if (status == STATUS_OK) status = retrieval_set_open(&queries, val, context->comm, error);
    if (status == STATUS_OK)
        status =
            run_sets(context, context->config, &database, &queries,
                     retrieval_set_same_data(database.file.meta.data, queries.file.meta.data), report, error);
    retrieval_set_fini(&database);
    retrieval_set_fini(&queries);
    return status;
}

/* --- results --- */

enum { FIGURES_PER_SETTING = 1 + RETRIEVAL_CUTS, FIGURE_NAME = 64 };

/* "retrieval_map_medium", "retrieval_mp5_medium", ... */
static void figure_name(char name[FIGURE_NAME], const RetrievalScore *score, int figure)
{
    if (figure == 0)
        snprintf(name, FIGURE_NAME, "retrieval_map_%s", score->setting);
    else
        snprintf(name, FIGURE_NAME, "retrieval_mp%lld_%s", (long long)EVAL_RETRIEVAL_CUTS[figure - 1],
                 score->setting);
}

static double figure_value(const RetrievalScore *score, int figure)
{
    return 100.0 * (figure == 0 ? score->map : score->precision[figure - 1]);
}

/* One JSON object, a figure without queries null; cJSON_free. */
static char *report_json(const Report *report)
{
    const EvalRetrievalResult *result = &report->result;
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "evaluate retrieval");
    for (int s = 0; s < result->count; s++) {
        const RetrievalScore *score = &result->scores[s];
        char name[FIGURE_NAME];
        for (int f = 0; f < FIGURES_PER_SETTING; f++) {
            figure_name(name, score, f);
            cJSON_AddNumberToObject(tree, name, figure_value(score, f));
        }
        snprintf(name, sizeof name, "queries_%s", score->setting);
        cJSON_AddNumberToObject(tree, name, (double)score->queries);
        snprintf(name, sizeof name, "positives_%s", score->setting);
        cJSON_AddNumberToObject(tree, name, (double)score->positives);
    }
    cJSON_AddNumberToObject(tree, "database_images", (double)result->database);
    cJSON_AddNumberToObject(tree, "query_images", (double)result->queries);
    cJSON_AddBoolToObject(tree, "own_picture_left_out", result->own_left_out);
    cJSON_AddNumberToObject(tree, "skipped_images", (double)report->skipped);
    cJSON_AddNumberToObject(tree, "seconds", result->seconds);
    cJSON_AddStringToObject(tree, "subject", report->subject);
    if (report->truth) cJSON_AddStringToObject(tree, "truth", report->truth);
    char *text = cJSON_PrintUnformatted(tree);
    cJSON_Delete(tree);
    return text;
}

static void print_table(const EvalRetrievalResult *result)
{
    printf("retrieval in %%, %lld queries, database of %lld images%s\n%-10s %8s", (long long)result->queries,
           (long long)result->database, result->own_left_out ? ", each query's own picture left out" : "", "",
           "mAP");
    for (int c = 0; c < RETRIEVAL_CUTS; c++)
        printf("     mP@%-2lld", (long long)EVAL_RETRIEVAL_CUTS[c]);
    printf("  queries  positives\n");
    for (int s = 0; s < result->count; s++) {
        const RetrievalScore *score = &result->scores[s];
        printf("%-10s", score->setting);
        for (int f = 0; f < FIGURES_PER_SETTING; f++)
            if (score->queries > 0)
                printf(" %8.2f%s", figure_value(score, f), f > 0 ? " " : "");
            else
                printf(" %8s%s", "-", f > 0 ? " " : "");
        printf(" %8lld %10lld\n", (long long)score->queries, (long long)score->positives);
    }
}

/* retrieval.json and retrieval.h5 in `folder`; a setting without queries has no figure in the latter. */
static Status write_files(const Report *report, const char *folder, const char *json, Error *error)
{
    char names[RETRIEVAL_SETTINGS * FIGURES_PER_SETTING][FIGURE_NAME];
    Figure figures[RETRIEVAL_SETTINGS * FIGURES_PER_SETTING];
    int64_t count = 0;
    for (int s = 0; s < report->result.count; s++) {
        const RetrievalScore *score = &report->result.scores[s];
        for (int f = 0; f < FIGURES_PER_SETTING && score->queries > 0; f++, count++) {
            figure_name(names[count], score, f);
            figures[count] = (Figure){.name = names[count],
                                      .unit = "%",
                                      .value = figure_value(score, f),
                                      .published = NAN,
                                      .source = ""};
        }
    }
    Result result = {.job = "evaluate retrieval",
                     .subject = report->subject,
                     .config = report->config,
                     .version = version_number(),
                     .figures = figures,
                     .count = count};
    return evaluate_job_write(folder, "retrieval", json, &result, error);
}

static Status tell(const JobContext *context, const Report *report, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        char *json = report_json(report);
        const char *folder = context->options->output_dir;
        if (folder) status = write_files(report, folder, json, error);
        print_table(&report->result);
        if (context->json) printf("%s\n", json);
        fflush(stdout);
        cJSON_free(json);
    }
    return comm_agree(context->comm, status, error);
}

Status job_evaluate_retrieval(JobContext *context, Error *error)
{
    const char *train = options_get(context->options, "train-features");
    const char *val = options_get(context->options, "val-features");
    if (!train && !val && !options_get(context->options, "model"))
        return status_fail(error, STATUS_INPUT,
                           "evaluate retrieval needs --model PATH, or --train-features and --val-features");
    Report report = {.truth = options_get(context->options, "truth")};
    Status status = train || val ? run_on_features(context, train, val, &report, error)
                                 : run_on_images(context, &report, error);
    if (status == STATUS_OK) status = tell(context, &report, error);
    memory_free(report.config);
    return status;
}

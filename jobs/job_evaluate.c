/* job_evaluate.c - figures of a trained backbone.
 *
 *   dinobatch evaluate knn --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *                          [--untrained] [--raw-pixels]
 *   dinobatch evaluate knn --train-features FILE --val-features FILE
 *
 * The others are job_evaluate_<name>.c. Writes knn.json and knn.h5 (kind `result`) into --output-dir.
 */
#include "base/memory.h"
#include "eval/eval_knn.h"
#include "evaluate_job.h"
#include "job_threads.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const OptionSpec job_evaluate_options[] = {
    {"model", "PATH", "checkpoint file, or run folder (its newest checkpoint)", false},
    {"which", "teacher|student", "whose weights (default: teacher)", false},
    {"train-data", "SPEC",
     "labelled images that vote, are the database (default: evaluation.train_dataset_path)", false},
    {"val-data", "SPEC", "labelled images that are classified, ask (default: evaluation.val_dataset_path)",
     false},
    {"train-features", "FILE", "features that vote, are the database, in place of a model and images", false},
    {"val-features", "FILE", "features that are classified, ask", false},
    {"test-data", "SPEC", "images that the chosen classifier is measured on, too", true},
    {"untrained", NULL, "also the same network with its initial weights", false},
    {"raw-pixels", NULL, "also the pixels themselves, 32 x 32 at most", false},
    {"truth", "FILE", "a JSON ground truth of queries; without it classes decide", false},
    {0},
};

const OptionsKind job_evaluate_kinds[] = {
    {"knn", "model which train-data val-data train-features val-features untrained raw-pixels"},
    {"linear", "model which train-data val-data test-data"},
    {"logreg", "model which train-data val-data train-features val-features"},
    {"retrieval", "model which train-data val-data train-features val-features truth"},
    {"segmentation", "model which train-data val-data test-data untrained"},
    {"depth", "model which train-data val-data test-data untrained"},
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

/* Beside `trained`, unless that is NULL: it sees pictures normalised in the same way. */
static Status run_untrained(EvalKnn *eval, Device *device, const Config *config, const EvalModel *trained,
                            Report *report, Error *error)
{
    EvalModel model;
    Status status = eval_model_untrained(&model, config, error);
    Row *row = add_row(report, "untrained");
    snprintf(row->label, sizeof row->label, "untrained, seed %lld", (long long)config->train.seed);
    if (status == STATUS_OK) {
        if (trained) model.norm = trained->norm;
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
    EvalParams params = {.config = config,
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
        const char *role = model->role == CHECKPOINT_TEACHER ? "teacher" : "student";
        if (model->iteration < 0)
            snprintf(row->label, sizeof row->label, "%s, converted", role);
        else
            snprintf(row->label, sizeof row->label, "%s, iteration %lld", role, (long long)model->iteration);
        status = eval_knn_run(eval, FEATURE_CLASS_TOKEN, &model->backbone, &row->result, error);
    }
    if (status == STATUS_OK && options_get(context->options, "untrained"))
        status = run_untrained(eval, context->device, config, model, report, error);
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
        TRY(evaluate_job_take_data(context, context->config, error));
        report->config = config_dump(context->config);
        snprintf(report->subject, sizeof report->subject, "no checkpoint");
        return run_rows(context, context->config, NULL, report, error);
    }
    EvalModel model;
    Status status = evaluate_job_load(context, &model, error);
    if (status == STATUS_OK) {
        report->config = config_dump(&model.config);
        snprintf(report->subject, sizeof report->subject, "%s", model.path);
        status = run_rows(context, &model.config, &model, report, error);
    }
    eval_model_fini(&model);
    return status;
}

/* --- on features --- */

static Status run_on_features(const JobContext *context, const char *train_path, const char *val_path,
                              Report *report, Error *error)
{
    if (!train_path || !val_path)
        return status_fail(error, STATUS_INPUT, "--train-features and --val-features go together");
    EvalParams params = {.config = context->config,
                         .comm = context->comm,
                         .log = context->log,
                         .threads = job_threads(context, context->config)};
    FeatureRows train = {0}, val = {0};
    int64_t classes = 0;
    report->config = config_dump(context->config);
    snprintf(report->subject, sizeof report->subject, "%s, %s", train_path, val_path);
    Row *row = add_row(report, "features");
    snprintf(row->label, sizeof row->label, "features");
    Status status = evaluate_job_read_features(context, train_path, "k-NN", &train, &classes, error);
    if (status == STATUS_OK)
        status = evaluate_job_read_features(context, val_path, "k-NN", &val, &classes, error);
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

/* Lines with mean and spread where few images of a class vote. */
static void print_few(const Row *row)
{
    for (int f = 0; f < row->result.few_count; f++) {
        const EvalKnnFew *few = &row->result.few[f];
        printf("%-32s  %lld of each class, %lld tries:", row->label, (long long)few->per_class,
               (long long)row->result.tries);
        for (int i = 0; i < few->count; i++)
            printf("  k = %lld %.2f +- %.2f", (long long)few->k[i], 100.0 * few->mean[i].top1,
                   100.0 * few->spread[i].top1);
        printf("\n");
    }
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
    for (int r = 0; r < report->count; r++)
        print_few(&report->rows[r]);
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

enum { FIGURES_MAX = ROWS_MAX * EVAL_KNN_FIGURES_MAX, FIGURE_NAME = EVAL_KNN_NAME_BYTES + 16 };

/* knn.json and knn.h5 in `folder`. */
static Status write_files(const Report *report, const char *folder, const char *json, Error *error)
{
    char(*names)[FIGURE_NAME] = memory_alloc_array(FIGURES_MAX, sizeof *names);
    Figure *figures = memory_alloc_array(FIGURES_MAX, sizeof *figures);
    EvalKnnFigure *of_row = memory_alloc_array(EVAL_KNN_FIGURES_MAX, sizeof *of_row);
    int64_t count = 0;
    for (int r = 0; r < report->count; r++) {
        int found = eval_knn_figures(&report->rows[r].result, of_row);
        for (int i = 0; i < found; i++, count++) {
            snprintf(names[count], FIGURE_NAME, "%s%s%s", r ? report->rows[r].name : "", r ? "_" : "",
                     of_row[i].name);
            figures[count] = (Figure){
                .name = names[count], .unit = "%", .value = of_row[i].value, .published = NAN, .source = ""};
        }
    }
    memory_free(of_row);
    Result result = {.job = "evaluate knn",
                     .subject = report->subject,
                     .config = report->config,
                     .version = version_number(),
                     .figures = figures,
                     .count = count};
    Status status = evaluate_job_write(folder, "knn", json, &result, error);
    memory_free(figures);
    memory_free(names);
    return status;
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

static Status evaluate_knn(JobContext *context, Error *error)
{
    const char *train = options_get(context->options, "train-features");
    const char *val = options_get(context->options, "val-features");
    Report report = {0};
    Status status = train || val ? run_on_features(context, train, val, &report, error)
                                 : run_on_images(context, &report, error);
    if (status == STATUS_OK) status = tell(context, &report, error);
    memory_free(report.config);
    return status;
}

Status job_evaluate(JobContext *context, Error *error)
{
    const char *what = context->options->words[0];
    if (strcmp(what, "knn") == 0) return evaluate_knn(context, error);
    if (strcmp(what, "logreg") == 0) return job_evaluate_logreg(context, error);
    if (strcmp(what, "linear") == 0) return job_evaluate_linear(context, error);
    if (strcmp(what, "retrieval") == 0) return job_evaluate_retrieval(context, error);
    return job_evaluate_dense(context, strcmp(what, "depth") == 0, error);
}

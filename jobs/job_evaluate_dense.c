/* job_evaluate_dense.c - what every pixel is: linear classifiers of patch tokens on a frozen backbone.
 *
 *   dinobatch evaluate segmentation|depth --model CHECKPOINT|RUN_FOLDER [--train-data SPEC] [--val-data SPEC]
 *                                         [--test-data SPEC]... [--untrained]
 *
 * Data sets with masks. Writes segmentation.json and segmentation.h5 (kind `result`), or depth.*, into
 * --output-dir. With an output folder the training can be stopped: segmentation.partial there is what the
 * next start goes on from.
 */
#include "base/memory.h"
#include "eval/confusion.h"
#include "eval/eval_dense.h"
#include "eval/linear_state.h"
#include "evaluate_job.h"
#include "job_threads.h"
#include "run/signals.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIGURE_NAME = 96 };

/* One evaluation with what its figures are called. */
typedef struct {
    const JobContext *context;
    EvalModel model;
    EvalDenseResult result;
    const char *name; /* "segmentation", "depth" */
    bool depth;
    bool untrained;
    char state[CHECKPOINT_PATH_MAX]; /* "": it cannot be stopped */
} Report;

enum { REPORTS_MAX = 2 };

static Status train_and_test(Report *report, Error *error)
{
    const JobContext *context = report->context;
    const EvalModel *model = &report->model;
    const Options *options = context->options;
    EvalParams params = {.config = &model->config,
                         .comm = context->comm,
                         .log = context->log,
                         .device = context->device,
                         .threads = job_threads(context, &model->config)};
    EvalDense eval = {.kind = report->depth ? EVAL_DEPTH : EVAL_SEGMENTATION,
                      .params = &params,
                      .backbone = &model->backbone,
                      .norm = model->norm,
                      .subject = report->untrained ? "untrained" : model->path,
                      .resume = !options->no_resume};
    eval.test_count = options_get_all(options, "test-data", &eval.test_specs);
    if (*report->state) {
        eval.state_path = report->state;
        signals_install(true, comm_rank(context->comm)); /* from here on there is something to save */
    }
    return eval_dense_run(&eval, &report->result, error);
}

/* --- figures of one classifier on one set --- */

typedef struct {
    const char *name, *unit;
    double value;
} Named;

enum { NAMED_MAX = 4 };

static const double *cells_of(const Report *report, int set, int c)
{
    return report->result.sets[set].cells + c * report->result.task.cells;
}

/* Their number; the first is the one that decides. iou: NULL, or room for all classes. */
static int figures_of(const Report *report, int set, int c, Named out[NAMED_MAX], double *iou)
{
    const double *cells = cells_of(report, set, c);
    if (report->depth) {
        DepthFigures figures;
        depth_task_figures(&figures, cells);
        out[0] = (Named){"rmse", "m", figures.rmse};
        out[1] = (Named){"abs_rel", "1", figures.abs_rel};
        out[2] = (Named){"delta1", "%", 100.0 * figures.delta1};
        out[3] = (Named){"pixels", "pixels", (double)figures.pixels};
        return 4;
    }
    ConfusionFigures figures;
    double *own = iou ? iou : memory_alloc_array((size_t)report->result.task.channels, sizeof *own);
    confusion_figures(&figures, own, cells, report->result.task.channels);
    if (!iou) memory_free(own);
    out[0] = (Named){"miou", "%", 100.0 * figures.miou};
    out[1] = (Named){"pixel_accuracy", "%", 100.0 * figures.pixel_accuracy};
    out[2] = (Named){"class_accuracy", "%", 100.0 * figures.class_accuracy};
    out[3] = (Named){"pixels", "pixels", (double)figures.pixels};
    return 4;
}

/* --- JSON --- */

/* Figures of the best on a set and, of classes, the IoU of each and the table, rows by truth. */
static void add_set(cJSON *item, const Report *report, int set)
{
    const EvalDenseResult *result = &report->result;
    int64_t K = result->task.channels;
    double *iou = memory_alloc_array((size_t)K, sizeof *iou);
    Named figures[NAMED_MAX];
    int count = figures_of(report, set, result->best, figures, iou);
    for (int i = 0; i < count; i++)
        cJSON_AddNumberToObject(item, figures[i].name, figures[i].value);
    cJSON_AddNumberToObject(item, "images", (double)result->sets[set].pictures);
    if (!report->depth) {
        const double *cells = cells_of(report, set, result->best);
        cJSON *shares = cJSON_AddArrayToObject(item, "iou"),
              *table = cJSON_AddArrayToObject(item, "confusion");
        for (int64_t k = 0; k < K; k++) {
            cJSON_AddItemToArray(shares, cJSON_CreateNumber(100.0 * iou[k])); /* null: it does not occur */
            cJSON_AddItemToArray(table, cJSON_CreateDoubleArray(cells + k * K, (int)K));
        }
    }
    memory_free(iou);
}

static void add_classifiers(cJSON *tree, const Report *report)
{
    const EvalDenseResult *result = &report->result;
    cJSON *classifiers = cJSON_AddArrayToObject(tree, "classifiers");
    for (int c = 0; c < result->count; c++) {
        const EvalDenseClassifier *classifier = &result->classifiers[c];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "last_blocks", (double)classifier->last_blocks);
        cJSON_AddNumberToObject(item, "learning_rate", classifier->learning_rate);
        cJSON_AddNumberToObject(item, "loss", classifier->loss); /* null where it diverged */
        Named figures[NAMED_MAX];
        char name[FIGURE_NAME];
        figures_of(report, 0, c, figures, NULL);
        snprintf(name, sizeof name, "val_%s", figures[0].name);
        cJSON_AddNumberToObject(item, name, figures[0].value);
        snprintf(name, sizeof name, "test_%s", figures[0].name);
        cJSON *tests = cJSON_AddArrayToObject(item, name);
        for (int s = 1; s < result->set_count; s++) {
            figures_of(report, s, c, figures, NULL);
            cJSON_AddItemToArray(tests, cJSON_CreateNumber(figures[0].value));
        }
        cJSON_AddItemToArray(classifiers, item);
    }
}

/* cJSON_Delete */
static cJSON *report_tree(const Report *report)
{
    const EvalDenseResult *result = &report->result;
    const EvalDenseClassifier *best = &result->classifiers[result->best];
    cJSON *tree = cJSON_CreateObject();
    char job[FIGURE_NAME];
    snprintf(job, sizeof job, "evaluate %s", report->name);
    cJSON_AddStringToObject(tree, "job", job);
    add_set(tree, report, 0);
    cJSON_AddNumberToObject(tree, "best", (double)result->best);
    cJSON_AddNumberToObject(tree, "last_blocks", (double)best->last_blocks);
    cJSON_AddNumberToObject(tree, "learning_rate", best->learning_rate);
    cJSON *tests = cJSON_AddArrayToObject(tree, "tests");
    for (int s = 1; s < result->set_count; s++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "data", result->sets[s].spec);
        add_set(item, report, s);
        cJSON_AddItemToArray(tests, item);
    }
    add_classifiers(tree, report);
    if (!report->depth) cJSON_AddNumberToObject(tree, "classes", (double)result->task.channels);
    cJSON_AddNumberToObject(tree, "train_images", (double)result->train_images);
    cJSON_AddNumberToObject(tree, "iterations", (double)result->iterations);
    cJSON_AddNumberToObject(tree, "batch_size", (double)result->batch_size);
    cJSON_AddNumberToObject(tree, "seconds", result->seconds);
    cJSON_AddNumberToObject(tree, "train_seconds", result->train_seconds);
    cJSON_AddNumberToObject(tree, "wait_seconds", result->wait_seconds);
    cJSON_AddNumberToObject(tree, "backbone_seconds", result->backbone_seconds);
    cJSON_AddNumberToObject(tree, "steps", (double)result->steps);
    cJSON_AddStringToObject(tree, "subject", report->model.path);
    return tree;
}

/* --- HDF5 --- */

/* Names of figures, each in a line of its own. */
typedef struct {
    char (*names)[FIGURE_NAME];
    Figure *figures;
    int64_t count;
} Figures;

static void add_figure(Figures *figures, const char *name, const char *unit, double value)
{
    snprintf(figures->names[figures->count], FIGURE_NAME, "%s", name);
    figures->figures[figures->count] = (Figure){
        .name = figures->names[figures->count], .unit = unit, .value = value, .published = NAN, .source = ""};
    figures->count++;
}

/* Of the best: all figures and each class; of the others: the one that decides. */
static void add_figures(Figures *figures, const Report *report, int set)
{
    const EvalDenseResult *result = &report->result;
    const char *row = report->untrained ? "untrained_" : "";
    char name[FIGURE_NAME], of[16];
    snprintf(of, sizeof of, set ? "test%d" : "val", set);
    double *iou = memory_alloc_array((size_t)result->task.channels, sizeof *iou);
    Named named[NAMED_MAX];
    int count = figures_of(report, set, result->best, named, iou);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s%s_%s_%s_best", row, report->name, named[i].name, of);
        add_figure(figures, name, named[i].unit, named[i].value);
    }
    for (int64_t k = 0; k < result->task.channels && !report->depth; k++) {
        snprintf(name, sizeof name, "%ssegmentation_iou_%s_class_%lld", row, of, (long long)k);
        add_figure(figures, name, "%", 100.0 * iou[k]);
    }
    for (int c = 0; c < result->count; c++) {
        const EvalDenseClassifier *classifier = &result->classifiers[c];
        figures_of(report, set, c, named, NULL);
        snprintf(name, sizeof name, "%s%s_%s_%s_%lld_blocks_lr_%g", row, report->name, named[0].name, of,
                 (long long)classifier->last_blocks, classifier->learning_rate);
        add_figure(figures, name, named[0].unit, named[0].value);
    }
    memory_free(iou);
}

/* Figures of all, the table of the first. */
static Status write_files(const Report *reports, int count, const char *folder, const char *json,
                          Error *error)
{
    const Report *first = &reports[0];
    const EvalDenseResult *result = &first->result;
    int64_t K = result->task.channels, cells = result->task.cells;
    size_t most = (size_t)(count * result->set_count * (NAMED_MAX + K + result->count));
    Figures figures = {.names = memory_alloc_array(most, sizeof *figures.names),
                       .figures = memory_alloc_array(most, sizeof *figures.figures)};
    double *tables = memory_alloc_array((size_t)(result->set_count * cells), sizeof *tables);
    for (int s = 0; s < result->set_count; s++) {
        for (int r = 0; r < count; r++)
            add_figures(&figures, &reports[r], s);
        memcpy(tables + s * cells, cells_of(first, s, result->best), (size_t)cells * sizeof *tables);
    }
    char *config = config_dump(&first->model.config), job[FIGURE_NAME];
    snprintf(job, sizeof job, "evaluate %s", first->name);
    Result file = {.job = job,
                   .subject = first->model.path,
                   .config = config,
                   .version = version_number(),
                   .figures = figures.figures,
                   .count = figures.count};
    if (!first->depth)
        file.confusion = (ResultConfusion){.counts = tables, .sets = result->set_count, .classes = K};
    Status status = evaluate_job_write(folder, first->name, json, &file, error);
    memory_free(config);
    memory_free(tables);
    memory_free(figures.figures);
    memory_free(figures.names);
    return status;
}

/* --- what is said --- */

static void print_set(const Report *report, int set)
{
    Named figures[NAMED_MAX];
    const EvalDenseSet *of = &report->result.sets[set];
    figures_of(report, set, report->result.best, figures, NULL);
    if (report->depth)
        printf("  %-10s  RMSE %.4f m  abs rel %.4f  delta1 %6.2f %%", set ? "test" : "validation",
               figures[0].value, figures[1].value, figures[2].value);
    else
        printf("  %-10s  mIoU %6.2f %%  pixel accuracy %6.2f %%", set ? "test" : "validation",
               figures[0].value, figures[1].value);
    printf("  of %lld images  %s\n", (long long)of->pictures, of->spec);
}

static Status tell(const Report *reports, int count, Error *error)
{
    const JobContext *context = reports[0].context;
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        cJSON *tree = report_tree(&reports[0]);
        if (count > 1) cJSON_AddItemToObject(tree, "untrained", report_tree(&reports[1]));
        char *json = cJSON_PrintUnformatted(tree);
        const char *folder = context->options->output_dir;
        if (folder) status = write_files(reports, count, folder, json, error);
        for (int r = 0; r < count; r++) {
            const EvalDenseResult *result = &reports[r].result;
            const EvalDenseClassifier *best = &result->classifiers[result->best];
            printf("%s%s: last blocks %lld, learning rate %g is the best of %d\n", reports[r].name,
                   reports[r].untrained ? ", untrained" : "", (long long)best->last_blocks,
                   best->learning_rate, result->count);
            for (int s = 0; s < result->set_count; s++)
                print_set(&reports[r], s);
        }
        if (context->json) printf("%s\n", json);
        fflush(stdout);
        cJSON_free(json);
        cJSON_Delete(tree);
    }
    return comm_agree(context->comm, status, error);
}

/* The same network at its first step, with the checkpoint's normalisation. */
static Status load_untrained(const JobContext *context, const EvalModel *trained, EvalModel *model,
                             Error *error)
{
    TRY(eval_model_untrained(model, &trained->config, error));
    model->norm = trained->norm;
    eval_model_place(model, context->device);
    return STATUS_OK;
}

static Status run_all(JobContext *context, Report *reports, int count, Error *error)
{
    TRY(evaluate_job_load(context, &reports[0].model, error));
    for (int r = 0; r < count; r++) {
        if (r > 0) TRY(load_untrained(context, &reports[0].model, &reports[r].model, error));
        TRY(train_and_test(&reports[r], error));
    }
    TRY(tell(reports, count, error));
    for (int r = 0; r < count; r++)
        if (*reports[r].state && comm_rank(context->comm) == 0) linear_state_remove(reports[r].state);
    return STATUS_OK;
}

Status job_evaluate_dense(JobContext *context, bool depth, Error *error)
{
    const Options *options = context->options;
    const char *name = depth ? "depth" : "segmentation", *folder = options->output_dir;
    if (!options_get(options, "model"))
        return status_fail(error, STATUS_INPUT, "evaluate %s needs --model PATH", name);
    TRY(job_open_device(context, error));
    int count = options_get(options, "untrained") ? 2 : 1;
    Report reports[REPORTS_MAX] = {0};
    for (int r = 0; r < count; r++) {
        Report *report = &reports[r];
        *report = (Report){.context = context, .name = name, .depth = depth, .untrained = r > 0};
        if (folder)
            snprintf(report->state, sizeof report->state, "%s/%s%s.partial", folder, name,
                     report->untrained ? "-untrained" : "");
    }
    Status status = run_all(context, reports, count, error);
    for (int r = 0; r < count; r++) {
        eval_dense_fini(&reports[r].result);
        eval_model_fini(&reports[r].model);
    }
    return status;
}

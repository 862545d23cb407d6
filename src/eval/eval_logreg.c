/* eval_logreg.c - see eval_logreg.h. */
#include "eval/eval_logreg.h"

#include "base/clock.h"
#include "base/memory.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { HELD_OUT_SHARE = 10, SCORE_ROWS = 4096, DRAW = 1 /* step of RNG_EVALUATION */ };

/* The classes that have rows, numbered without gaps: an intercept without rows has no optimum. */
typedef struct {
    int64_t count;
    int64_t *number; /* [classes] or -1 */
} Present;

/* Collective over COMM. */
static Present find_present(const EvalParams *params, const FeatureRows *rows, int64_t count, int64_t classes)
{
    Present present = {.number = memory_alloc_array((size_t)classes, sizeof *present.number)};
    for (int64_t i = 0; i < count; i++)
        present.number[rows->labels[i]] = 1;
    comm_all_reduce(params->comm, present.number, classes, DTYPE_I64, COMM_MAX, NULL);
    for (int64_t c = 0; c < classes; c++)
        present.number[c] = present.number[c] ? present.count++ : -1;
    return present;
}

/* Moves this rank's held-out rows behind the others; returns how many those are. */
static int64_t hold_out(FeatureRows *rows)
{
    int32_t *order = memory_alloc_array((size_t)rows->total, sizeof *order);
    uint8_t *held = memory_alloc((size_t)rows->total);
    Rng rng = rng_at(0, RNG_EVALUATION, DRAW, 0);
    rng_permutation(&rng, order, rows->total);
    for (int64_t i = 0; i < rows->total / HELD_OUT_SHARE; i++)
        held[order[i]] = 1;
    uint8_t *mine = held + rows->first;
    size_t bytes = (size_t)rows->d * sizeof *rows->values;
    float *swap = memory_alloc(bytes);
    int64_t at = 0, end = rows->count;
    while (at < end) {
        if (!mine[at]) {
            at++;
            continue;
        }
        end--;
        float *a = rows->values + at * rows->d, *b = rows->values + end * rows->d;
        int64_t label = rows->labels[at];
        memcpy(swap, a, bytes);
        memmove(a, b, bytes);
        memcpy(b, swap, bytes);
        rows->labels[at] = rows->labels[end];
        rows->labels[end] = label;
        mine[at] = mine[end];
    }
    memory_free(swap);
    memory_free(held);
    memory_free(order);
    return at;
}

/* Rows [first, first + count) with the numbers of `present` as labels; memory_free the labels. */
static LogisticRows some_rows(const FeatureRows *rows, int64_t first, int64_t count, const Present *present)
{
    int64_t *labels = memory_alloc_array((size_t)count, sizeof *labels);
    for (int64_t i = 0; i < count; i++)
        labels[i] = present->number[rows->labels[first + i]];
    return (LogisticRows){
        .count = count, .d = rows->d, .values = rows->values + first * rows->d, .labels = labels};
}

/* Collective over COMM. */
static Accuracy measure(const EvalParams *params, const double *weights, const LogisticRows *rows,
                        int64_t classes)
{
    Accuracy accuracy;
    int64_t *counts = memory_alloc_array((size_t)accuracy_cells(classes), sizeof *counts);
    float *scores = memory_alloc_array((size_t)(SCORE_ROWS * classes), sizeof *scores);
    for (int64_t first = 0; first < rows->count; first += SCORE_ROWS) {
        int64_t n = rows->count - first < SCORE_ROWS ? rows->count - first : SCORE_ROWS;
        LogisticRows part = {.count = n, .d = rows->d, .values = rows->values + first * rows->d};
        logistic_regression_scores(scores, weights, &part, classes);
        accuracy_add(counts, scores, rows->labels + first, n, classes, -INFINITY);
    }
    accuracy_reduce(&accuracy, params->comm, counts, classes);
    memory_free(scores);
    memory_free(counts);
    return accuracy;
}

static LogisticSpec spec_of(const Config *config, double c, int64_t classes)
{
    return (LogisticSpec){
        .classes = classes, .c = c, .max_iterations = config->evaluation.logreg_max_iterations};
}

static double *zero_weights(int64_t classes, int64_t d)
{
    return memory_alloc_array((size_t)(classes * (d + 1)), sizeof(double));
}

/* The sweep over C, on the first `kept` training rows of this rank. */
static Status sweep(const EvalParams *params, const FeatureRows *train, int64_t kept, int64_t classes,
                    EvalLogregResult *result, Error *error)
{
    const Config *config = params->config;
    Present present = find_present(params, train, kept, classes);
    if (present.count < 2) {
        memory_free(present.number);
        return status_fail(error, STATUS_INPUT, "logistic regression of %lld classes: two are needed",
                           (long long)present.count);
    }
    LogisticRows fitted = some_rows(train, 0, kept, &present);
    LogisticRows held = some_rows(train, kept, train->count - kept, &present);
    double *weights = zero_weights(present.count, train->d);
    double low = config->evaluation.logreg_c_log10[0], high = config->evaluation.logreg_c_log10[1];
    Status status = STATUS_OK;
    for (int64_t i = 0; i < result->count && status == STATUS_OK; i++) {
        EvalLogregTry *try = &result->tries[i];
        double share = result->count > 1 ? (double)i / (double)(result->count - 1) : 0.0;
        try->c = pow(10.0, low + (high - low) * share);
        LogisticSpec spec = spec_of(config, try->c, present.count);
        status = logistic_regression_fit(weights, &spec, params->comm, &fitted, &try->fit, error);
        if (status != STATUS_OK) break;
        try->held_out = measure(params, weights, &held, present.count);
        if (try->held_out.top1 > result->tries[result->best].held_out.top1) result->best = i;
        log_info(params->log,
                 "logistic regression: C = %.3g: %.2f %% of the held-out rows, objective %.6g, %lld "
                 "iterations%s",
                 try->c, 100.0 * try->held_out.top1, try->fit.objective, (long long)try->fit.iterations,
                 try->fit.converged ? "" : ", not at its end");
    }
    result->held_out_images = result->tries[0].held_out.queries;
    memory_free(weights);
    memory_free((void *)(uintptr_t)held.labels);
    memory_free((void *)(uintptr_t)fitted.labels);
    memory_free(present.number);
    return status;
}

/* The chosen C on all training rows, measured on the validation rows. */
static Status final_fit(const EvalParams *params, const FeatureRows *train, const FeatureRows *val,
                        int64_t classes, EvalLogregResult *result, Error *error)
{
    Present present = find_present(params, train, train->count, classes);
    LogisticRows fitted = some_rows(train, 0, train->count, &present);
    LogisticRows tested = some_rows(val, 0, val->count, &present);
    double *weights = zero_weights(present.count, train->d);
    LogisticSpec spec = spec_of(params->config, result->tries[result->best].c, present.count);
    Status status = logistic_regression_fit(weights, &spec, params->comm, &fitted, &result->fit, error);
    if (status == STATUS_OK) result->accuracy = measure(params, weights, &tested, present.count);
    memory_free(weights);
    memory_free((void *)(uintptr_t)tested.labels);
    memory_free((void *)(uintptr_t)fitted.labels);
    memory_free(present.number);
    return status;
}

static Status check_finite(const FeatureRows *rows, const char *which, Error *error)
{
    for (int64_t i = 0; i < rows->count; i++)
        for (int64_t j = 0; j < rows->d; j++)
            if (!isfinite(rows->values[i * rows->d + j]))
                return status_fail(error, STATUS_INPUT, "the %s features of row %lld are not finite numbers",
                                   which, (long long)(rows->first + i));
    return STATUS_OK;
}

static Status check(const EvalParams *params, const FeatureRows *train, const FeatureRows *val, Error *error)
{
    if (train->d != val->d)
        return status_fail(error, STATUS_INPUT,
                           "training features have %lld columns, validation features %lld: not of one model",
                           (long long)train->d, (long long)val->d);
    if (train->total < HELD_OUT_SHARE || train->total > INT32_MAX)
        return status_fail(error, STATUS_INPUT, "logistic regression of %lld rows: from %d to %d will do",
                           (long long)train->total, HELD_OUT_SHARE, INT32_MAX);
    Status status = check_finite(train, "training", error);
    if (status == STATUS_OK) status = check_finite(val, "validation", error);
    return comm_agree(params->comm, status, error);
}

Status eval_logreg_run(const EvalParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
                       EvalLogregResult *result, Error *error)
{
    double start = clock_seconds();
    *result = (EvalLogregResult){.count = params->config->evaluation.logreg_c_count,
                                 .train_images = train->total,
                                 .val_images = val->total,
                                 .classes = classes,
                                 .skipped = train->skipped + val->skipped};
    TRY(check(params, train, val, error));
    result->tries = memory_alloc_array((size_t)result->count, sizeof *result->tries);
    int threads = omp_get_max_threads(); /* of the products */
    if (params->threads > 0) omp_set_num_threads(params->threads);
    Status status = sweep(params, train, hold_out(train), classes, result, error);
    if (status == STATUS_OK) status = final_fit(params, train, val, classes, result, error);
    omp_set_num_threads(threads);
    result->seconds = clock_seconds() - start;
    return status;
}

void eval_logreg_fini(EvalLogregResult *result)
{
    memory_free(result->tries);
    *result = (EvalLogregResult){0};
}

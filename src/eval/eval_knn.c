/* eval_knn.c - see eval_knn.h. */
#include "eval/eval_knn.h"

#include "base/clock.h"
#include "base/memory.h"
#include "eval/few_rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct EvalKnn {
    EvalParams params;
    EvalSets *sets;
};

static int64_t largest_k(const Config *config)
{
    int64_t largest = 0;
    for (int i = 0; i < config->evaluation.knn_k.count; i++)
        if (config->evaluation.knn_k.values[i] > largest) largest = config->evaluation.knn_k.values[i];
    return largest;
}

static bool wants_all(const Config *config)
{
    const ConfigList *list = &config->evaluation.n_per_class_list;
    for (int i = 0; i < list->count; i++)
        if (list->values[i] < 0) return true;
    return false;
}

static Status check_k(const Config *config, int64_t images, Error *error)
{
    const ConfigList *list = &config->evaluation.n_per_class_list;
    for (int i = 0; i < list->count; i++)
        if (list->values[i] == 0)
            return status_fail(error, STATUS_INPUT,
                               "evaluation.n_per_class_list: expected numbers of rows, or -1 for all, got 0");
    int64_t k = largest_k(config);
    if (k <= images || !wants_all(config)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "evaluation.knn_k: %lld neighbours of only %lld training images",
                       (long long)k, (long long)images);
}

Status eval_knn_create(EvalKnn **out, const EvalParams *params, Error *error)
{
    EvalSets *sets = NULL;
    *out = NULL;
    TRY(eval_sets_open(&sets, params, "k-NN", error));
    Status status = check_k(params->config, data_set_count(eval_sets_train(sets)), error);
    if (status != STATUS_OK) {
        eval_sets_close(sets);
        return status;
    }
    *out = memory_alloc(sizeof **out);
    **out = (EvalKnn){.params = *params, .sets = sets};
    return STATUS_OK;
}

void eval_knn_destroy(EvalKnn *eval)
{
    if (!eval) return;
    eval_sets_close(eval->sets);
    memory_free(eval);
}

/* --- the evaluation --- */

/* Both sets less the mean row of the training set. Pixels are all positive: without this every picture
 * resembles every other. Collective over COMM. */
static void subtract_mean(FeatureRows *train, FeatureRows *val, Comm *comm)
{
    int64_t d = train->d;
    double *mean = memory_alloc_array((size_t)d, sizeof *mean);
    for (int64_t i = 0; i < train->count; i++)
        for (int64_t j = 0; j < d; j++)
            mean[j] += (double)train->values[i * d + j];
    comm_all_reduce(comm, mean, d, DTYPE_F64, COMM_SUM, NULL);
    for (int64_t j = 0; j < d; j++)
        mean[j] /= (double)train->total;
    FeatureRows *sets[] = {train, val};
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < sets[s]->count; i++)
            for (int64_t j = 0; j < d; j++)
                sets[s]->values[i * d + j] -= (float)mean[j];
    memory_free(mean);
}

Status eval_knn_run(EvalKnn *eval, FeatureKind kind, const FeatureBackbone *backbone, EvalKnnResult *result,
                    Error *error)
{
    const EvalParams *params = &eval->params;
    double start = clock_seconds();
    FeatureRows train = {0}, val = {0};
    Status status = eval_sets_extract(eval->sets, kind, backbone, &train, &val, error);
    if (status == STATUS_OK) {
        if (kind == FEATURE_RAW_PIXELS) subtract_mean(&train, &val, params->comm);
        status = eval_knn_vote(params, &train, &val, eval_sets_classes(eval->sets), result, error);
    }
    feature_rows_fini(&train);
    feature_rows_fini(&val);
    if (status == STATUS_OK) result->seconds = clock_seconds() - start;
    return status;
}

static Status normalize(const Ops *ops, FeatureRows *train, FeatureRows *val, Error *error)
{
    TRY(knn_normalize(ops, train->values, train->count, train->d, error));
    return knn_normalize(ops, val->values, val->count, val->d, error);
}

static KnnRows knn_rows(const FeatureRows *rows)
{
    return (KnnRows){.count = rows->count,
                     .first = rows->first,
                     .d = rows->d,
                     .values = rows->values,
                     .labels = rows->labels};
}

/* The votes of one bank. */
typedef struct {
    const EvalParams *params;
    const Ops *ops;
    const FeatureRows *val;
    int64_t classes;
} Vote;

/* scores[count] of k[count], of which `largest` is the largest. Collective over COMM. */
static Status vote(const Vote *v, const KnnRows *bank, const int64_t *k, int count, int64_t largest,
                   KnnScore *scores, Error *error)
{
    const FeatureRows *val = v->val;
    KnnRows queries = knn_rows(val);
    KnnNeighbour *neighbours = memory_alloc_array((size_t)(val->count * largest), sizeof *neighbours);
    Status status = knn_search(neighbours, v->ops, v->params->comm, bank, &queries, largest, error);
    float *votes = memory_alloc_array((size_t)val->count, (size_t)v->classes * sizeof *votes);
    for (int i = 0; i < count && status == STATUS_OK; i++) {
        knn_votes(votes, neighbours, val->count, largest, k[i], v->classes,
                  v->params->config->evaluation.knn_temperature);
        knn_score(&scores[i], v->params->comm, votes, val->labels, val->count, v->classes);
    }
    memory_free(votes);
    memory_free(neighbours);
    return status;
}

/* --- a few rows of each class --- */

/* The rising values of k that a bank of so many rows of each class has: a neighbour of one's class each. */
static void few_k(const Config *config, EvalKnnFew *few)
{
    const ConfigList *list = &config->evaluation.knn_k;
    few->k[few->count++] = few->per_class;
    for (int i = 0; i < list->count; i++) {
        int64_t k = list->values[i];
        int at = 0;
        while (at < few->count && few->k[at] < k)
            at++;
        if (k >= few->per_class || few->k[at] == k) continue;
        for (int j = few->count++; j > at; j--)
            few->k[j] = few->k[j - 1];
        few->k[at] = k;
    }
}

/* One try. Collective over COMM. */
static Status vote_few(const Vote *v, const FeatureRows *train, const int64_t *labels, int64_t seed,
                       const EvalKnnFew *few, KnnScore *scores, Error *error)
{
    uint8_t *picked = memory_alloc((size_t)train->total);
    few_rows_pick(picked, labels, train->total, v->classes, few->per_class, (uint64_t)seed);
    FeatureRows part;
    feature_rows_init(&part, train->count, train->d);
    for (int64_t i = 0; i < train->count; i++) {
        if (!picked[train->first + i]) continue;
        memcpy(part.values + part.count * train->d, train->values + i * train->d,
               (size_t)train->d * sizeof *part.values);
        part.labels[part.count++] = train->labels[i];
    }
    memory_free(picked);
    feature_rows_number(&part, v->params->comm);
    KnnRows bank = knn_rows(&part);
    Status status = vote(v, &bank, few->k, few->count, few->per_class, scores, error);
    feature_rows_fini(&part);
    return status;
}

/* mean and spread of one figure over tries[n]. */
static void summarize(const double *tries, int64_t n, double *mean, double *spread)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t t = 0; t < n; t++)
        sum += tries[t];
    *mean = sum / (double)n;
    for (int64_t t = 0; t < n; t++)
        squares += (tries[t] - *mean) * (tries[t] - *mean);
    *spread = n > 1 ? sqrt(squares / (double)(n - 1)) : 0.0;
}

/* All tries. labels[train->total] of all ranks. Collective over COMM. */
static Status vote_tries(const Vote *v, const FeatureRows *train, const int64_t *labels, EvalKnnFew *few,
                         Error *error)
{
    enum { FIGURES = 3, KS = CONFIG_LIST_MAX + 1 };
    int64_t tries = v->params->config->evaluation.n_tries;
    few_k(v->params->config, few);
    double *values = memory_alloc_array((size_t)(tries * KS * FIGURES), sizeof *values);
    Status status = STATUS_OK;
    for (int64_t t = 0; t < tries && status == STATUS_OK; t++) {
        KnnScore scores[KS];
        status = vote_few(v, train, labels, t, few, scores, error);
        for (int i = 0; i < few->count && status == STATUS_OK; i++) {
            values[(i * FIGURES + 0) * tries + t] = scores[i].top1;
            values[(i * FIGURES + 1) * tries + t] = scores[i].top5;
            values[(i * FIGURES + 2) * tries + t] = scores[i].top1_per_class;
        }
    }
    for (int i = 0; i < few->count && status == STATUS_OK; i++) {
        const double *of_k = values + i * FIGURES * tries;
        KnnScore *mean = &few->mean[i], *spread = &few->spread[i];
        summarize(of_k, tries, &mean->top1, &spread->top1);
        summarize(of_k + tries, tries, &mean->top5, &spread->top5);
        summarize(of_k + 2 * tries, tries, &mean->top1_per_class, &spread->top1_per_class);
    }
    memory_free(values);
    return status;
}

/* The banks that evaluation.n_per_class_list asks for. Collective over COMM. */
static Status vote_all(const Vote *v, const FeatureRows *train, EvalKnnResult *result, Error *error)
{
    const Config *config = v->params->config;
    if (wants_all(config)) {
        const ConfigList *k = &config->evaluation.knn_k;
        KnnRows bank = knn_rows(train);
        result->count = k->count;
        for (int i = 0; i < k->count; i++)
            result->k[i] = k->values[i];
        TRY(vote(v, &bank, result->k, k->count, largest_k(config), result->score, error));
    }
    const ConfigList *list = &config->evaluation.n_per_class_list;
    int64_t *labels = NULL;
    Status status = STATUS_OK;
    for (int i = 0; i < list->count && status == STATUS_OK; i++) {
        if (list->values[i] < 0) continue;
        if (!labels) labels = few_rows_labels(train, v->params->comm);
        EvalKnnFew *few = &result->few[result->few_count++];
        few->per_class = list->values[i];
        status = vote_tries(v, train, labels, few, error);
    }
    memory_free(labels);
    return status;
}

Status eval_knn_vote(const EvalParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
                     EvalKnnResult *result, Error *error)
{
    const Config *config = params->config;
    double start = clock_seconds();
    if (train->d != val->d)
        return status_fail(error, STATUS_INPUT,
                           "training features have %lld columns, validation features %lld: not of one model",
                           (long long)train->d, (long long)val->d);
    TRY(check_k(config, train->total, error));
    OpsLimits limits = knn_limits(train->d);
    Device *device = device_open_host();
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = params->threads});
    Vote v = {.params = params, .ops = ops, .val = val, .classes = classes};
    *result = (EvalKnnResult){.tries = config->evaluation.n_tries,
                              .temperature = config->evaluation.knn_temperature,
                              .train_images = train->total,
                              .val_images = val->total,
                              .classes = classes,
                              .skipped = train->skipped + val->skipped};
    Status status = comm_agree(params->comm, normalize(ops, train, val, error), error);
    if (status == STATUS_OK) status = vote_all(&v, train, result, error);
    result->seconds = clock_seconds() - start;
    ops_destroy(ops);
    device_close(device);
    return status;
}

/* --- telling --- */

/* The three figures of a score, with `suffix` behind their names. */
static int add_figures(EvalKnnFigure *figures, int count, const KnnScore *score, int64_t k,
                       const char *suffix)
{
    const struct {
        const char *name;
        double value;
    } three[] = {{"top1", score->top1}, {"top5", score->top5}, {"top1_per_class", score->top1_per_class}};
    for (int f = 0; f < 3; f++) {
        snprintf(figures[count].name, EVAL_KNN_NAME_BYTES, "knn_%s_k%lld%s", three[f].name, (long long)k,
                 suffix);
        figures[count++].value = 100.0 * three[f].value;
    }
    return count;
}

int eval_knn_figures(const EvalKnnResult *result, EvalKnnFigure *figures)
{
    int count = 0;
    for (int i = 0; i < result->count; i++)
        count = add_figures(figures, count, &result->score[i], result->k[i], "");
    for (int f = 0; f < result->few_count; f++) {
        const EvalKnnFew *few = &result->few[f];
        char suffix[2][40];
        snprintf(suffix[0], sizeof suffix[0], "_of_%lld_per_class", (long long)few->per_class);
        snprintf(suffix[1], sizeof suffix[1], "_of_%lld_per_class_spread", (long long)few->per_class);
        for (int i = 0; i < few->count; i++) {
            count = add_figures(figures, count, &few->mean[i], few->k[i], suffix[0]);
            count = add_figures(figures, count, &few->spread[i], few->k[i], suffix[1]);
        }
    }
    return count;
}

char *eval_knn_json(const EvalKnnResult *result)
{
    EvalKnnFigure *figures = memory_alloc_array(EVAL_KNN_FIGURES_MAX, sizeof *figures);
    int count = eval_knn_figures(result, figures);
    size_t size = 512 + (size_t)count * (EVAL_KNN_NAME_BYTES + 32), used = 0;
    char *text = memory_alloc(size);
    used += (size_t)snprintf(text, size, "{\"job\": \"evaluate knn\"");
    for (int i = 0; i < count; i++)
        used +=
            (size_t)snprintf(text + used, size - used, ", \"%s\": %.4f", figures[i].name, figures[i].value);
    memory_free(figures);
    snprintf(text + used, size - used,
             ", \"temperature\": %.9g, \"tries\": %lld, \"train_images\": %lld, \"val_images\": %lld, "
             "\"classes\": %lld, \"skipped_images\": %lld, \"seconds\": %.3f}",
             result->temperature, (long long)result->tries, (long long)result->train_images,
             (long long)result->val_images, (long long)result->classes, (long long)result->skipped,
             result->seconds);
    return text;
}

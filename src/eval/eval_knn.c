/* eval_knn.c - see eval_knn.h. */
#include "eval/eval_knn.h"

#include "base/clock.h"
#include "base/memory.h"
#include "ops/ops_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct EvalKnn {
    EvalKnnParams params;
    DataSet *train, *val;
    int64_t *val_class; /* [classes of val] the training set's class of that name */
};

FeatureInput eval_knn_input(const Config *config)
{
    FeatureInput input = {.crop_size = config->evaluation.crop_size,
                          .resize_size = config->evaluation.resize_size,
                          .batch_size = config->evaluation.batch_size,
                          .num_workers = (int)config->train.num_workers};
    if (input.crop_size == 0) input.crop_size = config->crops.global_crops_size;
    if (input.resize_size == 0) input.resize_size = lround((double)input.crop_size * 256.0 / 224.0);
    return input;
}

/* --- data sets --- */

Status eval_knn_open_data(DataSet **set, const char *spec, int64_t limit, Error *error)
{
    TRY(data_set_create(set, spec, error));
    int64_t count = data_set_count(*set);
    if (limit <= 0 || count <= limit) return STATUS_OK;
    /* Sets are sorted by class: the first `limit` images would be those of the first classes. */
    data_set_destroy(*set);
    *set = NULL;
    size_t size = strlen(spec) + 64;
    char *part = memory_alloc(size);
    snprintf(part, size, "%s;stride=%lld;limit=%lld", spec, (long long)(count / limit), (long long)limit);
    Status status = data_set_create(set, part, error);
    memory_free(part);
    return status;
}

static Status check_labels(const DataSet *set, const char *key, Error *error)
{
    for (int64_t i = 0; i < data_set_count(set); i++) {
        if (data_set_label(set, i) >= 0) continue;
        char where[DATA_SET_KEY_MAX];
        data_set_location(set, i, where, sizeof where);
        return status_fail(error, STATUS_INPUT, "%s: %s has no label, and k-NN needs one", key, where);
    }
    return STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const char *const *)a)[0], ((const char *const *)b)[0]);
}

/* A class is what its name says: the two sets may number theirs differently. */
static Status match_classes(EvalKnn *eval, Error *error)
{
    typedef struct {
        const char *name;
        int64_t label;
    } Class;
    int64_t train_count = data_set_class_count(eval->train), val_count = data_set_class_count(eval->val);
    Class *classes = memory_alloc_array((size_t)train_count, sizeof *classes);
    for (int64_t c = 0; c < train_count; c++)
        classes[c] = (Class){data_set_class_name(eval->train, c), c};
    qsort(classes, (size_t)train_count, sizeof *classes, by_name);
    eval->val_class = memory_alloc_array((size_t)val_count, sizeof *eval->val_class);
    Status status = STATUS_OK;
    for (int64_t c = 0; c < val_count && status == STATUS_OK; c++) {
        Class wanted = {.name = data_set_class_name(eval->val, c)};
        const Class *found = bsearch(&wanted, classes, (size_t)train_count, sizeof *classes, by_name);
        if (found)
            eval->val_class[c] = found->label;
        else
            status = status_fail(error, STATUS_INPUT,
                                 "evaluation.val_dataset_path: class '%s' does not occur in %s", wanted.name,
                                 eval->params.config->evaluation.train_dataset_path);
    }
    memory_free(classes);
    return status;
}

static int64_t largest_k(const Config *config)
{
    int64_t largest = 0;
    for (int i = 0; i < config->evaluation.knn_k.count; i++)
        if (config->evaluation.knn_k.values[i] > largest) largest = config->evaluation.knn_k.values[i];
    return largest;
}

static Status check_k(const Config *config, int64_t images, Error *error)
{
    int64_t k = largest_k(config);
    if (k <= images) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "evaluation.knn_k: %lld neighbours of only %lld training images",
                       (long long)k, (long long)images);
}

static Status check_crop(const EvalKnnParams *params, Error *error)
{
    int64_t crop = eval_knn_input(params->config).crop_size;
    int64_t patch = params->config->student.patch_size;
    if (params->raw_only || crop % patch == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "evaluation.crop_size: %lld is not a multiple of student.patch_size %lld",
                       (long long)crop, (long long)patch);
}

static Status open_sets(EvalKnn *eval, Error *error)
{
    const Config *config = eval->params.config;
    TRY(check_crop(&eval->params, error));
    const char *train = config->evaluation.train_dataset_path, *val = config->evaluation.val_dataset_path;
    if (*train == '\0' || *val == '\0')
        return status_fail(error, STATUS_INPUT, "evaluation.%s_dataset_path: not given, and k-NN needs it",
                           *train == '\0' ? "train" : "val");
    Status status = eval_knn_open_data(&eval->train, train, config->evaluation.limit, error);
    if (status != STATUS_OK) return status_prefix(error, status, "evaluation.train_dataset_path");
    status = eval_knn_open_data(&eval->val, val, config->evaluation.limit, error);
    if (status != STATUS_OK) return status_prefix(error, status, "evaluation.val_dataset_path");
    TRY(check_labels(eval->train, "evaluation.train_dataset_path", error));
    TRY(check_labels(eval->val, "evaluation.val_dataset_path", error));
    TRY(check_k(config, data_set_count(eval->train), error));
    return match_classes(eval, error);
}

Status eval_knn_create(EvalKnn **out, const EvalKnnParams *params, Error *error)
{
    *out = NULL;
    EvalKnn *eval = memory_alloc(sizeof *eval);
    eval->params = *params;
    Status status = comm_agree(params->comm, open_sets(eval, error), error);
    if (status == STATUS_OK)
        *out = eval;
    else
        eval_knn_destroy(eval);
    return status;
}

void eval_knn_destroy(EvalKnn *eval)
{
    if (!eval) return;
    data_set_destroy(eval->train);
    data_set_destroy(eval->val);
    memory_free(eval->val_class);
    memory_free(eval);
}

/* --- the evaluation --- */

static Status extract(const EvalKnn *eval, FeatureExtractor *extractor, bool train, FeatureRows *rows,
                      Error *error)
{
    extractor->what = train ? "k-NN: training features" : "k-NN: validation features";
    const EvalKnnParams *params = &eval->params;
    OpsLimits limits = feature_extractor_limits(extractor);
    OpsOptions options;
    Status status = ops_options_from(&options, params->config, params->device, params->threads, error);
    TRY(comm_agree(params->comm, status, error));
    Ops *ops = ops_create(params->device, &limits, &options);
    status =
        feature_extractor_run(extractor, ops, params->comm, train ? eval->train : eval->val, rows, error);
    ops_destroy(ops);
    return status;
}

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
    const EvalKnnParams *params = &eval->params;
    double start = clock_seconds();
    FeatureExtractor extractor = {
        .kind = kind, .input = eval_knn_input(params->config), .backbone = backbone, .log = params->log};
    TRY(feature_extractor_check(&extractor, error));
    FeatureRows train = {0}, val = {0};
    Status status = extract(eval, &extractor, true, &train, error);
    if (status == STATUS_OK) status = extract(eval, &extractor, false, &val, error);
    if (status == STATUS_OK) {
        if (kind == FEATURE_RAW_PIXELS) subtract_mean(&train, &val, params->comm);
        for (int64_t i = 0; i < val.count; i++)
            val.labels[i] = eval->val_class[val.labels[i]];
        status = eval_knn_vote(params, &train, &val, data_set_class_count(eval->train), result, error);
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

static void score_every_k(const EvalKnnParams *params, const KnnNeighbour *neighbours, const FeatureRows *val,
                          int64_t classes, EvalKnnResult *result)
{
    const ConfigList *k = &params->config->evaluation.knn_k;
    int64_t max_k = largest_k(params->config);
    float *votes = memory_alloc_array((size_t)val->count, (size_t)classes * sizeof *votes);
    for (int i = 0; i < k->count; i++) {
        knn_votes(votes, neighbours, val->count, max_k, k->values[i], classes, result->temperature);
        result->k[i] = k->values[i];
        knn_score(&result->score[i], params->comm, votes, val->labels, val->count, classes);
    }
    memory_free(votes);
}

Status eval_knn_vote(const EvalKnnParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
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
    int64_t k = largest_k(config);
    KnnNeighbour *neighbours = memory_alloc_array((size_t)(val->count * k), sizeof *neighbours);
    Status status = comm_agree(params->comm, normalize(ops, train, val, error), error);
    if (status == STATUS_OK) {
        KnnRows bank = knn_rows(train), queries = knn_rows(val);
        status = knn_search(neighbours, ops, params->comm, &bank, &queries, k, error);
    }
    if (status == STATUS_OK) {
        *result = (EvalKnnResult){.count = config->evaluation.knn_k.count,
                                  .temperature = config->evaluation.knn_temperature,
                                  .train_images = train->total,
                                  .val_images = val->total,
                                  .classes = classes,
                                  .skipped = train->skipped + val->skipped};
        score_every_k(params, neighbours, val, classes, result);
        result->seconds = clock_seconds() - start;
    }
    memory_free(neighbours);
    ops_destroy(ops);
    device_close(device);
    return status;
}

/* --- telling --- */

void eval_knn_name(char name[EVAL_KNN_NAME_BYTES], const char *figure, int64_t k)
{
    snprintf(name, EVAL_KNN_NAME_BYTES, "knn_%s_k%lld", figure, (long long)k);
}

char *eval_knn_json(const EvalKnnResult *result)
{
    size_t size = 512 + (size_t)result->count * 256, used = 0;
    char *text = memory_alloc(size);
    used += (size_t)snprintf(text, size, "{\"job\": \"evaluate knn\"");
    for (int i = 0; i < result->count; i++) {
        const KnnScore *score = &result->score[i];
        const struct {
            const char *figure;
            double value;
        } figures[] = {
            {"top1", score->top1}, {"top5", score->top5}, {"top1_per_class", score->top1_per_class}};
        for (int f = 0; f < 3; f++) {
            char name[EVAL_KNN_NAME_BYTES];
            eval_knn_name(name, figures[f].figure, result->k[i]);
            used +=
                (size_t)snprintf(text + used, size - used, ", \"%s\": %.4f", name, 100.0 * figures[f].value);
        }
    }
    snprintf(text + used, size - used,
             ", \"temperature\": %.9g, \"train_images\": %lld, \"val_images\": %lld, \"classes\": %lld, "
             "\"skipped_images\": %lld, \"seconds\": %.3f}",
             result->temperature, (long long)result->train_images, (long long)result->val_images,
             (long long)result->classes, (long long)result->skipped, result->seconds);
    return text;
}

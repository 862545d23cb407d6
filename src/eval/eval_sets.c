/* eval_sets.c - see eval_sets.h. */
#include "eval/eval_sets.h"

#include "base/memory.h"
#include "ops/ops_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct EvalSets {
    EvalParams params;
    const char *what;
    DataSet *train, *val;
    int64_t *val_class; /* [classes of val] the training set's class of that name */
};

FeatureInput eval_sets_input(const Config *config)
{
    FeatureInput input = {.crop_size = config->evaluation.crop_size,
                          .resize_size = config->evaluation.resize_size,
                          .batch_size = config->evaluation.batch_size,
                          .grayscale = config->crops.grayscale_probability >= 1.0,
                          .num_workers = (int)config->train.num_workers};
    if (input.crop_size == 0) input.crop_size = config->crops.global_crops_size;
    if (input.resize_size == 0) input.resize_size = lround((double)input.crop_size * 256.0 / 224.0);
    return input;
}

Status eval_sets_open_data(DataSet **set, const char *spec, int64_t limit, Error *error)
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

static Status check_labels(const EvalSets *sets, const DataSet *set, const char *name, Error *error)
{
    for (int64_t i = 0; i < data_set_count(set); i++) {
        if (data_set_label(set, i) >= 0) continue;
        char where[DATA_SET_KEY_MAX];
        data_set_location(set, i, where, sizeof where);
        return status_fail(error, STATUS_INPUT, "%s: %s has no label, and %s needs one", name, where,
                           sets->what);
    }
    return STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const char *const *)a)[0], ((const char *const *)b)[0]);
}

/* *map [classes of set] = the training set's numbers. */
static Status match_classes(const EvalSets *sets, const DataSet *set, const char *name, int64_t **map,
                            Error *error)
{
    typedef struct {
        const char *name;
        int64_t label;
    } Class;
    int64_t train_count = data_set_class_count(sets->train), count = data_set_class_count(set);
    Class *classes = memory_alloc_array((size_t)train_count, sizeof *classes);
    for (int64_t c = 0; c < train_count; c++)
        classes[c] = (Class){data_set_class_name(sets->train, c), c};
    qsort(classes, (size_t)train_count, sizeof *classes, by_name);
    *map = memory_alloc_array((size_t)count, sizeof **map);
    Status status = STATUS_OK;
    for (int64_t c = 0; c < count && status == STATUS_OK; c++) {
        Class wanted = {.name = data_set_class_name(set, c)};
        const Class *found = bsearch(&wanted, classes, (size_t)train_count, sizeof *classes, by_name);
        if (found)
            (*map)[c] = found->label;
        else
            status = status_fail(error, STATUS_INPUT, "%s: class '%s' does not occur in %s", name,
                                 wanted.name, sets->params.config->evaluation.train_dataset_path);
    }
    memory_free(classes);
    return status;
}

static Status check_crop(const EvalParams *params, Error *error)
{
    int64_t crop = eval_sets_input(params->config).crop_size;
    int64_t patch = params->config->student.patch_size;
    if (params->raw_only || crop % patch == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "evaluation.crop_size: %lld is not a multiple of student.patch_size %lld",
                       (long long)crop, (long long)patch);
}

Status eval_sets_open_other(const EvalSets *sets, const char *spec, const char *name, DataSet **set,
                            int64_t **classes, Error *error)
{
    Status status = eval_sets_open_data(set, spec, sets->params.config->evaluation.limit, error);
    if (status != STATUS_OK) return status_prefix(error, status, "%s", name);
    TRY(check_labels(sets, *set, name, error));
    return match_classes(sets, *set, name, classes, error);
}

static Status open_both(EvalSets *sets, Error *error)
{
    const Config *config = sets->params.config;
    TRY(check_crop(&sets->params, error));
    const char *train = config->evaluation.train_dataset_path, *val = config->evaluation.val_dataset_path;
    if (*train == '\0' || *val == '\0')
        return status_fail(error, STATUS_INPUT, "evaluation.%s_dataset_path: not given, and %s needs it",
                           *train == '\0' ? "train" : "val", sets->what);
    Status status = eval_sets_open_data(&sets->train, train, config->evaluation.limit, error);
    if (status != STATUS_OK) return status_prefix(error, status, "evaluation.train_dataset_path");
    TRY(check_labels(sets, sets->train, "evaluation.train_dataset_path", error));
    return eval_sets_open_other(sets, val, "evaluation.val_dataset_path", &sets->val, &sets->val_class,
                                error);
}

Status eval_sets_open(EvalSets **out, const EvalParams *params, const char *what, Error *error)
{
    *out = NULL;
    EvalSets *sets = memory_alloc(sizeof *sets);
    *sets = (EvalSets){.params = *params, .what = what};
    Status status = comm_agree(params->comm, open_both(sets, error), error);
    if (status == STATUS_OK)
        *out = sets;
    else
        eval_sets_close(sets);
    return status;
}

void eval_sets_close(EvalSets *sets)
{
    if (!sets) return;
    data_set_destroy(sets->train);
    data_set_destroy(sets->val);
    memory_free(sets->val_class);
    memory_free(sets);
}

const DataSet *eval_sets_train(const EvalSets *sets)
{
    return sets->train;
}

int64_t eval_sets_classes(const EvalSets *sets)
{
    return data_set_class_count(sets->train);
}

static Status extract(const EvalSets *sets, FeatureExtractor extractor, bool train, FeatureRows *rows,
                      Error *error)
{
    char what[64];
    snprintf(what, sizeof what, "%s: %s features", sets->what, train ? "training" : "validation");
    extractor.what = what;
    const EvalParams *params = &sets->params;
    OpsLimits limits = feature_extractor_limits(&extractor);
    OpsOptions options;
    Status status = ops_options_from(&options, params->config, params->device, params->threads, error);
    TRY(comm_agree(params->comm, status, error));
    Ops *ops = ops_create(params->device, &limits, &options);
    status =
        feature_extractor_run(&extractor, ops, params->comm, train ? sets->train : sets->val, rows, error);
    ops_destroy(ops);
    return status;
}

Status eval_sets_extract(const EvalSets *sets, FeatureKind kind, const FeatureBackbone *backbone,
                         FeatureRows *train, FeatureRows *val, Error *error)
{
    FeatureExtractor extractor = {.kind = kind,
                                  .input = eval_sets_input(sets->params.config),
                                  .backbone = backbone,
                                  .log = sets->params.log};
    TRY(feature_extractor_check(&extractor, error));
    TRY(extract(sets, extractor, true, train, error));
    TRY(extract(sets, extractor, false, val, error));
    for (int64_t i = 0; i < val->count; i++)
        val->labels[i] = sets->val_class[val->labels[i]];
    return STATUS_OK;
}

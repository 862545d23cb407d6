/* evaluate_job.c - see evaluate_job.h. */
#include "evaluate_job.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "features/features_file.h"

#include <stdio.h>
#include <string.h>

enum { CLASSES_MAX = 1 << 20 }; /* for each of which memory is taken */

Status evaluate_job_take_data(const JobContext *context, Config *config, Error *error)
{
    const char *train = options_get(context->options, "train-data");
    const char *val = options_get(context->options, "val-data");
    if (train)
        TRY(config_override_text(config, "evaluation.train_dataset_path", train, "--train-data", error));
    if (val) TRY(config_override_text(config, "evaluation.val_dataset_path", val, "--val-data", error));
    return STATUS_OK;
}

Status evaluate_job_load(const JobContext *context, EvalModel *model, Error *error)
{
    CheckpointRole role;
    *model = (EvalModel){0};
    TRY(eval_model_role(&role, options_get(context->options, "which"), error));
    TRY(eval_model_load(model, options_get(context->options, "model"), role, context->options, context->comm,
                        context->log, error));
    TRY(evaluate_job_take_data(context, &model->config, error));
    eval_model_place(model, context->device);
    return STATUS_OK;
}

/* Not collective. */
static Status read_part(const FeaturesFile *file, const char *path, const char *what, int rank, int ranks,
                        FeatureRows *rows, Error *error)
{
    if (file->meta.views > 1)
        return status_fail(error, STATUS_INPUT,
                           "%s: has %lld views of each picture; %s wants features without --views", path,
                           (long long)file->meta.views, what);
    if (file->classes > CLASSES_MAX)
        return status_fail(error, STATUS_INPUT, "%s: %lld classes, more than %d", path,
                           (long long)file->classes, CLASSES_MAX);
    if (file->meta.upside_down)
        return status_fail(error, STATUS_INPUT, "%s: is of pictures upside down", path);
    int64_t first = file->n * rank / ranks, last = file->n * (rank + 1) / ranks;
    feature_rows_init(rows, last - first, file->d);
    rows->count = last - first;
    TRY(features_file_read(file, first, rows->count, rows->values, rows->labels, error));
    for (int64_t i = 0; i < rows->count; i++)
        if (rows->labels[i] < 0 || rows->labels[i] >= file->classes)
            return status_fail(error, STATUS_INPUT, "%s: row %lld has no label, and %s needs one", path,
                               (long long)(first + i), what);
    return STATUS_OK;
}

Status evaluate_job_read_features(const JobContext *context, const char *path, const char *what,
                                  FeatureRows *rows, int64_t *classes, Error *error)
{
    FeaturesFile file = {0};
    Status status = features_file_open(&file, path, error);
    if (status == STATUS_OK) {
        *classes = file.classes > *classes ? file.classes : *classes;
        status =
            read_part(&file, path, what, comm_rank(context->comm), comm_size(context->comm), rows, error);
        features_file_close(&file);
    }
    TRY(comm_agree(context->comm, status, error));
    feature_rows_number(rows, context->comm);
    return STATUS_OK;
}

Status evaluate_job_write(const char *folder, const char *stem, const char *json, const Result *result,
                          Error *error)
{
    char path[CHECKPOINT_PATH_MAX];
    TRY(atomic_file_make_folder(folder, error));
    snprintf(path, sizeof path, "%s/%s.json", folder, stem);
    size_t size = strlen(json) + 2;
    char *line = memory_alloc(size);
    snprintf(line, size, "%s\n", json);
    Status status = atomic_file_write_text(path, line, error);
    memory_free(line);
    TRY(status);
    snprintf(path, sizeof path, "%s/%s.h5", folder, stem);
    return result_file_write(path, result, error);
}

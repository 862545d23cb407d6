/* train_start.c - finding and loading what a run starts from. */
#include "train/train_start.h"

#include <stdio.h>
#include <string.h>

static Status find_own(TrainStart *start, const char *output, Comm *comm, Log *log, Error *error)
{
    char folder[CHECKPOINT_PATH_MAX];
    size_t length = strlen(output);
    while (length > 1 && output[length - 1] == '/')
        length--;
    if (length > sizeof folder / 2)
        return status_fail(error, STATUS_INPUT, "%.100s...: the name is too long", output);
    snprintf(folder, sizeof folder, "%.*s/checkpoints", (int)length, output);
    TRY(checkpoint_find_latest(folder, comm, log, start->checkpoint, &start->found, error));
    if (!start->found) start->checkpoint[0] = '\0';
    return STATUS_OK;
}

static Status take_named(TrainStart *start, const char *path, Error *error)
{
    if (strlen(path) >= sizeof start->checkpoint)
        return status_fail(error, STATUS_INPUT, "train.resume_from: %.100s...: the name is too long", path);
    memcpy(start->checkpoint, path, strlen(path) + 1);
    start->found = start->named = true;
    return STATUS_OK;
}

/* A failure of a named checkpoint says where the name stands. */
static Status name_key(const TrainStart *start, Status status, Error *error)
{
    return start->named ? status_prefix(error, status, "train.resume_from") : status;
}

Status train_start_find(TrainStart *start, Config *config, bool resume, Comm *comm, Log *log, Error *error)
{
    *start = (TrainStart){.resume = resume};
    if (resume) TRY(find_own(start, config->train.output_dir, comm, log, error));
    if (!start->found && *config->train.resume_from) TRY(take_named(start, config->train.resume_from, error));
    if (!start->found || config->train.global_batch_size != 0) return STATUS_OK;
    CheckpointMeta meta = {0};
    Status status = checkpoint_read_meta(start->checkpoint, &meta, comm, error);
    if (status != STATUS_OK) return name_key(start, status, error);
    config->train.global_batch_size = meta.global_batch_size;
    checkpoint_meta_fini(&meta);
    return STATUS_OK;
}

/* The structure of a file is checked when it is found, its bytes only here: a damaged one is passed over. */
static Status resume(TrainStart *start, TrainState *state, bool allow_change, Log *log, Error *error)
{
    for (;;) {
        bool damaged;
        Error why = {0};
        Status status = train_state_resume(state, start->checkpoint, allow_change, &damaged, &why);
        if (status == STATUS_OK) return STATUS_OK;
        if (damaged && !start->named) {
            log_warning(log, "not usable: %s", why.text);
            TRY(checkpoint_find_before(start->checkpoint, state->comm, log, &start->found, error));
            if (start->found) continue;
            status_prefix(&why, status, "no whole checkpoint is left");
        }
        *error = why;
        return name_key(start, status, error);
    }
}

Status train_start_load(TrainStart *start, TrainState *state, bool allow_change, Log *log, Error *error)
{
    const char *named = state->config->train.resume_from, *init = state->config->train.init_from,
               *pretrained = state->config->student.pretrained_weights;
    if (start->found) {
        TRY(resume(start, state, allow_change, log, error));
        log_info(log, "resuming after iteration %lld from %s", (long long)state->iteration - 1,
                 start->checkpoint);
        if (*named && !start->named) log_info(log, "which has precedence over train.resume_from %s", named);
        if (*init) log_info(log, "which has precedence over train.init_from %s", init);
        if (*pretrained) log_info(log, "which has precedence over student.pretrained_weights %s", pretrained);
        return STATUS_OK;
    }
    if (*init && *pretrained)
        return status_fail(error, STATUS_INPUT,
                           "train.init_from and student.pretrained_weights are both set: which one is it?");
    if (*init) return train_state_init_from(state, init, log, error);
    if (*pretrained) {
        TRY(train_state_load_pretrained(state, pretrained, error));
        log_info(
            log,
            "starting with the backbone of %s in student and teacher; heads from initial weights, seed %lld",
            pretrained, (long long)state->config->train.seed);
        return STATUS_OK;
    }
    log_info(log, "starting from initial weights, seed %lld", (long long)state->config->train.seed);
    return STATUS_OK;
}

/* train_start.c - finding and loading what a run starts from. */
#include "train/train_start.h"

#include <stdio.h>
#include <string.h>

Status train_start_find(TrainStart *start, Config *config, bool resume, Comm *comm, Log *log, Error *error)
{
    char folder[CHECKPOINT_PATH_MAX];
    *start = (TrainStart){.resume = resume};
    if (!resume) return STATUS_OK;
    const char *output = config->train.output_dir;
    size_t length = strlen(output);
    while (length > 1 && output[length - 1] == '/')
        length--;
    if (length > sizeof folder / 2)
        return status_fail(error, STATUS_INPUT, "%.100s...: the name is too long", output);
    snprintf(folder, sizeof folder, "%.*s/checkpoints", (int)length, output);
    TRY(checkpoint_find_latest(folder, comm, log, start->checkpoint, &start->found, error));
    if (!start->found) start->checkpoint[0] = '\0';
    if (!start->found || config->train.global_batch_size != 0) return STATUS_OK;
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(start->checkpoint, &meta, comm, error));
    config->train.global_batch_size = meta.global_batch_size;
    checkpoint_meta_fini(&meta);
    return STATUS_OK;
}

Status train_start_load(const TrainStart *start, TrainState *state, bool allow_change, Log *log, Error *error)
{
    const char *pretrained = state->config->student.pretrained_weights;
    if (start->found) {
        TRY(train_state_resume(state, start->checkpoint, allow_change, error));
        log_info(log, "resuming after iteration %lld from %s%s%s", (long long)state->iteration - 1,
                 start->checkpoint,
                 *pretrained ? ", which has precedence over student.pretrained_weights " : "", pretrained);
        return STATUS_OK;
    }
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

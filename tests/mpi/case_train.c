/* case_train.c - real training through the loader, the step, the loop and checkpoints, as `pretrain` does it.
 */
#include "base/memory.h"
#include "ckpt/checkpoint.h"
#include "data/data_set.h"
#include "mpi_case.h"
#include "train/train_loop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The configuration in argument 1 with the key=value words from argument 2 on; --allow-config-change among
 * them is an option. */
static Status read_words(MpiCase *c, Config *config, bool *allow_change)
{
    *allow_change = false;
    config_init(config);
    TRY(config_load_file(config, c->argv[1], &c->error));
    for (int i = 2; i < c->argc; i++) {
        if (strcmp(c->argv[i], "--allow-config-change") == 0)
            *allow_change = true;
        else
            TRY(config_override(config, c->argv[i], &c->error));
    }
    TRY(config_override_text(config, "train.output_dir", c->argv[0], "argument 0", &c->error));
    return config_check(config, &c->error);
}

static Status begin(MpiCase *c, Device *device, TrainStart *start, TrainState *state, Config *config,
                    bool allow_change)
{
    Log *log = &c->run->log;
    TRY(train_start_find(start, config, true, c->comm, log, &c->error));
    TRY(comm_agree(c->comm, train_state_init(state, config, c->comm, device, 1, NULL, &c->error), &c->error));
    TRY(train_start_load(start, state, allow_change, log, &c->error));
    char *text = config_dump(config);
    Status status = run_open_folder(c->run, c->argv[0], text, device_name(device), &c->error);
    memory_free(text);
    return status;
}

static Status train(MpiCase *c, Config *config, bool allow_change)
{
    DataSet *set = NULL;
    TRY(comm_agree(c->comm, data_set_create(&set, config->train.dataset_path, &c->error), &c->error));
    TrainStart start;
    TrainState state = {0};
    Device *device = NULL;
    TRY(device_open(&device, (DeviceKind)config->compute.device, 0, &c->error));
    Status status = begin(c, device, &start, &state, config, allow_change);
    if (status == STATUS_OK) {
        TrainLoopResult result;
        TrainLoopOptions options = {0};
        status = train_loop(c->run, &state, set, &start, &options, &result, &c->error);
        EXPECT(c, status != STATUS_OK || state.iteration == state.total_iterations);
        EXPECT(c, status == STATUS_FAILED || isfinite(result.final_loss));
    }
    train_state_fini(&state);
    device_close(device);
    data_set_destroy(set);
    return status;
}

/* FOLDER CONFIG [WORD...]: trains in the run folder, or goes on there. */
Status case_train(MpiCase *c)
{
    Config config;
    bool allow_change;
    Status status = read_words(c, &config, &allow_change);
    if (status == STATUS_OK) status = train(c, &config, allow_change);
    config_fini(&config);
    return status;
}

/* FOLDER CONFIG ROLE: makes one weight of the newest checkpoint of the run NaN, "student" or "teacher", and
 * saves it with right checksums. */
Status case_train_poison(MpiCase *c)
{
    Config config;
    bool found, allow_change;
    TrainState state = {0};
    char folder[CHECKPOINT_PATH_MAX], path[CHECKPOINT_PATH_MAX];
    snprintf(folder, sizeof folder, "%s/checkpoints", c->argv[0]);
    c->argc = 2;
    Status status = read_words(c, &config, &allow_change);
    Device *device = device_open_host();
    if (status == STATUS_OK) status = train_state_init(&state, &config, c->comm, device, 1, NULL, &c->error);
    if (status == STATUS_OK)
        status = checkpoint_find_latest(folder, c->comm, &c->run->log, path, &found, &c->error);
    if (status == STATUS_OK) {
        CheckpointState saved = train_state_checkpoint(&state, 0, NULL);
        status = checkpoint_load(path, &saved, c->comm, &c->error);
        if (status == STATUS_OK) {
            float *flat = strcmp(c->argv[2], "teacher") == 0 ? saved.model_ema : saved.student;
            ShardRange range = shard_map_range(&state.ssl.student.map, 5);
            if (range.start == 0 && range.count > 3) flat[range.local + 3] = NAN;
            status = checkpoint_save(folder, &saved, 0, 0, c->comm, &c->error);
            if (c->rank == 0) fprintf(stderr, "poisoned %s\n", state.ssl.student.table.params[5].name);
            checkpoint_meta_fini(&saved.meta);
        }
    }
    train_state_fini(&state);
    device_close(device);
    config_fini(&config);
    return status;
}

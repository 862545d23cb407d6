/* checkpoint.h - the state of a training run as one HDF5 file, written and read on any number of ranks.
 *
 * Format: hdf5_schemas/checkpoint.yaml. Rank 0 lays the file out and closes it; every rank then writes its
 * share of the tensors by pwrite at their offsets (parallel HDF5 costs several times more for hundreds of
 * small tensors); checksums of the shares are combined on rank 0. A file has its final name only when it is
 * complete and on the disk; `last_checkpoint` names the newest such file, and nothing newer is trusted.
 * Paths in the file are the reference's state-dict names with dots as slashes, the chunk number of
 * `student.block_chunks` dropped. Deliberately data only: nothing in it is executed.
 *
 * Every function here is collective over COMM, with the same arguments on all ranks, and its outcome is
 * agreed: the same Status and message everywhere.
 */
#ifndef DINOBATCH_CKPT_CHECKPOINT_H
#define DINOBATCH_CKPT_CHECKPOINT_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"
#include "fsdp/shard_map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHECKPOINT_PATH_MAX = 4096 };

/* The attributes of the root. */
typedef struct {
    int64_t iteration;             /* last finished step, 0-based */
    int64_t optimizer_step;        /* AdamW steps taken */
    double loss_scale;             /* of the fp16 loss scaler; 1 when it is off */
    int64_t loss_scale_good_steps; /* finite steps since its last change */
    int64_t bad_steps;             /* steps in a row, up to this one, skipped for non-finite values */
    int64_t global_batch_size;     /* samples per step */
    int64_t samples_seen;
    int64_t seed;
    char *config; /* resolved configuration as YAML; borrowed by save, owned after read_meta */
    char arch[32];
    int64_t embed_dim, patch_size, n_registers, block_chunks;
    int64_t global_crops_size, local_crops_size;
    double mean[3], std[3];                   /* of the input's normalisation */
    char version[64];                         /* of the program */
    char distilled_from[CHECKPOINT_PATH_MAX]; /* checkpoint of the frozen teacher; "" in pretraining */
    char teacher_digest[24];                  /* of its weights (CheckpointDigest as 16 hexadecimal digits) */
    int64_t bytes;                            /* of the file that it was read from; not saved */
} CheckpointMeta;

/* What is saved and loaded: this rank's part, in host memory. All borrowed. */
typedef struct {
    const ShardMap *map;
    /* [map->count] each; `model_ema` is the student's moving average: the teacher, but for a distillation */
    float *student, *model_ema, *exp_avg, *exp_avg_sq;
    float *dino_center,
        *ibot_center; /* [count] each, whole on every rank, pending updates applied; NULL: none */
    int64_t dino_center_count, ibot_center_count;
    CheckpointMeta meta;
    bool damaged; /* set by a load that fails: the file cannot be read or its bytes are not what was saved */
} CheckpointState;

/* CHECKPOINT_TEACHER is the student's moving average: /teacher, or /model_ema in the file of a distillation,
 * whose teacher is another file's. */
typedef enum { CHECKPOINT_STUDENT, CHECKPOINT_TEACHER } CheckpointRole;

/* Removes what interrupted saves left in `folder` (*.tmp) and makes the folder. At the start of a run. */
Status checkpoint_clean(const char *folder, Comm *comm, Error *error);

/* Writes folder/model_<iteration, 7 digits>.h5, then last_checkpoint, then removes all but the newest `keep`
 * complete files (0: keeps all); those after every `keep_every` iterations stay in any case (0: none do). On
 * failure (STATUS_FAILED: disk full, ...) the earlier files stand as they
 * were and no temporary file is left. */
Status checkpoint_save(const char *folder, const CheckpointState *state, int keep, int64_t keep_every,
                       Comm *comm, Error *error);

/* Writes the moving average's weights and the attributes alone to `path`, making its folder. */
Status checkpoint_save_model_ema(const char *path, const CheckpointState *state, Comm *comm, Error *error);

/* The newest trusted checkpoint of `folder`: the one that last_checkpoint names; if that is missing or not
 * whole, the newest whole one below it, with a warning for each that is passed over (structure and sizes; the
 * bytes are proved by checkpoint_load). *found false: there is neither a checkpoint nor a last_checkpoint.
 * Something but no usable file: STATUS_INPUT. `path` holds CHECKPOINT_PATH_MAX bytes. */
Status checkpoint_find_latest(const char *folder, Comm *comm, Log *log, char *path, bool *found,
                              Error *error);

/* The same for a `path` that turned out to be damaged: replaces it by the newest whole checkpoint below it in
 * its folder. *found false: there is none. */
Status checkpoint_find_before(char *path, Comm *comm, Log *log, bool *found, Error *error);

/* file[CHECKPOINT_PATH_MAX] = the checkpoint that a user's `path` means: itself, or the newest of a run
 * folder or a folder of checkpoints. STATUS_INPUT: such a folder without a whole one. */
Status checkpoint_resolve(const char *path, char *file, Comm *comm, Log *log, Error *error);

/* The root attributes alone; STATUS_INPUT also for what no training saves: a negative count, a normalisation
 * by 0. Free by checkpoint_meta_fini. */
Status checkpoint_read_meta(const char *path, CheckpointMeta *meta, Comm *comm, Error *error);
void checkpoint_meta_fini(CheckpointMeta *meta);

/* Fills state's arrays and meta (config then owned, checkpoint_meta_fini) from a file whose tensors are
 * exactly those of state->map's table, whatever ranks and strategies saved it; padding between tensors
 * becomes zero. All checksums are verified, the work dealt over the ranks. STATUS_INPUT: unreadable, another
 * architecture (the line says the first difference), a wrong checksum (names the tensor). */
Status checkpoint_load(const char *path, CheckpointState *state, Comm *comm, Error *error);

/* This rank's part of the backbone's weights of one role into local[map->count]; other modules are untouched.
 * Works on full files and on those of checkpoint_save_model_ema. */
Status checkpoint_load_backbone(const char *path, CheckpointRole role, const ShardMap *map, float *local,
                                Comm *comm, Error *error);

/* The same with the heads: every tensor of that role. *digest: of names, shapes and checksums, which tells
 * weights from others wherever their file lies. */
Status checkpoint_load_network(const char *path, CheckpointRole role, const ShardMap *map, float *local,
                               uint64_t *digest, Comm *comm, Error *error);

#endif

/* train_state.h - everything that training changes, one step of it, and its way into and out of checkpoints.
 *
 * Source: dinov2/train/train.py do_train. A TrainState is what a checkpoint holds plus what follows from the
 * configuration; the loop around it (data, metrics, signals) is train_loop.h.
 */
#ifndef DINOBATCH_TRAIN_TRAIN_STATE_H
#define DINOBATCH_TRAIN_TRAIN_STATE_H

#include "base/log.h"
#include "ckpt/checkpoint.h"
#include "optim/adamw_optimizer.h"
#include "optim/cosine_schedule.h"
#include "ssl/ssl_meta_arch.h"

typedef struct {
    Config *config; /* borrowed; train.global_batch_size is resolved */
    Comm *comm;     /* borrowed */
    SslGroups groups;
    Ops *ops; /* owned */
    SslMetaArch ssl;
    AdamwOptimizer optimizer;
    TrainSchedules schedules;
    double peak_lr;
    int64_t total_iterations;
    int64_t iteration; /* the next one to do, 0-based */
    int64_t bad_steps; /* consecutive steps skipped for non-finite values */
    /* The teacher's centres before the step, for a step that is skipped; owned, NULL where they are unused */
    float *dino_center_before, *ibot_center_before;
} TrainState;

/* What one step says about itself; the same on all ranks. */
typedef struct {
    TrainScheduleValues schedule;
    SslFigures figures;
    double grad_norm[PARAM_MODULE_COUNT]; /* before clipping */
    bool skipped; /* not finite, tolerated by train.skip_bad_steps: nothing was updated */
} TrainStep;

/* Threads of this rank: compute.threads, or its share of the cores it may run on among the ranks of its node.
 */
int train_state_threads(const Config *config, int ranks_on_node);

/* Deals groups, builds the networks with initial weights and plans memory. Writes the resolved global batch
 * into config->train.global_batch_size. Own storage, released by train_state_fini (also after a failure). */
Status train_state_init(TrainState *state, Config *config, Comm *comm, int threads, Error *error);
void train_state_fini(TrainState *state);

/* One step on `batch`: schedules, forward and backward, norms, clip, AdamW, teacher. STATUS_FAILED, the same
 * on all ranks, when a loss or a norm is NaN or inf and train.skip_bad_steps is used up: the message names
 * the step, the term and the first bad tensor; weights, moments and centres stay as they were. Collective
 * over COMM. */
Status train_state_step(TrainState *state, const Batch *batch, TrainStep *step, Error *error);

/* The state as the checkpoint functions take it, after iteration `iteration`; config_text is borrowed. */
CheckpointState train_state_checkpoint(TrainState *state, int64_t iteration, char *config_text);

/* Continues from a checkpoint: weights, moments, centres, counters. Keys of the saved configuration that must
 * not differ do not, unless allow_change. STATUS_INPUT naming what is wrong. Collective over COMM. */
Status train_state_resume(TrainState *state, const char *path, bool allow_change, Error *error);

/* A fresh start from other weights: the teacher's backbone in that checkpoint becomes the backbone of student
 * and teacher; heads, moments and counters stay. STATUS_INPUT naming file and tensor when it does not fit in
 * every tensor, the grid of the position embedding included. Collective over COMM.
 * DEVIATION: the reference loads what fits and keeps quiet about the rest (strict=False). */
Status train_state_load_pretrained(TrainState *state, const char *path, Error *error);

/* One log line: the types that products are really made in, beside those that the configuration asks for (a
 * CPU computes fp16 in fp32, and bf16 too where the processor does not multiply it). */
void train_state_log_precision(const TrainState *state, Log *log);

/* The memory of this rank by lifetime, one log line each. */
void train_state_log_memory(const TrainState *state, size_t batch_bytes, Log *log);

#endif

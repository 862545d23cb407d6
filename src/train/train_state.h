/* train_state.h - everything that training changes, one step of it, and its way into and out of checkpoints.
 *
 * Source: dinov2/train/train.py do_train. A TrainState is what a checkpoint holds plus what follows from the
 * configuration; the loop around it (data, metrics, signals) is train_loop.h.
 *
 * A step is submitted to the device, and finished later: on a CPU at once, on a GPU while the next one is
 * already under way. Whether a step may change anything is decided on the device (ops.h, step_control), so
 * nothing waits for the host.
 */
#ifndef DINOBATCH_TRAIN_TRAIN_STATE_H
#define DINOBATCH_TRAIN_TRAIN_STATE_H

#include "base/log.h"
#include "ckpt/checkpoint.h"
#include "optim/adamw_optimizer.h"
#include "optim/cosine_schedule.h"
#include "ssl/ssl_meta_arch.h"
#include "train/train_teacher.h"

/* What one step says about itself; the same on all ranks. */
typedef struct {
    int64_t iteration;
    TrainScheduleValues schedule;
    SslFigures figures;
    double grad_norm[PARAM_MODULE_COUNT]; /* before clipping */
    double loss_scale;                    /* of this step's gradients */
    bool skipped; /* not finite, tolerated by train.skip_bad_steps: nothing was updated */
} TrainStep;

/* A step that was submitted, and where the device leaves its numbers. */
typedef struct {
    TrainStep step; /* what is known beforehand */
    int64_t masked_patches;
    double *values; /* host copies of figures, control vector and squared norms, one after the other; owned */
    DeviceEvent *done; /* owned */
} TrainSubmission;

enum { TRAIN_SUBMISSIONS = 2 }; /* steps that can be under way */

/* Host copies of this rank's part of what a checkpoint holds, where the device has memory of its own or
 * checkpoints are written while training goes on (checkpoint.async); else all NULL. Owned. */
typedef struct {
    float *student, *model_ema, *exp_avg, *exp_avg_sq, *dino_center, *ibot_center;
} TrainMirror;

typedef struct {
    Config *config; /* borrowed; train.global_batch_size is resolved */
    Comm *comm;     /* borrowed */
    Device *device; /* borrowed */
    SslGroups groups;
    FsdpRanks ranks;
    Ops *ops; /* owned */
    SslMetaArch ssl;
    TrainTeacher teacher; /* of a distillation; else unused */
    AdamwOptimizer optimizer;
    TrainSchedules schedules;
    double peak_lr;
    int64_t total_iterations;
    int64_t iteration; /* the next one to do, 0-based */
    int64_t finished;  /* the first one that is not finished; iterations between the two are under way */
    int64_t bad_steps; /* consecutive steps skipped for non-finite values */
    TrainSubmission submissions[TRAIN_SUBMISSIONS]; /* iteration i at i % TRAIN_SUBMISSIONS */
    double control[CONTROL_COUNT];                  /* after the last finished step */
    /* The teacher's centres before the step, for a step that is skipped; owned, NULL where they are unused */
    float *dino_center_before, *ibot_center_before;
    TrainMirror mirror;
    size_t resident_before; /* bytes of this process, before anything here was made */
} TrainState;

/* Threads of this rank: compute.threads, or its share of the cores it may run on among the ranks of its node,
 * at most OMP_NUM_THREADS and SLURM_CPUS_PER_TASK: where Slurm binds nobody, a rank sees cores that are not
 * its. */
int train_state_threads(const Config *config, int ranks_on_node);

/* Deals groups and parts of weights, builds the networks with initial weights and plans memory. Writes the
 * resolved global batch into config->train.global_batch_size. With distillation.checkpoint_path the frozen
 * teacher is loaded, too; warnings about its folder go to `log` (NULL: nowhere). STATUS_INPUT where groups,
 * nodes, devices or the teacher do not suit the configuration. Own storage, released by train_state_fini
 * (also after a failure). Collective over COMM; the outcome is the same on all ranks. */
Status train_state_init(TrainState *state, Config *config, Comm *comm, Device *device, int threads, Log *log,
                        Error *error);
void train_state_fini(TrainState *state);

/* Gives one step on `batch` to the device: schedules, forward and backward, norms, clip, AdamW, teacher. The
 * batch must stay until the step is finished. At most TRAIN_SUBMISSIONS steps are under way. Collective over
 * COMM. */
void train_state_submit(TrainState *state, const Batch *batch);

/* The next finished step, in order. *ready false: none, because all are finished, or (unless `all`) because
 * the device may still be at work on the last one. STATUS_FAILED, the same on all ranks, when a loss or a
 * norm is NaN or inf and train.skip_bad_steps is used up: the message names the step, the term and the first
 * bad tensor; weights, moments and centres stay as they were before that step. Gradients that overflow under
 * a loss scale above 1 are skipped without being counted: lowering the scale is the answer to them. */
Status train_state_finish(TrainState *state, bool all, TrainStep *step, bool *ready, Error *error);

/* The state as the checkpoint functions take it, after iteration `iteration`, in host memory; config_text is
 * borrowed. All submitted steps must be finished. With checkpoint.async it is a copy, which stays as it is
 * until the next call. */
CheckpointState train_state_checkpoint(TrainState *state, int64_t iteration, char *config_text);

/* Continues from a checkpoint: weights, moments, centres, counters. Keys of the saved configuration that must
 * not differ do not, and a frozen teacher's weights are the same, unless allow_change. STATUS_INPUT naming
 * what is wrong. *damaged: the file's bytes are, and nothing else is wrong; the state is then to be filled
 * from another. Collective over COMM. */
Status train_state_resume(TrainState *state, const char *path, bool allow_change, bool *damaged,
                          Error *error);

/* A fresh start from other weights: the teacher's backbone in that checkpoint becomes the backbone of student
 * and moving average; heads, moments and counters stay. STATUS_INPUT naming file and tensor when it does not
 * fit in every tensor, the grid of the position embedding included. Collective over COMM. DEVIATION: the
 * reference loads what fits and keeps quiet about the rest (strict=False). */
Status train_state_load_pretrained(TrainState *state, const char *path, Error *error);

/* A fresh start from another training, at other sizes of crops, too: student and moving average are those of
 * the checkpoint that `path` means (of its moving average both, where it holds no student), with its heads or
 * the initial ones (train.init_heads), position embeddings resampled; moments, centres and counters stay. Log
 * lines say what was done. STATUS_INPUT naming file and tensor that does not fit. Collective over COMM. */
Status train_state_init_from(TrainState *state, const char *path, Log *log, Error *error);

/* The types that products and sums over ranks are really made in, beside those that the configuration asks
 * for (a CPU computes fp16 in fp32, and bf16 too where the processor does not multiply it). */
void train_state_log_precision(const TrainState *state, Log *log);

/* The memory of this rank by lifetime, one log line each. */
void train_state_log_memory(const TrainState *state, size_t batch_bytes, Log *log);

/* One log line: what the process has grown by since the state was made, as the kernel counts it. After a
 * step, when everything has been touched. */
void train_state_log_resident(const TrainState *state, Log *log);

#endif

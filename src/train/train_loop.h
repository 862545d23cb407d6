/* train_loop.h - the loop around a training step: data, metrics, progress, evaluation, checkpoints, stopping.
 *
 * Source: dinov2/train/train.py do_train. A run that is stopped and resumed continues with the very next
 * sample.
 */
#ifndef DINOBATCH_TRAIN_TRAIN_LOOP_H
#define DINOBATCH_TRAIN_TRAIN_LOOP_H

#include "data/data_set.h"
#include "run/run.h"
#include "train/train_start.h"

/* Called every evaluation.eval_period_iterations, before eval/training_<iteration>/teacher_checkpoint.h5 is
 * written, whose presence says that this evaluation is complete: a run that was ended in the middle of one
 * does it again when it resumes. A STATUS_FAILED is treated as that of a checkpoint. Collective. */
typedef Status TrainEvaluate(void *context, TrainState *state, int64_t iteration, Error *error);

typedef struct {
    TrainEvaluate *evaluate; /* or NULL */
    void *evaluate_context;
} TrainLoopOptions;

/* What the run did, for the job's result. */
typedef struct {
    int64_t first_iteration, iterations;  /* done by this run: [first, first + iterations) */
    double images_per_s;                  /* mean over this run's steps, all ranks */
    double final_loss;                    /* total_loss of the last step */
    char checkpoint[CHECKPOINT_PATH_MAX]; /* newest, "" if none */
} TrainLoopResult;

/* Trains until optim.epochs are done (STATUS_OK), or a stop was requested or train.stop_after_iterations are
 * done (STATUS_REQUEUE, after saving). The state is loaded and the run folder open. A checkpoint that cannot
 * be written ends the run, or is an error line where checkpoint.on_error says so; the last one must succeed
 * in any case. Collective over COMM. */
Status train_loop(Run *run, TrainState *state, const DataSet *set, const TrainStart *start,
                  const TrainLoopOptions *options, TrainLoopResult *result, Error *error);

#endif

/* checkpoint_training.h - what a checkpoint costs a training: written between its steps, where training
 * stands still for all of the writing, or beside them (checkpoint.async), where it stands still for a copy
 * and steps share cores and disk with the writing.
 *
 * Training is on random batches. Each round takes steps with nothing to write, steps after a checkpoint that
 * was written between, and steps while one is written, so that a slow moment of the machine meets all.
 */
#ifndef DINOBATCH_BENCH_CHECKPOINT_TRAINING_H
#define DINOBATCH_BENCH_CHECKPOINT_TRAINING_H

#include "bench/checkpoint_bench.h"

/* Seconds, of the slowest rank. */
typedef struct {
    char name[32];
    int ranks, threads;
    double bytes;                      /* of a checkpoint's tensors */
    BenchTimes alone, between, beside; /* of a step; beside.count 0: not possible here */
    BenchTimes save;                   /* training stands still: for the whole save between steps, */
    BenchTimes copy;                   /* or for the copy that is then written beside them */
    BenchTimes write;                  /* of that copy */
    double cost_beside;                /* the copy, and what the steps beside take longer, by medians */
} CheckpointTraining;

/* `several`: threads of this process may communicate at a time, so checkpoints can be written beside steps.
 * STATUS_INPUT for a configuration that does not suit the ranks, STATUS_FAILED when the disk does not take a
 * file. The same figures on all ranks. Collective over COMM. */
Status checkpoint_training_run(CheckpointTraining *result, const CheckpointBenchParams *params, bool several,
                               Error *error);

#endif

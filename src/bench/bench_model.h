/* bench_model.h - a model that trains on random batches: what measurements of whole steps have in common.
 *
 * The step is what training does but for the data: teacher and student forward, losses, backward, norms and
 * clipping, AdamW, the teacher's average. Schedules stand at fixed values.
 */
#ifndef DINOBATCH_BENCH_BENCH_MODEL_H
#define DINOBATCH_BENCH_BENCH_MODEL_H

#include "bench/ops_timed.h"
#include "optim/adamw_optimizer.h"
#include "ssl/ssl_meta_arch.h"

typedef struct {
    const Config *config; /* borrowed */
    Device *device;       /* borrowed */
    SslGroups groups;
    FsdpRanks ranks;
    Ops *ops; /* owned */
    SslMetaArch ssl;
    AdamwOptimizer optimizer;
    TrainScheduleValues schedule;
    Batch batch;
    uint8_t *mask_scratch; /* owned */
    int64_t batches;       /* drawn so far */
} BenchModel;

/* Builds it with initial weights on the ranks of `comm`, which deal groups and parts of weights as in
 * training. The configuration has been checked; it, `comm` and `device` must outlive the model. `timed`, if
 * not NULL, is made of the model's operations (its own ops_timed_fini comes after bench_model_fini), and on a
 * CPU the model computes through it. STATUS_INPUT where groups or nodes do not suit the configuration;
 * release by bench_model_fini then, too. Collective over COMM; the outcome is the same on all ranks. */
Status bench_model_init(BenchModel *model, const Config *config, Comm *comm, Device *device, int threads,
                        OpsTimed *timed, Error *error);
void bench_model_fini(BenchModel *model);

/* New masks. */
void bench_model_next_batch(BenchModel *model);

/* The three parts of a step, in this order: losses and gradients; norms and update; the teacher's average and
 * copies of weights made anew. Collective over all ranks. */
void bench_model_gradients(BenchModel *model);
void bench_model_update(BenchModel *model);
void bench_model_average(BenchModel *model);

/* All three. Collective over all ranks. */
void bench_model_step(BenchModel *model);

#endif

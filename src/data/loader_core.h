/* loader_core.h - what the loaders of training and evaluation share: threads, their memory, the ring of
 * slots, and what becomes of corrupt images. Private to data/; loader.c and eval_loader.c say what a task is.
 */
#ifndef DINOBATCH_DATA_LOADER_CORE_H
#define DINOBATCH_DATA_LOADER_CORE_H

#include "data/augment.h"
#include "data/data_set.h"
#include "data/task_ring.h"

/* Memory of one thread. */
typedef struct {
    Image image;
    Image turned; /* the evaluation loader's, of views that are turned */
    DataBuffer buffer;
    AugmentScratch *augment;
    uint8_t *masks; /* the training loader's, or NULL; owned */
} LoaderScratch;

typedef struct {
    const DataSet *set;     /* borrowed */
    LoaderScratch *scratch; /* [threads] owned */
    int threads;            /* that run tasks: the workers, or the consumer alone */
    int workers, slots;
    TaskRing *ring;     /* owned */
    int64_t next_round; /* that loader_core_next hands out */
} LoaderCore;

/* `workers` threads, 0: the consumer does the work; batches lie in `prefetch` + in_use slots (in_use without
 * workers). Released by loader_core_fini. */
void loader_core_init(LoaderCore *core, const DataSet *set, int workers, int64_t prefetch, int in_use);

/* Starts the threads. Of `tasks`, context, begin, run and the rounds count. STATUS_FAILED: they cannot be
 * had. */
Status loader_core_start(LoaderCore *core, TaskRingParams tasks, Error *error);

void loader_core_fini(LoaderCore *core);

/* Notes image `index` as corrupt when `status` is STATUS_INPUT, with `reason`; hands other failures up. */
Status loader_core_note(LoaderCore *core, int64_t index, int64_t round, Status status, const Error *reason,
                        Error *error);

/* The slot of the next round, in order, or -1 after the last. */
Status loader_core_next(LoaderCore *core, int *slot, double *wait_seconds, Error *error);

#endif

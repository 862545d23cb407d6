/* task_ring.h - rounds of small tasks done by threads ahead of one consumer, in a ring of slots.
 *
 * Round r fills slot r % slots. Tasks are handed out in order of (round, task); a round is given to the
 * consumer when all of its tasks are done, rounds in order. So what is computed depends on (round, task)
 * alone, and memory is bounded by the slots. Without workers the consumer does the tasks itself.
 * It knows nothing of what the tasks do: loader.c and eval_loader.c do.
 */
#ifndef DINOBATCH_DATA_TASK_RING_H
#define DINOBATCH_DATA_TASK_RING_H

#include "base/status.h"

#include <stdint.h>

typedef struct {
    void *context; /* borrowed, handed to both functions */
    /* Prepares `slot` for `round` and returns its number of tasks, >= 1. Calls are serialised. */
    int64_t (*begin)(void *context, int slot, int64_t round);
    /* Does one task. Runs in several threads at once; `worker` (0 .. max(workers, 1) - 1) is the caller's
     * own number, for scratch memory. */
    Status (*run)(void *context, int worker, int slot, int64_t task, Error *error);
    int64_t first_round, last_round; /* rounds [first, last) */
    int workers;
    int slots; /* >= 1, >= 2 for any overlap with the consumer */
} TaskRingParams;

typedef struct TaskRing TaskRing;

/* Starts the threads, with all signals blocked. STATUS_FAILED: they cannot be had. */
Status task_ring_create(TaskRing **out, const TaskRingParams *params, Error *error);

/* Stops the threads after the task that each is at. */
void task_ring_destroy(TaskRing *ring);

/* Blocks until the next round is complete; *slot is its slot, or -1 after the last round; *wait_seconds the
 * time spent here. A failed task fails its round: status and message are those of the round's first failed
 * task. At most `slots` rounds may be unreleased. */
Status task_ring_next(TaskRing *ring, int *slot, double *wait_seconds, Error *error);

/* Gives a slot back for later rounds, in the order of task_ring_next. */
void task_ring_release(TaskRing *ring, int slot);

#endif

/* linear_state.h - what the training of a linear probe needs to go on after it was stopped or killed, in a
 * file that only this program reads. It does not depend on the number of ranks.
 */
#ifndef DINOBATCH_EVAL_LINEAR_STATE_H
#define DINOBATCH_EVAL_LINEAR_STATE_H

#include "base/log.h"
#include "eval/linear_probe.h"

typedef struct {
    const char *path; /* NULL: nothing is kept. Borrowed */
    uint64_t digest;  /* of all that the training depends on */
} LinearState;

/* Weights, velocities and step of `probe` from the file, if there is one of this digest; a damaged one or one
 * of another digest is left alone, and the log says so. Collective over COMM. */
void linear_state_restore(const LinearState *state, LinearProbe *probe, Comm *comm, Log *log);

/* Writes them by rank 0. The outcome is agreed. Collective over COMM. */
Status linear_state_save(const LinearState *state, LinearProbe *probe, Comm *comm, Error *error);

/* Between two steps: saves each `period` of them (0: never), and when a rank was asked to stop, with
 * STATUS_REQUEUE then. Collective over COMM. */
Status linear_state_pause(const LinearState *state, LinearProbe *probe, Comm *comm, Log *log, int64_t period,
                          Error *error);

/* The result is there: the file goes. One rank. Not collective. */
void linear_state_remove(const char *path);

#endif

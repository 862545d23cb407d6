/* job_doctor_child.h - what may hang is done by a child process, for some seconds at most.
 *
 * A child that hangs in the kernel, on a file system that is gone, cannot be killed either: it is left behind
 * and not waited for.
 */
#ifndef DINOBATCH_JOBS_JOB_DOCTOR_CHILD_H
#define DINOBATCH_JOBS_JOB_DOCTOR_CHILD_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { DOCTOR_CHILD_RESULT_MAX = 4096, DOCTOR_CHILD_TEXT = 16 << 10 };

/* In the child: *result, zeroed before, of *argument. No MPI, no HDF5, no threads. */
typedef void (*DoctorWork)(const void *argument, void *result);

/* Calls `work` in a child. `bytes` up to DOCTOR_CHILD_RESULT_MAX. STATUS_FAILED: it was not done after
 * `seconds`, or broke. */
Status doctor_child_call(DoctorWork work, const void *argument, void *result, size_t bytes, double seconds,
                         Error *error);

/* A program under way or ended. */
typedef struct {
    pid_t pid;       /* -1: over */
    int pipe;        /* -1: closed */
    double started;  /* clock_seconds */
    double seconds;  /* that it took, once over */
    int exit_status; /* once over: 128 + signal when a signal ended it, 127 when it was not found */
    bool timed_out;
    size_t used;
    char text[DOCTOR_CHILD_TEXT]; /* what it wrote to both outputs, cut at the end */
} DoctorProgram;

/* Starts argv[0], looked up in PATH. `alone`: without what tells it that it is a rank of this job. */
void doctor_child_start(DoctorProgram *program, const char *const *argv, bool alone);

/* Waits until all of them are over, or kills them after `seconds`. */
void doctor_child_finish(DoctorProgram *programs, int count, double seconds);

/* One program from start to end. */
void doctor_child_run(DoctorProgram *program, const char *const *argv, double seconds);

#endif

/* disturbance.h - what happens to a training run at a random moment, and how the run has to end then. */
#ifndef DINOBATCH_TESTS_TORTURE_DISTURBANCE_H
#define DINOBATCH_TESTS_TORTURE_DISTURBANCE_H

#include "../support/process.h"
#include "base/rng.h"

#include <stdint.h>
#include <sys/resource.h>

typedef enum {
    DISTURBANCE_KILL_RANK,
    DISTURBANCE_KILL_LAUNCHER,
    DISTURBANCE_KILL_IN_SAVE,     /* a rank, while a checkpoint is being written */
    DISTURBANCE_ASK,              /* to stop */
    DISTURBANCE_ASK_AGAIN,        /* a run that hangs and so did not stop */
    DISTURBANCE_HANG,             /* a rank that does not answer */
    DISTURBANCE_DISK_FULL,        /* for good */
    DISTURBANCE_DISK_FULL_AWHILE, /* under checkpoint.on_error=continue */
    DISTURBANCE_TRUNCATED,        /* killed, and then the newest checkpoint loses its end */
    DISTURBANCE_FLIPPED,          /* killed, and then one bit of the newest checkpoint is another */
    DISTURBANCE_UNNAMED,          /* killed, and then last_checkpoint is gone */
    DISTURBANCE_KINDS
} DisturbanceKind;

/* Where it happens. */
typedef struct {
    const char *run;     /* the run folder */
    const char *disk;    /* a small disk that holds it, or NULL: sizes of files are limited instead */
    int ranks;           /* of the run */
    int64_t starts_from; /* the iteration that it resumes after; -1: a new run */
} DisturbancePlace;

typedef struct {
    DisturbanceKind kind;
    int victim;              /* rank; -1: mpirun */
    bool early;              /* while the job starts, instead of after `steps` more */
    int64_t steps;           /* iterations */
    double delay;            /* seconds after that */
    double part;             /* [0, 1): which part of a file, how much room */
    pid_t limited;           /* whose files may not grow; 0: nobody's */
    struct rlimit unlimited; /* of that process before */
    double struck;           /* clock_seconds() when all was done to it */
} Disturbance;

/* The fewest ranks that such a run needs: one that hangs takes others that wait for it. */
int disturbance_least_ranks(DisturbanceKind kind);

/* Everything but the kind is drawn. */
Disturbance disturbance_draw(Rng *rng, DisturbanceKind kind, const DisturbancePlace *place);

/* "kill -9 of rank 2 after 7 steps" */
void disturbance_describe(const Disturbance *d, char *text, size_t size);

/* One more word of the command line, or NULL. */
const char *disturbance_word(const Disturbance *d);

/* Before the run starts; while it runs, until the last thing is done to it; after it has ended, with the
 * checkpoint that may be damaged, -1: none. */
void disturbance_prepare(const Disturbance *d, const DisturbancePlace *place);
void disturbance_strike(Disturbance *d, const DisturbancePlace *place, Process *process);
void disturbance_finish(const Disturbance *d, const DisturbancePlace *place, int64_t checkpoint);

/* What is wrong with how the run ended, or NULL. A run that came to its end before is fine. */
const char *disturbance_judge(const Disturbance *d, const DisturbancePlace *place,
                              const ProcessResult *result);

#endif

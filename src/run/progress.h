/* progress.h - a bar with rate and time to go on a terminal, plain lines every N steps elsewhere.
 *
 *     Progress progress = progress_begin(log, "training", first, total, 10);
 *     for (...) progress_update(&progress, steps_done, "loss 10.2");
 *     progress_end(&progress);
 *
 * Speaks through log_progress, hence on rank 0 only.
 */
#ifndef DINOBATCH_RUN_PROGRESS_H
#define DINOBATCH_RUN_PROGRESS_H

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    Log *log;         /* borrowed */
    const char *what; /* borrowed */
    const char *unit; /* of what is counted, in the plural; "steps" unless it is set; borrowed */
    int64_t total;
    int64_t every;            /* plain lines: each so many steps, and the last */
    int64_t done;             /* steps */
    double last_time;         /* clock_seconds of the last update */
    double weight, step_time; /* smoothed seconds per step, and how much evidence it rests on in [0, 1) */
    bool terminal;
    double last_drawn;
} Progress;

/* `first` steps are done already (a resumed run); `every` < 1 counts as 1. */
Progress progress_begin(Log *log, const char *what, int64_t first, int64_t total, int64_t every);

/* `done` steps of the total are done; `detail` (may be "") ends the line. */
void progress_update(Progress *progress, int64_t done, const char *detail);

/* Leaves the terminal's line. */
void progress_end(Progress *progress);

/* The parts, apart from clock and terminal: takes note of `done` steps at time `now`, and writes the line of
 * at most `width` columns. `text` holds `size` bytes. */
void progress_note(Progress *progress, int64_t done, double now);
void progress_format(const Progress *progress, const char *detail, int width, char *text, int size);

/* Several kinds of work one after the other, as a callback that is told what goes on (data_pack.h):
 *
 *     ProgressPhases phases = {.log = log};
 *     ... .progress = progress_phases_tell, .progress_context = &phases ...
 *     progress_phases_end(&phases);
 */
typedef struct {
    Log *log; /* borrowed */
    Progress progress;
    char what[32]; /* of `progress`; empty before the first */
} ProgressPhases;

void progress_phases_tell(void *phases, const char *what, const char *unit, int64_t done, int64_t total);
void progress_phases_end(ProgressPhases *phases);

#endif

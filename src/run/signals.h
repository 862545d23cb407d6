/* signals.h - the request to stop: SIGUSR1 (from mpirun or Slurm's --signal) and SIGTERM.
 *
 * The first sets a flag that the training loop reads; another one, more than SIGNALS_REPEAT_SECONDS later,
 * ends the process at once. Repeats within that time are the same request: mpirun forwards SIGUSR1 to every
 * rank, so a signal to the whole process group reaches each rank twice. A job that has nothing to save, and
 * so never looks at the flag, is ended by either signal as any program is.
 */
#ifndef DINOBATCH_RUN_SIGNALS_H
#define DINOBATCH_RUN_SIGNALS_H

#include <stdbool.h>

enum { SIGNALS_REPEAT_SECONDS = 2 };

/* Ignores SIGXFSZ (file-size limit) and, for a job that stops on request, installs the handlers. `rank` says
 * who leaves, in the line about it. Main thread, before any other thread exists; a job that has something to
 * save only from some point on calls it there once more. Interrupted system calls are restarted. */
void signals_install(bool stops, int rank);

/* Ends the process with a line unless signals_limit(0) follows within `seconds` (0: no limit): for the start
 * and the end of MPI, which wait for all ranks, and which no watchdog sees. Main thread. */
void signals_limit(double seconds);

/* Whether this process was asked to stop. Any thread. */
bool signals_stop_requested(void);

#endif

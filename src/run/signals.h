/* signals.h - the request to stop: SIGUSR1 (from mpirun or Slurm's --signal) and SIGTERM.
 *
 * The first sets a flag that the training loop reads; another one, more than SIGNALS_REPEAT_SECONDS later,
 * ends the process at once. Repeats within that time are the same request: mpirun forwards SIGUSR1 to every
 * rank, so a signal to the whole process group reaches each rank twice.
 */
#ifndef DINOBATCH_RUN_SIGNALS_H
#define DINOBATCH_RUN_SIGNALS_H

#include <stdbool.h>

enum { SIGNALS_REPEAT_SECONDS = 2 };

/* Installs the handlers and ignores SIGXFSZ (file-size limit); main thread, before any other thread exists.
 * Interrupted system calls are restarted.
 */
void signals_install(void);

/* Whether this process was asked to stop. Any thread. */
bool signals_stop_requested(void);

#endif

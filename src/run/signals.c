/* signals.c - handlers that only touch a flag.
 *
 * The static variables are the only mutable static state of the program: a signal handler gets no
 * argument, so what it says to the rest must have static storage.
 */
#include "run/signals.h"

#include "base/status.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested;
static volatile sig_atomic_t first_request; /* CLOCK_MONOTONIC, whole seconds */
static char speaker[24];                    /* "rank 3: ", "" on rank 0; written before there is a handler */

static _Noreturn void leave(const char *line)
{
    /* strlen and writev are async-signal-safe; every rank speaks: the first one's end is the others' end, too
     */
    struct iovec parts[] = {{speaker, strlen(speaker)}, {(void *)(uintptr_t)line, strlen(line)}};
    if (writev(STDERR_FILENO, parts, 2) < 0) _exit(STATUS_FAILED);
    _exit(STATUS_FAILED);
}

static void run_out_of_time(int signal_number)
{
    (void)signal_number;
    leave("error: not all ranks came to the start or the end of MPI within the time-out\n");
}

static void request_stop(int signal_number)
{
    (void)signal_number;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* async-signal-safe */
    if (!stop_requested) {
        first_request = (sig_atomic_t)now.tv_sec;
        stop_requested = 1;
    } else if ((sig_atomic_t)now.tv_sec - first_request > SIGNALS_REPEAT_SECONDS) {
        leave("error: asked to stop a second time: leaving at once, without saving\n");
    }
}

void signals_install(bool stops, int rank)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (rank > 0) snprintf(speaker, sizeof speaker, "rank %d: ", rank);
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR1);
    sigaddset(&action.sa_mask, SIGTERM);
    /* A file that may not grow is an error of the write that hits the limit, not the end of the process. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);
    if (!stops) return;
    action.sa_handler = request_stop;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void signals_limit(double seconds)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = seconds > 0 ? run_out_of_time : SIG_DFL; /* comm aborts by an alarm of its own */
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds > 0 ? (unsigned)fmin(ceil(seconds), UINT_MAX) : 0);
}

bool signals_stop_requested(void)
{
    return stop_requested != 0;
}

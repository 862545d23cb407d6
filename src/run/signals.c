/* signals.c - handlers that only touch a flag.
 *
 * The two static variables are the only mutable static state of the program: a signal handler gets no
 * argument, so what it says to the rest must have static storage.
 */
#include "run/signals.h"

#include "base/status.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested;
static volatile sig_atomic_t first_request; /* CLOCK_MONOTONIC, whole seconds */

static void request_stop(int signal_number)
{
    (void)signal_number;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* async-signal-safe */
    if (!stop_requested) {
        first_request = (sig_atomic_t)now.tv_sec;
        stop_requested = 1;
    } else if ((sig_atomic_t)now.tv_sec - first_request > SIGNALS_REPEAT_SECONDS) {
        _exit(STATUS_FAILED);
    }
}

void signals_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = request_stop;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR1);
    sigaddset(&action.sa_mask, SIGTERM);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A file that may not grow is an error of the write that hits the limit, not the end of the process. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, NULL);
}

bool signals_stop_requested(void)
{
    return stop_requested != 0;
}

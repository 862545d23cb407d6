/* comm_watchdog.h - a thread that ends the job when one collective takes too long or broke.
 *
 * A rank that died, hangs or took another branch leaves the others waiting inside MPI for ever; a batch job
 * would burn its whole allocation that way. The thread only looks at two atomics, so a collective pays
 * nothing for it.
 */
#ifndef DINOBATCH_COMM_COMM_WATCHDOG_H
#define DINOBATCH_COMM_COMM_WATCHDOG_H

typedef struct CommWatchdog CommWatchdog;

/* Called in the watchdog's thread with the collective's name and the seconds it has taken; must not return.
 */
typedef void (*CommWatchdogExpired)(void *context, const char *operation, double seconds);

/* Called in the watchdog's thread once a period: what else may have gone wrong. */
typedef void (*CommWatchdogLook)(void *context);

/* Starts the thread. `seconds` of one collective; 0: no limit. `look` may be NULL. `context` is borrowed. */
CommWatchdog *comm_watchdog_create(double seconds, CommWatchdogExpired expired, CommWatchdogLook look,
                                   void *context);

/* Afterwards nothing is called any more. NULL is fine. */
void comm_watchdog_destroy(CommWatchdog *watchdog);

/* Around each collective; NULL is fine. `operation` is a string literal. */
void comm_watchdog_enter(CommWatchdog *watchdog, const char *operation);
void comm_watchdog_leave(CommWatchdog *watchdog);

#endif

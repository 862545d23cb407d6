/* comm_watchdog.c - the waiting thread behind comm_set_timeout. */
#include "comm/comm_watchdog.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct CommWatchdog {
    double seconds;
    CommWatchdogExpired expired;
    CommWatchdogLook look;
    void *context;
    _Atomic(const char *) operation; /* NULL: no collective under way */
    _Atomic int64_t since;           /* clock_seconds() in microseconds at its begin */
    pthread_t thread;
    pthread_mutex_t lock; /* guards `stop` */
    pthread_cond_t wake;
    bool stop;
};

static int64_t now_microseconds(void)
{
    return (int64_t)(clock_seconds() * 1e6);
}

static void check_time(CommWatchdog *watchdog)
{
    const char *operation = atomic_load(&watchdog->operation);
    if (!operation || watchdog->seconds == 0) return;
    int64_t since = atomic_load(&watchdog->since);
    double seconds = (double)(now_microseconds() - since) * 1e-6;
    /* Another collective may have begun between the two loads: then its begin is recent, and this is no
     * alarm. */
    if (seconds > watchdog->seconds) watchdog->expired(watchdog->context, operation, seconds);
}

static void *watch(void *argument)
{
    CommWatchdog *watchdog = argument;
    double period = watchdog->seconds / 8;
    if (period > 1 || watchdog->seconds == 0) period = 1;
    if (period < 0.01) period = 0.01;
    pthread_mutex_lock(&watchdog->lock);
    while (!watchdog->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(period * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&watchdog->wake, &watchdog->lock, &until);
        if (watchdog->stop) break;
        check_time(watchdog);
        if (watchdog->look) watchdog->look(watchdog->context);
    }
    pthread_mutex_unlock(&watchdog->lock);
    return NULL;
}

CommWatchdog *comm_watchdog_create(double seconds, CommWatchdogExpired expired, CommWatchdogLook look,
                                   void *context)
{
    CHECK(seconds >= 0);
    CommWatchdog *watchdog = memory_alloc(sizeof *watchdog);
    watchdog->seconds = seconds;
    watchdog->expired = expired;
    watchdog->look = look;
    watchdog->context = context;
    atomic_init(&watchdog->operation, NULL);
    atomic_init(&watchdog->since, 0);
    pthread_mutex_init(&watchdog->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    /* Signals are the main thread's business: a handler must interrupt its system calls, not this one's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&watchdog->thread, NULL, watch, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(failed == 0);
    return watchdog;
}

void comm_watchdog_destroy(CommWatchdog *watchdog)
{
    if (!watchdog) return;
    pthread_mutex_lock(&watchdog->lock);
    watchdog->stop = true;
    pthread_cond_signal(&watchdog->wake);
    pthread_mutex_unlock(&watchdog->lock);
    pthread_join(watchdog->thread, NULL);
    pthread_cond_destroy(&watchdog->wake);
    pthread_mutex_destroy(&watchdog->lock);
    memory_free(watchdog);
}

void comm_watchdog_enter(CommWatchdog *watchdog, const char *operation)
{
    if (!watchdog) return;
    atomic_store(&watchdog->since, now_microseconds());
    atomic_store(&watchdog->operation, operation);
}

void comm_watchdog_leave(CommWatchdog *watchdog)
{
    if (watchdog) atomic_store(&watchdog->operation, NULL);
}

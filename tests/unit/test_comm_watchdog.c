/* test_comm_watchdog.c - the thread that watches: a slow collective is told once its time is over, a look is
 * taken each period, and nothing is called after the end. */
#include "comm/comm_watchdog.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    atomic_int looks, alarms;
} Seen;

static void expired(void *context, const char *operation, double seconds)
{
    Seen *seen = context;
    atomic_fetch_add(&seen->alarms, strcmp(operation, "slow") == 0 && seconds > 0.08 ? 1 : 1000);
}

static void look(void *context)
{
    Seen *seen = context;
    atomic_fetch_add(&seen->looks, 1);
}

Test(comm_watchdog, tells_a_slow_collective_from_many_quick_ones, .timeout = 20)
{
    Seen seen = {0};
    CommWatchdog *watchdog = comm_watchdog_create(0.08, expired, look, &seen);
    for (int k = 0; k < 20; k++) {
        comm_watchdog_enter(watchdog, "quick");
        usleep(10000);
        comm_watchdog_leave(watchdog);
    }
    cr_expect_eq(atomic_load(&seen.alarms), 0);
    cr_expect(atomic_load(&seen.looks) > 2, "%d", atomic_load(&seen.looks));
    comm_watchdog_enter(watchdog, "slow");
    for (int k = 0; k < 500 && atomic_load(&seen.alarms) == 0; k++)
        usleep(10000);
    comm_watchdog_leave(watchdog);
    comm_watchdog_destroy(watchdog);
    int alarms = atomic_load(&seen.alarms), looks = atomic_load(&seen.looks);
    cr_expect(alarms > 0 && alarms < 1000, "%d", alarms);
    usleep(50000);
    cr_expect_eq(atomic_load(&seen.looks), looks);
}

Test(comm_watchdog, looks_without_a_time_out, .timeout = 20)
{
    Seen seen = {0};
    CommWatchdog *watchdog = comm_watchdog_create(0, expired, look, &seen);
    comm_watchdog_enter(watchdog, "slow");
    for (int k = 0; k < 500 && atomic_load(&seen.looks) == 0; k++)
        usleep(10000);
    comm_watchdog_destroy(watchdog);
    cr_expect(atomic_load(&seen.looks) > 0);
    cr_expect_eq(atomic_load(&seen.alarms), 0);
    comm_watchdog_enter(NULL, "nothing");
    comm_watchdog_leave(NULL);
    comm_watchdog_destroy(NULL);
}

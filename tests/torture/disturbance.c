/* disturbance.c - see disturbance.h. */
#include "disturbance.h"

#include "../support/train_support.h"
#include "base/check.h"
#include "base/clock.h"
#include "ckpt/retention.h"
#include "run/signals.h"
#include "run_facts.h"
#include "small_disk.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STEPS_MAX = 16, PATIENCE_SECONDS = 40, FILE_LIMIT = 4096 };

/* Seconds; starting takes about as long as EARLY, writing a checkpoint about as long as LATE. */
static const double EARLY = 0.8, LATE = 0.03;

static const char TIME_OUT[] = "3";

static void pause_seconds(double seconds)
{
    nanosleep(
        &(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (time_t)seconds) * 1e9)},
        NULL);
}

static bool fills_disk(DisturbanceKind kind)
{
    return kind == DISTURBANCE_DISK_FULL || kind == DISTURBANCE_DISK_FULL_AWHILE;
}

int disturbance_least_ranks(DisturbanceKind kind)
{
    return kind == DISTURBANCE_HANG || kind == DISTURBANCE_ASK_AGAIN ? 2 : 1;
}

Disturbance disturbance_draw(Rng *rng, DisturbanceKind kind, const DisturbancePlace *place)
{
    Disturbance d = {.kind = kind,
                     .victim = (int)rng_integer(rng, 0, place->ranks - 1),
                     .steps = rng_integer(rng, 1, STEPS_MAX),
                     .part = rng_uniform01(rng)};
    bool may_be_early = kind == DISTURBANCE_KILL_RANK || kind == DISTURBANCE_KILL_LAUNCHER ||
                        kind == DISTURBANCE_ASK || kind == DISTURBANCE_HANG ||
                        (kind == DISTURBANCE_DISK_FULL && place->disk);
    d.early = may_be_early && rng_integer(rng, 0, 2) == 0;
    d.delay = rng_uniform(rng, 0, d.early ? EARLY : LATE);
    bool either = kind == DISTURBANCE_ASK || kind >= DISTURBANCE_TRUNCATED;
    if (kind == DISTURBANCE_KILL_LAUNCHER || (either && rng_integer(rng, 0, 1) == 0)) d.victim = -1;
    return d;
}

void disturbance_describe(const Disturbance *d, char *text, size_t size)
{
    static const char *const names[] = {"kill -9 of",
                                        "kill -9 of",
                                        "kill -9 in a save of",
                                        "SIGUSR1 to",
                                        "SIGUSR1 twice, stopped",
                                        "stopped",
                                        "disk full, first seen by",
                                        "disk full for a while,",
                                        "newest file cut after kill -9 of",
                                        "newest file damaged after kill -9 of",
                                        "last_checkpoint lost after kill -9 of"};
    char who[24] = "mpirun", when[40] = "while it starts";
    if (d->victim >= 0) snprintf(who, sizeof who, "rank %d", d->victim);
    if (!d->early) snprintf(when, sizeof when, "after %lld steps", (long long)d->steps);
    snprintf(text, size, "%s %s %s", names[d->kind], who, when);
}

const char *disturbance_word(const Disturbance *d)
{
    return d->kind == DISTURBANCE_DISK_FULL_AWHILE ? "checkpoint.on_error=continue" : NULL;
}

/* --- the moment --- */

static void wait_for_steps(const Disturbance *d, const DisturbancePlace *place, Process *process)
{
    double end = clock_seconds() + PATIENCE_SECONDS;
    process_wait_for_error_text(process, " iterations of ", PATIENCE_SECONDS);
    while (run_facts_last_metrics(place->run) < place->starts_from + d->steps &&
           !process_has_ended(process) && clock_seconds() < end)
        pause_seconds(0.001);
    while (d->kind == DISTURBANCE_KILL_IN_SAVE && !run_facts_has_file(place->run, ".h5.tmp") &&
           !process_has_ended(process) && clock_seconds() < end)
        pause_seconds(0.0005);
}

static void wait_for_moment(const Disturbance *d, const DisturbancePlace *place, Process *process)
{
    if (!d->early)
        wait_for_steps(d, place, process);
    else if (d->kind == DISTURBANCE_ASK) /* before that a signal ends mpirun, which does not listen yet */
        process_wait_for_error_text(process, " classes", PATIENCE_SECONDS);
    pause_seconds(d->delay);
}

/* --- the act --- */

/* To mpirun or a rank; to nobody when the job is over. */
static void send_signal(const Disturbance *d, const Process *process, int signal_number)
{
    pid_t target = d->victim < 0 ? process->pid
                                 : (process_has_ended(process) ? -1 : process_of_rank(process, d->victim, 5));
    if (target > 0) kill(target, signal_number);
}

static void fill(Disturbance *d, const DisturbancePlace *place, const Process *process)
{
    if (place->disk) {
        small_disk_fill(place->disk, (int64_t)(d->part * (1 << 20)));
        return;
    }
    if (d->limited) return;
    pid_t pid = process_has_ended(process) ? -1 : process_of_rank(process, d->victim, 5);
    struct rlimit limit;
    if (pid <= 0 || prlimit(pid, RLIMIT_FSIZE, NULL, &d->unlimited) != 0) return;
    limit = d->unlimited;
    limit.rlim_cur = FILE_LIMIT;
    if (prlimit(pid, RLIMIT_FSIZE, &limit, NULL) == 0) d->limited = pid;
}

static void clear(const Disturbance *d, const DisturbancePlace *place)
{
    if (place->disk)
        small_disk_clear(place->disk);
    else if (d->limited)
        prlimit(d->limited, RLIMIT_FSIZE, &d->unlimited, NULL);
}

/* Until the run says so: it may just have been giving room back. */
static void keep_full(Disturbance *d, const DisturbancePlace *place, Process *process, const char *text)
{
    double end = clock_seconds() + PATIENCE_SECONDS;
    do
        fill(d, place, process);
    while (!process_wait_for_error_text(process, text, 0.02) && !process_has_ended(process) &&
           clock_seconds() < end);
}

/* Full until the run has said so, then free until it has saved again, and asked to stop. */
static void fill_for_a_while(Disturbance *d, const DisturbancePlace *place, Process *process)
{
    keep_full(d, place, process, "training goes on");
    pause_seconds(d->delay);
    clear(d, place);
    char folder[320];
    snprintf(folder, sizeof folder, "%s/checkpoints", place->run);
    int64_t named = retention_read_last(folder);
    for (double end = clock_seconds() + PATIENCE_SECONDS;
         retention_read_last(folder) <= named && !process_has_ended(process) && clock_seconds() < end;)
        pause_seconds(0.001);
    process_signal(process, SIGUSR1);
}

static void ask_again(const Disturbance *d, const Process *process)
{
    send_signal(d, process, SIGSTOP);
    process_signal(process, SIGUSR1);
    pause_seconds(SIGNALS_REPEAT_SECONDS + 1.1);
    if (!process_has_ended(process)) process_signal(process, SIGUSR1);
}

void disturbance_prepare(const Disturbance *d, const DisturbancePlace *place)
{
    setenv("DINOBATCH_TIMEOUT", d->kind == DISTURBANCE_HANG ? TIME_OUT : "60", 1);
    if (d->kind == DISTURBANCE_DISK_FULL && d->early && place->disk)
        small_disk_fill(place->disk, (int64_t)(d->part * (1 << 13)));
}

void disturbance_strike(Disturbance *d, const DisturbancePlace *place, Process *process)
{
    wait_for_moment(d, place, process);
    if (d->kind == DISTURBANCE_ASK)
        send_signal(d, process, SIGUSR1);
    else if (d->kind == DISTURBANCE_ASK_AGAIN)
        ask_again(d, process);
    else if (d->kind == DISTURBANCE_HANG)
        send_signal(d, process, SIGSTOP);
    else if (d->kind == DISTURBANCE_DISK_FULL_AWHILE)
        fill_for_a_while(d, place, process);
    else if (!fills_disk(d->kind))
        send_signal(d, process, SIGKILL);
    else if (!d->early)
        keep_full(d, place, process, "error: ");
    d->struck = clock_seconds();
}

/* --- afterwards --- */

void disturbance_finish(const Disturbance *d, const DisturbancePlace *place, int64_t checkpoint)
{
    char folder[320], path[400];
    struct stat facts;
    Error error;
    if (fills_disk(d->kind)) clear(d, place);
    snprintf(folder, sizeof folder, "%s/checkpoints", place->run);
    snprintf(path, sizeof path, "%s/last_checkpoint", folder);
    if (d->kind == DISTURBANCE_UNNAMED) unlink(path);
    if ((d->kind != DISTURBANCE_TRUNCATED && d->kind != DISTURBANCE_FLIPPED) || checkpoint < 0) return;
    CHECK(retention_path(folder, checkpoint, path, sizeof path, &error) == STATUS_OK &&
          stat(path, &facts) == 0);
    if (d->kind == DISTURBANCE_FLIPPED)
        train_support_flip_bit(path, d->part);
    else
        CHECK(truncate(path, (off_t)(d->part * (double)facts.st_size)) == 0);
}

static bool says(const ProcessResult *result, const char *text)
{
    return strstr(result->err, text) != NULL;
}

static bool says_disk_is_full(const ProcessResult *result)
{
    return says(result, "error: ") &&
           (says(result, "No space left on device") || says(result, "File too large"));
}

const char *disturbance_judge(const Disturbance *d, const DisturbancePlace *place,
                              const ProcessResult *result)
{
    char dead[48];
    int status = result->exit_status;
    if (status == 0) return NULL;
    snprintf(dead, sizeof dead, "process rank %d with PID", d->victim);
    switch (d->kind) {
    case DISTURBANCE_ASK:
        return status == 75 ? NULL : "a request to stop ends with 75";
    case DISTURBANCE_ASK_AGAIN:
        if (status != 1) return "a second request ends with 1";
        return says(result, "asked to stop a second time") ? NULL : "no farewell";
    case DISTURBANCE_HANG:
        if (status != 1) return "a hang ends by the watchdog";
        return says(result, "the time-out") ? NULL : "nobody says why it ends";
    case DISTURBANCE_DISK_FULL:
        if (status != 1 || !says_disk_is_full(result)) return "a full disk ends with 1 and an error line";
        /* one of an earlier start's is removed when training begins, which a disk that is full before
         * prevents */
        return !d->early && run_facts_has_file(place->run, ".h5.tmp") ? "the failed save left a file" : NULL;
    case DISTURBANCE_DISK_FULL_AWHILE:
        return (status == 75 || status == 1) && says_disk_is_full(result)
                   ? NULL
                   : "a full disk is told, and outlived or ends with 1";
    default:
        if (status != 137) return "kill -9 ends with 137";
        return d->victim < 0 || (says(result, dead) && says(result, "signal 9")) ? NULL
                                                                                 : "nobody says who died";
    }
}

/* bench_timer.c - repetitions and their order statistics. */
#include "bench/bench_timer.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdlib.h>

enum { MOST_SAMPLES = 1000 }; /* of short work; enough for a median */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double once(const BenchTask *task)
{
    if (task->prepare) task->prepare(task->context);
    double start = clock_seconds();
    task->work(task->context);
    return clock_seconds() - start;
}

BenchTimes bench_timer_run(const BenchTask *task, double seconds, int64_t least)
{
    CHECK(least >= 1 && least <= MOST_SAMPLES);
    double samples[MOST_SAMPLES], sum = 0;
    int64_t count = 0;
    once(task);
    double start = clock_seconds();
    while (count < MOST_SAMPLES && (count < least || clock_seconds() - start < seconds))
        samples[count++] = once(task);
    qsort(samples, (size_t)count, sizeof *samples, compare);
    for (int64_t i = 0; i < count; i++)
        sum += samples[i];
    double median = count % 2 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
    return (BenchTimes){.median = median,
                        .minimum = samples[0],
                        .maximum = samples[count - 1],
                        .mean = sum / (double)count,
                        .count = count};
}

/* bench_timer.c - repetitions and their order statistics. */
#include "bench/bench_timer.h"

#include "base/check.h"
#include "base/clock.h"

#include <math.h>
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
    if (task->device) device_finish(task->device);
    return clock_seconds() - start;
}

BenchTimes bench_timer_statistics(double *samples, int64_t count)
{
    double sum = 0;
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

static bool go_on(int64_t count, int64_t least, double start, double seconds)
{
    return count < MOST_SAMPLES && (count < least || clock_seconds() - start < seconds);
}

/* Repetitions that are timed together, from how long one takes. */
static int64_t bundle_of(const BenchTask *task)
{
    static const double LEAST_SECONDS = 1e-3;
    enum { MOST = 200 };
    if (task->prepare) return 1;
    double wanted = LEAST_SECONDS / fmax(once(task), 1e-9);
    return wanted < 1 ? 1 : wanted > MOST ? MOST : (int64_t)wanted;
}

/* An event behind each bundle; the host gives one more before it waits for the last. */
static int64_t run_on_gpu(const BenchTask *task, double seconds, int64_t least, double *samples)
{
    enum { EVENTS = 3 };
    DeviceEvent *events[EVENTS];
    for (int i = 0; i < EVENTS; i++)
        events[i] = device_event_create(task->device);
    int64_t bundle = bundle_of(task), count = 0;
    double start = clock_seconds();
    device_event_record(events[0]);
    while (go_on(count, least, start, seconds)) {
        for (int64_t i = 0; i < bundle; i++) {
            if (task->prepare) task->prepare(task->context);
            task->work(task->context);
        }
        device_event_record(events[++count % EVENTS]);
        if (count > 1) device_event_wait(events[(count - 1) % EVENTS]);
        if (count > 1)
            samples[count - 2] =
                device_event_seconds(events[(count - 2) % EVENTS], events[(count - 1) % EVENTS]);
    }
    device_event_wait(events[count % EVENTS]);
    samples[count - 1] = device_event_seconds(events[(count - 1) % EVENTS], events[count % EVENTS]);
    for (int64_t i = 0; i < count; i++)
        samples[i] /= (double)bundle;
    for (int i = 0; i < EVENTS; i++)
        device_event_destroy(events[i]);
    return count;
}

BenchTimes bench_timer_run(const BenchTask *task, double seconds, int64_t least)
{
    CHECK(least >= 1 && least <= MOST_SAMPLES);
    double samples[MOST_SAMPLES];
    int64_t count = 0;
    once(task);
    if (task->device && device_kind(task->device) != DEVICE_CPU)
        return bench_timer_statistics(samples, run_on_gpu(task, seconds, least, samples));
    double start = clock_seconds();
    while (go_on(count, least, start, seconds))
        samples[count++] = once(task);
    return bench_timer_statistics(samples, count);
}

/* bench_timer.h - runs a piece of work again and again and says how long one repetition took.
 *
 * The first repetition warms caches and makes what is made once; it is not counted. Work of a GPU is timed by
 * its own clock: repetitions follow one another as they do in training, the host ahead by one, and those too
 * short for that clock are timed several at a time. It is no profiler: what happens inside a repetition is
 * ops_timed.h's business.
 */
#ifndef DINOBATCH_BENCH_BENCH_TIMER_H
#define DINOBATCH_BENCH_BENCH_TIMER_H

#include "device/device.h"

#include <stdint.h>

/* Seconds of one repetition. */
typedef struct {
    double median, minimum, maximum, mean;
    int64_t count;
} BenchTimes;

typedef struct {
    void *context;
    void (*prepare)(void *context); /* before each repetition, not timed on a CPU; or NULL */
    void (*work)(void *context);
    Device *device; /* that does the work; NULL: the calling thread */
} BenchTask;

/* Repeats for `seconds`, at least `least` (>= 1) times. Allocates nothing on a CPU. */
BenchTimes bench_timer_run(const BenchTask *task, double seconds, int64_t least);

/* Of samples[count] taken elsewhere, count >= 1; sorts them. */
BenchTimes bench_timer_statistics(double *samples, int64_t count);

#endif

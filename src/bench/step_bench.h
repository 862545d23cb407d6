/* step_bench.h - a whole training step on random batches: how fast, how much memory, and where the time goes.
 *
 * The step is what training does but for the data: teacher and student forward, losses, backward, norms and
 * clipping, AdamW, the teacher's average; masks are drawn anew for each step, outside the time. Schedules
 * stand at fixed values.
 */
#ifndef DINOBATCH_BENCH_STEP_BENCH_H
#define DINOBATCH_BENCH_STEP_BENCH_H

#include "bench/bench_timer.h"
#include "bench/ops_timed.h"
#include "bench/step_flops.h"

typedef struct {
    const char *name;     /* of the configuration; static or borrowed */
    const Config *config; /* checked */
    Comm *comm;           /* of one process */
    int threads;
    double seconds; /* to repeat; two steps at least */
} StepBenchParams;

/* Figures of one step unless said otherwise. */
typedef struct {
    char name[32];
    Dtype dtype; /* of the student's products */
    int64_t samples, parameters;
    double masked; /* patches, mean */
    BenchTimes times;
    double flops;         /* step_flops_count */
    double counted_flops; /* the same from the operands of all operations */
    double part_seconds[STEP_PART_COUNT], part_flops[STEP_PART_COUNT];
    OpsTimedTotal operations[OPS_TIMED_COUNT];                   /* means; calls rounded */
    double other_seconds;                                        /* outside of operations */
    size_t weight_bytes, step_bytes, scratch_bytes, batch_bytes; /* planned, of the process */
    size_t peak_rss_bytes; /* of the process while it ran; 0: not known */
    double loss;           /* total, of the last step */
} StepBench;

/* STATUS_INPUT for a configuration that does not fit one process, STATUS_FAILED when a loss is not finite. */
Status step_bench_run(StepBench *result, const StepBenchParams *params, Error *error);

#endif

/* step_bench.h - a whole training step on random batches: how fast, how much memory, and where the time goes.
 *
 * The step is what training does but for the data: teacher and student forward, losses, backward, norms and
 * clipping, AdamW, the teacher's average; masks are drawn anew for each step, outside the time. Schedules
 * stand at fixed values.
 *
 * On a GPU the steps follow one another as in training, pictures go up from host memory, and the host waits
 * for none; one more step, with an event around every operation, says where the time goes.
 */
#ifndef DINOBATCH_BENCH_STEP_BENCH_H
#define DINOBATCH_BENCH_STEP_BENCH_H

#include "bench/bench_timer.h"
#include "bench/ops_timed.h"
#include "ssl/step_flops.h"

typedef struct {
    const char *name;     /* of the configuration; static or borrowed */
    const Config *config; /* checked */
    Comm *comm;           /* of one process */
    DeviceKind device;    /* DEVICE_CPU or DEVICE_CUDA: one is opened for this model alone */
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
    double flops; /* step_flops_count */
    /* Where the time goes: of the mean step, on a GPU of one that was taken apart */
    double parts_seconds; /* all of it */
    double parts_flops;   /* step_flops_count */
    double counted_flops; /* the same from the operands of all operations */
    double part_seconds[STEP_PART_COUNT], part_flops[STEP_PART_COUNT];
    OpsTimedTotal operations[OPS_TIMED_COUNT];                   /* means; calls rounded */
    double other_seconds;                                        /* outside of operations */
    size_t weight_bytes, step_bytes, scratch_bytes, batch_bytes; /* planned, of the process */
    size_t peak_rss_bytes;    /* of the process while it ran; 0: not known */
    size_t peak_device_bytes; /* of a GPU's memory; 0 on a CPU */
    double loss;              /* total, of the last step */
} StepBench;

/* STATUS_INPUT for a configuration that does not fit one process, STATUS_FAILED when a loss is not finite. */
Status step_bench_run(StepBench *result, const StepBenchParams *params, Error *error);

#endif

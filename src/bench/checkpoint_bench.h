/* checkpoint_bench.h - how fast a model's state gets to the disk and back, beside a plain write of as many
 * bytes.
 *
 * The plain write is what `dd bs=4M conv=fsync` does: one process, a buffer in its cache, one fsync. It and
 * the checkpoint go to the same folder by turns. Before a file is read the kernel is asked to forget its
 * pages, so that it comes from the disk.
 */
#ifndef DINOBATCH_BENCH_CHECKPOINT_BENCH_H
#define DINOBATCH_BENCH_CHECKPOINT_BENCH_H

#include "bench/bench_timer.h"
#include "comm/comm.h"
#include "config/config.h"

typedef struct {
    const char *name;     /* of the configuration; static or borrowed */
    const Config *config; /* checked; its strategies say how the state is cut */
    Comm *comm;
    Device *device;
    const char *folder; /* where files are written; it and they are removed again */
    int threads;
    bool quick; /* one round */
} CheckpointBenchParams;

/* Seconds, of the slowest rank. */
typedef struct {
    char name[32];
    int ranks, threads;
    int64_t tensors;
    double bytes;                 /* of tensors */
    BenchTimes plain, save, load; /* by rounds */
    double share;                 /* of the plain write's rate, median over rounds */
} CheckpointBench;

/* STATUS_FAILED when the disk does not take it. The same figures on all ranks. Collective over COMM. */
Status checkpoint_bench_run(CheckpointBench *result, const CheckpointBenchParams *params, Error *error);

#endif

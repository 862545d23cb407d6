/* bench_report.h - what was measured, as tables for people and as one JSON object for programs. */
#ifndef DINOBATCH_BENCH_BENCH_REPORT_H
#define DINOBATCH_BENCH_BENCH_REPORT_H

#include "bench/bench_rows.h"
#include "bench/checkpoint_training.h"
#include "bench/index_bench.h"
#include "bench/kmeans_bench.h"
#include "bench/sharding_bench.h"
#include "bench/step_bench.h"

#include <stdio.h>

typedef struct {
    char processor[128];
    char device[128];   /* that computes; "" for the processor */
    int threads, cores; /* used; online */
    BenchRows rows;
    StepBench *steps; /* [step_count] owned by the caller */
    int step_count;
    ShardingBench *shardings; /* [sharding_count] owned by the caller */
    int sharding_count;
    CheckpointBench *checkpoints; /* [checkpoint_count] owned by the caller */
    int checkpoint_count;
    CheckpointTraining *trainings; /* [training_count] owned by the caller */
    int training_count;
    IndexBench index;
    bool has_index; /* was measured */
    KmeansBench kmeans[KMEANS_BENCHES];
    int kmeans_count;
    const char *pictures; /* what was decoded; "" when nothing was */
} BenchReport;

/* The processor that computes, to `out`. */
void bench_report_print_machine(const BenchReport *report, FILE *out);

/* The limits, then a table per section of rows. */
void bench_report_print_rows(const BenchReport *report, FILE *out);

/* One step: figures, parts, operations. */
void bench_report_print_step(const BenchReport *report, const StepBench *step, FILE *out);

/* Memory and time of the sharding strategies. */
void bench_report_print_sharding(const ShardingBench *sharding, FILE *out);

/* Checkpoints, written and read; and beside a training. */
void bench_report_print_checkpoint(const CheckpointBench *checkpoint, FILE *out);
void bench_report_print_training(const CheckpointTraining *training, FILE *out);

/* Search, its rates, and k-means. */
void bench_report_print_index(const IndexBench *bench, FILE *out);
void bench_report_print_kmeans(const KmeansBench *benches, int count, FILE *out);

/* The limit that a step is compared with, FLOP/s: that of its data type, or of fp32 where there is none. */
double bench_report_step_limit(const BenchReport *report, const StepBench *step);

/* Everything as JSON on one line; memory_free. */
char *bench_report_json(const BenchReport *report);

#endif

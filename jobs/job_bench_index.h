/* job_bench_index.h - `bench --what index`: searching and clustering rows. */
#ifndef DINOBATCH_JOBS_JOB_BENCH_INDEX_H
#define DINOBATCH_JOBS_JOB_BENCH_INDEX_H

#include "bench/bench_report.h"
#include "job.h"

typedef struct {
    double seconds;
    int threads;
    bool quick;
    int64_t rows;         /* --rows, or 0 */
    const char *features; /* --features, or NULL */
    FILE *out;            /* where tables go; NULL on ranks that do not speak */
} JobBenchIndex;

/* Measures into `report`, prints, and draws OUTPUT/index.png where there is an output folder. The outcome is
 * agreed. Collective over COMM. */
Status job_bench_index(JobContext *context, const JobBenchIndex *request, BenchReport *report, Error *error);

#endif

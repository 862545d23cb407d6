/* bench_rows.h - what has been measured: one row each, and the limits of the machine among them.
 *
 * Rates come from the median; a limit is the best that was seen, so a share is never flattered by a slow
 * moment of the machine while the limit was taken.
 */
#ifndef DINOBATCH_BENCH_BENCH_ROWS_H
#define DINOBATCH_BENCH_BENCH_ROWS_H

#include "base/dtype.h"
#include "bench/bench_timer.h"

typedef enum {
    BENCH_FLOPS_FP32, /* multiply and add are two; compared with the fp32 product of large matrices */
    BENCH_FLOPS_BF16, /* compared with the bf16 product */
    BENCH_FLOPS_FP16, /* compared with the fp16 product */
    BENCH_BYTES,      /* read and written; compared with copying */
    BENCH_IMAGES,     /* compared with nothing */
    BENCH_UNIT_COUNT
} BenchUnit;

typedef struct {
    const char *section; /* "limits", "operations", "augmentation"; static */
    char name[72];
    BenchUnit unit;
    double work; /* units of one repetition */
    BenchTimes times;
} BenchRow;

typedef struct {
    BenchRow *rows; /* [count] owned */
    int count;
    double limit[BENCH_UNIT_COUNT]; /* units per second; 0: not there, or no such limit */
} BenchRows;

/* FLOPs in products of that type. */
static inline BenchUnit bench_rows_flops(Dtype dtype)
{
    return dtype == DTYPE_BF16 ? BENCH_FLOPS_BF16 : dtype == DTYPE_F16 ? BENCH_FLOPS_FP16 : BENCH_FLOPS_FP32;
}

/* A zeroed BenchRows is empty. */
void bench_rows_fini(BenchRows *rows);

/* Adds a row that `format` names. */
void bench_rows_add(BenchRows *rows, const char *section, BenchUnit unit, double work, BenchTimes times,
                    const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Raises the unit's limit to the best repetition of the last row. */
void bench_rows_take_limit(BenchRows *rows);

/* Units per second of the median repetition. */
double bench_rows_rate(const BenchRow *row);

/* The same as a share of the machine's limit; 0 where there is none. */
double bench_rows_share(const BenchRows *rows, const BenchRow *row);

#endif

/* machine_limits.h - what this machine can do at best: products of matrices, and copying.
 *
 * Products go through the operations that the model uses (ops->linear_*), so a limit is what the library in
 * use reaches on matrices that suit it, not the processor's data sheet.
 */
#ifndef DINOBATCH_BENCH_MACHINE_LIMITS_H
#define DINOBATCH_BENCH_MACHINE_LIMITS_H

#include "bench/bench_rows.h"

#include <stdbool.h>

typedef struct {
    Device *device; /* whose limits */
    int threads;
    double seconds; /* of each measurement */
    bool shapes;    /* also products of the model's shapes, and other ways to copy */
    bool quick;     /* smallest sizes: a test of the measurement, not of the machine */
} MachineLimitsParams;

/* Whether this processor multiplies bf16 numbers by itself. */
bool machine_limits_has_bf16(void);

/* "AMD EPYC ..." or "unknown" into text[size]. */
void machine_limits_processor(char *text, int size);

/* Adds rows of section "limits" and sets the limits of products in each type (left at 0 where the processor
 * has none) and of BENCH_BYTES. */
void machine_limits_measure(BenchRows *rows, const MachineLimitsParams *params);

#endif

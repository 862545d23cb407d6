/* hot_ops.h - the operations that a step spends its time in, one by one, at the sizes of real models.
 *
 * Attention at the sequence lengths of 224 and 98 px crops with patch 14 and 16, of small pictures, and of
 * 518 px; row-wise operations on the tokens of a ViT-S batch; prototypes of the published heads.
 */
#ifndef DINOBATCH_BENCH_HOT_OPS_H
#define DINOBATCH_BENCH_HOT_OPS_H

#include "bench/bench_rows.h"
#include "comm/comm.h"

typedef struct {
    int threads;
    double seconds; /* of each measurement */
    Comm *comm;     /* of one process */
} HotOpsParams;

/* Adds rows of section "operations"; work as ops_timed.h counts it. */
void hot_ops_measure(BenchRows *rows, const HotOpsParams *params);

#endif

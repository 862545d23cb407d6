/* hot_ops.h - the operations that a step spends its time in, one by one, at the sizes of real models.
 *
 * Attention at the sequence lengths of 224 and 98 px crops with patch 14 and 16, of small pictures, and of
 * 518 px; row-wise operations; prototypes of the published heads; the optimiser. On a CPU the sizes of a
 * small ViT-S batch, one length at a time, in fp32; on a GPU those of 32 pictures and a ViT-L, lengths mixed
 * as in training, in bf16; attention there by every kind of kernels that it has.
 */
#ifndef DINOBATCH_BENCH_HOT_OPS_H
#define DINOBATCH_BENCH_HOT_OPS_H

#include "bench/bench_rows.h"
#include "comm/comm.h"

typedef struct {
    Device *device;
    int threads;
    double seconds; /* of each measurement */
    Comm *comm;     /* of one process */
    bool quick;     /* smallest sizes: a test of the measurement, not of the machine */
} HotOpsParams;

/* Adds rows of section "operations"; work as ops_timed.h counts it. */
void hot_ops_measure(BenchRows *rows, const HotOpsParams *params);

#endif

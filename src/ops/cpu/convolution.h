/* convolution.h - convolutions of the host backend by oneDNN, as gemm.h for products.
 *
 * Primitives are generated code, made once per shape and kept. The library reads weights in an order of its
 * own, into which every call brings them anew: a few per cent of a batch's time, and nothing to go stale when
 * weights change. It pads no picture and stores no matrix of windows.
 */
#ifndef DINOBATCH_OPS_CPU_CONVOLUTION_H
#define DINOBATCH_OPS_CPU_CONVOLUTION_H

#include "ops/cpu/ops_cpu.h"

/* threads: what library calls may use. Owned by the caller. One thread at a time may use it. */
Convolutions *convolution_create(int threads);
void convolution_destroy(Convolutions *convolutions);

/* Operands as ops.h has them, checked; fp32, or bf16 where the processor multiplies such numbers. */
void convolution_run(Convolutions *convolutions, const Conv2d *conv);

#endif

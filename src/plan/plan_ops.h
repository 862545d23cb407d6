/* plan_ops.h - a table of operations that do nothing but move the clock of a described device.
 *
 * Time of an operation: its products at the rate that the cluster reaches, and its bytes at the rate of
 * memory (ops/ops_work.h). What is made more than once counts as often as the GPU's operations make it: the
 * scores in the backward of attention; in Sinkhorn-Knopp once a round, unless they fit their budget; those of
 * the teacher again in the cross-entropy, with the bytes of scores that cuda_prototype_blocks.cuh counts.
 * Sinkhorn's sums over ranks are those of both backends.
 */
#ifndef DINOBATCH_PLAN_PLAN_OPS_H
#define DINOBATCH_PLAN_PLAN_OPS_H

#include "ops/ops.h"
#include "plan/plan_clock.h"

typedef struct {
    Ops ops;            /* first: its functions find the rest from it */
    PlanClock *clock;   /* borrowed */
    int64_t lengths[2]; /* tokens of a global and of a local crop: no other sequences are met */
    double needed;      /* flops of ops_work.h so far */
} PlanOps;

/* `device` is a described one; has_bf16, has_fp16 and reduced_prototypes are what the cluster's processors
 * give. There is no scratch. */
void plan_ops_init(PlanOps *ops, Device *device, PlanClock *clock, const int64_t lengths[2]);

#endif

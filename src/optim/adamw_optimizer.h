/* adamw_optimizer.h - clipping and AdamW over this rank's part of a parameter table.
 *
 * Source: torch.optim.AdamW as the reference uses it, ssl_meta_arch.py clip per sub-module; golden README
 * traps 26, 27.
 */
#ifndef DINOBATCH_OPTIM_ADAMW_OPTIMIZER_H
#define DINOBATCH_OPTIM_ADAMW_OPTIMIZER_H

#include "fsdp/shard_map.h"
#include "ops/ops.h"
#include "optim/cosine_schedule.h"
#include "tensor/param_table.h"

/* The parameter table's groups must have been assigned. Everything lies in the device's memory. Segment s is
 * this rank's part, which may be empty, of parameter map->order[s]. */
typedef struct {
    Device *device;      /* borrowed */
    const ShardMap *map; /* borrowed */
    Comm *comm;          /* whose ranks' parts are everything, to sum squares over; borrowed; NULL: no part is
                            missing here */
    double beta1, beta2;
    float *exp_avg;       /* [map->count] owned */
    float *exp_avg_sq;    /* [map->count] owned */
    OpsSegments segments; /* owned */
    OpsSegments counted;  /* the same, empty where a rank before this one has the same part: norms count each
                             element once; its bounds are owned */
    Tensor squares;       /* [parameters] fp64, owned: squared norms of the last step's gradients, by segment,
                             of the whole parameters */
} AdamwOptimizer;

/* `world`: all ranks. */
void adamw_optimizer_init(AdamwOptimizer *optimizer, const ShardMap *map, Comm *world, Device *device,
                          double beta1, double beta2);
void adamw_optimizer_fini(AdamwOptimizer *optimizer);

typedef struct {
    TrainScheduleValues schedule;
    double clip_grad; /* 0: no clipping; else each sub-module's gradient is scaled by min(1, clip_grad / (norm
                         + 1e-6)) */
    bool scaled;      /* gradients carry the dynamic loss scale of `control` */
} AdamwOptimizerStep;

/* Norms of the gradients, the decision whether the step is finite (`losses` [any] fp64, the same on all
 * ranks, count, too; it is left in control[CONTROL_FINITE], with norms and factors), and, if it is, one
 * update of `params`; both are local vectors. Frozen last layers (last_layer_lr 0) still advance their
 * moments. The number of updates made so far is control[CONTROL_STEPS]. Collective over all ranks. */
void adamw_optimizer_step(const AdamwOptimizer *optimizer, const Ops *ops, float *params, float *grads,
                          Tensor control, Tensor losses, const AdamwOptimizerStep *step);

/* optimizer->squares of another local vector. Collective over all ranks. */
void adamw_optimizer_squares(const AdamwOptimizer *optimizer, const Ops *ops, float *local);

#endif

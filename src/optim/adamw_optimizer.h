/* adamw_optimizer.h - clipping and AdamW over a parameter table.
 *
 * Source: torch.optim.AdamW as the reference uses it, ssl_meta_arch.py clip per sub-module; golden README
 * traps 26, 27.
 */
#ifndef DINOBATCH_OPTIM_ADAMW_OPTIMIZER_H
#define DINOBATCH_OPTIM_ADAMW_OPTIMIZER_H

#include "ops/ops.h"
#include "optim/cosine_schedule.h"
#include "tensor/param_table.h"

/* The parameter table's groups must have been assigned. Everything lies in the device's memory. */
typedef struct {
    Device *device; /* borrowed */
    double beta1, beta2;
    int64_t flat_count;
    float *exp_avg;       /* [flat_count] owned */
    float *exp_avg_sq;    /* [flat_count] owned */
    OpsSegments segments; /* one per parameter, in table order; owned */
    Tensor squares;       /* [parameters] fp64, owned: squared norms of the last step's gradients */
} AdamwOptimizer;

void adamw_optimizer_init(AdamwOptimizer *optimizer, const ParamTable *table, Device *device, double beta1,
                          double beta2);
void adamw_optimizer_fini(AdamwOptimizer *optimizer);

typedef struct {
    TrainScheduleValues schedule;
    double clip_grad; /* 0: no clipping; else each sub-module's gradient is scaled by min(1, clip_grad / (norm
                         + 1e-6)) */
    bool scaled;      /* gradients carry the dynamic loss scale of `control` */
} AdamwOptimizerStep;

/* Norms of the flat gradients, the decision whether the step is finite (`losses` [any] fp64 counts, too; it
 * is left in control[CONTROL_FINITE], with norms and factors), and, if it is, one update of flat `params`.
 * Frozen last layers (last_layer_lr 0) still advance their moments. The number of updates made so far is
 * control[CONTROL_STEPS]. */
void adamw_optimizer_step(const AdamwOptimizer *optimizer, const Ops *ops, float *params, float *grads,
                          Tensor control, Tensor losses, const AdamwOptimizerStep *step);

#endif

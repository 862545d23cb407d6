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

typedef struct {
    double beta1, beta2;
    int64_t steps;     /* updates made so far */
    float *exp_avg;    /* [flat_count] owned */
    float *exp_avg_sq; /* [flat_count] owned */
} AdamwOptimizer;

void adamw_optimizer_init(AdamwOptimizer *optimizer, const ParamTable *table, double beta1, double beta2);
void adamw_optimizer_fini(AdamwOptimizer *optimizer);

/* Norm of each sub-module's gradient in flat `grads` (0 for one that the table does not have). Not finite if
 * any element is not. */
void adamw_optimizer_grad_norms(const ParamTable *table, const Ops *ops, float *grads,
                                double norms[PARAM_MODULE_COUNT]);

/* One update of flat `params` from flat `grads`. clip_grad 0: no clipping; else each sub-module's gradient is
 * scaled by min(1, clip_grad / (norm + 1e-6)). Frozen last layers (last_layer_lr 0) still advance their
 * moments. */
void adamw_optimizer_step(AdamwOptimizer *optimizer, const ParamTable *table, const Ops *ops, float *params,
                          float *grads, const TrainScheduleValues *values, double clip_grad,
                          const double norms[PARAM_MODULE_COUNT]);

#endif

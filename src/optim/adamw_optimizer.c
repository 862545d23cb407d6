/* adamw_optimizer.c - walks the table with one set of coefficients per parameter. */
#include "optim/adamw_optimizer.h"

#include "base/memory.h"

#include <math.h>

static const double ADAM_EPS = 1e-8, CLIP_EPS = 1e-6;

void adamw_optimizer_init(AdamwOptimizer *optimizer, const ParamTable *table, double beta1, double beta2)
{
    *optimizer = (AdamwOptimizer){.beta1 = beta1, .beta2 = beta2};
    optimizer->exp_avg = memory_alloc_array((size_t)table->flat_count, sizeof(float));
    optimizer->exp_avg_sq = memory_alloc_array((size_t)table->flat_count, sizeof(float));
}

void adamw_optimizer_fini(AdamwOptimizer *optimizer)
{
    memory_free(optimizer->exp_avg);
    memory_free(optimizer->exp_avg_sq);
    *optimizer = (AdamwOptimizer){0};
}

void adamw_optimizer_grad_norms(const ParamTable *table, const Ops *ops, float *grads,
                                double norms[PARAM_MODULE_COUNT])
{
    double squares[PARAM_MODULE_COUNT] = {0};
    for (int i = 0; i < table->count; i++) {
        double square;
        ops->sum_squares(ops, &square, param_vector_view(table, i, grads));
        squares[table->params[i].module] += square;
    }
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        norms[m] = sqrt(squares[m]);
}

void adamw_optimizer_step(AdamwOptimizer *optimizer, const ParamTable *table, const Ops *ops, float *params,
                          float *grads, const TrainScheduleValues *values, double clip_grad,
                          const double norms[PARAM_MODULE_COUNT])
{
    optimizer->steps++;
    double t = (double)optimizer->steps;
    AdamwStep step = {.beta1 = optimizer->beta1,
                      .beta2 = optimizer->beta2,
                      .eps = ADAM_EPS,
                      .correction1 = 1.0 - pow(optimizer->beta1, t),
                      .correction2 = 1.0 - pow(optimizer->beta2, t)};
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        double clip = clip_grad > 0 ? fmin(1.0, clip_grad / (norms[p->module] + CLIP_EPS)) : 1.0;
        step.gradient_scale = clip;
        step.lr = (p->is_last_layer ? values->last_layer_lr : values->lr) * p->lr_multiplier;
        step.weight_decay = values->weight_decay * p->wd_multiplier;
        ops->adamw(ops, param_vector_view(table, i, params), param_vector_view(table, i, optimizer->exp_avg),
                   param_vector_view(table, i, optimizer->exp_avg_sq), param_vector_view(table, i, grads),
                   step);
    }
}

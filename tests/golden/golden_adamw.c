/* golden_adamw.c - adamw.h5: several optimiser steps with schedules, multipliers and clipping per module.
 *
 * What it checks are the operations segment_squares, step_control and adamw, on the file's schedules and
 * multipliers.
 */
#include "../support/ops_support.h"
#include "golden.h"

#include "base/memory.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char path[128];       /* MODULE/NAME */
    int64_t first, count; /* of the flat vectors */
} AdamwParam;

enum { MAX_PARAMS = 128 };

/* All parameters one after the other, and their segments. */
typedef struct {
    Golden *golden;
    Ops *ops;
    const char *const *modules;
    AdamwParam params[MAX_PARAMS];
    int count;
    int64_t flat_count;
    int64_t bounds[2 * MAX_PARAMS];
    int32_t module[MAX_PARAMS], rate[MAX_PARAMS];
    double lr_multiplier[MAX_PARAMS], wd_multiplier[MAX_PARAMS];
    float *value, *exp_avg, *exp_avg_sq, *grads; /* [flat_count] owned */
} AdamwCase;

static void add_param(AdamwCase *c, int module, const char *name)
{
    AdamwParam *p = &c->params[c->count];
    GoldenShape shape;
    snprintf(p->path, sizeof p->path, "%s/%s", c->modules[module], name);
    golden_f32(c->golden, &shape, "init/params/%s", p->path);
    const double *multipliers = golden_f64(c->golden, NULL, "multipliers/params/%s", p->path);
    p->first = c->flat_count;
    p->count = shape.count;
    c->flat_count += shape.count;
    c->bounds[2 * c->count] = p->first;
    c->bounds[2 * c->count + 1] = p->first + p->count;
    c->module[c->count] = module;
    c->lr_multiplier[c->count] = multipliers[0];
    c->wd_multiplier[c->count] = multipliers[1];
    c->rate[c->count++] = multipliers[2] != 0.0 ? OPS_RATE_LAST_LAYER : OPS_RATE_OTHER;
}

/* From PATH/NAME of every parameter into a flat vector. */
static void read_flat(AdamwCase *c, float *flat, const char *group)
{
    for (int i = 0; i < c->count; i++)
        memcpy(flat + c->params[i].first, golden_f32(c->golden, NULL, "%s/%s", group, c->params[i].path),
               (size_t)c->params[i].count * sizeof *flat);
}

static void compare_flat(AdamwCase *c, const float *flat, const char *group)
{
    for (int i = 0; i < c->count; i++)
        golden_compare(c->golden, flat + c->params[i].first, c->params[i].count, "%s/%s", group,
                       c->params[i].path);
}

static bool read_params(AdamwCase *c)
{
    c->modules = golden_members(c->golden, NULL, "init/params");
    for (int module = 0; c->modules[module]; module++) {
        const char *const *name = golden_members(c->golden, NULL, "init/params/%s", c->modules[module]);
        for (; *name; name++) {
            if (c->count == MAX_PARAMS || module == OPS_MODULES) {
                golden_fail(c->golden, "more than %d parameters or %d modules", MAX_PARAMS, OPS_MODULES);
                return false;
            }
            add_param(c, module, *name);
        }
    }
    float **flats[] = {&c->value, &c->exp_avg, &c->exp_avg_sq, &c->grads};
    for (int i = 0; i < 4; i++)
        *flats[i] = memory_alloc_array((size_t)c->flat_count, sizeof(float));
    read_flat(c, c->value, "init/params");
    return true;
}

static OpsSegments segments_of(AdamwCase *c)
{
    return (OpsSegments){.count = c->count,
                         .bounds = tensor_1d(c->bounds, DTYPE_I64, 2 * c->count),
                         .module = tensor_1d(c->module, DTYPE_I32, c->count),
                         .rate = tensor_1d(c->rate, DTYPE_I32, c->count),
                         .lr_multiplier = tensor_1d(c->lr_multiplier, DTYPE_F64, c->count),
                         .wd_multiplier = tensor_1d(c->wd_multiplier, DTYPE_F64, c->count)};
}

static void take_step(AdamwCase *c, int step, double *control)
{
    char group[64];
    double squares[MAX_PARAMS];
    OpsSegments segments = segments_of(c);
    Tensor decision = tensor_1d(control, DTYPE_F64, CONTROL_COUNT);
    Tensor grads = tensor_1d(c->grads, DTYPE_F32, c->flat_count);
    AdamwUpdate update = {.params = tensor_1d(c->value, DTYPE_F32, c->flat_count),
                          .exp_avg = tensor_1d(c->exp_avg, DTYPE_F32, c->flat_count),
                          .exp_avg_sq = tensor_1d(c->exp_avg_sq, DTYPE_F32, c->flat_count),
                          .grads = grads,
                          .segments = segments,
                          .control = decision,
                          .lr = {[OPS_RATE_OTHER] = golden_f64(c->golden, NULL, "lr")[step],
                                 [OPS_RATE_LAST_LAYER] = golden_f64(c->golden, NULL, "last_layer_lr")[step]},
                          .weight_decay = golden_f64(c->golden, NULL, "wd")[step],
                          .beta1 = golden_attr(c->golden, "beta1", "/"),
                          .beta2 = golden_attr(c->golden, "beta2", "/"),
                          .eps = golden_attr(c->golden, "eps", "/")};
    StepControl rule = {
        .clip_grad = golden_attr(c->golden, "clip_grad", "/"), .beta1 = update.beta1, .beta2 = update.beta2};
    snprintf(group, sizeof group, "step%d/grad_in/params", step);
    read_flat(c, c->grads, group);
    c->ops->segment_squares(c->ops, tensor_1d(squares, DTYPE_F64, c->count), grads, &segments);
    c->ops->step_control(c->ops, decision, tensor_none(), tensor_1d(squares, DTYPE_F64, c->count), &segments,
                         &rule);
    c->ops->adamw(c->ops, &update);
    for (int m = 0; c->modules[m]; m++)
        golden_compare_f64(c->golden, &control[CONTROL_NORM + m], 1, "step%d/grad_norm/%s", step,
                           c->modules[m]);
    snprintf(group, sizeof group, "step%d/params", step);
    compare_flat(c, c->value, group);
}

void golden_adamw(Golden *golden)
{
    OpsLimits limits = {.rows = 1, .width = 1, .max_seqlen = 16, .head_dim = 16};
    AdamwCase c = {.golden = golden, .ops = ops_support_open(&limits, 0)};
    double control[CONTROL_COUNT] = {[CONTROL_LOSS_SCALE] = 1.0};
    int steps = read_params(&c) ? (int)golden_attr(golden, "steps", "/") : 0;
    for (int step = 0; step < steps; step++)
        take_step(&c, step, control);
    if (steps > 0) {
        compare_flat(&c, c.exp_avg, "final_state/params/exp_avg");
        compare_flat(&c, c.exp_avg_sq, "final_state/params/exp_avg_sq");
    }
    memory_free(c.value);
    memory_free(c.exp_avg);
    memory_free(c.exp_avg_sq);
    memory_free(c.grads);
    ops_support_close(c.ops);
}

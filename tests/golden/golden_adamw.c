/* golden_adamw.c - adamw.h5: several optimiser steps with schedules, multipliers and clipping per module.
 *
 * What it checks are the operations adamw and sum_squares; coefficients are made here from the file's
 * schedules and multipliers by the reference's rules.
 */
#include "golden.h"

#include "base/memory.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PARAMS = 64 };

/* One parameter with its state; path is MODULE/NAME as in the file. */
typedef struct {
    char path[160];
    int module; /* place in the list of modules */
    int64_t count;
    double lr_multiplier, wd_multiplier;
    bool is_last_layer;
    Tensor value, exp_avg, exp_avg_sq;
} AdamwParam;

typedef struct {
    Golden *golden;
    Ops *ops;
    const char *const *modules;
    AdamwParam params[MAX_PARAMS];
    int count;
} AdamwCase;

static Tensor zeros(int64_t n)
{
    return tensor_1d(memory_alloc_array((size_t)n, sizeof(float)), DTYPE_F32, n);
}

static Tensor read_only(const float *data, int64_t n)
{
    return tensor_1d((void *)(uintptr_t)data, DTYPE_F32, n);
}

static void read_params(AdamwCase *c)
{
    c->modules = golden_members(c->golden, NULL, "init/params");
    for (int module = 0; c->modules[module]; module++) {
        const char *const *name = golden_members(c->golden, NULL, "init/params/%s", c->modules[module]);
        for (; *name; name++) {
            if (c->count == MAX_PARAMS) golden_fail(c->golden, "more than %d parameters", MAX_PARAMS);
            if (c->count == MAX_PARAMS) return;
            AdamwParam *p = &c->params[c->count++];
            snprintf(p->path, sizeof p->path, "%s/%s", c->modules[module], *name);
            GoldenShape shape;
            const float *init = golden_f32(c->golden, &shape, "init/params/%s", p->path);
            const double *multipliers = golden_f64(c->golden, NULL, "multipliers/params/%s", p->path);
            p->module = module;
            p->count = shape.count;
            p->lr_multiplier = multipliers[0];
            p->wd_multiplier = multipliers[1];
            p->is_last_layer = multipliers[2] != 0.0;
            p->value = zeros(p->count);
            p->exp_avg = zeros(p->count);
            p->exp_avg_sq = zeros(p->count);
            memcpy(p->value.data, init, (size_t)p->count * sizeof(float));
        }
    }
}

/* The clip factor of a module: min(1, clip / (norm + 1e-6)). */
static double clip_factor(AdamwCase *c, int step, int module, double clip)
{
    double total = 0.0;
    for (int i = 0; i < c->count; i++) {
        if (c->params[i].module != module) continue;
        double part;
        const float *g = golden_f32(c->golden, NULL, "step%d/grad_in/params/%s", step, c->params[i].path);
        c->ops->sum_squares(c->ops, &part, read_only(g, c->params[i].count));
        total += part;
    }
    double norm = sqrt(total);
    golden_compare_f64(c->golden, &norm, 1, "step%d/grad_norm/%s", step, c->modules[module]);
    return fmin(1.0, clip / (norm + 1e-6));
}

static void take_step(AdamwCase *c, int step)
{
    double beta1 = golden_attr(c->golden, "beta1", "/"), beta2 = golden_attr(c->golden, "beta2", "/");
    double clip = golden_attr(c->golden, "clip_grad", "/"), eps = golden_attr(c->golden, "eps", "/");
    double lr = golden_f64(c->golden, NULL, "lr")[step], wd = golden_f64(c->golden, NULL, "wd")[step];
    double last_layer_lr = golden_f64(c->golden, NULL, "last_layer_lr")[step], factor = 1.0;
    for (int i = 0; i < c->count; i++) {
        AdamwParam *p = &c->params[i];
        if (i == 0 || p->module != c->params[i - 1].module) factor = clip_factor(c, step, p->module, clip);
        const float *g = golden_f32(c->golden, NULL, "step%d/grad_in/params/%s", step, p->path);
        AdamwStep coefficients = {.eps = eps, .gradient_scale = factor};
        coefficients.lr = (p->is_last_layer ? last_layer_lr : lr) * p->lr_multiplier;
        coefficients.weight_decay = wd * p->wd_multiplier;
        coefficients.beta1 = beta1;
        coefficients.beta2 = beta2;
        coefficients.correction1 = 1.0 - pow(beta1, step + 1);
        coefficients.correction2 = 1.0 - pow(beta2, step + 1);
        c->ops->adamw(c->ops, p->value, p->exp_avg, p->exp_avg_sq, read_only(g, p->count), coefficients);
        golden_compare(c->golden, p->value.data, p->count, "step%d/params/%s", step, p->path);
    }
}

void golden_adamw(Golden *golden)
{
    OpsLimits limits = {.rows = 1, .width = 1, .max_seqlen = 16, .head_dim = 16};
    AdamwCase c = {.golden = golden, .ops = ops_cpu_create(&limits, 0)};
    read_params(&c);
    int steps = (int)golden_attr(golden, "steps", "/");
    for (int step = 0; step < steps; step++)
        take_step(&c, step);
    for (int i = 0; i < c.count; i++) {
        AdamwParam *p = &c.params[i];
        golden_compare(golden, p->exp_avg.data, p->count, "final_state/params/exp_avg/%s", p->path);
        golden_compare(golden, p->exp_avg_sq.data, p->count, "final_state/params/exp_avg_sq/%s", p->path);
        memory_free(p->value.data);
        memory_free(p->exp_avg.data);
        memory_free(p->exp_avg_sq.data);
    }
    ops_destroy(c.ops);
}

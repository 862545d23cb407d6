/* adamw_optimizer.c - the table's parameters as segments of flat vectors, and the update of a step. */
#include "optim/adamw_optimizer.h"

#include "base/check.h"
#include "base/memory.h"

static const double ADAM_EPS = 1e-8;

static Tensor to_device(Device *device, const void *host, Dtype dtype, int64_t n)
{
    Tensor t = tensor_1d(device_alloc(device, (size_t)n * dtype_size(dtype)), dtype, n);
    device_upload(device, t.data, host, tensor_bytes(t));
    return t;
}

/* One segment per parameter. */
static OpsSegments make_segments(const ParamTable *table, Device *device)
{
    size_t count = (size_t)table->count;
    int64_t *bounds = memory_alloc_array(2 * count, sizeof *bounds);
    int32_t *module = memory_alloc_array(count, sizeof *module),
            *last = memory_alloc_array(count, sizeof *last);
    double *lr = memory_alloc_array(count, sizeof *lr), *wd = memory_alloc_array(count, sizeof *wd);
    for (int i = 0; i < table->count; i++) {
        const Param *p = &table->params[i];
        bounds[2 * i] = p->offset;
        bounds[2 * i + 1] = p->offset + p->count;
        module[i] = (int32_t)p->module;
        last[i] = p->is_last_layer;
        lr[i] = p->lr_multiplier;
        wd[i] = p->wd_multiplier;
    }
    OpsSegments s = {.count = table->count,
                     .bounds = to_device(device, bounds, DTYPE_I64, 2 * table->count),
                     .module = to_device(device, module, DTYPE_I32, table->count),
                     .last_layer = to_device(device, last, DTYPE_I32, table->count),
                     .lr_multiplier = to_device(device, lr, DTYPE_F64, table->count),
                     .wd_multiplier = to_device(device, wd, DTYPE_F64, table->count)};
    memory_free(bounds);
    memory_free(module);
    memory_free(last);
    memory_free(lr);
    memory_free(wd);
    return s;
}

void adamw_optimizer_init(AdamwOptimizer *optimizer, const ParamTable *table, Device *device, double beta1,
                          double beta2)
{
    _Static_assert((int)PARAM_MODULE_COUNT == (int)OPS_MODULES, "a clip factor for every module");
    int64_t n = table->flat_count;
    *optimizer = (AdamwOptimizer){.device = device, .beta1 = beta1, .beta2 = beta2, .flat_count = n};
    optimizer->exp_avg = device_alloc(device, (size_t)n * sizeof(float));
    optimizer->exp_avg_sq = device_alloc(device, (size_t)n * sizeof(float));
    optimizer->squares =
        tensor_1d(device_alloc(device, (size_t)table->count * sizeof(double)), DTYPE_F64, table->count);
    optimizer->segments = make_segments(table, device);
}

void adamw_optimizer_fini(AdamwOptimizer *optimizer)
{
    if (!optimizer->device) return;
    OpsSegments *s = &optimizer->segments;
    void *owned[] = {optimizer->exp_avg,    optimizer->exp_avg_sq, optimizer->squares.data,
                     s->bounds.data,        s->module.data,        s->last_layer.data,
                     s->lr_multiplier.data, s->wd_multiplier.data};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        device_free(optimizer->device, owned[i]);
    *optimizer = (AdamwOptimizer){0};
}

void adamw_optimizer_step(const AdamwOptimizer *optimizer, const Ops *ops, float *params, float *grads,
                          Tensor control, Tensor losses, const AdamwOptimizerStep *step)
{
    int64_t n = optimizer->flat_count;
    Tensor gradients = tensor_1d(grads, DTYPE_F32, n);
    StepControl rule = {.clip_grad = step->clip_grad,
                        .beta1 = optimizer->beta1,
                        .beta2 = optimizer->beta2,
                        .scaled = step->scaled};
    AdamwUpdate update = {.params = tensor_1d(params, DTYPE_F32, n),
                          .exp_avg = tensor_1d(optimizer->exp_avg, DTYPE_F32, n),
                          .exp_avg_sq = tensor_1d(optimizer->exp_avg_sq, DTYPE_F32, n),
                          .grads = gradients,
                          .segments = optimizer->segments,
                          .control = control,
                          .lr = step->schedule.lr,
                          .last_layer_lr = step->schedule.last_layer_lr,
                          .weight_decay = step->schedule.weight_decay,
                          .beta1 = optimizer->beta1,
                          .beta2 = optimizer->beta2,
                          .eps = ADAM_EPS};
    ops->segment_squares(ops, optimizer->squares, gradients, &optimizer->segments);
    ops->step_control(ops, control, losses, optimizer->squares, &optimizer->segments, &rule);
    ops->adamw(ops, &update);
}

/* adamw_optimizer.c - parts of parameters as segments of local vectors, and the update of a step. */
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

/* First and last element of this rank's part of every parameter; without those that other ranks count. */
static Tensor make_bounds(const ShardMap *map, bool counted, Device *device)
{
    int64_t count = map->table->count, *bounds = memory_alloc_array(2 * (size_t)count, sizeof *bounds);
    int64_t end = 0; /* bounds of empty segments are in order, too */
    for (int64_t s = 0; s < count; s++) {
        int id = map->order[s];
        ShardRange range = shard_map_range(map, id);
        bool skip = counted && map->modules[map->table->params[id].module].replica > 0;
        bounds[2 * s] = range.count > 0 ? range.local : end;
        end = bounds[2 * s] + range.count;
        bounds[2 * s + 1] = skip ? bounds[2 * s] : end;
    }
    Tensor t = to_device(device, bounds, DTYPE_I64, 2 * count);
    memory_free(bounds);
    return t;
}

static OpsSegments make_segments(const ShardMap *map, Device *device)
{
    size_t count = (size_t)map->table->count;
    int32_t *module = memory_alloc_array(count, sizeof *module),
            *rate = memory_alloc_array(count, sizeof *rate);
    double *lr = memory_alloc_array(count, sizeof *lr), *wd = memory_alloc_array(count, sizeof *wd);
    for (size_t s = 0; s < count; s++) {
        const Param *p = &map->table->params[map->order[s]];
        module[s] = (int32_t)p->module;
        rate[s] = p->module == PARAM_BACKBONE ? OPS_RATE_BACKBONE
                  : p->is_last_layer          ? OPS_RATE_LAST_LAYER
                                              : OPS_RATE_OTHER;
        lr[s] = p->lr_multiplier;
        wd[s] = p->wd_multiplier;
    }
    int64_t n = map->table->count;
    OpsSegments s = {.count = n,
                     .bounds = make_bounds(map, false, device),
                     .module = to_device(device, module, DTYPE_I32, n),
                     .rate = to_device(device, rate, DTYPE_I32, n),
                     .lr_multiplier = to_device(device, lr, DTYPE_F64, n),
                     .wd_multiplier = to_device(device, wd, DTYPE_F64, n)};
    memory_free(module);
    memory_free(rate);
    memory_free(lr);
    memory_free(wd);
    return s;
}

static bool is_cut(const ShardMap *map)
{
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        if (map->modules[m].shards > 1) return true;
    return false;
}

void adamw_optimizer_init(AdamwOptimizer *optimizer, const ShardMap *map, Comm *world, Device *device,
                          double beta1, double beta2)
{
    _Static_assert((int)PARAM_MODULE_COUNT == (int)OPS_MODULES, "a clip factor for every module");
    int64_t n = map->count, count = map->table->count;
    *optimizer = (AdamwOptimizer){.device = device, .map = map, .beta1 = beta1, .beta2 = beta2};
    optimizer->comm = is_cut(map) ? world : NULL;
    optimizer->exp_avg = device_alloc(device, (size_t)n * sizeof(float));
    optimizer->exp_avg_sq = device_alloc(device, (size_t)n * sizeof(float));
    optimizer->squares = tensor_1d(device_alloc(device, (size_t)count * sizeof(double)), DTYPE_F64, count);
    optimizer->counted = optimizer->segments = make_segments(map, device);
    optimizer->counted.bounds = make_bounds(map, optimizer->comm != NULL, device);
}

void adamw_optimizer_fini(AdamwOptimizer *optimizer)
{
    if (!optimizer->device) return;
    OpsSegments *s = &optimizer->segments;
    void *owned[] = {optimizer->exp_avg,    optimizer->exp_avg_sq, optimizer->squares.data,
                     s->bounds.data,        s->module.data,        s->rate.data,
                     s->lr_multiplier.data, s->wd_multiplier.data, optimizer->counted.bounds.data};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        device_free(optimizer->device, owned[i]);
    *optimizer = (AdamwOptimizer){0};
}

void adamw_optimizer_squares(const AdamwOptimizer *optimizer, const Ops *ops, float *local)
{
    Tensor squares = optimizer->squares;
    ops->segment_squares(ops, squares, tensor_1d(local, DTYPE_F32, optimizer->map->count),
                         &optimizer->counted);
    if (optimizer->comm)
        comm_all_reduce(optimizer->comm, squares.data, tensor_count(squares), DTYPE_F64, COMM_SUM,
                        optimizer->device);
}

void adamw_optimizer_step(const AdamwOptimizer *optimizer, const Ops *ops, float *params, float *grads,
                          Tensor control, Tensor losses, const AdamwOptimizerStep *step)
{
    int64_t n = optimizer->map->count;
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
                          .lr = {[OPS_RATE_OTHER] = step->schedule.lr,
                                 [OPS_RATE_LAST_LAYER] = step->schedule.last_layer_lr,
                                 [OPS_RATE_BACKBONE] = step->schedule.backbone_lr},
                          .weight_decay = step->schedule.weight_decay,
                          .beta1 = optimizer->beta1,
                          .beta2 = optimizer->beta2,
                          .eps = ADAM_EPS};
    adamw_optimizer_squares(optimizer, ops, grads);
    ops->step_control(ops, control, losses, optimizer->squares, &optimizer->segments, &rule);
    ops->adamw(ops, &update);
}

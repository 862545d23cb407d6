/* plan_ops.c - one function per operation, made from the list in ops.h, and the few whose work is not all
 * that they do. */
#include "plan/plan_ops.h"

#include "ops/ops_work.h"

#include <math.h>

/* Bytes of scores that Sinkhorn-Knopp keeps from round to round: two of ops/cuda's buffers. */
static const double KEPT_SCORES = 512.0 * 1048576.0;

/* The backward of attention makes scores again: 5 products where 4 are needed (Dao, "FlashAttention-2",
 * 2023). */
static const double ATTENTION_AGAIN = 1.25;

static PlanOps *plan_ops(const Ops *ops)
{
    return (PlanOps *)(uintptr_t)ops;
}

static void spend(PlanOps *o, PlanWork work, double seconds, double flops)
{
    PlanClock *clock = o->clock;
    clock->operations++;
    clock->flops += flops;
    clock->targets = false;
    const Cluster *c = clock->cluster;
    plan_clock_spend(clock, work, fmax(seconds / c->step_share, c->operation_us * 1e-6));
}

/* The sum of n_i^2 of sequences of which two lengths, their number and their tokens are known. */
static double attention_flops(const PlanOps *o, const OpsWork *work)
{
    double a = (double)o->lengths[0], b = (double)o->lengths[1], tokens = (double)work->tokens;
    double sequences = (double)work->starts.shape[0] - 1;
    double longer = a == b ? sequences : (tokens - b * sequences) / (a - b);
    return work->per_square * (longer * a * a + (sequences - longer) * b * b);
}

static void note(const Ops *ops, OpsWork work, double again)
{
    PlanOps *o = plan_ops(ops);
    const Cluster *c = o->clock->cluster;
    if (work.per_square > 0) {
        double flops = attention_flops(o, &work);
        o->needed += flops;
        spend(o, PLAN_ATTENTION, again * flops / cluster_attention_rate(c, work.dtype), again * flops);
    } else if (work.flops > 0) {
        o->needed += work.flops;
        spend(o, PLAN_PRODUCTS, work.flops / cluster_product_rate(c, work.dtype), work.flops);
    } else {
        spend(o, PLAN_ROWS, work.bytes / cluster_memory_rate(c), 0);
    }
}

/* The arguments of the list have names for the macros of ops_work.h; most of them are not used. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define PLAN_OP(name, arguments)         \
    static void plan_##name arguments    \
    {                                    \
        note(ops, OPS_WORK_##name, 1.0); \
    }
OPS_LIST(PLAN_OP)

/* --- more than their work --- */

static void again_attention_backward(const Ops *ops, Tensor dqkv, Tensor dout, Tensor out, Tensor lse,
                                     Tensor qkv, Tensor cu_seqlens, int64_t heads)
{
    note(ops, OPS_WORK_attention_backward, ATTENTION_AGAIN);
}
#pragma GCC diagnostic pop

/* `products` of n rows with all prototypes, and so many bytes of each score through memory. */
static void spend_scores(PlanOps *o, Tensor v, double rows, double products, double bytes)
{
    const Cluster *c = o->clock->cluster;
    double scores = rows * (double)v.shape[0], flops = products * 2 * scores * (double)v.shape[1];
    if (c->device == DEVICE_CPU) bytes = 0; /* they stay in the cache */
    spend(o, PLAN_PROTOTYPES,
          flops / cluster_product_rate(c, v.dtype) + bytes * scores / cluster_memory_rate(c), flops);
}

static void again_prototype_sinkhorn(const Ops *ops, Tensor bias, Tensor x, Tensor v, Tensor scale,
                                     float temp, int iterations, Comm *comm)
{
    (void)scale, (void)temp;
    PlanOps *o = plan_ops(ops);
    double element = v.dtype == DTYPE_F32 ? 4 : 2, rows = (double)x.shape[0];
    bool kept = rows * (double)v.shape[0] * element <= KEPT_SCORES;
    double products = kept ? 1 : iterations;
    o->needed += OPS_WORK_prototype_sinkhorn.flops;
    spend_scores(o, v, rows, products, element * (products + iterations));
    o->clock->targets = true;
    comm_all_reduce(comm, bias.data, v.shape[0], DTYPE_F32, COMM_MAX, ops->device);
    for (int round = 0; round < iterations; round++)
        comm_all_reduce(comm, bias.data, v.shape[0], DTYPE_F32, COMM_SUM, ops->device);
}

static void again_prototype_center(const Ops *ops, Tensor sum, Tensor x, Tensor v, Tensor scale,
                                   Tensor row_weight)
{
    plan_prototype_center(ops, sum, x, v, scale, row_weight);
    plan_ops(ops)->clock->targets = true;
}

static void again_prototype_cross_entropy(const Ops *ops, PrototypeCrossEntropy *args)
{
    PlanOps *o = plan_ops(ops);
    double element = args->student_v.dtype == DTYPE_F32 ? 4 : 2;
    double students = (double)args->student.shape[0], teachers = (double)args->teacher.shape[0];
    o->needed += OPS_WORK_prototype_cross_entropy.flops;
    spend_scores(o, args->teacher_v, fmin(students, teachers), 1, 2 * element);
    bool backward = tensor_given(args->d_student);
    spend_scores(o, args->student_v, students, backward ? 3 : 1, (backward ? 6 : 2) * element);
}

void plan_ops_init(PlanOps *o, Device *device, PlanClock *clock, const int64_t lengths[2])
{
    const Cluster *c = clock->cluster;
    *o = (PlanOps){.clock = clock, .lengths = {lengths[0], lengths[1]}};
    bool gpu = device_kind(device) != DEVICE_CPU;
    o->ops = (Ops){.name = "described",
                   .device = device,
                   .threads = 1,
                   .has_bf16 = c->bf16_tflops > 0,
                   .has_fp16 = c->fp16_tflops > 0,
                   .reduced_prototypes = gpu};
#define PLAN_ENTRY(name_, arguments) o->ops.name_ = plan_##name_;
    OPS_LIST(PLAN_ENTRY)
#undef PLAN_ENTRY
    o->ops.attention_backward = again_attention_backward;
    o->ops.prototype_sinkhorn = again_prototype_sinkhorn;
    o->ops.prototype_center = again_prototype_center;
    o->ops.prototype_cross_entropy = again_prototype_cross_entropy;
}

/* step_plan.c - builds the rank, counts it, runs two steps. */
#include "plan/step_plan.h"

#include "base/memory.h"
#include "data/batch_masks.h"
#include "nn/packed_sequence.h"
#include "optim/adamw_optimizer.h"
#include "optim/param_groups.h"
#include "plan/plan_ops.h"
#include "ssl/step_flops.h"

#include <stdio.h>

/* Most bytes that comm/mpi takes for an all-reduce: of a piece, and of the pieces of all ranks. */
static const size_t MPI_PIECE = (size_t)16 << 20, MPI_PIECES = (size_t)64 << 20;

typedef struct PlanRank PlanRank;

/* Says in which part of the step a unit's work is. */
typedef struct {
    PlanRank *rank;
    NnHooks own;
    bool teacher;
} PhaseHooks;

/* One rank and everything that it holds. */
struct PlanRank {
    const StepPlanParams *params;
    PlanClock clock;
    PlanLink world_link, node_link, across_link;
    FsdpRanks ranks; /* communicators owned */
    Device *device;  /* owned */
    PlanOps ops;
    SslGroups groups;
    SslMetaArch ssl;
    AdamwOptimizer optimizer;
    Batch batch;
    PhaseHooks student, teacher;
};

const char *step_plan_memory_name(PlanMemory item)
{
    static const char *const names[PLAN_MEMORY_COUNT] = {
        [PLAN_STUDENT_WEIGHTS] = "student, fp32 masters",
        [PLAN_TEACHER_WEIGHTS] = "teacher, fp32",
        [PLAN_GRADIENTS] = "gradients, fp32",
        [PLAN_MOMENTS] = "AdamW moments, fp32",
        [PLAN_COPIES_OF_WEIGHTS] = "full copies for computing",
        [PLAN_GRADIENT_ROOMS] = "gradients under way",
        [PLAN_STEP] = "step (activations, targets)",
        [PLAN_SCRATCH] = "scratch of operations",
        [PLAN_BATCHES] = "batches",
        [PLAN_COLLECTIVES] = "room of collectives",
        [PLAN_SMALL] = "tables, centres, figures",
        [PLAN_RESERVED] = "context, kernels, NCCL",
    };
    return names[item];
}

/* --- phases --- */

static void before_unit(void *context, int unit, NnPhase phase)
{
    const PhaseHooks *hooks = context;
    hooks->rank->clock.phase = hooks->teacher        ? PLAN_TEACHER
                               : phase == NN_FORWARD ? PLAN_STUDENT
                                                     : PLAN_BACKWARD;
    nn_hooks_before(&hooks->own, unit, phase);
}

static void after_unit(void *context, int unit, NnPhase phase)
{
    const PhaseHooks *hooks = context;
    nn_hooks_after(&hooks->own, unit, phase);
    hooks->rank->clock.phase = PLAN_REST;
}

/* --- building --- */

static Status check_nodes(const StepPlanParams *p, int per_node, Error *error)
{
    int64_t all = p->cluster->nodes * p->cluster->ranks_per_node;
    if (p->ranks < 1 || p->ranks > all)
        return status_fail(error, STATUS_INPUT, "%d ranks: %s has %lld (nodes times ranks_per_node)",
                           p->ranks, p->cluster->name, (long long)all);
    if (fsdp_ranks_is_hybrid(p->config) && p->ranks % per_node != 0)
        return status_fail(error, STATUS_INPUT,
                           "%d ranks, %d on a node: HYBRID_SHARD needs nodes of equal size", p->ranks,
                           per_node);
    return STATUS_OK;
}

/* Ranks that share a node: the cluster's, unless the configuration imitates nodes. */
static int ranks_per_node(const StepPlanParams *p)
{
    int64_t asked = p->config->compute.ranks_per_node;
    int64_t each = asked > 0 ? asked : p->cluster->ranks_per_node;
    return each < p->ranks ? (int)each : p->ranks;
}

static void make_ranks(PlanRank *r)
{
    const StepPlanParams *p = r->params;
    int per_node = ranks_per_node(p), nodes = (p->ranks + per_node - 1) / per_node;
    CommListener listener = plan_clock_link(&r->world_link, &r->clock, p->ranks, nodes, 1);
    r->ranks = (FsdpRanks){.world = comm_described_create(0, p->ranks, r->device, listener),
                           .ranks_per_node = per_node};
    if (fsdp_ranks_is_hybrid(p->config)) {
        listener = plan_clock_link(&r->node_link, &r->clock, per_node, 1, 1);
        r->ranks.node = comm_described_create(0, per_node, r->device, listener);
        listener = plan_clock_link(&r->across_link, &r->clock, nodes, nodes, 1.0 / per_node);
        r->ranks.across = comm_described_create(0, nodes, r->device, listener);
    }
    fsdp_ranks_deal(&r->ranks, p->config);
}

static void make_batch(PlanRank *r)
{
    const Config *c = r->params->config;
    int64_t side = c->crops.global_crops_size / c->student.patch_size;
    r->batch = (Batch){.samples = r->groups.groups * r->groups.group_size,
                       .group_size = r->groups.group_size,
                       .groups = r->groups.groups,
                       .first_group = r->groups.first_group,
                       .local_count = c->crops.local_crops_number,
                       .global_size = c->crops.global_crops_size,
                       .local_size = c->crops.local_crops_size,
                       .patches = side * side,
                       .pixels = DTYPE_U8};
    batch_init(&r->batch, r->device);
    BatchMasks masks = batch_masks_of(c);
    uint8_t *scratch = memory_alloc((size_t)(2 * r->groups.group_size * r->batch.patches));
    for (int64_t group = 0; group < r->groups.groups; group++)
        batch_masks_draw(&masks, &r->batch, group, scratch);
    memory_free(scratch);
}

static void rank_init(PlanRank *r)
{
    const Config *c = r->params->config;
    const Cluster *cluster = r->params->cluster;
    plan_clock_init(&r->clock, cluster);
    r->device = device_described_open(cluster->device, cluster->gpu, plan_clock_device(&r->clock));
    make_ranks(r);
    int64_t p = c->student.patch_size, extra = 1 + c->student.num_register_tokens;
    int64_t global = c->crops.global_crops_size / p, local = c->crops.local_crops_size / p;
    plan_ops_init(&r->ops, r->device, &r->clock,
                  (const int64_t[]){global * global + extra, local * local + extra});
    SslMetaArch *ssl = &r->ssl;
    PixelNorm norm = pixel_levels_imagenet();
    ssl_meta_arch_init(ssl, c, NULL, &r->groups, &norm, &r->ops.ops, &r->ranks);
    param_groups_assign(&ssl->student.table, ssl->student.vit.config.depth, c->optim.layerwise_decay,
                        c->optim.patch_embed_lr_mult);
    adamw_optimizer_init(&r->optimizer, &ssl->student.map, r->ranks.world, r->device, c->optim.adamw_beta1,
                         c->optim.adamw_beta2);
    r->student = (PhaseHooks){.rank = r, .own = ssl->student.hooks};
    r->teacher = (PhaseHooks){.rank = r, .own = ssl->teacher.hooks, .teacher = true};
    ssl->student.hooks = (NnHooks){&r->student, before_unit, after_unit};
    ssl->teacher.hooks = (NnHooks){&r->teacher, before_unit, after_unit};
    const ShardedGradients *g = &ssl->gradients;
    r->clock.gradients = (const char *)g->local;
    r->clock.gradients_end = (const char *)(g->local + ssl->student.map.count);
    r->clock.chunk = g->chunk;
    r->clock.step = ssl->step.base;
    r->clock.step_end = ssl->step.base + ssl->step.capacity;
    make_batch(r);
}

static void rank_fini(PlanRank *r)
{
    batch_fini(&r->batch);
    adamw_optimizer_fini(&r->optimizer);
    ssl_meta_arch_fini(&r->ssl);
    Comm *world = r->ranks.world;
    fsdp_ranks_fini(&r->ranks);
    comm_destroy(world);
    device_close(r->device);
}

/* --- a step --- */

/* What train_state_submit does. */
static void run_step(PlanRank *r)
{
    SslMetaArch *ssl = &r->ssl;
    TrainScheduleValues schedule = {.lr = 1e-4,
                                    .weight_decay = 0.04,
                                    .momentum = 0.994,
                                    .teacher_temp = 0.07,
                                    .last_layer_lr = 1e-4,
                                    .backbone_lr = 1e-4};
    AdamwOptimizerStep update = {
        .schedule = schedule, .clip_grad = r->params->config->optim.clip_grad, .scaled = ssl->scaled};
    ssl_meta_arch_forward_backward(ssl, &r->batch, schedule.teacher_temp);
    adamw_optimizer_step(&r->optimizer, ssl->ops, ssl->student.local, ssl->gradients.local, ssl->control,
                         tensor_rows(ssl->figures, 0, ssl->layout.dino_entropy), &update);
    ssl_meta_arch_update_ema(ssl, schedule.momentum);
    ssl_meta_arch_refresh(ssl);
    r->batch.step++;
}

/* --- memory --- */

/* Pieces of all ranks for an all-reduce, and reduce-scatters under way. */
static size_t mpi_rooms(const PlanRank *r)
{
    size_t ranks = (size_t)r->params->ranks, most = ranks * MPI_PIECE;
    if (ranks == 1) return 0;
    if (most > MPI_PIECES) most = MPI_PIECES;
    size_t whole = r->clock.largest_all_reduce;
    return (whole < most ? whole : most) + r->clock.rooms_peak;
}

/* Centres before a step, which train_state keeps. */
static size_t kept_centers(const PlanRank *r)
{
    int64_t dino, ibot;
    ssl_meta_arch_center_counts(&r->ssl, &dino, &ibot);
    return (size_t)(dino + ibot) * sizeof(float);
}

static void count_memory(StepPlan *plan, const PlanRank *r)
{
    const SslMetaArch *ssl = &r->ssl;
    const Config *c = r->params->config;
    const Cluster *cluster = r->params->cluster;
    bool gpu = cluster->device != DEVICE_CPU;
    size_t part = (size_t)ssl->student.map.count * sizeof(float), *m = plan->memory;
    m[PLAN_STUDENT_WEIGHTS] = m[PLAN_TEACHER_WEIGHTS] = m[PLAN_GRADIENTS] = part;
    m[PLAN_MOMENTS] = 2 * part;
    m[PLAN_COPIES_OF_WEIGHTS] =
        sharded_weights_bytes(&ssl->student.copies) + sharded_weights_bytes(&ssl->teacher.copies);
    m[PLAN_GRADIENT_ROOMS] = ssl->gradients.bytes;
    m[PLAN_STEP] = ssl->step.capacity + (gpu ? ssl->step.staged.capacity : 0);
    m[PLAN_SMALL] = device_memory_used(r->device) + kept_centers(r);
    for (int i = 0; i < PLAN_SCRATCH; i++)
        m[PLAN_SMALL] -= m[i];

    OpsLimits limits = ssl_ops_limits(c, NULL, &r->groups);
    m[PLAN_SCRATCH] = ops_memory(cluster->device, &limits, (int)cluster->parallel);
    plan->scratch_known = m[PLAN_SCRATCH] > 0;
    int64_t slots = (c->train.num_workers > 0 ? c->data.prefetch : 0) + r->params->batches_held;
    size_t batches = (size_t)slots * batch_bytes(&r->batch);
    if (!gpu) m[PLAN_BATCHES] = batches;
    if (!gpu) m[PLAN_COLLECTIVES] = mpi_rooms(r);
    if (gpu) plan->pinned = batches + 4 * part + ssl->step.staged.capacity;
    m[PLAN_RESERVED] = (size_t)(cluster->reserved_gib * 1073741824.0);
    for (int i = 0; i < PLAN_MEMORY_COUNT; i++)
        plan->total += m[i];
    plan->capacity = (size_t)(cluster->memory_gib * 1073741824.0);
    plan->fits = plan->total <= plan->capacity;
}

static void count_parameters(StepPlan *plan, const ParamTable *table)
{
    for (int i = 0; i < table->count; i++)
        plan->parameters[table->params[i].module] += table->params[i].count;
}

static void measure(StepPlan *plan, PlanRank *r)
{
    run_step(r); /* fills copies, and leaves what the next one finds */
    plan_clock_reset(&r->clock);
    r->ops.needed = 0;
    double began = r->clock.now;
    run_step(r);
    plan->seconds = r->clock.now - began;
    plan->clock = r->clock;
    plan->operations_flops = r->ops.needed;
    double parts[STEP_PART_COUNT];
    const SslMetaArch *ssl = &r->ssl;
    double masked =
        (double)block_mask_indices(r->batch.masks, 2 * r->batch.samples, r->batch.patches, NULL, NULL);
    plan->needed_flops = step_flops_count(ssl, masked, parts);
}

Status step_plan_make(StepPlan *plan, const StepPlanParams *params, Error *error)
{
    *plan = (StepPlan){.ranks = params->ranks, .ranks_per_node = ranks_per_node(params)};
    plan->nodes = (params->ranks + plan->ranks_per_node - 1) / plan->ranks_per_node;
    TRY(check_nodes(params, plan->ranks_per_node, error));
    PlanRank *r = memory_alloc(sizeof *r);
    r->params = params;
    Status status = ssl_groups_deal(&r->groups, params->config, 0, params->ranks, error);
    if (status == STATUS_OK) {
        rank_init(r);
        measure(plan, r);
        count_memory(plan, r);
        count_parameters(plan, &r->ssl.student.table);
        plan->groups = r->groups;
        plan->micro_samples = r->ssl.micro_samples;
        rank_fini(r);
    }
    memory_free(r);
    return status;
}

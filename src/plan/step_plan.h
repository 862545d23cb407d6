/* step_plan.h - one rank of a training on a described cluster: its memory, and one step's time and traffic.
 *
 * The objects are those of a real training, built by the functions that a real training calls, on a device
 * that hands out addresses without memory; so the bytes are not a second formula. Then the real step runs on
 * them, with operations and collectives that only move a clock (plan_clock.h). The rank is rank 0, which has
 * the most groups.
 */
#ifndef DINOBATCH_PLAN_STEP_PLAN_H
#define DINOBATCH_PLAN_STEP_PLAN_H

#include "plan/plan_clock.h"
#include "ssl/ssl_meta_arch.h"

/* Of the processor that computes. */
typedef enum {
    PLAN_STUDENT_WEIGHTS,
    PLAN_TEACHER_WEIGHTS,
    PLAN_GRADIENTS,
    PLAN_MOMENTS,
    PLAN_COPIES_OF_WEIGHTS, /* full copies, beside masters */
    PLAN_GRADIENT_ROOMS,
    PLAN_STEP,        /* the step's arena: activations, pictures, what both passes leave for losses */
    PLAN_SCRATCH,     /* of operations: chunks of scores, partial sums, workspaces */
    PLAN_BATCHES,     /* pictures that wait, where the processor is a CPU */
    PLAN_COLLECTIVES, /* room of sums by MPI, on a CPU */
    PLAN_SMALL,       /* tables, centres, figures */
    PLAN_RESERVED,    /* the cluster file's constant */
    PLAN_MEMORY_COUNT
} PlanMemory;

const char *step_plan_memory_name(PlanMemory item);

typedef struct {
    const Config *config;
    const Cluster *cluster;
    int ranks;
    int batches_held; /* batches in use at a time (train_state.h, TRAIN_SUBMISSIONS on a GPU) */
} StepPlanParams;

typedef struct {
    int ranks, nodes, ranks_per_node;
    SslGroups groups;
    int64_t micro_samples;
    int64_t parameters[PARAM_MODULE_COUNT];
    size_t memory[PLAN_MEMORY_COUNT], total, capacity; /* bytes */
    bool scratch_known; /* false: this build has no formulas for the GPU's, and counts 0 */
    size_t pinned;      /* host memory that a GPU reads: batches, mirror for checkpoints, staged */
    bool fits;
    PlanClock clock;         /* totals of the step; its pointers are stale */
    double seconds;          /* of a step */
    double needed_flops;     /* by formula (ssl/step_flops.h) */
    double operations_flops; /* the same as the operations say it, with recomputation */
} StepPlan;

/* STATUS_INPUT when the configuration cannot run on so many ranks. `config` has been checked. Allocates
 * address space only, but for what the host itself fills in. */
Status step_plan_make(StepPlan *plan, const StepPlanParams *params, Error *error);

#endif

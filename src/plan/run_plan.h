/* run_plan.h - a whole training on a described cluster: rates, GPU-hours, checkpoints, data, and what would
 * make it fit.
 */
#ifndef DINOBATCH_PLAN_RUN_PLAN_H
#define DINOBATCH_PLAN_RUN_PLAN_H

#include "plan/step_plan.h"

typedef struct {
    StepPlan step;
    double images_per_s; /* of all ranks */
    int64_t iterations;
    double hours, rank_hours; /* of the run, checkpoints included; evaluation is not */
    double mfu;               /* needed FLOP/s as a share of the processors' peak */
    size_t checkpoint_bytes;  /* of the file */
    double save_seconds;      /* that training stands still for one */
    int64_t save_period, saves;
    double loader_images_per_s; /* what the loaders of all ranks give; below images_per_s they are too slow */
} RunPlan;

/* One rank's plan and what follows from it. STATUS_INPUT as step_plan_make. */
Status run_plan_make(RunPlan *plan, const StepPlanParams *params, Error *error);

/* Keys that would have to change for the training to fit, and the plan with them. */
typedef struct {
    bool found;
    char keys[256]; /* "key=value key=value", as the command line takes them */
    RunPlan plan;
} RunPlanFit;

/* Tries more sharding, then recomputation, then smaller micro-batches, each with all before it, and stops at
 * the first that fits: that is the order of what they cost. `config` is params->config; it is changed on the
 * way and restored. */
Status run_plan_fit(RunPlanFit *fit, const StepPlanParams *params, Config *config, Error *error);

/* A training whose cost its authors have told. */
typedef struct {
    const char *name, *gpu, *source;
    double gpu_hours;
} PublishedRun;

enum { PUBLISHED_RUNS = 4 };

/* Those that this configuration repeats; returns their number. */
int run_plan_published(const PublishedRun *runs[PUBLISHED_RUNS], const Config *config, const RunPlan *plan);

#endif

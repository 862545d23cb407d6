/* run_plan.c - arithmetic on a step's plan. */
#include "plan/run_plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void count_saves(RunPlan *plan, const Config *c)
{
    int64_t epoch = c->train.OFFICIAL_EPOCH_LENGTH, keep = c->train.saveckp_freq * epoch;
    plan->save_period = c->checkpoint.period > 0 ? c->checkpoint.period : 3 * epoch;
    for (int64_t done = 1; done <= plan->iterations; done++)
        plan->saves +=
            done % plan->save_period == 0 || (keep > 0 && done % keep == 0) || done == plan->iterations;
}

static double peak_rate(const Config *config, const Cluster *cluster)
{
    Dtype dtype = config->compute_precision.student.backbone.mixed_precision.param_dtype;
    return cluster_product_rate(cluster, dtype) / cluster->product_share;
}

Status run_plan_make(RunPlan *plan, const StepPlanParams *params, Error *error)
{
    const Config *c = params->config;
    const Cluster *cluster = params->cluster;
    *plan = (RunPlan){.iterations = c->optim.epochs * c->train.OFFICIAL_EPOCH_LENGTH};
    TRY(step_plan_make(&plan->step, params, error));
    const StepPlan *step = &plan->step;
    double batch = (double)(step->groups.total_groups * step->groups.group_size), ranks = step->ranks;
    plan->images_per_s = batch / step->seconds;
    plan->mfu = step->needed_flops / step->seconds / peak_rate(c, cluster);
    enum { VECTORS = 4 }; /* student, teacher, two moments */
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        plan->checkpoint_bytes += VECTORS * (size_t)step->parameters[m] * sizeof(float);
    double part = VECTORS * (double)step->memory[PLAN_STUDENT_WEIGHTS];
    if (cluster->device != DEVICE_CPU) plan->save_seconds = part / (cluster->host_gb_s * 1e9);
    if (!c->checkpoint.async)
        plan->save_seconds += (double)plan->checkpoint_bytes / (cluster->write_gb_s * 1e9);
    count_saves(plan, c);
    double seconds = (double)plan->iterations * step->seconds + (double)plan->saves * plan->save_seconds;
    plan->hours = seconds / 3600;
    plan->rank_hours = plan->hours * ranks;

    double cores = (double)cluster->cores_per_node / step->ranks_per_node;
    double workers = c->train.num_workers > 0 ? fmin((double)c->train.num_workers, cores) : 1;
    plan->loader_images_per_s = ranks * workers * cluster->images_per_core_s;
    return STATUS_OK;
}

/* --- what would fit --- */

typedef struct {
    ConfigPrecisions student, teacher;
    ConfigActivations activations;
    int64_t micro;
} Knobs;

static Knobs knobs_of(const Config *c)
{
    return (Knobs){c->compute_precision.student, c->compute_precision.teacher,
                   c->train.checkpoint_activations, c->train.micro_batch_size};
}

static void set_knobs(Config *c, const Knobs *knobs)
{
    c->compute_precision.student = knobs->student;
    c->compute_precision.teacher = knobs->teacher;
    c->train.checkpoint_activations = knobs->activations;
    c->train.micro_batch_size = knobs->micro;
}

static void shard(ConfigPrecisions *p, ConfigSharding strategy)
{
    p->backbone.sharding_strategy = p->dino_head.sharding_strategy = p->ibot_head.sharding_strategy =
        strategy;
}

/* The keys in which `knobs` differs from `before`. */
static void describe(char *text, size_t size, const Knobs *before, const Knobs *knobs,
                     ConfigSharding strategy)
{
    static const char *const names[] = {[CONFIG_SHARDING_NO_SHARD] = "NO_SHARD",
                                        [CONFIG_SHARDING_SHARD_GRAD_OP] = "SHARD_GRAD_OP",
                                        [CONFIG_SHARDING_FULL_SHARD] = "FULL_SHARD",
                                        [CONFIG_SHARDING_HYBRID_SHARD] = "HYBRID_SHARD"};
    size_t used = 0;
    text[0] = '\0';
    bool sharded = memcmp(&before->student, &knobs->student, sizeof before->student) != 0 ||
                   memcmp(&before->teacher, &knobs->teacher, sizeof before->teacher) != 0;
    if (sharded)
        used += (size_t)snprintf(text, size, "compute_precision.*.*.sharding_strategy=%s", names[strategy]);
    if (knobs->activations != before->activations)
        used += (size_t)snprintf(text + used, size - used, "%strain.checkpoint_activations=block",
                                 used ? " " : "");
    if (knobs->micro != before->micro)
        snprintf(text + used, size - used, "%strain.micro_batch_size=%lld", used ? " " : "",
                 (long long)knobs->micro);
}

/* Every strategy that cuts, with the knobs as they are. */
static Status try_strategies(RunPlanFit *fit, const StepPlanParams *params, Config *config,
                             const Knobs *before, const Knobs *tried, Error *error)
{
    static const ConfigSharding strategies[] = {CONFIG_SHARDING_SHARD_GRAD_OP, CONFIG_SHARDING_FULL_SHARD};
    for (int i = -1; i < 2 && !fit->found; i++) { /* -1: as the configuration says */
        Knobs knobs = *tried;
        if (i >= 0) shard(&knobs.student, strategies[i]);
        if (i >= 0) shard(&knobs.teacher, strategies[i]);
        set_knobs(config, &knobs);
        TRY(run_plan_make(&fit->plan, params, error));
        fit->found = fit->plan.step.fits;
        if (fit->found) describe(fit->keys, sizeof fit->keys, before, &knobs, i >= 0 ? strategies[i] : 0);
    }
    return STATUS_OK;
}

static Status try_all(RunPlanFit *fit, const StepPlanParams *params, Config *config, const Knobs *before,
                      int64_t samples, Error *error)
{
    Knobs knobs = *before;
    TRY(try_strategies(fit, params, config, before, &knobs, error));
    knobs.activations = CONFIG_ACTIVATIONS_BLOCK;
    while (!fit->found) {
        TRY(try_strategies(fit, params, config, before, &knobs, error));
        int64_t micro = knobs.micro > 0 && knobs.micro < samples ? knobs.micro : samples;
        if (micro == 1) return STATUS_OK;
        knobs.micro = (micro + 1) / 2;
    }
    return STATUS_OK;
}

Status run_plan_fit(RunPlanFit *fit, const StepPlanParams *params, Config *config, Error *error)
{
    *fit = (RunPlanFit){0};
    Knobs before = knobs_of(config);
    SslGroups groups;
    TRY(ssl_groups_deal(&groups, config, 0, params->ranks, error));
    Status status = try_all(fit, params, config, &before, groups.groups * groups.group_size, error);
    set_knobs(config, &before);
    return status;
}

/* --- published --- */

int run_plan_published(const PublishedRun *runs[PUBLISHED_RUNS], const Config *config, const RunPlan *plan)
{
    /* GPU-hours as told, or hours times GPUs. */
    static const struct {
        ConfigArch arch;
        int64_t patch, iterations, batch;
        PublishedRun run;
    } RUNS[PUBLISHED_RUNS] = {
        {CONFIG_ARCH_VIT_GIANT2,
         14,
         625000,
         3072,
         {"DINOv2 ViT-g/14, LVD-142M", "A100-40GB", "paper, Table 14; its high-resolution end included",
          22016}},
        {CONFIG_ARCH_VIT_LARGE,
         14,
         625000,
         3072,
         {"DINOv2 ViT-L/14, ImageNet-22k", "A100-80GB", "dinov2 README: 96 GPUs, 3.3 days", 7603}},
        {CONFIG_ARCH_VIT_LARGE,
         16,
         125000,
         2048,
         {"DINOv2 ViT-L/16, ImageNet-1k", "A100-80GB", "dinov2 README: 32 GPUs, about a day", 768}},
        {CONFIG_ARCH_VIT_LARGE,
         16,
         125000,
         2048,
         {"the same by DINOv3's code", "H100-80GB", "dinov3 README: 32 GPUs, 14 hours", 448}},
    };
    const SslGroups *g = &plan->step.groups;
    int count = 0;
    for (int i = 0; i < PUBLISHED_RUNS; i++)
        if (config->student.arch == RUNS[i].arch && config->student.patch_size == RUNS[i].patch &&
            plan->iterations == RUNS[i].iterations && g->total_groups * g->group_size == RUNS[i].batch)
            runs[count++] = &RUNS[i].run;
    return count;
}

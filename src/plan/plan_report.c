/* plan_report.c - lines and columns. */
#include "plan/plan_report.h"

#include <math.h>
#include <string.h>

static const double GIB = 1073741824.0, MS = 1e3, GB = 1e-9;

static const char *const WORK[PLAN_WORK_COUNT] = {
    [PLAN_PRODUCTS] = "products of dense layers",  [PLAN_ATTENTION] = "attention",
    [PLAN_PROTOTYPES] = "prototypes, both losses", [PLAN_ROWS] = "rows: norms, activations, AdamW",
    [PLAN_COPIES] = "copies, host and device",
};

static const char *const TRAFFIC[PLAN_TRAFFIC_COUNT] = {
    [PLAN_GATHER] = "weights, all-gather",         [PLAN_SCATTER] = "gradients, reduce-scatter",
    [PLAN_GRADIENT_SUM] = "gradients, all-reduce", [PLAN_TARGETS] = "targets (Sinkhorn, centres)",
    [PLAN_KOLEO] = "KoLeo over all ranks",         [PLAN_FIGURES] = "figures, norms",
};

static const char *const PHASES[PLAN_PHASE_COUNT] = {[PLAN_TEACHER] = "teacher",
                                                     [PLAN_STUDENT] = "student",
                                                     [PLAN_BACKWARD] = "backward",
                                                     [PLAN_REST] = "losses, update, rest"};

static void print_head(const PlanReport *r, FILE *out)
{
    const StepPlan *s = &r->plan->step;
    const Cluster *c = r->cluster;
    double backbone = (double)s->parameters[PARAM_BACKBONE] * 1e-6;
    double heads = (double)(s->parameters[PARAM_DINO_HEAD] + s->parameters[PARAM_IBOT_HEAD]) * 1e-6;
    fprintf(out, "cluster    %s: %d ranks (%s) on %d nodes of %d\n", c->name, s->ranks, c->gpu, s->nodes,
            s->ranks_per_node);
    fprintf(out, "model      %.1f M parameters in the backbone, %.1f M in the heads\n", backbone, heads);
    fprintf(out, "batch      %lld images in %lld groups of %lld; %lld a rank, %lld at a time\n",
            (long long)(s->groups.total_groups * s->groups.group_size), (long long)s->groups.total_groups,
            (long long)s->groups.group_size, (long long)(s->groups.groups * s->groups.group_size),
            (long long)s->micro_samples);
}

static void print_memory(const StepPlan *s, FILE *out)
{
    fprintf(out, "\nmemory of a rank                     GiB\n");
    for (int i = 0; i < PLAN_MEMORY_COUNT; i++)
        if (s->memory[i] > 0 || i == PLAN_SCRATCH)
            fprintf(out, "  %-30s %9.3f%s\n", step_plan_memory_name((PlanMemory)i),
                    (double)s->memory[i] / GIB,
                    i == PLAN_SCRATCH && !s->scratch_known ? "  not known to a build without CUDA" : "");
    fprintf(out, "  %-30s %9.3f  of %.1f: %s\n", "in all", (double)s->total / GIB, (double)s->capacity / GIB,
            s->fits ? "fits" : "DOES NOT FIT");
    if (s->pinned > 0)
        fprintf(out, "  %-30s %9.3f  batches, the mirror that checkpoints are written from\n",
                "beside that, host memory", (double)s->pinned / GIB);
}

static void print_time(const StepPlan *s, FILE *out)
{
    const PlanClock *c = &s->clock;
    double exposed = 0;
    fprintf(out, "\ntime of a step                        ms    share\n");
    for (int i = 0; i < PLAN_WORK_COUNT; i++)
        fprintf(out, "  %-30s %9.2f   %4.1f %%\n", WORK[i], c->work[i] * MS, 100 * c->work[i] / s->seconds);
    for (int i = 0; i < PLAN_PHASE_COUNT; i++)
        exposed += c->exposed[i];
    fprintf(out, "  %-30s %9.2f   %4.1f %%\n", "waiting for other ranks", exposed * MS,
            100 * exposed / s->seconds);
    fprintf(out, "  %-30s %9.2f\n", "in all", s->seconds * MS);
    fprintf(out, "  of which, and of that waiting: ");
    for (int i = 0; i < PLAN_PHASE_COUNT; i++)
        fprintf(out, "%s%s %.1f, %.2f", i ? "; " : "", PHASES[i], c->phases[i] * MS, c->exposed[i] * MS);
    fprintf(out, "\n");
}

static void print_traffic(const StepPlan *s, FILE *out)
{
    fprintf(out,
            "\ntraffic of a step              calls   data GB   a rank sends   a node sends    wires ms   "
            "hidden\n");
    for (int i = 0; i < PLAN_TRAFFIC_COUNT; i++) {
        const PlanTrafficTotal *t = &s->clock.traffic[i];
        if (t->seconds <= 0) continue;
        fprintf(out, "  %-28s %5lld %9.3f %11.3f GB %11.3f GB %11.2f   %4.0f %%\n", TRAFFIC[i],
                (long long)t->calls, t->bytes * GB, t->sent * GB, t->across * GB, t->seconds * MS,
                100 * fmax(1 - t->exposed / t->seconds, 0));
    }
}

/* How far off the plan is, where the GPUs are of one kind. */
static void print_published(const PlanReport *r, FILE *out)
{
    enum { KIND = 4 }; /* "A100" */
    const PublishedRun *runs[PUBLISHED_RUNS];
    int count = run_plan_published(runs, r->config, r->plan);
    for (int i = 0; i < count; i++) {
        fprintf(out, "published  %s: %.0f GPU-hours on %s (%s)", runs[i]->name, runs[i]->gpu_hours,
                runs[i]->gpu, runs[i]->source);
        if (strncmp(runs[i]->gpu, r->cluster->gpu, KIND) == 0)
            fprintf(out, "; the plan is %+.0f %% off", 100 * (r->plan->rank_hours / runs[i]->gpu_hours - 1));
        fprintf(out, "\n");
    }
}

static void print_run(const PlanReport *r, FILE *out)
{
    const RunPlan *p = r->plan;
    const StepPlan *s = &p->step;
    fprintf(out, "\nimages/s   %.1f, %.2f a rank; %.3f TFLOP an image needed, %.1f %% of the peak\n",
            p->images_per_s, p->images_per_s / s->ranks,
            s->needed_flops * 1e-12 / (double)(s->groups.groups * s->groups.group_size), 100 * p->mfu);
    fprintf(out, "run        %lld iterations: %.1f h, %.0f %s\n", (long long)p->iterations, p->hours,
            p->rank_hours, r->cluster->device == DEVICE_CPU ? "rank-hours" : "GPU-hours");
    fprintf(out, "checkpoint %.2f GB; training stands still for %.1f s, %lld times (every %lld iterations)\n",
            (double)p->checkpoint_bytes * GB, p->save_seconds, (long long)p->saves,
            (long long)p->save_period);
    fprintf(out, "data       %.0f images/s from the loaders of all ranks\n", p->loader_images_per_s);
    print_published(r, out);
}

static void print_fit(const RunPlanFit *fit, FILE *out)
{
    if (!fit->found) {
        fprintf(out, "\nno sharding, recomputation or micro-batch makes it fit: more ranks, or a smaller "
                     "train.batch_size_per_gpu\n");
        return;
    }
    const StepPlan *s = &fit->plan.step;
    fprintf(out,
            "\nwould fit with %s:\n  %.3f GiB of a rank, %.2f ms a step, %.1f images/s, %.0f rank-hours\n",
            fit->keys, (double)s->total / GIB, s->seconds * MS, fit->plan.images_per_s, fit->plan.rank_hours);
}

void plan_report_print(const PlanReport *report, FILE *out)
{
    print_head(report, out);
    print_memory(&report->plan->step, out);
    if (report->fit) print_fit(report->fit, out);
    print_time(&report->plan->step, out);
    print_traffic(&report->plan->step, out);
    print_run(report, out);
}

void plan_report_warnings(const PlanReport *r, void (*warn)(void *context, const char *line), void *context)
{
    char line[256];
    const RunPlan *p = r->plan;
    if (!p->step.fits) {
        snprintf(line, sizeof line, "%.2f GiB do not fit into the %.1f GiB of a rank",
                 (double)p->step.total / GIB, (double)p->step.capacity / GIB);
        warn(context, line);
    }
    if (!p->step.scratch_known)
        warn(context, "the scratch of a GPU's operations is not counted: this build has no CUDA");
    if (p->loader_images_per_s < p->images_per_s) {
        snprintf(line, sizeof line,
                 "the loaders give %.0f images/s and the steps take %.0f: train.num_workers, or cores, are "
                 "too few",
                 p->loader_images_per_s, p->images_per_s);
        warn(context, line);
    }
}

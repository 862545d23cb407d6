/* plan_json.c - plan_report_json: the same figures for programs. */
#include "base/memory.h"
#include "plan/plan_report.h"

#include <cjson/cJSON.h>

static void add_memory(cJSON *tree, const StepPlan *s)
{
    static const char *const keys[PLAN_MEMORY_COUNT] = {
        [PLAN_STUDENT_WEIGHTS] = "student",
        [PLAN_TEACHER_WEIGHTS] = "teacher",
        [PLAN_GRADIENTS] = "gradients",
        [PLAN_MOMENTS] = "moments",
        [PLAN_COPIES_OF_WEIGHTS] = "copies",
        [PLAN_GRADIENT_ROOMS] = "gradient_rooms",
        [PLAN_STEP] = "step",
        [PLAN_SCRATCH] = "scratch",
        [PLAN_BATCHES] = "batches",
        [PLAN_COLLECTIVES] = "collectives",
        [PLAN_SMALL] = "small",
        [PLAN_RESERVED] = "reserved",
    };
    cJSON *memory = cJSON_AddObjectToObject(tree, "memory_bytes");
    for (int i = 0; i < PLAN_MEMORY_COUNT; i++)
        cJSON_AddNumberToObject(memory, keys[i], (double)s->memory[i]);
    cJSON_AddNumberToObject(memory, "total", (double)s->total);
    cJSON_AddNumberToObject(memory, "capacity", (double)s->capacity);
    cJSON_AddNumberToObject(memory, "pinned_host", (double)s->pinned);
    cJSON_AddBoolToObject(memory, "fits", s->fits);
    cJSON_AddBoolToObject(memory, "scratch_known", s->scratch_known);
}

static void add_step(cJSON *tree, const StepPlan *s)
{
    static const char *const work[PLAN_WORK_COUNT] = {"products", "attention", "prototypes", "rows",
                                                      "copies"};
    static const char *const traffic[PLAN_TRAFFIC_COUNT] = {
        "weights_all_gather", "gradients_reduce_scatter", "gradients_all_reduce",
        "targets_all_reduce", "koleo_all_gather",         "figures_all_reduce"};
    static const char *const phases[PLAN_PHASE_COUNT] = {"teacher", "student", "backward", "rest"};
    cJSON *step = cJSON_AddObjectToObject(tree, "step");
    cJSON_AddNumberToObject(step, "seconds", s->seconds);
    cJSON_AddNumberToObject(step, "needed_flops", s->needed_flops);
    cJSON_AddNumberToObject(step, "operations_flops", s->operations_flops);
    cJSON_AddNumberToObject(step, "executed_flops", s->clock.flops);
    cJSON *seconds = cJSON_AddObjectToObject(step, "work_seconds");
    for (int i = 0; i < PLAN_WORK_COUNT; i++)
        cJSON_AddNumberToObject(seconds, work[i], s->clock.work[i]);
    cJSON *parts = cJSON_AddObjectToObject(step, "phases");
    for (int i = 0; i < PLAN_PHASE_COUNT; i++) {
        cJSON *phase = cJSON_AddObjectToObject(parts, phases[i]);
        cJSON_AddNumberToObject(phase, "seconds", s->clock.phases[i]);
        cJSON_AddNumberToObject(phase, "exposed_seconds", s->clock.exposed[i]);
    }
    cJSON *all = cJSON_AddObjectToObject(step, "traffic");
    for (int i = 0; i < PLAN_TRAFFIC_COUNT; i++) {
        const PlanTrafficTotal *t = &s->clock.traffic[i];
        cJSON *one = cJSON_AddObjectToObject(all, traffic[i]);
        cJSON_AddNumberToObject(one, "calls", (double)t->calls);
        cJSON_AddNumberToObject(one, "bytes", t->bytes);
        cJSON_AddNumberToObject(one, "rank_sends_bytes", t->sent);
        cJSON_AddNumberToObject(one, "node_sends_bytes", t->across);
        cJSON_AddNumberToObject(one, "seconds", t->seconds);
        cJSON_AddNumberToObject(one, "exposed_seconds", t->exposed);
    }
}

static void add_plan(cJSON *tree, const RunPlan *p)
{
    cJSON_AddNumberToObject(tree, "ranks", p->step.ranks);
    cJSON_AddNumberToObject(tree, "nodes", p->step.nodes);
    add_memory(tree, &p->step);
    add_step(tree, &p->step);
    cJSON_AddNumberToObject(tree, "images_per_s", p->images_per_s);
    cJSON_AddNumberToObject(tree, "loader_images_per_s", p->loader_images_per_s);
    cJSON_AddNumberToObject(tree, "share_of_peak", p->mfu);
    cJSON_AddNumberToObject(tree, "iterations", (double)p->iterations);
    cJSON_AddNumberToObject(tree, "hours", p->hours);
    cJSON_AddNumberToObject(tree, "rank_hours", p->rank_hours);
    cJSON_AddNumberToObject(tree, "checkpoint_bytes", (double)p->checkpoint_bytes);
    cJSON_AddNumberToObject(tree, "save_seconds", p->save_seconds);
    cJSON_AddNumberToObject(tree, "save_period", (double)p->save_period);
    cJSON_AddNumberToObject(tree, "saves", (double)p->saves);
}

char *plan_report_json(const PlanReport *report)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "cluster", report->cluster->name);
    add_plan(tree, report->plan);
    const PublishedRun *runs[PUBLISHED_RUNS];
    int count = run_plan_published(runs, report->config, report->plan);
    cJSON *published = cJSON_AddArrayToObject(tree, "published");
    for (int i = 0; i < count; i++) {
        cJSON *run = cJSON_CreateObject();
        cJSON_AddStringToObject(run, "name", runs[i]->name);
        cJSON_AddStringToObject(run, "gpu", runs[i]->gpu);
        cJSON_AddNumberToObject(run, "gpu_hours", runs[i]->gpu_hours);
        cJSON_AddItemToArray(published, run);
    }
    if (report->fit && report->fit->found) {
        cJSON *fit = cJSON_AddObjectToObject(tree, "fit");
        cJSON_AddStringToObject(fit, "keys", report->fit->keys);
        add_plan(fit, &report->fit->plan);
    }
    char *text = cJSON_PrintUnformatted(tree), *copy = memory_strdup(text);
    cJSON_free(text);
    cJSON_Delete(tree);
    return copy;
}

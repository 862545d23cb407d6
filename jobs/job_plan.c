/* job_plan.c - what a training would take on a described cluster, without running it.
 *
 *   dinobatch plan --config-file CONFIG.yaml --cluster CLUSTER.yaml [--ranks N] [--json] [key=value]...
 *
 * One process, without a GPU and without the memory being there. jobs/configs/clusters has described
 * clusters.
 */
#include "base/memory.h"
#include "job.h"
#include "plan/plan_report.h"
#include "train/train_state.h"

#include <stdlib.h>

const OptionSpec job_plan_options[] = {
    {"cluster", "FILE", "the described cluster: a YAML file like those in jobs/configs/clusters", false},
    {"ranks", "N", "ranks of the training (default: all of the cluster)", false},
    {0},
};

static Status parse_ranks(const JobContext *context, const Cluster *cluster, int *ranks, Error *error)
{
    const char *text = options_get(context->options, "ranks");
    long long all = (long long)(cluster->nodes * cluster->ranks_per_node), value = all;
    char *end = NULL;
    if (text) value = strtoll(text, &end, 10);
    if ((text && (end == text || *end)) || value < 1 || value > all)
        return status_fail(error, STATUS_INPUT, "--ranks %s: expected 1 to %lld, what %s has",
                           text ? text : "", all, cluster->name);
    *ranks = (int)value;
    return STATUS_OK;
}

static void warn(void *context, const char *line)
{
    log_warning(context, "%s", line);
}

static Status make(JobContext *context, const Cluster *cluster, int ranks, Error *error)
{
    bool gpu = cluster->device != DEVICE_CPU;
    StepPlanParams params = {.config = context->config,
                             .cluster = cluster,
                             .ranks = ranks,
                             .batches_held = gpu ? TRAIN_SUBMISSIONS : 1};
    RunPlan plan;
    RunPlanFit fit;
    TRY(run_plan_make(&plan, &params, error));
    PlanReport report = {.config = context->config, .cluster = cluster, .plan = &plan};
    if (!plan.step.fits) {
        TRY(run_plan_fit(&fit, &params, context->config, error));
        report.fit = &fit;
    }
    plan_report_print(&report, stdout);
    plan_report_warnings(&report, warn, context->log);
    if (!context->json) return STATUS_OK;
    char *json = plan_report_json(&report);
    printf("%s\n", json);
    memory_free(json);
    return STATUS_OK;
}

Status job_plan(JobContext *context, Error *error)
{
    const char *path = options_get(context->options, "cluster");
    if (!path)
        return status_fail(error, STATUS_INPUT, "plan: --cluster FILE is missing; see jobs/configs/clusters");
    if (comm_size(context->comm) > 1)
        return status_fail(error, STATUS_INPUT, "plan describes ranks, it does not need them: run it on one");
    Cluster cluster;
    int ranks = 1;
    TRY(cluster_load(&cluster, path, error));
    TRY(parse_ranks(context, &cluster, &ranks, error));
    return make(context, &cluster, ranks, error);
}

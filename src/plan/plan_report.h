/* plan_report.h - a plan as a table for people, and as one JSON object for programs (seconds, bytes). */
#ifndef DINOBATCH_PLAN_PLAN_REPORT_H
#define DINOBATCH_PLAN_PLAN_REPORT_H

#include "plan/run_plan.h"

#include <stdio.h>

typedef struct {
    const Config *config;
    const Cluster *cluster;
    const RunPlan *plan;
    const RunPlanFit *fit; /* NULL: the plan fits */
} PlanReport;

void plan_report_print(const PlanReport *report, FILE *out);

/* One line; memory_free. */
char *plan_report_json(const PlanReport *report);

/* What is wrong with the plan, one line each, to the caller's function. */
void plan_report_warnings(const PlanReport *report, void (*warn)(void *context, const char *line),
                          void *context);

#endif

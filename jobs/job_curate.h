/* job_curate.h - what the steps of `curate` share: one function each, in job_curate_STEP.c, and a line in the
 * table of job_curate.c.
 */
#ifndef DINOBATCH_JOBS_JOB_CURATE_H
#define DINOBATCH_JOBS_JOB_CURATE_H

#include "curation/curation_run.h"
#include "job.h"

struct cJSON;

/* A step: its outcome is agreed, and told by rank 0. */
typedef Status (*JobCurateStep)(const JobContext *context, const CurationRun *run, Error *error);

Status job_curate_dedup(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_exclude(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_score(const JobContext *context, const CurationRun *run, Error *error);

/* The features files of --OPTION, without duplicate keys; `keep` as of feature_source_open. Closed by
 * feature_source_close, also after failure. Collective over COMM. */
Status job_curate_open(FeatureSource *source, const JobContext *context, const char *option, const char *keep,
                       Error *error);

/* With --json the last line on stdout; the tree is released. */
void job_curate_tell(const JobContext *context, struct cJSON *tree);

#endif

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

Status job_curate_calibrate(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_dedup(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_exclude(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_cluster(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_retrieve(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_assemble(const JobContext *context, const CurationRun *run, Error *error);
Status job_curate_score(const JobContext *context, const CurationRun *run, Error *error);

/* `curate run CURATION.yaml`, which is made of the steps and of other jobs. */
Status job_curate_run(JobContext *context, Error *error);

/* The features files of --OPTION, without duplicate keys: over all files of --features, within each file of
 * other options; of pictures upside down for "probes" and not for others; `keep` as of feature_source_open.
 * Closed by feature_source_close, also after failure. Collective over COMM. */
Status job_curate_open(FeatureSource *source, const JobContext *context, const char *option, const char *keep,
                       Error *error);

/* *own = `run` with the thresholds of --calibration, or as it is; `pool` is what they must be of. Ended by
 * job_curate_end_calibrated, also after failure. The outcome is agreed. Collective over COMM. */
Status job_curate_calibrated(CurationRun *own, const JobContext *context, const CurationRun *run,
                             const FeatureSource *pool, Error *error);
void job_curate_end_calibrated(CurationRun *own, const CurationRun *run);

/* With --json the last line on stdout; the tree is released. */
void job_curate_tell(const JobContext *context, struct cJSON *tree);

#endif

/* train_job.h - what the jobs that train have in common. */
#ifndef DINOBATCH_JOBS_TRAIN_JOB_H
#define DINOBATCH_JOBS_TRAIN_JOB_H

#include "job.h"

/* Trains as the configuration says, from the newest checkpoint of the run folder or anew, evaluates on the
 * way, prints the result. STATUS_REQUEUE after a stop on request. Collective over all ranks. */
Status train_job_run(JobContext *context, Error *error);

#endif

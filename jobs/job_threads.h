/* job_threads.h - how many threads the operations of this rank may use. */
#ifndef DINOBATCH_JOBS_JOB_THREADS_H
#define DINOBATCH_JOBS_JOB_THREADS_H

#include "job.h"

/* compute.threads of `config`, or this rank's share of the cores among the ranks of its node. */
int job_threads(const JobContext *context, const Config *config);

#endif

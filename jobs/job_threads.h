/* job_threads.h - what this rank may use of its node: threads, and a device. */
#ifndef DINOBATCH_JOBS_JOB_THREADS_H
#define DINOBATCH_JOBS_JOB_THREADS_H

#include "job.h"

/* compute.threads of `config`, or this rank's share of the cores among the ranks of its node. */
int job_threads(const JobContext *context, const Config *config);

/* Opens the device that compute.device asks for as context->device, spreading the ranks of a node over its
 * GPUs. STATUS_INPUT where there is none such. main closes it. Collective over COMM. */
Status job_open_device(JobContext *context, Error *error);

#endif

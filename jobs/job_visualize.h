/* job_visualize.h - what the parts of `visualize` share. */
#ifndef DINOBATCH_JOBS_JOB_VISUALIZE_H
#define DINOBATCH_JOBS_JOB_VISUALIZE_H

#include "job.h"

/* The number that --NAME gives, from 1 to `most`; `fallback` where it is not given. STATUS_INPUT otherwise.
 */
Status job_visualize_number(const JobContext *context, const char *name, int64_t fallback, int64_t most,
                            int64_t *value, Error *error);

/* The pictures, each written to --output. Rank 0 draws, the others wait. The outcome is agreed. Collective
 * over COMM. */
Status job_visualize_pca(JobContext *context, Error *error);
Status job_visualize_matches(JobContext *context, Error *error);
Status job_visualize_attention(JobContext *context, Error *error);
Status job_visualize_duplicates(JobContext *context, Error *error);
Status job_visualize_neighbours(JobContext *context, Error *error);

#endif

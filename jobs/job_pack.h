/* job_pack.h - what jobs that write shards of pictures share. */
#ifndef DINOBATCH_JOBS_JOB_PACK_H
#define DINOBATCH_JOBS_JOB_PACK_H

#include "job.h"

/* --shard-size in bytes, 1 GiB where it is not given. STATUS_INPUT for what is no size. */
Status job_pack_shard_bytes(const JobContext *context, int64_t *bytes, Error *error);

#endif

/* job_threads.c - see job_threads.h. */
#include "job_threads.h"

#include "train/train_state.h"

#include <string.h>

/* Ranks on this rank's node, and how many of them come before it. */
static int neighbours(const JobContext *context, int *before)
{
    const Run *run = context->run;
    const char *mine = run->hosts + (size_t)comm_rank(run->comm) * RUN_HOST_BYTES;
    int count = 0;
    *before = 0;
    for (int r = 0; r < comm_size(run->comm); r++) {
        bool here = strcmp(mine, run->hosts + (size_t)r * RUN_HOST_BYTES) == 0;
        count += here;
        *before += here && r < comm_rank(run->comm);
    }
    return count;
}

int job_threads(const JobContext *context, const Config *config)
{
    int before;
    return train_state_threads(config, neighbours(context, &before));
}

Status job_open_device(JobContext *context, Error *error)
{
    int before;
    neighbours(context, &before);
    const Config *config = context->config;
    Status status = device_open(&context->device, (DeviceKind)config->compute.device, before, error);
    TRY(comm_agree(context->comm, status, error));
    comm_attach_device(context->comm, context->device, config->compute.deterministic);
    if (device_kind(context->device) == DEVICE_CUDA)
        log_info(context->log, "computing on %s; collectives: %s", device_name(context->device),
                 comm_device_transport(context->comm));
    return STATUS_OK;
}

/* job_threads.c - see job_threads.h. */
#include "job_threads.h"

#include "train/train_state.h"

#include <string.h>

int job_threads(const JobContext *context, const Config *config)
{
    const Run *run = context->run;
    const char *mine = run->hosts + (size_t)comm_rank(run->comm) * RUN_HOST_BYTES;
    int neighbours = 0;
    for (int r = 0; r < comm_size(run->comm); r++)
        neighbours += strcmp(mine, run->hosts + (size_t)r * RUN_HOST_BYTES) == 0;
    return train_state_threads(config, neighbours);
}

/* job_pretrain.c - trains student and teacher: the main job. */
#include "train_job.h"

Status job_pretrain(JobContext *context, Error *error)
{
    if (*context->config->distillation.checkpoint_path)
        return status_fail(
            error, STATUS_INPUT,
            "distillation.checkpoint_path: pretrain has no frozen teacher: use the distill job");
    return train_job_run(context, error);
}

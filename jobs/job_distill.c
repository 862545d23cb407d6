/* job_distill.c - trains a small student against a frozen larger teacher.
 *
 * Source: paper section 5. The teacher is a checkpoint with its heads; nothing is masked, iBOT is on every
 * patch of the global crops, the student drops no residual, and its moving average, which is what one wants
 * in the end, teaches nobody.
 */
#include "train_job.h"

Status job_distill(JobContext *context, Error *error)
{
    Config *config = context->config;
    if (!*config->distillation.checkpoint_path)
        return status_fail(
            error, STATUS_INPUT,
            "distill needs distillation.checkpoint_path=FILE: the checkpoint or run folder of the teacher");
    if (config->student.drop_path_rate > 0)
        log_info(context->log, "student.drop_path_rate: %g becomes 0: distillation has no stochastic depth",
                 config->student.drop_path_rate);
    config->student.drop_path_rate = 0;
    return train_job_run(context, error);
}

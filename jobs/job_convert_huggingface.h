/* job_convert_huggingface.h - the config.json that transformers' from_pretrained wants beside the weights. */
#ifndef DINOBATCH_JOBS_JOB_CONVERT_HUGGINGFACE_H
#define DINOBATCH_JOBS_JOB_CONVERT_HUGGINGFACE_H

#include "base/log.h"
#include "ckpt/safetensors.h"
#include "nn/vit.h"

/* Beside weights at `path`, if that is a model.safetensors, which from_pretrained(FOLDER) reads; else a line
 * in the log, and so for a network that Dinov2Model cannot be. STATUS_FAILED: the disk does not take it. Not
 * collective. */
Status job_convert_huggingface_write(const char *path, const VitConfig *vit, SafetensorsType type, Log *log,
                                     Error *error);

#endif

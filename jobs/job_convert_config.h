/* job_convert_config.h - the configuration and attributes of a network that was trained elsewhere. */
#ifndef DINOBATCH_JOBS_JOB_CONVERT_CONFIG_H
#define DINOBATCH_JOBS_JOB_CONVERT_CONFIG_H

#include "ckpt/checkpoint.h"
#include "ckpt/head_weights.h"
#include "config/config.h"
#include "nn/vit.h"
#include "run/options.h"

/* found->num_heads: `heads`, or without it (0) the width over 64. STATUS_INPUT where that is no whole number.
 */
Status job_convert_heads(VitConfig *found, int64_t heads, const char *path, Error *error);

/* `config`, initialised, becomes the defaults with the keys that `found` and `heads` (NULL: none) decide,
 * then what the options name; *built is the backbone that it makes. Position embeddings are resampled as the
 * reference does with weights of the kind: with registers antialiased and without offset. STATUS_INPUT: keys
 * that do not go together. */
Status job_convert_config(Config *config, const VitConfig *found, const HeadWeights *heads,
                          const Options *options, VitConfig *built, Error *error);

/* The native picture is of another side now. */
Status job_convert_image_size(Config *config, int64_t image_size, Error *error);

/* Attributes of a checkpoint before its first step; `text` is borrowed. */
void job_convert_meta(CheckpointMeta *meta, const Config *config, const VitConfig *vit, char *text);

#endif

/* linear_tokens.h - a batch once through a frozen backbone, for all classifiers of a linear probe.
 *
 * Source: dinov2/eval/utils.py (ModelWithIntermediateLayers): class tokens of the last blocks and patch
 * tokens of the last, each behind the final LayerNorm.
 */
#ifndef DINOBATCH_EVAL_LINEAR_TOKENS_H
#define DINOBATCH_EVAL_LINEAR_TOKENS_H

#include "eval/linear_probe.h"
#include "features/feature_extractor.h"

typedef struct LinearTokens LinearTokens;

/* What ops must be made for: passes of so many pictures of edge x edge pixels. */
OpsLimits linear_tokens_limits(const FeatureBackbone *backbone, int64_t pass_images, int64_t edge);

/* Room for batches of up to `most` pictures, which go through the backbone `pass_images` at a time, and for
 * their last `blocks` blocks. The backbone, without hooks, and the device are borrowed. */
LinearTokens *linear_tokens_create(const FeatureBackbone *backbone, Device *device, int64_t blocks,
                                   int64_t most, int64_t pass_images, int64_t edge);
void linear_tokens_destroy(LinearTokens *tokens);

/* Tokens of images[n, 3, edge, edge], grey levels in host memory, 1 <= n <= most. They lie in host memory of
 * `tokens` until the next call. `ops` of the device. */
LinearProbeTokens linear_tokens_run(LinearTokens *tokens, const Ops *ops, uint8_t *images, int64_t n);

#endif

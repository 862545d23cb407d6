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

typedef struct {
    int64_t blocks;        /* the last ones, whose tokens are wanted */
    int64_t most;          /* pictures of a batch */
    int64_t pass_images;   /* that go through the backbone at a time */
    int64_t height, width; /* of a picture, in pixels; multiples of the patch size */
    bool dense;            /* patch tokens of all these blocks, not of the last alone */
} LinearTokensSpec;

/* Ops must be made for backbone_pass_limits of pass_images. The backbone, without hooks, and the
 * device are borrowed. */
LinearTokens *linear_tokens_create(const FeatureBackbone *backbone, Device *device,
                                   const LinearTokensSpec *spec);
void linear_tokens_destroy(LinearTokens *tokens);

/* Tokens of images[n, 3, height, width], grey levels in host memory, 1 <= n <= most. They lie in host memory
 * of `tokens` until the next call. `ops` of the device. */
LinearProbeTokens linear_tokens_run(LinearTokens *tokens, const Ops *ops, uint8_t *images, int64_t n);

/* Of a dense one: the patch tokens of block 0 <= b < blocks, the last being the last, of the last batch:
 * [n, patches, D]. */
const float *linear_tokens_patches(const LinearTokens *tokens, int64_t b);

#endif

/* class_attention.h - what a class token looks at: its row of a block's attention probabilities, head by
 * head.
 *
 * Source: dinov2/layers/attention.py (softmax of q k^T / sqrt(D / heads)); DINO's visualize_attention.py
 * draws it. The network's own attention (ops/ops.h) never has the probabilities, only what they weigh; here
 * they are made again, on the host, of one row: that is all a picture needs.
 */
#ifndef DINOBATCH_FEATURES_CLASS_ATTENTION_H
#define DINOBATCH_FEATURES_CLASS_ATTENTION_H

#include "features/feature_extractor.h"

/* out[heads, tokens] fp32: attention of the class token of image[3, height, width], grey levels, in block
 * `block` (from 0), as class_attention_rows. `ops` stands for one image of that size
 * (backbone_pass_limits). Allocates its work space. Not collective. */
void class_attention_compute(const FeatureBackbone *backbone, const Ops *ops, uint8_t *image, int64_t height,
                             int64_t width, int64_t block, float *out);

/* out[heads, tokens] fp32 = softmax over the tokens of q_0 k_j / sqrt(D / heads), of qkv[tokens, 3 D] of one
 * sequence (fp32, bf16 or fp16; D is divided by heads), whose first token is the class token. Each row adds
 * up to 1: class token, registers and patches. */
void class_attention_rows(float *out, const void *qkv, Dtype dtype, int64_t tokens, int64_t D, int64_t heads);

/* kept[n] = 1 for the largest of weights[n], as few as make up `mass` (0 to 1) of their sum, else 0. Source:
 * DINO's visualize_attention.py (--threshold). */
void class_attention_keep(uint8_t *kept, const float *weights, int64_t n, double mass);

#endif

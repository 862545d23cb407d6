/* dense_tokens.h - patch tokens of pictures of any size, each column with mean 0 and variance 1.
 *
 * Source: get_intermediate_layers of the reference (patch tokens of the last blocks behind the final norm,
 * class tokens beside them for depth) and the batch norm of its segmentation head.
 * DEVIATION: mean and variance are measured over the first training samples before the training and then
 * stay, where batch norm has those of each batch and a running average; its scale and shift would add nothing
 * to a linear layer. The reference's depth head has no batch norm.
 */
#ifndef DINOBATCH_EVAL_DENSE_TOKENS_H
#define DINOBATCH_EVAL_DENSE_TOKENS_H

#include "data/pair_loader.h"
#include "eval/eval_sets.h"
#include "eval/linear_probe.h"

typedef struct DenseTokens DenseTokens;

/* Of the last `blocks` blocks. With class_token each of them counts as two, its patch tokens and, at every
 * place, its class token. All borrowed. STATUS_INPUT: operations that the device lacks. */
Status dense_tokens_create(DenseTokens **out, const EvalParams *params, const FeatureBackbone *backbone,
                           int64_t blocks, bool class_token, Error *error);
void dense_tokens_destroy(DenseTokens *tokens);

/* Counts a sample into mean and variance. Not collective. */
void dense_tokens_observe(DenseTokens *tokens, const PairSample *sample);

/* From here on tokens are made with mean 0 and variance 1 over what all ranks have observed. Collective over
 * COMM. */
void dense_tokens_settle(DenseTokens *tokens);

/* Tokens of a sample: rows are the places of its grid, blocks as above, no patches. They lie in memory of
 * `tokens` until the next call. */
LinearProbeTokens dense_tokens_run(DenseTokens *tokens, const PairSample *sample);

#endif

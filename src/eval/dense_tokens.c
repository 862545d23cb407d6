/* dense_tokens.c - see dense_tokens.h. */
#include "eval/dense_tokens.h"

#include "base/memory.h"
#include "eval/linear_tokens.h"
#include "ops/ops_options.h"

#include <math.h>

static const double EPSILON = 1e-5; /* of batch norm */

struct DenseTokens {
    const EvalParams *params;
    const FeatureBackbone *backbone;
    OpsOptions options;
    int64_t D, blocks, kinds, count; /* kinds: 2 with class tokens; count: kinds * blocks */
    LinearTokens *tokens;            /* for frames of height x width */
    int64_t height, width;
    Ops *ops; /* for frames of up to so many rows */
    int64_t ops_rows;
    float *values; /* [count][rows, D] */
    int64_t room;
    const float **out;  /* [count] */
    double *sums;       /* [2 * count * D + 1]: sums, squares, tokens */
    float *mean, *rstd; /* [count * D] */
};

Status dense_tokens_create(DenseTokens **out, const EvalParams *params, const FeatureBackbone *backbone,
                           int64_t blocks, bool class_token, Error *error)
{
    *out = NULL;
    OpsOptions options;
    TRY(ops_options_from(&options, params->config, params->device, params->threads, error));
    DenseTokens *tokens = memory_alloc(sizeof *tokens);
    int64_t kinds = class_token ? 2 : 1, D = backbone->vit->config.embed_dim, columns = kinds * blocks * D;
    *tokens = (DenseTokens){.params = params,
                            .backbone = backbone,
                            .options = options,
                            .D = D,
                            .blocks = blocks,
                            .kinds = kinds,
                            .count = kinds * blocks};
    tokens->out = memory_alloc_array((size_t)tokens->count, sizeof *tokens->out);
    tokens->sums = memory_alloc_array((size_t)(2 * columns + 1), sizeof *tokens->sums);
    tokens->mean = memory_alloc_array((size_t)columns, sizeof *tokens->mean);
    tokens->rstd = memory_alloc_array((size_t)columns, sizeof *tokens->rstd);
    *out = tokens;
    return STATUS_OK;
}

void dense_tokens_destroy(DenseTokens *tokens)
{
    if (!tokens) return;
    linear_tokens_destroy(tokens->tokens);
    if (tokens->ops) ops_destroy(tokens->ops);
    memory_free(tokens->values);
    memory_free(tokens->out);
    memory_free(tokens->sums);
    memory_free(tokens->mean);
    memory_free(tokens->rstd);
    memory_free(tokens);
}

/* Makes ready for frames of that size. */
static void fit(DenseTokens *tokens, int64_t height, int64_t width)
{
    if (tokens->tokens && tokens->height == height && tokens->width == width) return;
    const FeatureBackbone *backbone = tokens->backbone;
    OpsLimits limits = backbone_pass_limits(backbone, 1, height, width);
    linear_tokens_destroy(tokens->tokens);
    if (limits.rows > tokens->ops_rows) {
        if (tokens->ops) ops_destroy(tokens->ops);
        tokens->ops = ops_create(tokens->params->device, &limits, &tokens->options);
        tokens->ops_rows = limits.rows;
    }
    LinearTokensSpec spec = {.blocks = tokens->blocks,
                             .most = 1,
                             .pass_images = 1,
                             .height = height,
                             .width = width,
                             .dense = true};
    tokens->tokens = linear_tokens_create(backbone, tokens->params->device, &spec);
    tokens->height = height;
    tokens->width = width;
    int64_t values = tokens->count * vit_patches(backbone->vit, height, width) * tokens->D;
    if (values <= tokens->room) return;
    memory_free(tokens->values);
    tokens->values = memory_alloc_array((size_t)values, sizeof *tokens->values);
    tokens->room = values;
}

/* Row 0 of kind i of the last pass; *stride: between rows, 0 for a class token, which is every place's. */
static const float *raw(const DenseTokens *tokens, const LinearProbeTokens *run, int64_t i, int64_t *stride)
{
    int64_t block = i / tokens->kinds;
    bool class_token = i % tokens->kinds == 1;
    *stride = class_token ? 0 : tokens->D;
    return class_token ? run->class_tokens[block] : linear_tokens_patches(tokens->tokens, block);
}

static LinearProbeTokens pass(DenseTokens *tokens, const PairSample *sample)
{
    fit(tokens, sample->height, sample->width);
    return linear_tokens_run(tokens->tokens, tokens->ops, sample->planes, 1);
}

void dense_tokens_observe(DenseTokens *tokens, const PairSample *sample)
{
    LinearProbeTokens run = pass(tokens, sample);
    int64_t D = tokens->D, columns = tokens->count * D;
    for (int64_t i = 0; i < tokens->count; i++) {
        int64_t stride;
        const float *values = raw(tokens, &run, i, &stride);
        double *sums = tokens->sums + i * D, *squares = sums + columns;
        for (int64_t row = 0; row < run.patches; row++)
            for (int64_t j = 0; j < D; j++) {
                double value = (double)values[row * stride + j];
                sums[j] += value;
                squares[j] += value * value;
            }
    }
    tokens->sums[2 * columns] += (double)run.patches;
}

void dense_tokens_settle(DenseTokens *tokens)
{
    int64_t columns = tokens->count * tokens->D;
    comm_all_reduce(tokens->params->comm, tokens->sums, 2 * columns + 1, DTYPE_F64, COMM_SUM, NULL);
    double each = 1.0 / fmax(tokens->sums[2 * columns], 1.0);
    for (int64_t j = 0; j < columns; j++) {
        double mean = tokens->sums[j] * each;
        double variance = fmax(tokens->sums[columns + j] * each - mean * mean, 0.0);
        tokens->mean[j] = (float)mean;
        tokens->rstd[j] = (float)(1.0 / sqrt(variance + EPSILON));
    }
}

LinearProbeTokens dense_tokens_run(DenseTokens *tokens, const PairSample *sample)
{
    LinearProbeTokens run = pass(tokens, sample);
    int64_t D = tokens->D, rows = run.patches;
    for (int64_t i = 0; i < tokens->count; i++) {
        int64_t stride;
        const float *values = raw(tokens, &run, i, &stride);
        const float *mean = tokens->mean + i * D, *rstd = tokens->rstd + i * D;
        float *out = tokens->values + i * rows * D;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t j = 0; j < D; j++)
                out[row * D + j] = (values[row * stride + j] - mean[j]) * rstd[j];
        tokens->out[i] = out;
    }
    return (LinearProbeTokens){.rows = rows, .blocks = tokens->count, .class_tokens = tokens->out};
}

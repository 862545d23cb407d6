/* linear_probe.c - see linear_probe.h.
 *
 * Weights, gradients and momentum are three flat buffers of one layout: for each kind of input the stacked
 * weights [rates * classes, columns], then the stacked biases. Behind the gradients lie the losses, so that
 * one all-reduce carries both.
 */
#include "eval/linear_probe.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "optim/cosine_schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double INIT_STD = 0.01;
static const double LR_BATCH = 256.0; /* the batch that learning rates are given for */

enum { ALIGNMENT = 16 /* elements: a cache line */, MEAN_COLUMNS = 64 };

/* Classifiers that read the same rows. */
typedef struct {
    int64_t last_blocks, columns;
    bool avgpool;
    int64_t weight_at, bias_at; /* in the flat buffers */
    float *rows;                /* [batch_rows, columns] */
    float *scores;              /* [batch_rows, rates * classes]; a step turns them into their gradient */
} ProbeInput;

struct LinearProbe {
    const Ops *ops;
    Comm *comm;
    int64_t embed_dim, classes, batch_rows, max_iterations, iteration;
    double momentum;
    int rates, kinds, input_count, count; /* kinds of input for a number of blocks: 2, or 1 without avgpool */
    ProbeInput *inputs;                   /* [input_count] */
    LinearClassifier *classifiers;        /* [count] */
    int64_t flat_count;
    float *values, *velocity; /* [flat_count] */
    float *gradient;          /* [flat_count + count]: losses at the end */
    int64_t predicted_rows;
};

/* --- layout --- */

int64_t linear_probe_columns(int64_t embed_dim, int64_t last_blocks, bool avgpool)
{
    return embed_dim * (last_blocks + (avgpool ? 1 : 0));
}

OpsLimits linear_probe_limits(const LinearProbeSpec *spec)
{
    int64_t width = spec->classes * spec->learning_rate_count;
    for (int i = 0; i < spec->last_blocks_count; i++) {
        int64_t columns = linear_probe_columns(spec->embed_dim, spec->last_blocks[i], true);
        width = columns > width ? columns : width;
    }
    return (OpsLimits){.rows = spec->batch_rows, .width = width};
}

static float *floats(int64_t count)
{
    return memory_alloc_array((size_t)count, sizeof(float));
}

static int64_t place(int64_t *used, int64_t count)
{
    int64_t at = *used;
    *used = (at + count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

static void make_inputs(LinearProbe *probe, const LinearProbeSpec *spec)
{
    int64_t stacked = probe->rates * probe->classes;
    probe->inputs = memory_alloc_array((size_t)probe->input_count, sizeof *probe->inputs);
    for (int i = 0; i < probe->input_count; i++) {
        ProbeInput *input = &probe->inputs[i];
        input->last_blocks = spec->last_blocks[i / probe->kinds];
        input->avgpool = i % probe->kinds == 1;
        CHECK(input->last_blocks > 0);
        input->columns = linear_probe_columns(spec->embed_dim, input->last_blocks, input->avgpool);
        input->weight_at = place(&probe->flat_count, stacked * input->columns);
        input->bias_at = place(&probe->flat_count, stacked);
        input->rows = floats(probe->batch_rows * input->columns);
        input->scores = floats(probe->batch_rows * stacked);
    }
}

/* The rate in the name is the scaled one with an underscore for the point. */
static void make_name(LinearClassifier *classifier)
{
    int length = snprintf(classifier->name, sizeof classifier->name,
                          "classifier_%lld_blocks_avgpool_%s_lr_%.5f", (long long)classifier->last_blocks,
                          classifier->avgpool ? "True" : "False", classifier->scaled_lr);
    CHECK(length > 0 && (size_t)length < sizeof classifier->name);
    char *point = strchr(classifier->name, '.');
    if (point) *point = '_';
}

static void make_classifiers(LinearProbe *probe, const LinearProbeSpec *spec)
{
    double batch = (double)(probe->batch_rows * comm_size(probe->comm));
    probe->classifiers = memory_alloc_array((size_t)probe->count, sizeof *probe->classifiers);
    for (int i = 0; i < probe->count; i++) {
        const ProbeInput *input = &probe->inputs[i / probe->rates];
        LinearClassifier *classifier = &probe->classifiers[i];
        int64_t first = (i % probe->rates) * probe->classes;
        classifier->last_blocks = input->last_blocks;
        classifier->avgpool = input->avgpool;
        classifier->base_lr = spec->learning_rates[i % probe->rates];
        classifier->scaled_lr = classifier->base_lr * batch / LR_BATCH;
        classifier->columns = input->columns;
        classifier->weight = probe->values + input->weight_at + first * input->columns;
        classifier->bias = probe->values + input->bias_at + first;
        make_name(classifier);
        Rng rng = rng_at(spec->seed, RNG_EVALUATION, 0, (uint64_t)i);
        for (int64_t j = 0; j < probe->classes * input->columns; j++)
            classifier->weight[j] = (float)(INIT_STD * rng_normal(&rng));
    }
}

LinearProbe *linear_probe_create(const LinearProbeSpec *spec, const Ops *ops, Comm *comm)
{
    CHECK(spec->embed_dim > 0 && spec->classes > 0 && spec->batch_rows > 0);
    CHECK(spec->last_blocks_count > 0 && spec->learning_rate_count > 0);
    LinearProbe *probe = memory_alloc(sizeof *probe);
    int kinds = spec->tokens_alone ? 1 : 2;
    *probe = (LinearProbe){.ops = ops,
                           .comm = comm,
                           .embed_dim = spec->embed_dim,
                           .classes = spec->classes,
                           .batch_rows = spec->batch_rows,
                           .max_iterations = spec->max_iterations,
                           .momentum = spec->momentum,
                           .rates = spec->learning_rate_count,
                           .kinds = kinds,
                           .input_count = kinds * spec->last_blocks_count,
                           .count = kinds * spec->last_blocks_count * spec->learning_rate_count};
    make_inputs(probe, spec);
    probe->values = floats(probe->flat_count);
    probe->velocity = floats(probe->flat_count);
    probe->gradient = floats(probe->flat_count + probe->count);
    comm_reserve(comm, (size_t)(probe->flat_count + probe->count) * sizeof *probe->gradient, 0);
    make_classifiers(probe, spec);
    return probe;
}

void linear_probe_destroy(LinearProbe *probe)
{
    if (!probe) return;
    for (int i = 0; i < probe->input_count; i++) {
        memory_free(probe->inputs[i].rows);
        memory_free(probe->inputs[i].scores);
    }
    memory_free(probe->inputs);
    memory_free(probe->classifiers);
    memory_free(probe->values);
    memory_free(probe->velocity);
    memory_free(probe->gradient);
    memory_free(probe);
}

int linear_probe_count(const LinearProbe *probe)
{
    return probe->count;
}

const LinearClassifier *linear_probe_classifier(const LinearProbe *probe, int classifier)
{
    CHECK(classifier >= 0 && classifier < probe->count);
    return &probe->classifiers[classifier];
}

int64_t linear_probe_embed_dim(const LinearProbe *probe)
{
    return probe->embed_dim;
}

int64_t linear_probe_iteration(const LinearProbe *probe)
{
    return probe->iteration;
}

int64_t linear_probe_state(LinearProbe *probe, float **values, float **velocity)
{
    *values = probe->values;
    *velocity = probe->velocity;
    return probe->flat_count;
}

void linear_probe_resume(LinearProbe *probe, int64_t iteration)
{
    CHECK(iteration >= 0 && iteration <= probe->max_iterations);
    probe->iteration = iteration;
}

double linear_probe_lr(const LinearProbe *probe, int classifier)
{
    CosineSchedule schedule = {.base = linear_probe_classifier(probe, classifier)->scaled_lr,
                               .total_iterations = probe->max_iterations};
    return cosine_schedule_at(&schedule, probe->iteration);
}

/* --- forward --- */

/* out[d] = mean of tokens[n, d], summed in fp64. */
static void mean_token(float *out, const float *tokens, int64_t n, int64_t d)
{
    for (int64_t first = 0; first < d; first += MEAN_COLUMNS) {
        int64_t width = d - first < MEAN_COLUMNS ? d - first : MEAN_COLUMNS;
        double sum[MEAN_COLUMNS] = {0};
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < width; j++)
                sum[j] += (double)tokens[i * d + first + j];
        for (int64_t j = 0; j < width; j++)
            out[first + j] = (float)(sum[j] / (double)n);
    }
}

void linear_probe_input(float *rows, const LinearProbeTokens *tokens, int64_t embed_dim, int64_t last_blocks,
                        bool avgpool)
{
    CHECK(last_blocks <= tokens->blocks && (!avgpool || tokens->patches > 0));
    int64_t columns = linear_probe_columns(embed_dim, last_blocks, avgpool);
    for (int64_t row = 0; row < tokens->rows; row++) {
        float *out = rows + row * columns;
        for (int64_t block = tokens->blocks - last_blocks; block < tokens->blocks; block++) {
            memcpy(out, tokens->class_tokens[block] + row * embed_dim, (size_t)embed_dim * sizeof *out);
            out += embed_dim;
        }
        if (avgpool)
            mean_token(out, tokens->patch_tokens + row * tokens->patches * embed_dim, tokens->patches,
                       embed_dim);
    }
}

static Tensor stacked_weights(const LinearProbe *probe, const ProbeInput *input, float *flat)
{
    return tensor_2d(flat + input->weight_at, DTYPE_F32, probe->rates * probe->classes, input->columns);
}

static Tensor stacked_biases(const LinearProbe *probe, const ProbeInput *input, float *flat)
{
    return tensor_1d(flat + input->bias_at, DTYPE_F32, probe->rates * probe->classes);
}

/* Rows and scores of every kind of input. */
static void forward(LinearProbe *probe, const LinearProbeTokens *tokens)
{
    CHECK(tokens->rows >= 0 && tokens->rows <= probe->batch_rows);
    for (int i = 0; i < probe->input_count; i++) {
        const ProbeInput *input = &probe->inputs[i];
        linear_probe_input(input->rows, tokens, probe->embed_dim, input->last_blocks, input->avgpool);
        probe->ops->linear_forward(
            probe->ops, tensor_2d(input->scores, DTYPE_F32, tokens->rows, probe->rates * probe->classes),
            tensor_2d(input->rows, DTYPE_F32, tokens->rows, input->columns),
            stacked_weights(probe, input, probe->values), stacked_biases(probe, input, probe->values));
    }
}

void linear_probe_predict(LinearProbe *probe, const LinearProbeTokens *tokens)
{
    forward(probe, tokens);
    probe->predicted_rows = tokens->rows;
}

const float *linear_probe_scores(const LinearProbe *probe, int classifier, int64_t row)
{
    CHECK(classifier >= 0 && classifier < probe->count && row >= 0 && row < probe->predicted_rows);
    const ProbeInput *input = &probe->inputs[classifier / probe->rates];
    return input->scores + (row * probe->rates + classifier % probe->rates) * probe->classes;
}

/* --- a step --- */

/* scores[classes] become weight * d cross-entropy / d scores; returns the cross-entropy. */
static double cross_entropy(float *scores, int64_t classes, int64_t label, double weight)
{
    float largest = scores[0];
    for (int64_t k = 1; k < classes; k++)
        largest = scores[k] > largest ? scores[k] : largest;
    double sum = 0.0, right = (double)(scores[label] - largest);
    for (int64_t k = 0; k < classes; k++) {
        scores[k] = expf(scores[k] - largest);
        sum += (double)scores[k];
    }
    for (int64_t k = 0; k < classes; k++)
        scores[k] = (float)(weight * ((double)scores[k] / sum - (k == label ? 1.0 : 0.0)));
    return log(sum) - right;
}

/* Adds those that the scores, by now their gradients, and the rows make. */
static void weight_gradients(LinearProbe *probe, int64_t rows)
{
    int64_t stacked = probe->rates * probe->classes;
    for (int i = 0; i < probe->input_count; i++) {
        const ProbeInput *input = &probe->inputs[i];
        probe->ops->linear_backward_weight(probe->ops, stacked_weights(probe, input, probe->gradient),
                                           stacked_biases(probe, input, probe->gradient),
                                           tensor_2d(input->scores, DTYPE_F32, rows, stacked),
                                           tensor_2d(input->rows, DTYPE_F32, rows, input->columns));
    }
}

/* Gradients into probe->gradient, and losses, of this rank, each already divided by the number of ranks. */
static void backward(LinearProbe *probe, int64_t rows, const int64_t *labels, double *losses)
{
    double weight = 1.0 / (double)(rows * comm_size(probe->comm));
    int64_t stacked = probe->rates * probe->classes;
#pragma omp parallel for schedule(static) num_threads(probe->ops->threads)
    for (int i = 0; i < probe->count; i++) {
        float *scores = probe->inputs[i / probe->rates].scores + (i % probe->rates) * probe->classes;
        double sum = 0.0;
        for (int64_t row = 0; row < rows; row++)
            sum += cross_entropy(scores + row * stacked, probe->classes, labels[row], weight);
        losses[i] = sum * weight;
    }
    weight_gradients(probe, rows);
}

void linear_probe_add_gradient(LinearProbe *probe, const LinearProbeTokens *tokens,
                               const float *const *gradients)
{
    int64_t rows = tokens->rows, K = probe->classes, stacked = probe->rates * K;
    CHECK(rows >= 0 && rows <= probe->batch_rows);
    probe->predicted_rows = 0;
    for (int i = 0; i < probe->input_count; i++) {
        const ProbeInput *input = &probe->inputs[i];
        linear_probe_input(input->rows, tokens, probe->embed_dim, input->last_blocks, input->avgpool);
        for (int64_t row = 0; row < rows; row++)
            for (int rate = 0; rate < probe->rates; rate++)
                memcpy(input->scores + row * stacked + rate * K, gradients[i * probe->rates + rate] + row * K,
                       (size_t)K * sizeof *input->scores);
    }
    weight_gradients(probe, rows);
}

/* SGD with momentum as the reference's framework defines it: the learning rate is outside the velocity. */
static void sgd(LinearProbe *probe, const float *first, int64_t count, float lr)
{
    int64_t at = first - probe->values;
    float *value = probe->values + at, *velocity = probe->velocity + at;
    const float *gradient = probe->gradient + at;
    float momentum = (float)probe->momentum;
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
        velocity[j] = momentum * velocity[j] + gradient[j];
        value[j] -= lr * velocity[j];
    }
}

static void go_down(LinearProbe *probe)
{
#pragma omp parallel for schedule(static) num_threads(probe->ops->threads)
    for (int i = 0; i < probe->count; i++) {
        const LinearClassifier *classifier = &probe->classifiers[i];
        float lr = (float)linear_probe_lr(probe, i);
        sgd(probe, classifier->weight, probe->classes * classifier->columns, lr);
        sgd(probe, classifier->bias, probe->classes, lr);
    }
}

Status linear_probe_descend(LinearProbe *probe, double *losses, Error *error)
{
    float *shares = probe->gradient + probe->flat_count;
    for (int i = 0; i < probe->count; i++)
        shares[i] = (float)losses[i];
    comm_all_reduce(probe->comm, probe->gradient, probe->flat_count + probe->count, DTYPE_F32, COMM_SUM,
                    NULL);
    int finite = 0;
    for (int i = 0; i < probe->count; i++) {
        losses[i] = (double)shares[i];
        finite += isfinite(losses[i]) ? 1 : 0;
    }
    if (finite > 0) go_down(probe);
    memset(probe->gradient, 0, (size_t)probe->flat_count * sizeof *probe->gradient);
    if (finite == 0)
        return status_fail(
            error, STATUS_FAILED,
            "linear probe: no classifier has a finite loss at iteration %lld (features that are "
            "not numbers, or learning rates far too large)",
            (long long)probe->iteration);
    probe->iteration++;
    return STATUS_OK;
}

Status linear_probe_step(LinearProbe *probe, const LinearProbeTokens *tokens, const int64_t *labels,
                         double *losses, Error *error)
{
    CHECK(tokens->rows > 0);
    for (int64_t row = 0; row < tokens->rows; row++)
        CHECK(labels[row] >= 0 && labels[row] < probe->classes);
    probe->predicted_rows = 0;
    forward(probe, tokens);
    backward(probe, tokens->rows, labels, losses);
    return linear_probe_descend(probe, losses, error);
}

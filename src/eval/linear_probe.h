/* linear_probe.h - a grid of linear classifiers on frozen features, trained all at once.
 *
 * Source: dinov2/eval/linear.py (create_linear_input, LinearClassifier, setup_linear_classifiers, scale_lr;
 * SGD with momentum under a cosine), golden README trap 38. The grid is {last n blocks} x {class tokens,
 * class tokens and mean patch token} x {learning rates}; classifiers are numbered in that order, the learning
 * rate fastest. Those that differ in the learning rate only read the same rows, so their weights lie below
 * each other in one matrix: a step is one product forward and one for the gradient per kind of input,
 * whatever the number of learning rates.
 *
 *     LinearProbe *probe = linear_probe_create(&spec, ops, comm);
 *     for (; linear_probe_iteration(probe) < spec.max_iterations;)
 *         TRY(linear_probe_step(probe, &tokens, labels, losses, error));
 *     linear_probe_predict(probe, &tokens);
 *     ... linear_probe_scores(probe, classifier, row) ...
 *     linear_probe_destroy(probe);
 *
 * The loss may be somebody else's (eval_dense.c): predict, add_gradient and descend are the parts of a step.
 *
 * Memory is planned by create; steps and predictions allocate nothing. It runs no backbone, reads no images
 * and picks no winner.
 */
#ifndef DINOBATCH_EVAL_LINEAR_PROBE_H
#define DINOBATCH_EVAL_LINEAR_PROBE_H

#include "ops/ops.h"

/* The lists are read by create only. */
typedef struct {
    int64_t embed_dim;            /* columns of a token */
    int64_t classes;              /* labels are 0 .. classes - 1 */
    int64_t batch_rows;           /* images in one rank's training batch; no call may bring more */
    int64_t max_iterations;       /* length of the cosine */
    const int64_t *last_blocks;   /* [last_blocks_count] values of n; the reference's are 1 and 4 */
    const double *learning_rates; /* [learning_rate_count] for a batch of 256 */
    int last_blocks_count, learning_rate_count;
    double momentum;   /* the reference's is 0.9 */
    uint64_t seed;     /* of the initial weights, the same on all ranks */
    bool tokens_alone; /* no classifiers with the mean patch token */
} LinearProbeSpec;

/* What the backbone makes of a batch, after its final LayerNorm. Host memory, borrowed. */
typedef struct {
    int64_t rows, blocks, patches;
    const float *const *class_tokens; /* [blocks] of [rows, embed_dim]: the last blocks, earliest first */
    const float *patch_tokens;        /* [rows, patches, embed_dim] of the last block */
} LinearProbeTokens;

/* One classifier of the grid. Weights start normal with std 0.01, the bias at 0; both may be overwritten. */
typedef struct {
    /* The reference's: "classifier_4_blocks_avgpool_True_lr_0_00313". DEVIATION: rates that agree in five
     * decimals give one name, under which the reference keeps the last only; here all are trained and told
     * apart by their number. */
    char name[96];
    int64_t last_blocks;
    bool avgpool;
    double base_lr;   /* as in the spec */
    double scaled_lr; /* at iteration 0: base_lr * batch_rows * ranks / 256 */
    int64_t columns;  /* of its input */
    float *weight;    /* [classes, columns], borrowed from the probe */
    float *bias;      /* [classes] */
} LinearClassifier;

typedef struct LinearProbe LinearProbe;

/* What ops must be made for. */
OpsLimits linear_probe_limits(const LinearProbeSpec *spec);

/* Borrows ops and comm, which must outlive it. Owned by the caller. Not collective, but with the same spec on
 * all ranks: each rank draws the same weights. */
LinearProbe *linear_probe_create(const LinearProbeSpec *spec, const Ops *ops, Comm *comm);
void linear_probe_destroy(LinearProbe *probe);

int linear_probe_count(const LinearProbe *probe);
const LinearClassifier *linear_probe_classifier(const LinearProbe *probe, int classifier);

/* Columns of a token. */
int64_t linear_probe_embed_dim(const LinearProbe *probe);

/* Steps taken. */
int64_t linear_probe_iteration(const LinearProbe *probe);

/* Weights and velocities of all classifiers, [the returned count] each, in an order of the probe's own: what
 * has to be kept, with the number of steps, for a training to go on. Borrowed. */
int64_t linear_probe_state(LinearProbe *probe, float **values, float **velocity);

/* They were overwritten by those after so many steps. */
void linear_probe_resume(LinearProbe *probe, int64_t iteration);

/* The learning rate that the next step takes for this classifier. */
double linear_probe_lr(const LinearProbe *probe, int classifier);

/* Columns of the input: embed_dim for each of the last n blocks, and once more with avgpool. */
int64_t linear_probe_columns(int64_t embed_dim, int64_t last_blocks, bool avgpool);

/* rows[tokens->rows, columns] written: class tokens of the last n blocks, earliest first, then with avgpool
 * the mean patch token of the last block. tokens->blocks may be larger than n, not smaller. */
void linear_probe_input(float *rows, const LinearProbeTokens *tokens, int64_t embed_dim, int64_t last_blocks,
                        bool avgpool);

/* One step of all classifiers on this rank's batch: mean cross-entropy over the batch, gradients averaged
 * over ranks, v = momentum v + gradient, weight -= lr v. labels[rows]; at least one row. losses[count]
 * written: of each classifier before the step, averaged over ranks. A classifier that diverges harms no
 * other; STATUS_FAILED, on all ranks and before any weight is touched, when not one loss is finite.
 * Collective over COMM. */
Status linear_probe_step(LinearProbe *probe, const LinearProbeTokens *tokens, const int64_t *labels,
                         double *losses, Error *error);

/* Adds to the gradients of this step what gradients[count] of [tokens->rows, classes], of each classifier's
 * scores of these rows, make. Not collective. */
void linear_probe_add_gradient(LinearProbe *probe, const LinearProbeTokens *tokens,
                               const float *const *gradients);

/* The end of a step: sums gradients and losses[count] over ranks, and goes down. The outcome is as of
 * linear_probe_step. Collective over COMM. */
Status linear_probe_descend(LinearProbe *probe, double *losses, Error *error);

/* Scores of all classifiers for this rank's rows, none of them included. Not collective. */
void linear_probe_predict(LinearProbe *probe, const LinearProbeTokens *tokens);

/* [classes] scores (logits) of a row of the last prediction; valid until the next step or prediction. */
const float *linear_probe_scores(const LinearProbe *probe, int classifier, int64_t row);

#endif

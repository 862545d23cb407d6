/* eval_dense.h - linear classifiers of patches on a frozen backbone: segmentation, depth.
 *
 * Source: paper section 7.4 and appendix B.3, dinov2/eval/segmentation and depth, notebooks. Classifiers on
 * the patch tokens of the last block, and of the last four, are trained at once with several learning rates,
 * as those of eval_linear.h are; the one with the best figure on the validation set, the first of equals, is
 * the one whose figures on the test sets count.
 *
 * DEVIATION: SGD with momentum 0.9 under a cosine to 0, as eval_linear.h, with a grid of learning rates,
 * where the reference has AdamW at 1e-3 under a straight line behind a warm-up; test pictures go through the
 * network whole, not in windows that slide. Batches are of all ranks, which change nothing but rounding.
 */
#ifndef DINOBATCH_EVAL_EVAL_DENSE_H
#define DINOBATCH_EVAL_EVAL_DENSE_H

#include "data/pixel_levels.h"
#include "eval/dense_task.h"
#include "eval/eval_sets.h"
#include "eval/linear_probe.h"

typedef struct {
    const char *spec; /* borrowed */
    double *cells;    /* [classifiers, task.cells] owned */
    int64_t pictures;
} EvalDenseSet;

typedef struct {
    int64_t last_blocks;
    double learning_rate, loss; /* of the last step */
} EvalDenseClassifier;

/* The same on all ranks but for the seconds, which are of this one. */
typedef struct {
    DenseTask task;
    EvalDenseClassifier *classifiers; /* [count] owned */
    int count, best;                  /* classifiers[best] was chosen */
    EvalDenseSet *sets;               /* [set_count]: validation, then the test sets; owned */
    int set_count;
    int64_t train_images, iterations, batch_size;
    double seconds;          /* of all */
    double train_seconds;    /* of the steps of this run, of which: */
    double wait_seconds;     /* for pictures */
    double backbone_seconds; /* in the backbone */
    int64_t steps;           /* of this run */
} EvalDenseResult;

typedef enum { EVAL_SEGMENTATION, EVAL_DEPTH } EvalDenseKind;

typedef struct {
    EvalDenseKind kind;
    const EvalParams *params;
    const FeatureBackbone *backbone;
    PixelNorm norm;                /* of its input: what is around a picture is its mean */
    const char *subject;           /* names the weights, for the digest of the state */
    const char *const *test_specs; /* [test_count] data sets beside the validation set */
    int test_count;
    const char *state_path; /* as of EvalLinear */
    bool resume;
} EvalDense;

/* STATUS_INPUT: unusable data sets, pictures or masks, a batch that the ranks do not divide, more last blocks
 * than there are. STATUS_REQUEUE after saving when a rank was asked to stop. Release by eval_dense_fini, also
 * after a failure. Collective over COMM. */
Status eval_dense_run(const EvalDense *eval, EvalDenseResult *result, Error *error);
void eval_dense_fini(EvalDenseResult *result);

#endif

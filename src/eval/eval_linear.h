/* eval_linear.h - the linear evaluation of a frozen backbone: a grid of classifiers trained in one pass.
 *
 * Source: dinov2/eval/linear.py, paper appendix B.3: random-resized crops and flips, each batch once through
 * the backbone, SGD with momentum 0.9 under a cosine to 0, no weight decay; the classifier that is right most
 * often on the validation set, the first of equals, is the one whose figures on the test sets count.
 *
 * DEVIATION: evaluation.linear_batch_size is of all ranks (the reference's 128 is of each of its 8 GPUs), so
 * that the number of ranks changes nothing but rounding; of the two crops that the training loader makes of a
 * picture one is used. No validation takes place on the way.
 */
#ifndef DINOBATCH_EVAL_EVAL_LINEAR_H
#define DINOBATCH_EVAL_EVAL_LINEAR_H

#include "eval/accuracy.h"
#include "eval/eval_sets.h"
#include "eval/linear_probe.h"

typedef struct {
    const char *spec;   /* borrowed */
    Accuracy *accuracy; /* [classifiers] owned */
    int64_t skipped;    /* pictures that could not be read */
} EvalLinearSet;

/* The same on all ranks but for the seconds, which are of this one. */
typedef struct {
    LinearClassifier *classifiers; /* [count] names and settings; the weights are gone; owned */
    double *losses;                /* [count] of the last step; owned */
    int count, best;               /* classifiers[best] was chosen */
    EvalLinearSet *sets;           /* [set_count]: validation, then the test sets; owned */
    int set_count;
    int64_t train_images, classes, iterations, batch_size;
    double seconds;            /* of all */
    double train_seconds;      /* of the steps of this run, of which: */
    double wait_seconds;       /* for pictures */
    double backbone_seconds;   /* in the backbone */
    double classifier_seconds; /* in the classifiers, all-reduce included */
    int64_t steps;             /* of this run */
} EvalLinearResult;

typedef struct {
    const EvalParams *params;
    const FeatureBackbone *backbone;
    const char *subject;           /* names the weights, for the digest of the state */
    const char *const *test_specs; /* [test_count] data sets beside the validation set */
    int test_count;
    const char *state_path; /* of what a stopped training leaves, removed by linear_state_remove when
                               the result is written; NULL: it cannot be stopped */
    bool resume;            /* take up what an earlier run left */
} EvalLinear;

/* STATUS_INPUT: unusable data sets, a batch that the ranks do not divide, more last blocks than there are.
 * STATUS_REQUEUE after saving when a rank was asked to stop. Release by eval_linear_fini, also after a
 * failure. Collective over COMM. */
Status eval_linear_run(const EvalLinear *eval, EvalLinearResult *result, Error *error);
void eval_linear_fini(EvalLinearResult *result);

#endif

/* eval_logreg.h - the logistic regression evaluation of features.
 *
 * Source: dinov2/eval/log_regression.py: a tenth of the training rows, drawn at random, is held out; each C
 * of evaluation.logreg_c_log10 and logreg_c_count is fitted to the rest; the C that is right most often on
 * what was held out, the smallest of equals, is fitted to all training rows and measured on the validation
 * rows. Features are not normalised.
 *
 * DEVIATION: the reference fits every C from zero and deals values of C to ranks, here the rows are dealt and
 * each C starts at the optimum of the one before: the objective has one optimum, which so takes fewer
 * iterations. Its transform takes the centre 224 pixels of 224, not of 256: evaluation.resize_size=224 is
 * that. The held-out rows are drawn by our generator.
 */
#ifndef DINOBATCH_EVAL_EVAL_LOGREG_H
#define DINOBATCH_EVAL_EVAL_LOGREG_H

#include "eval/accuracy.h"
#include "eval/eval_sets.h"
#include "eval/logistic_regression.h"

/* One C of the sweep. */
typedef struct {
    double c;
    Accuracy held_out;
    LogisticFit fit;
} EvalLogregTry;

/* The same on all ranks. */
typedef struct {
    EvalLogregTry *tries; /* [count] in rising order of C; owned */
    int64_t count, best;  /* tries[best].c was chosen */
    LogisticFit fit;      /* to all training rows */
    Accuracy accuracy;    /* on the validation rows */
    int64_t train_images, held_out_images, val_images, classes;
    int64_t skipped; /* images that could not be read */
    double seconds;
} EvalLogregResult;

/* Labels lie in [0, classes). The training rows change their order. STATUS_INPUT when columns differ, a
 * number is not finite, or fewer than ten training rows or two classes are there. Release by
 * eval_logreg_fini, also after a failure. Collective over COMM. */
Status eval_logreg_run(const EvalParams *params, FeatureRows *train, FeatureRows *val, int64_t classes,
                       EvalLogregResult *result, Error *error);
void eval_logreg_fini(EvalLogregResult *result);

#endif

/* logistic_regression.h - multinomial logistic regression with an L2 penalty, by L-BFGS in fp64, the rows
 * dealt to ranks.
 *
 * Source: dinov2/eval/log_regression.py, which calls cuML; the objective is scikit-learn's LogisticRegression
 * (penalty "l2"), over n rows of all ranks:
 *
 *     mean cross-entropy of softmax(W x + b) + |W|^2 / (2 C n)
 *
 * that is scikit-learn's C * (sum of cross-entropies) + |W|^2 / 2, divided by C n. The intercept b is not
 * penalised. With two classes both libraries fit one vector w in place of two; its penalty is that of
 * W = (-w/2, w/2) counted twice, which is what is done here, so that objective and optimum agree there, too.
 *
 * L-BFGS is libLBFGS (Nocedal's, with the line search of More and Thuente). Every rank runs it on the same
 * numbers: the objective and gradient are all-reduced, and nothing else travels.
 *
 * It chooses no C and knows no files.
 */
#ifndef DINOBATCH_EVAL_LOGISTIC_REGRESSION_H
#define DINOBATCH_EVAL_LOGISTIC_REGRESSION_H

#include "comm/comm.h"

#include <stdbool.h>

/* This rank's rows; all borrowed. */
typedef struct {
    int64_t count, d;
    const float *values;   /* [count, d], finite */
    const int64_t *labels; /* [count], 0 .. classes - 1 */
} LogisticRows;

typedef struct {
    int64_t classes; /* at least 2, and each has rows on some rank */
    double c;
    int64_t max_iterations;
} LogisticSpec;

typedef struct {
    double objective;   /* as above */
    double gradient;    /* largest magnitude of its gradient's entries */
    int64_t iterations; /* of L-BFGS */
    bool converged;     /* stopped before max_iterations */
} LogisticFit;

/* weights [classes, d + 1], the intercept last: where L-BFGS starts (zeros will do), and then the optimum.
 * Stops when the gradient's norm is 1e-9 of the weights', when ten iterations lower the objective by less
 * than 1e-9 of it, or when rounding lets no step lower it. STATUS_FAILED when the objective is not a number.
 * The same weights on every rank. Collective over COMM. */
Status logistic_regression_fit(double *weights, const LogisticSpec *spec, Comm *comm,
                               const LogisticRows *rows, LogisticFit *fit, Error *error);

/* scores [rows->count, classes] = W x + b. The labels are not read. Not collective. */
void logistic_regression_scores(float *scores, const double *weights, const LogisticRows *rows,
                                int64_t classes);

#endif

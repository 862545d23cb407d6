/* logistic_regression.c - see logistic_regression.h. Products are made block by block of rows, which are
 * widened to fp64 with a column of ones for the intercept. */
#include "eval/logistic_regression.h"

#include "base/check.h"
#include "base/memory.h"
#include "features/dense_algebra.h"

#include <lbfgs.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum {
    BLOCK = 1024,     /* rows of one product */
    ALIGNMENT = 16,   /* libLBFGS with SSE2 wants a multiple of it */
    HISTORY = 10,     /* scikit-learn's; pairs of steps that L-BFGS remembers */
    LINE_SEARCH = 50, /* the reference's limit of evaluations in one line search */
    PAST = 10,        /* iterations over which the objective has to fall */
};

static const double GRADIENT_TOLERANCE = 1e-9, FALL_TOLERANCE = 1e-9;

typedef struct {
    const LogisticSpec *spec;
    const LogisticRows *rows;
    Comm *comm;
    int64_t width;  /* d + 1 */
    int64_t count;  /* weights */
    int64_t total;  /* rows of all ranks */
    double penalty; /* of |W|^2 / 2 */
    double *block;  /* [BLOCK, width] */
    double *scores; /* [BLOCK, classes] */
    double *sums;   /* [count + 1] gradient, then loss */
    int64_t iterations;
} Problem;

/* block [n, d + 1] = values [n, d] and ones. */
static void widen(double *block, const float *values, int64_t n, int64_t d)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < d; j++)
            block[i * (d + 1) + j] = (double)values[i * d + j];
        block[i * (d + 1) + d] = 1.0;
    }
}

/* Scores become probabilities; returns the logarithm of the sum by which they were divided, with the largest
 * score added. */
static double softmax(double *scores, int64_t classes)
{
    double largest = scores[0], sum = 0.0;
    for (int64_t k = 1; k < classes; k++)
        largest = scores[k] > largest ? scores[k] : largest;
    for (int64_t k = 0; k < classes; k++) {
        scores[k] = exp(scores[k] - largest);
        sum += scores[k];
    }
    for (int64_t k = 0; k < classes; k++)
        scores[k] /= sum;
    return largest + log(sum);
}

/* sums = gradient and value of the sum of cross-entropies over this rank's rows. */
static void add_rows(Problem *p, const double *weights)
{
    const LogisticRows *rows = p->rows;
    int64_t classes = p->spec->classes;
    double *loss = &p->sums[p->count];
    memset(p->sums, 0, (size_t)(p->count + 1) * sizeof *p->sums);
    for (int64_t first = 0; first < rows->count; first += BLOCK) {
        int64_t n = rows->count - first < BLOCK ? rows->count - first : BLOCK;
        widen(p->block, rows->values + first * rows->d, n, rows->d);
        dense_algebra_project(p->scores, p->block, n, weights, classes, p->width);
        for (int64_t i = 0; i < n; i++) {
            double *scores = p->scores + i * classes;
            int64_t label = rows->labels[first + i];
            double right = scores[label];
            *loss += softmax(scores, classes) - right;
            scores[label] -= 1.0;
        }
        dense_algebra_add_weighted(p->sums, p->scores, p->block, n, classes, p->width);
    }
}

/* Collective over COMM: all ranks come here with the same weights. */
static lbfgsfloatval_t evaluate(void *instance, const lbfgsfloatval_t *weights, lbfgsfloatval_t *gradient,
                                const int n, const lbfgsfloatval_t step)
{
    (void)step;
    Problem *p = instance;
    add_rows(p, weights);
    comm_all_reduce(p->comm, p->sums, p->count + 1, DTYPE_F64, COMM_SUM, NULL);
    double scale = 1.0 / (double)p->total, squares = 0.0;
    memset(gradient, 0, (size_t)n * sizeof *gradient); /* behind the weights: padding */
    for (int64_t i = 0; i < p->count; i++) {
        gradient[i] = p->sums[i] * scale;
        if (i % p->width == p->width - 1) continue; /* intercept */
        squares += weights[i] * weights[i];
        gradient[i] += p->penalty * weights[i];
    }
    return p->sums[p->count] * scale + 0.5 * p->penalty * squares;
}

static int note(void *instance, const lbfgsfloatval_t *x, const lbfgsfloatval_t *gradient,
                const lbfgsfloatval_t fx, const lbfgsfloatval_t xnorm, const lbfgsfloatval_t gnorm,
                const lbfgsfloatval_t step, int n, int k, int ls)
{
    (void)x, (void)gradient, (void)fx, (void)xnorm, (void)gnorm, (void)step, (void)n, (void)ls;
    Problem *p = instance;
    p->iterations = k;
    return 0;
}

/* Whether this end of L-BFGS is one at an optimum as far as fp64 can tell. */
static bool is_end(int code)
{
    switch (code) {
    case LBFGS_SUCCESS:
    case LBFGS_STOP:
    case LBFGS_ALREADY_MINIMIZED:
    case LBFGSERR_ROUNDING_ERROR:
    case LBFGSERR_MINIMUMSTEP:
    case LBFGSERR_MAXIMUMLINESEARCH:
    case LBFGSERR_WIDTHTOOSMALL:
    case LBFGSERR_INCREASEGRADIENT:
        return true;
    default:
        return false;
    }
}

static Status descend(Problem *p, double *x, int n, LogisticFit *fit, Error *error)
{
    lbfgs_parameter_t parameters;
    lbfgs_parameter_init(&parameters);
    parameters.m = HISTORY;
    parameters.epsilon = GRADIENT_TOLERANCE;
    parameters.past = PAST;
    parameters.delta = FALL_TOLERANCE;
    parameters.max_iterations = (int)p->spec->max_iterations;
    parameters.max_linesearch = LINE_SEARCH;
    double objective = 0.0;
    int code = lbfgs(n, x, &objective, evaluate, note, p, &parameters);
    CHECK(code != LBFGSERR_OUTOFMEMORY);
    /* Where a line search ends in failure, what it says belongs to a step that it took back. */
    double *gradient = memory_alloc_array((size_t)n, sizeof *gradient);
    *fit = (LogisticFit){.objective = evaluate(p, x, gradient, n, 0.0),
                         .iterations = p->iterations,
                         .converged = is_end(code)};
    for (int64_t i = 0; i < p->count; i++)
        fit->gradient = fabs(gradient[i]) > fit->gradient ? fabs(gradient[i]) : fit->gradient;
    memory_free(gradient);
    if (isfinite(fit->objective) && (fit->converged || code == LBFGSERR_MAXIMUMITERATION)) return STATUS_OK;
    return status_fail(error, STATUS_FAILED,
                       "logistic regression at C = %g: L-BFGS ends with code %d, objective %g", p->spec->c,
                       code, fit->objective);
}

Status logistic_regression_fit(double *weights, const LogisticSpec *spec, Comm *comm,
                               const LogisticRows *rows, LogisticFit *fit, Error *error)
{
    CHECK(spec->classes >= 2 && spec->c > 0 && spec->max_iterations >= 1 && spec->max_iterations <= INT_MAX);
    Problem p = {.spec = spec,
                 .rows = rows,
                 .comm = comm,
                 .width = rows->d + 1,
                 .count = spec->classes * (rows->d + 1),
                 .total = rows->count};
    int64_t padded = (p.count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    CHECK(padded <= INT_MAX);
    comm_all_reduce(comm, &p.total, 1, DTYPE_I64, COMM_SUM, NULL);
    p.penalty = (spec->classes == 2 ? 2.0 : 1.0) / (spec->c * (double)p.total);
    p.block = memory_alloc_array((size_t)(BLOCK * p.width), sizeof *p.block);
    p.scores = memory_alloc_array((size_t)(BLOCK * spec->classes), sizeof *p.scores);
    p.sums = memory_alloc_array((size_t)(p.count + 1), sizeof *p.sums);
    double *x = memory_alloc_array((size_t)padded, sizeof *x);
    memcpy(x, weights, (size_t)p.count * sizeof *x);
    Status status = descend(&p, x, (int)padded, fit, error);
    memcpy(weights, x, (size_t)p.count * sizeof *x);
    memory_free(x);
    memory_free(p.sums);
    memory_free(p.scores);
    memory_free(p.block);
    return status;
}

void logistic_regression_scores(float *scores, const double *weights, const LogisticRows *rows,
                                int64_t classes)
{
    int64_t width = rows->d + 1;
    double *block = memory_alloc_array((size_t)(BLOCK * width), sizeof *block);
    double *products = memory_alloc_array((size_t)(BLOCK * classes), sizeof *products);
    for (int64_t first = 0; first < rows->count; first += BLOCK) {
        int64_t n = rows->count - first < BLOCK ? rows->count - first : BLOCK;
        widen(block, rows->values + first * rows->d, n, rows->d);
        dense_algebra_project(products, block, n, weights, classes, width);
        for (int64_t i = 0; i < n * classes; i++)
            scores[first * classes + i] = (float)products[i];
    }
    memory_free(products);
    memory_free(block);
}

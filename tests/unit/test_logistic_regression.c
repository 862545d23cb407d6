/* test_logistic_regression.c - objective and accuracy beside scikit-learn's (tests/support/evaluate_peer.py
 * --golden prints the table), the gradient by finite differences, and what the evaluation holds out. */
#include "base/memory.h"
#include "base/rng.h"
#include "comm/comm.h"
#include "eval/eval_logreg.h"

#include <criterion/criterion.h>
#include <math.h>

enum { N = 60, D = 5, CLASSES_MAX = 3 };

typedef struct {
    float values[N * D];
    int64_t labels[N];
    LogisticRows rows;
} Golden;

static void make_golden(Golden *golden, int64_t classes)
{
    for (int64_t i = 0; i < N; i++) {
        golden->labels[i] = i % classes;
        for (int64_t j = 0; j < D; j++)
            golden->values[i * D + j] =
                (float)((double)((i * 7919 + j * 104729 + i * j * 31) % 1009) / 1009.0 - 0.5 +
                        (double)(golden->labels[i] * (j % 3 - 1)) * 0.25);
    }
    golden->rows = (LogisticRows){.count = N, .d = D, .values = golden->values, .labels = golden->labels};
}

/* The objective by definition; two classes have one vector. */
static double objective(const double *weights, const LogisticSpec *spec, const LogisticRows *rows)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < rows->count; i++) {
        double scores[CLASSES_MAX], total = 0.0;
        for (int64_t k = 0; k < spec->classes; k++) {
            const double *w = weights + k * (rows->d + 1);
            scores[k] = w[rows->d];
            for (int64_t j = 0; j < rows->d; j++)
                scores[k] += w[j] * (double)rows->values[i * rows->d + j];
            total += exp(scores[k]);
        }
        sum += log(total) - scores[rows->labels[i]];
    }
    for (int64_t k = 0; k < spec->classes; k++)
        for (int64_t j = 0; j < rows->d; j++)
            squares += weights[k * (rows->d + 1) + j] * weights[k * (rows->d + 1) + j];
    if (spec->classes == 2) squares *= 2.0;
    return (sum + squares / (2.0 * spec->c)) / (double)rows->count;
}

static int64_t right(const double *weights, const LogisticSpec *spec, const LogisticRows *rows)
{
    float scores[N * CLASSES_MAX];
    logistic_regression_scores(scores, weights, rows, spec->classes);
    int64_t count = 0;
    for (int64_t i = 0; i < rows->count; i++) {
        int64_t best = 0;
        for (int64_t k = 1; k < spec->classes; k++)
            if (scores[i * spec->classes + k] > scores[i * spec->classes + best]) best = k;
        count += best == rows->labels[i];
    }
    return count;
}

Test(logistic_regression, objective_and_accuracy_are_scikit_learns)
{
    static const struct {
        int64_t classes;
        double c, objective;
        int64_t right;
    } golden[] = {
        {2, 0.001, 0.692861692011779, 47}, {2, 1, 0.572263541942167, 52}, {2, 1000, 0.425305612918863, 52},
        {3, 0.001, 1.09743816402784, 38},  {3, 1, 0.805055234107295, 45}, {3, 1000, 0.560377996394782, 50},
    };
    Comm *comm = comm_self_create();
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        Golden set;
        make_golden(&set, golden[i].classes);
        LogisticSpec spec = {.classes = golden[i].classes, .c = golden[i].c, .max_iterations = 1000};
        double weights[CLASSES_MAX * (D + 1)] = {0};
        LogisticFit fit;
        Error error = {0};
        Status status = logistic_regression_fit(weights, &spec, comm, &set.rows, &fit, &error);
        cr_assert_eq(status, STATUS_OK, "%s", error.text);
        cr_expect(fit.converged && fit.iterations > 0);
        cr_expect_float_eq(fit.objective, golden[i].objective, 1e-7 * golden[i].objective, "%zu: %.12g", i,
                           fit.objective);
        cr_expect_float_eq(fit.objective, objective(weights, &spec, &set.rows), 1e-12);
        cr_expect_eq(right(weights, &spec, &set.rows), golden[i].right, "%zu", i);
        /* an optimum: every step away from it is uphill */
        for (int64_t k = 0; k < spec.classes * (D + 1); k++)
            for (int sign = -1; sign <= 1; sign += 2) {
                double kept = weights[k];
                weights[k] += sign * 0.01;
                cr_expect_gt(objective(weights, &spec, &set.rows), fit.objective, "weight %lld",
                             (long long)k);
                weights[k] = kept;
            }
    }
    comm_destroy(comm);
}

Test(logistic_regression, few_iterations_are_told)
{
    Golden set;
    make_golden(&set, 3);
    Comm *comm = comm_self_create();
    LogisticSpec spec = {.classes = 3, .c = 1000, .max_iterations = 2};
    double weights[CLASSES_MAX * (D + 1)] = {0};
    LogisticFit fit;
    Error error = {0};
    cr_assert_eq(logistic_regression_fit(weights, &spec, comm, &set.rows, &fit, &error), STATUS_OK, "%s",
                 error.text);
    cr_expect_not(fit.converged);
    cr_expect_eq(fit.iterations, 2);
    cr_expect_gt(fit.gradient, 1e-4);
    comm_destroy(comm);
}

/* --- the evaluation --- */

static FeatureRows scattered(int64_t n, int64_t d, int64_t classes, uint64_t seed)
{
    FeatureRows rows;
    feature_rows_init(&rows, n, d);
    rows.count = rows.total = n;
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < n; i++) {
        rows.labels[i] = rng_integer(&rng, 0, classes - 1);
        Rng centre = rng_at(5, RNG_TEST, 1, (uint64_t)rows.labels[i]);
        for (int64_t j = 0; j < d; j++)
            rows.values[i * d + j] = (float)(rng_normal(&centre) + 1.5 * rng_normal(&rng));
    }
    return rows;
}

static void evaluate(FeatureRows *train, FeatureRows *val, int64_t classes, EvalLogregResult *result,
                     Status expected)
{
    Config config;
    config_init(&config);
    config.evaluation.logreg_c_count = 7;
    Comm *comm = comm_self_create();
    Log log = log_create(1);
    EvalParams params = {.config = &config, .comm = comm, .log = &log, .threads = 1};
    Error error = {0};
    cr_assert_eq(eval_logreg_run(&params, train, val, classes, result, &error), expected, "%s", error.text);
    comm_destroy(comm);
    config_fini(&config);
}

/* Label 1 has no rows, which must not matter. */
Test(logistic_regression, sweep_chooses_on_a_tenth_and_fits_all)
{
    FeatureRows train = scattered(205, 8, 4, 1), val = scattered(100, 8, 4, 2);
    for (int64_t i = 0; i < train.count; i++)
        train.labels[i] += train.labels[i] >= 1;
    for (int64_t i = 0; i < val.count; i++)
        val.labels[i] += val.labels[i] >= 1;
    double sum = 0.0, after = 0.0;
    for (int64_t i = 0; i < train.count; i++)
        sum += train.values[i * 8] * (double)(train.labels[i] + 1);
    EvalLogregResult result;
    evaluate(&train, &val, 5, &result, STATUS_OK);
    for (int64_t i = 0; i < train.count; i++)
        after += train.values[i * 8] * (double)(train.labels[i] + 1);
    cr_expect_float_eq(sum, after, 1e-6, "rows lost their labels");
    cr_expect_eq(result.held_out_images, 20);
    cr_expect_eq(result.accuracy.queries, 100);
    cr_expect_gt(result.accuracy.top1, 0.5);
    cr_expect_float_eq(result.tries[0].c, 1e-6, 1e-12);
    cr_expect_float_eq(result.tries[6].c, 1e5, 1e-4);
    for (int64_t i = 0; i < result.count; i++) {
        double best = result.tries[result.best].held_out.top1, here = result.tries[i].held_out.top1;
        cr_expect(i < result.best ? here < best : here <= best, "C %lld", (long long)i);
        if (i > 0) cr_expect_lt(result.tries[i].fit.objective, result.tries[i - 1].fit.objective);
    }
    eval_logreg_fini(&result);
    feature_rows_fini(&train);
    feature_rows_fini(&val);
}

Test(logistic_regression, refuses_what_has_no_answer)
{
    EvalLogregResult result;
    FeatureRows train = scattered(9, 4, 2, 1), val = scattered(5, 4, 2, 2);
    evaluate(&train, &val, 2, &result, STATUS_INPUT);
    eval_logreg_fini(&result);
    feature_rows_fini(&train);
    train = scattered(30, 4, 1, 1);
    evaluate(&train, &val, 2, &result, STATUS_INPUT);
    eval_logreg_fini(&result);
    train.values[7] = NAN;
    train.labels[0] = 1;
    evaluate(&train, &val, 2, &result, STATUS_INPUT);
    eval_logreg_fini(&result);
    feature_rows_fini(&train);
    feature_rows_fini(&val);
}

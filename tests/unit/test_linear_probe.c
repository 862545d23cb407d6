/* test_linear_probe.c - the grid against fp64 with numerical gradients, its independence and its memory. */
#include "../support/ops_support.h"
#include "eval/linear_probe.h"

#include "base/memory.h"
#include "base/rng.h"
#include "comm/comm_backend.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIM = 3, BLOCKS = 5, PATCHES = 7, CLASSES = 4, ROWS = 6, RATES = 2, GRID = 2 * 2 * RATES };

static const int64_t LAST_BLOCKS[] = {1, 3};
static const double LEARNING_RATES[] = {8.0, 20.0}; /* 0.19 and 0.47 after scaling */

/* A batch whose class tokens point, with noise, in their class's own direction. */
typedef struct {
    float class_tokens[BLOCKS][ROWS * DIM];
    float patch_tokens[ROWS * PATCHES * DIM];
    const float *blocks[BLOCKS];
    int64_t labels[ROWS];
    LinearProbeTokens tokens;
} Batch;

static void make_batch(Batch *batch, uint64_t seed)
{
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (int row = 0; row < ROWS; row++)
        batch->labels[row] = rng_integer(&rng, 0, CLASSES - 1);
    for (int block = 0; block < BLOCKS; block++) {
        batch->blocks[block] = batch->class_tokens[block];
        for (int j = 0; j < ROWS * DIM; j++) {
            Rng centre =
                rng_at(77, RNG_TEST, (uint64_t)(block * DIM + j % DIM), (uint64_t)batch->labels[j / DIM]);
            batch->class_tokens[block][j] = (float)(2.0 * rng_normal(&centre) + 0.3 * rng_normal(&rng));
        }
    }
    for (int j = 0; j < ROWS * PATCHES * DIM; j++)
        batch->patch_tokens[j] = (float)(1.0 + rng_normal(&rng));
    batch->tokens = (LinearProbeTokens){.rows = ROWS,
                                        .blocks = BLOCKS,
                                        .patches = PATCHES,
                                        .class_tokens = batch->blocks,
                                        .patch_tokens = batch->patch_tokens};
}

static LinearProbeSpec make_spec(void)
{
    return (LinearProbeSpec){.embed_dim = DIM,
                             .classes = CLASSES,
                             .batch_rows = ROWS,
                             .max_iterations = 5,
                             .last_blocks = LAST_BLOCKS,
                             .learning_rates = LEARNING_RATES,
                             .last_blocks_count = 2,
                             .learning_rate_count = RATES,
                             .momentum = 0.9,
                             .seed = 3};
}

typedef struct {
    LinearProbeSpec spec;
    Ops *ops;
    Comm *comm;
    LinearProbe *probe;
    Error error;
} Fixture;

static Fixture fixture(LinearProbeSpec spec, Comm *comm)
{
    OpsLimits limits = linear_probe_limits(&spec);
    Fixture f = {.spec = spec, .ops = ops_support_open(&limits, 1), .comm = comm};
    f.probe = linear_probe_create(&spec, f.ops, comm);
    return f;
}

static void teardown(Fixture *f)
{
    linear_probe_destroy(f->probe);
    ops_support_close(f->ops);
    comm_destroy(f->comm);
}

static void step(Fixture *f, const Batch *batch, double *losses)
{
    cr_assert(linear_probe_step(f->probe, &batch->tokens, batch->labels, losses, &f->error) == STATUS_OK,
              "%s", f->error.text);
}

/* Column j of a row's input, by the definition. */
static double input_at(const Batch *batch, int64_t n, int64_t row, int64_t j)
{
    if (j < n * DIM) return (double)batch->class_tokens[BLOCKS - n + j / DIM][row * DIM + j % DIM];
    double sum = 0.0;
    for (int64_t p = 0; p < PATCHES; p++)
        sum += (double)batch->patch_tokens[(row * PATCHES + p) * DIM + j % DIM];
    return sum / PATCHES;
}

/* One classifier in fp64: [CLASSES, columns] weights, then CLASSES biases. */
typedef struct {
    int64_t n, columns, count;
    double *params, *velocity;
} Exact;

static Exact exact_create(const LinearClassifier *classifier)
{
    Exact e = {.n = classifier->last_blocks, .columns = classifier->columns};
    e.count = CLASSES * (e.columns + 1);
    e.params = memory_alloc_array((size_t)e.count, sizeof *e.params);
    e.velocity = memory_alloc_array((size_t)e.count, sizeof *e.velocity);
    for (int64_t j = 0; j < e.count; j++)
        e.params[j] = (double)(j < CLASSES * e.columns ? classifier->weight[j]
                                                       : classifier->bias[j - CLASSES * e.columns]);
    return e;
}

static void exact_destroy(Exact *e)
{
    memory_free(e->params);
    memory_free(e->velocity);
}

static double exact_score(const Exact *e, const Batch *batch, int64_t row, int64_t k)
{
    double score = e->params[CLASSES * e->columns + k];
    for (int64_t j = 0; j < e->columns; j++)
        score += e->params[k * e->columns + j] * input_at(batch, e->n, row, j);
    return score;
}

static double exact_loss(const Exact *e, const Batch *batch)
{
    double loss = 0.0;
    for (int64_t row = 0; row < ROWS; row++) {
        double sum = 0.0;
        for (int64_t k = 0; k < CLASSES; k++)
            sum += exp(exact_score(e, batch, row, k));
        loss += log(sum) - exact_score(e, batch, row, batch->labels[row]);
    }
    return loss / ROWS;
}

/* Gradients by central differences, so that nothing of the code under test is repeated here. */
static void exact_step(Exact *e, const Batch *batch, double lr)
{
    double *gradient = memory_alloc_array((size_t)e->count, sizeof *gradient), h = 1e-5;
    for (int64_t j = 0; j < e->count; j++) {
        double value = e->params[j];
        e->params[j] = value + h;
        double above = exact_loss(e, batch);
        e->params[j] = value - h;
        gradient[j] = (above - exact_loss(e, batch)) / (2.0 * h);
        e->params[j] = value;
    }
    for (int64_t j = 0; j < e->count; j++) {
        e->velocity[j] = 0.9 * e->velocity[j] + gradient[j];
        e->params[j] -= lr * e->velocity[j];
    }
    memory_free(gradient);
}

Test(linear_probe, steps_follow_numerical_gradients)
{
    Fixture f = fixture(make_spec(), comm_self_create());
    cr_assert_eq(linear_probe_count(f.probe), GRID);
    Exact exact[GRID];
    for (int i = 0; i < GRID; i++)
        exact[i] = exact_create(linear_probe_classifier(f.probe, i));
    for (int iteration = 0; iteration < 5; iteration++) {
        Batch batch;
        make_batch(&batch, (uint64_t)(100 + iteration));
        double losses[GRID], cosine = 0.5 * (1.0 + cos(M_PI * iteration / 5.0));
        cr_assert_eq(linear_probe_iteration(f.probe), iteration);
        for (int i = 0; i < GRID; i++)
            cr_expect_float_eq(linear_probe_lr(f.probe, i), LEARNING_RATES[i % RATES] * ROWS / 256.0 * cosine,
                               1e-15);
        step(&f, &batch, losses);
        for (int i = 0; i < GRID; i++) {
            double loss = exact_loss(&exact[i], &batch);
            cr_expect_float_eq(losses[i], loss, 2e-6 * fmax(1.0, loss), "classifier %d: %.9g, exact %.9g", i,
                               losses[i], loss);
            exact_step(&exact[i], &batch, LEARNING_RATES[i % RATES] * ROWS / 256.0 * cosine);
        }
    }
    for (int i = 0; i < GRID; i++) {
        const LinearClassifier *classifier = linear_probe_classifier(f.probe, i);
        int64_t weights = CLASSES * classifier->columns;
        for (int64_t j = 0; j < exact[i].count; j++) {
            double mine = (double)(j < weights ? classifier->weight[j] : classifier->bias[j - weights]);
            cr_expect_float_eq(mine, exact[i].params[j], 1e-5,
                               "classifier %d, parameter %lld: %.9g, exact %.9g", i, (long long)j, mine,
                               exact[i].params[j]);
        }
        exact_destroy(&exact[i]);
    }
    teardown(&f);
}

Test(linear_probe, inputs_and_scores_are_what_they_say)
{
    Fixture f = fixture(make_spec(), comm_self_create());
    Batch batch;
    make_batch(&batch, 9);
    LinearProbeTokens fewer = batch.tokens;
    fewer.rows = ROWS - 2;
    linear_probe_predict(f.probe, &fewer);
    for (int i = 0; i < GRID; i++) {
        const LinearClassifier *classifier = linear_probe_classifier(f.probe, i);
        cr_expect_eq(classifier->last_blocks, LAST_BLOCKS[i / (2 * RATES)]);
        cr_expect_eq(classifier->avgpool, i / RATES % 2 == 1);
        cr_expect_eq(classifier->base_lr, LEARNING_RATES[i % RATES]);
        cr_expect_eq(classifier->columns, DIM * (classifier->last_blocks + (classifier->avgpool ? 1 : 0)));
        float rows[ROWS * DIM * 4];
        linear_probe_input(rows, &batch.tokens, DIM, classifier->last_blocks, classifier->avgpool);
        for (int64_t j = 0; j < ROWS * classifier->columns; j++)
            cr_expect_float_eq(
                (double)rows[j],
                input_at(&batch, classifier->last_blocks, j / classifier->columns, j % classifier->columns),
                1e-6);
        Exact exact = exact_create(classifier);
        for (int64_t row = 0; row < fewer.rows; row++)
            for (int64_t k = 0; k < CLASSES; k++)
                cr_expect_float_eq((double)linear_probe_scores(f.probe, i, row)[k],
                                   exact_score(&exact, &batch, row, k), 1e-6);
        exact_destroy(&exact);
    }
    teardown(&f);
}

Test(linear_probe, names_are_those_of_the_reference)
{
    LinearProbeSpec spec = make_spec();
    double rates[] = {1e-5, 0.1};
    spec.learning_rates = rates;
    spec.batch_rows = 128;
    Fixture f = fixture(spec, comm_self_create());
    cr_expect_str_eq(linear_probe_classifier(f.probe, 1)->name,
                     "classifier_1_blocks_avgpool_False_lr_0_05000");
    cr_expect_str_eq(linear_probe_classifier(f.probe, 7)->name,
                     "classifier_3_blocks_avgpool_True_lr_0_05000");
    teardown(&f);
}

Test(linear_probe, starts_with_small_normal_weights)
{
    LinearProbeSpec spec = make_spec();
    spec.embed_dim = 200;
    spec.classes = 30;
    Fixture f = fixture(spec, comm_self_create()), again = fixture(spec, comm_self_create());
    for (int i = 0; i < GRID; i++) {
        const LinearClassifier *classifier = linear_probe_classifier(f.probe, i);
        int64_t count = spec.classes * classifier->columns;
        double sum = 0.0, squares = 0.0;
        for (int64_t j = 0; j < count; j++) {
            sum += (double)classifier->weight[j];
            squares += (double)classifier->weight[j] * (double)classifier->weight[j];
        }
        cr_expect_float_eq(sum / (double)count, 0.0, 0.01 * 5.0 / sqrt((double)count));
        cr_expect_float_eq(sqrt(squares / (double)count), 0.01, 0.01 * 5.0 / sqrt(2.0 * (double)count));
        for (int64_t k = 0; k < spec.classes; k++)
            cr_expect_eq(classifier->bias[k], 0.0f);
        cr_expect_arr_eq(classifier->weight, linear_probe_classifier(again.probe, i)->weight,
                         (size_t)count * sizeof(float));
        if (i > 0)
            cr_expect_neq(classifier->weight[0], linear_probe_classifier(f.probe, i - 1)->weight[0],
                          "classifiers %d and %d start alike", i - 1, i);
    }
    teardown(&f);
    teardown(&again);
}

/* Share of fresh rows for which a classifier's highest score is the label's. */
static double accuracy(Fixture *f, int classifier)
{
    int right = 0;
    for (uint64_t seed = 500; seed < 520; seed++) {
        Batch batch;
        make_batch(&batch, seed);
        linear_probe_predict(f->probe, &batch.tokens);
        for (int64_t row = 0; row < ROWS; row++) {
            const float *scores = linear_probe_scores(f->probe, classifier, row);
            int64_t best = 0;
            for (int64_t k = 1; k < CLASSES; k++)
                best = scores[k] > scores[best] ? k : best;
            right += best == batch.labels[row];
        }
    }
    return right / (20.0 * ROWS);
}

Test(linear_probe, learns_classes_that_a_plane_can_part)
{
    LinearProbeSpec spec = make_spec();
    spec.max_iterations = 200;
    Fixture f = fixture(spec, comm_self_create());
    double losses[GRID];
    for (uint64_t seed = 0; seed < 200; seed++) {
        Batch batch;
        make_batch(&batch, 1000 + seed);
        step(&f, &batch, losses);
    }
    for (int i = GRID / 2; i < GRID; i++)
        cr_expect_gt(accuracy(&f, i), 0.95, "classifier %d on three blocks: %.3f", i, accuracy(&f, i));
    teardown(&f);
}

Test(linear_probe, one_that_diverges_harms_no_other)
{
    Fixture sane = fixture(make_spec(), comm_self_create()), mad = fixture(make_spec(), comm_self_create());
    for (int i = 1; i < GRID; i += RATES)
        linear_probe_classifier(mad.probe, i)->weight[1] = INFINITY;
    double losses[GRID], mad_losses[GRID];
    for (uint64_t seed = 0; seed < 4; seed++) {
        Batch batch;
        make_batch(&batch, seed);
        step(&sane, &batch, losses);
        step(&mad, &batch, mad_losses);
    }
    for (int i = 0; i < GRID; i += RATES) {
        const LinearClassifier *a = linear_probe_classifier(sane.probe, i),
                               *b = linear_probe_classifier(mad.probe, i);
        cr_expect_eq(losses[i], mad_losses[i]);
        cr_expect_not(isfinite(mad_losses[i + 1]), "%g", mad_losses[i + 1]);
        cr_expect_arr_eq(a->weight, b->weight, (size_t)(CLASSES * a->columns) * sizeof(float));
    }
    teardown(&sane);
    teardown(&mad);
}

Test(linear_probe, features_that_are_not_numbers_change_nothing)
{
    Fixture f = fixture(make_spec(), comm_self_create());
    Batch batch;
    make_batch(&batch, 1);
    batch.class_tokens[BLOCKS - 1][2 * DIM] = NAN;
    const LinearClassifier *classifier = linear_probe_classifier(f.probe, 0);
    float before = classifier->weight[0];
    double losses[GRID];
    cr_expect_eq(linear_probe_step(f.probe, &batch.tokens, batch.labels, losses, &f.error), STATUS_FAILED);
    cr_expect(strstr(f.error.text, "iteration 0"), "%s", f.error.text);
    cr_expect_eq(classifier->weight[0], before);
    cr_expect_eq(linear_probe_iteration(f.probe), 0);
    make_batch(&batch, 1);
    step(&f, &batch, losses);
    cr_expect(isfinite(losses[0]) && isfinite(classifier->weight[0]), "nothing of it is left");
    teardown(&f);
}

Test(linear_probe, steps_and_predictions_allocate_nothing)
{
    Fixture f = fixture(make_spec(), comm_self_create());
    Batch batch;
    make_batch(&batch, 2);
    double losses[GRID];
    int64_t before = memory_allocation_count();
    step(&f, &batch, losses);
    linear_probe_predict(f.probe, &batch.tokens);
    step(&f, &batch, losses);
    cr_expect_eq(memory_allocation_count(), before);
    teardown(&f);
}

/* --- two ranks that hold the same batch --- */

static void twin_nothing(Comm *comm)
{
    (void)comm;
}

static void twin_reserve(Comm *comm, size_t bytes, int under_way)
{
    (void)comm;
    (void)bytes;
    (void)under_way;
}

static void twin_wait(Comm *comm, int place)
{
    (void)comm;
    (void)place;
}

static void twin_all_gather_start(Comm *comm, int place, void *out, const void *in, size_t bytes)
{
    (void)comm;
    (void)place;
    for (size_t rank = 0; rank < 2; rank++)
        memmove((char *)out + rank * bytes, in, bytes);
}

static void twin_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    cr_assert(dtype == DTYPE_F32 && reduce == COMM_SUM);
    (*(int *)comm->state)++;
    for (int64_t i = 0; i < count; i++)
        ((float *)buffer)[i] *= 2.0f;
}

Test(linear_probe, ranks_average_and_scale_the_learning_rate)
{
    static const CommBackend twins = {.name = "twins",
                                      .destroy = twin_nothing,
                                      .all_gather_start = twin_all_gather_start,
                                      .wait = twin_wait,
                                      .all_reduce = twin_all_reduce,
                                      .reserve = twin_reserve};
    int reductions = 0;
    LinearProbeSpec spec = make_spec();
    Fixture two = fixture(spec, comm_backend_create(&twins, &reductions, 0, 2));
    double doubled[] = {16.0, 40.0};
    spec.learning_rates = doubled;
    Fixture one = fixture(spec, comm_self_create());
    double losses[GRID], expected[GRID];
    for (uint64_t seed = 0; seed < 3; seed++) {
        Batch batch;
        make_batch(&batch, 30 + seed);
        step(&two, &batch, losses);
        step(&one, &batch, expected);
        cr_expect_arr_eq(losses, expected, sizeof losses);
    }
    cr_expect_eq(reductions, 3, "one all-reduce a step");
    for (int i = 0; i < GRID; i++) {
        const LinearClassifier *a = linear_probe_classifier(two.probe, i),
                               *b = linear_probe_classifier(one.probe, i);
        cr_expect_eq(a->scaled_lr, b->scaled_lr);
        cr_expect_arr_eq(a->weight, b->weight, (size_t)(CLASSES * a->columns) * sizeof(float));
        cr_expect_arr_eq(a->bias, b->bias, CLASSES * sizeof(float));
    }
    teardown(&two);
    teardown(&one);
}

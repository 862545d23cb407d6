/* case_linear.c - the linear probe on features files, for a peer that does the same
 * (tests/support/evaluate_peer.py). */
#include "base/memory.h"
#include "eval/accuracy.h"
#include "eval/linear_probe.h"
#include "features/features_file.h"
#include "mpi_case.h"

#include <math.h>
#include <stdio.h>

/* The learning rates of the reference's program; batches of 256, whose row i of step s is row 7919 (256 s +
 * i) modulo all. The peer has the same. */
static const double RATES[] = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1};
enum { RATE_COUNT = sizeof RATES / sizeof *RATES, BATCH = 256, STRIDE = 7919 };

typedef struct {
    int64_t n, d, classes;
    float *rows;
    int64_t *labels;
} Rows;

static Status read_rows(Rows *rows, const char *path, Error *error)
{
    FeaturesFile file = {0};
    TRY(features_file_open(&file, path, error));
    *rows = (Rows){.n = file.n, .d = file.d, .classes = file.classes};
    rows->rows = memory_alloc_array((size_t)(file.n * file.d), sizeof *rows->rows);
    rows->labels = memory_alloc_array((size_t)file.n, sizeof *rows->labels);
    Status status = features_file_read(&file, 0, file.n, rows->rows, rows->labels, error);
    features_file_close(&file);
    return status;
}

/* The classifiers without the mean patch token, which features files lack, come first. */
static LinearProbeTokens tokens_of(const float *const *class_tokens, int64_t rows)
{
    return (LinearProbeTokens){.rows = rows, .blocks = 1, .class_tokens = class_tokens};
}

static Status write_weights(LinearProbe *probe, const char *path, const Rows *rows, Error *error)
{
    FILE *file = fopen(path, "wbe");
    if (!file) return status_fail(error, STATUS_INPUT, "%s: cannot be written", path);
    for (int k = 0; k < RATE_COUNT; k++)
        fwrite(linear_probe_classifier(probe, k)->weight, sizeof(float), (size_t)(rows->classes * rows->d),
               file);
    return fclose(file) == 0 ? STATUS_OK : status_fail(error, STATUS_FAILED, "%s: cannot be written", path);
}

static Status train(LinearProbe *probe, const Rows *rows, int64_t steps, Error *error)
{
    float *batch = memory_alloc_array((size_t)(BATCH * rows->d), sizeof *batch);
    const float *class_tokens[] = {batch};
    LinearProbeTokens tokens = tokens_of(class_tokens, BATCH);
    Status status = STATUS_OK;
    for (int64_t step = 0; step < steps && status == STATUS_OK; step++) {
        int64_t labels[BATCH];
        double losses[RATE_COUNT];
        for (int64_t i = 0; i < BATCH; i++) {
            int64_t row = (step * BATCH + i) * STRIDE % rows->n;
            for (int64_t j = 0; j < rows->d; j++)
                batch[i * rows->d + j] = rows->rows[row * rows->d + j];
            labels[i] = rows->labels[row];
        }
        status = linear_probe_step(probe, &tokens, labels, losses, error);
    }
    memory_free(batch);
    return status;
}

/* Top-1 of each learning rate, a line each. */
static void test(LinearProbe *probe, const Rows *rows, Comm *comm)
{
    int64_t cells = accuracy_cells(rows->classes);
    int64_t *counts = memory_alloc_array((size_t)(RATE_COUNT * cells), sizeof *counts);
    for (int64_t first = 0; first < rows->n; first += BATCH) {
        int64_t n = rows->n - first < BATCH ? rows->n - first : BATCH;
        const float *class_tokens[] = {rows->rows + first * rows->d};
        LinearProbeTokens tokens = tokens_of(class_tokens, n);
        linear_probe_predict(probe, &tokens);
        for (int k = 0; k < RATE_COUNT; k++)
            for (int64_t i = 0; i < n; i++)
                accuracy_add(counts + k * cells, linear_probe_scores(probe, k, i), rows->labels + first + i,
                             1, rows->classes, -INFINITY);
    }
    for (int k = 0; k < RATE_COUNT; k++) {
        Accuracy accuracy;
        accuracy_reduce(&accuracy, comm, counts + k * cells, rows->classes);
        printf("%g %.6f\n", RATES[k], 100 * accuracy.top1);
    }
    memory_free(counts);
}

/* TRAIN.h5 VAL.h5 WEIGHTS STEPS: writes the initial weights [rates, classes, d] fp32, trains, prints. By
 * hand. */
Status case_linear_peer(MpiCase *c)
{
    static const int64_t last_blocks[] = {1};
    Rows rows = {0}, asked = {0};
    int64_t steps = mpi_case_number(c, 3, 800);
    TRY(read_rows(&rows, c->argv[0], &c->error));
    TRY(read_rows(&asked, c->argv[1], &c->error));
    LinearProbeSpec spec = {.embed_dim = rows.d,
                            .classes = rows.classes,
                            .batch_rows = BATCH,
                            .max_iterations = steps,
                            .last_blocks = last_blocks,
                            .learning_rates = RATES,
                            .last_blocks_count = 1,
                            .learning_rate_count = RATE_COUNT,
                            .momentum = 0.9,
                            .seed = 1,
                            .tokens_alone = true};
    OpsLimits limits = linear_probe_limits(&spec);
    Device *device = device_open_host();
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = 1});
    LinearProbe *probe = linear_probe_create(&spec, ops, c->comm);
    Status status = write_weights(probe, c->argv[2], &rows, &c->error);
    if (status == STATUS_OK) status = train(probe, &rows, steps, &c->error);
    if (status == STATUS_OK) test(probe, &asked, c->comm);
    linear_probe_destroy(probe);
    ops_destroy(ops);
    device_close(device);
    float *owned[] = {rows.rows, asked.rows};
    for (int i = 0; i < 2; i++)
        memory_free(owned[i]);
    memory_free(rows.labels);
    memory_free(asked.labels);
    return status;
}

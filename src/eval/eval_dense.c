/* eval_dense.c - see eval_dense.h. */
#include "eval/eval_dense.h"

#include "base/clock.h"
#include "base/memory.h"
#include "eval/dense_maps.h"
#include "eval/dense_tokens.h"
#include "eval/linear_state.h"
#include "run/progress.h"
#include "run/signals.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum {
    RATES = 5,
    PROGRESS_LINES = 100,
    BLOCK_ROWS = 1024, /* places that go through the classifiers at a time */
    OBSERVED = 64,     /* training samples that mean and variance are of */
    VIEWS_MAX = 2 * CONFIG_LIST_MAX
};

static const double LEARNING_RATES[RATES] = {1e-2, 3e-2, 0.1, 0.3, 1.0};
static const double LR_BATCH = 256.0, MOMENTUM = 0.9;

/* Everything of one evaluation. */
typedef struct {
    const EvalDense *eval;
    const EvalParams *params;
    DenseTask task;
    DataSet *train;
    int64_t rows; /* of this rank's part of a batch */
    Device *host;
    Ops *ops; /* of the host, for the classifiers */
    DenseTokens *tokens;
    LinearProbe *probe;
    LinearState state;
    DenseMaps maps[VIEWS_MAX]; /* the first: of training, too */
    int64_t view_count;
    PairView views[VIEWS_MAX];
    DenseWork *work; /* [threads] */
    double *losses;  /* [classifiers] */
    EvalDenseResult *result;
} Work;

/* --- settings --- */

static const char *name_of(const EvalDense *eval)
{
    return eval->kind == EVAL_DEPTH ? "depth" : "segmentation";
}

/* Opened, with masks. Not collective. */
static Status open_set(const Work *w, const char *spec, const char *name, DataSet **set, Error *error)
{
    if (*spec == '\0')
        return status_fail(error, STATUS_INPUT, "%s: not given, and %s needs it", name, name_of(w->eval));
    Status status = eval_sets_open_data(set, spec, w->params->config->evaluation.limit, error);
    if (status != STATUS_OK) return status_prefix(error, status, "%s", name);
    if (data_set_has_masks(*set)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: %s has no masks, and %s needs them (pairs:DIR has)", name,
                       spec, name_of(w->eval));
}

static Status make_task(Work *w, Error *error)
{
    const Config *config = w->params->config;
    if (w->eval->kind == EVAL_DEPTH) {
        const double *range = config->evaluation.depth_range;
        if (range[0] == range[1])
            return status_fail(error, STATUS_INPUT, "evaluation.depth_range: expected two depths, got one");
        w->task =
            depth_task(range[0], range[1], config->evaluation.depth_bins, config->evaluation.depth_scale);
        return STATUS_OK;
    }
    int64_t classes = config->evaluation.segmentation_classes;
    if (classes == 0) {
        int64_t named = data_set_class_count(w->train);
        if (named == 0)
            return status_fail(error, STATUS_INPUT,
                               "evaluation.segmentation_classes: 0, and %s names no classes",
                               config->evaluation.train_dataset_path);
        classes = named + 1;
    }
    w->task = segmentation_task(classes, config->evaluation.segmentation_ignore);
    return STATUS_OK;
}

/* Everything that can be refused before a network runs. Not collective. */
static Status check(Work *w, Error *error)
{
    const Config *config = w->params->config;
    const EvalDense *eval = w->eval;
    int ranks = comm_size(w->params->comm);
    int64_t batch = config->evaluation.dense_batch_size, depth = eval->backbone->vit->config.depth;
    if (batch % ranks != 0)
        return status_fail(error, STATUS_INPUT,
                           "evaluation.dense_batch_size: %lld is not a multiple of the %d ranks",
                           (long long)batch, ranks);
    w->rows = batch / ranks;
    const ConfigList *blocks = &config->evaluation.linear_last_blocks;
    for (int i = 0; i < blocks->count; i++)
        if (blocks->values[i] > depth)
            return status_fail(error, STATUS_INPUT,
                               "evaluation.linear_last_blocks: %lld of the network's %lld blocks",
                               (long long)blocks->values[i], (long long)depth);
    TRY(open_set(w, config->evaluation.train_dataset_path, "evaluation.train_dataset_path", &w->train,
                 error));
    TRY(make_task(w, error));
    for (int i = -1; i < eval->test_count; i++) {
        DataSet *set = NULL;
        Status status = i < 0 ? open_set(w, config->evaluation.val_dataset_path,
                                         "evaluation.val_dataset_path", &set, error)
                              : open_set(w, eval->test_specs[i], "--test-data", &set, error);
        data_set_destroy(set);
        TRY(status);
    }
    return STATUS_OK;
}

/* Of all that the training depends on but the number of ranks. */
static uint64_t digest_of(const Work *w, const LinearProbeSpec *spec)
{
    const Config *config = w->params->config;
    const DenseTask *task = &w->task;
    double numbers[] = {
        (double)w->eval->kind,
        (double)task->channels,
        (double)task->ignore,
        task->low,
        task->high,
        task->scale,
        (double)config->evaluation.dense_size,
        (double)config->evaluation.dense_crop,
        config->evaluation.dense_scale[0],
        config->evaluation.dense_scale[1],
        config->evaluation.dense_flip,
        (double)config->evaluation.dense_batch_size,
        (double)config->evaluation.limit,
        (double)config->train.seed,
        (double)spec->max_iterations,
        (double)spec->embed_dim,
    };
    const char *train = config->evaluation.train_dataset_path;
    uint64_t hash = rng_hash_bytes(RNG_HASH_START, numbers, sizeof numbers);
    hash = rng_hash_bytes(hash, train, strlen(train));
    hash = rng_hash_bytes(hash, w->eval->subject, strlen(w->eval->subject));
    hash =
        rng_hash_bytes(hash, spec->last_blocks, (size_t)spec->last_blocks_count * sizeof *spec->last_blocks);
    return rng_hash_bytes(hash, spec->learning_rates,
                          (size_t)spec->learning_rate_count * sizeof *spec->learning_rates);
}

static void make_views(Work *w)
{
    const Config *config = w->params->config;
    const ConfigList *scales = &config->evaluation.dense_test_scales;
    for (int i = 0; i < scales->count; i++)
        for (int mirror = 0; mirror <= (config->evaluation.dense_test_flip ? 1 : 0); mirror++)
            w->views[w->view_count++] = (PairView){(double)scales->values[i] / 100.0, mirror == 1};
}

/* The probe of the grid, and all memory that does not depend on pictures. */
static Status make_probe(Work *w, Error *error)
{
    const EvalParams *params = w->params;
    const Config *config = params->config;
    const ConfigList *blocks = &config->evaluation.linear_last_blocks;
    int64_t kinds = w->task.class_token ? 2 : 1, read[CONFIG_LIST_MAX], most = 0;
    for (int i = 0; i < blocks->count; i++) {
        read[i] = kinds * blocks->values[i];
        most = blocks->values[i] > most ? blocks->values[i] : most;
    }
    double rates[RATES], unscale = LR_BATCH / (double)(BLOCK_ROWS * comm_size(params->comm));
    double only = config->evaluation.linear_learning_rate;
    for (int i = 0; i < RATES; i++)
        rates[i] = (only > 0 ? only : LEARNING_RATES[i]) * unscale;
    LinearProbeSpec spec = {.embed_dim = w->eval->backbone->vit->config.embed_dim,
                            .classes = w->task.channels,
                            .batch_rows = BLOCK_ROWS,
                            .max_iterations = config->evaluation.dense_iterations,
                            .last_blocks = read,
                            .learning_rates = rates,
                            .last_blocks_count = blocks->count,
                            .learning_rate_count = only > 0 ? 1 : RATES,
                            .momentum = MOMENTUM,
                            .seed = (uint64_t)config->train.seed,
                            .tokens_alone = true};
    OpsLimits limits = linear_probe_limits(&spec);
    w->host = device_open_host();
    w->ops = ops_create(w->host, &limits, &(OpsOptions){.threads = params->threads});
    w->probe = linear_probe_create(&spec, w->ops, params->comm);
    for (int64_t v = 0; v < w->view_count; v++)
        w->maps[v] = dense_maps_of(w->probe, w->task.channels, BLOCK_ROWS);
    w->work = memory_alloc_array((size_t)w->ops->threads, sizeof *w->work);
    w->losses = memory_alloc_array((size_t)linear_probe_count(w->probe), sizeof *w->losses);
    for (int i = 0; i < spec.learning_rate_count; i++)
        rates[i] /= unscale;
    w->state = (LinearState){.path = w->eval->state_path, .digest = digest_of(w, &spec)};
    Status status =
        dense_tokens_create(&w->tokens, params, w->eval->backbone, most, w->task.class_token, error);
    return comm_agree(params->comm, status, error);
}

static void name_classifiers(Work *w)
{
    EvalDenseResult *result = w->result;
    result->count = linear_probe_count(w->probe);
    result->classifiers = memory_alloc_array((size_t)result->count, sizeof *result->classifiers);
    for (int c = 0; c < result->count; c++) {
        const LinearClassifier *classifier = linear_probe_classifier(w->probe, c);
        result->classifiers[c].last_blocks = classifier->last_blocks / (w->task.class_token ? 2 : 1);
        result->classifiers[c].learning_rate = classifier->scaled_lr;
    }
}

/* What training and tests have in common. */
static PairLoaderParams loader_params(const Work *w)
{
    const Config *config = w->params->config;
    bool classes = w->eval->kind == EVAL_SEGMENTATION;
    PairLoaderParams loader = {.patch_size = w->eval->backbone->vit->config.patch_size,
                               .size = config->evaluation.dense_size,
                               .mask_bits = w->task.mask_bits,
                               .classes = classes ? w->task.channels : 0,
                               .ignore = w->task.ignore,
                               .grayscale = eval_sets_input(config).grayscale,
                               .num_workers = (int)config->train.num_workers};
    for (int c = 0; c < 3; c++)
        loader.padding[c] = (uint8_t)lround(255.0 * (double)w->eval->norm.mean[c]);
    return loader;
}

/* --- training --- */

static Status open_training(const Work *w, int64_t step, int64_t step_end, PairLoader **loader, Error *error)
{
    const Config *config = w->params->config;
    PairLoaderParams params = loader_params(w);
    params.scale[0] = config->evaluation.dense_scale[0];
    params.scale[1] = config->evaluation.dense_scale[1];
    params.crop = config->evaluation.dense_crop;
    params.flip = config->evaluation.dense_flip;
    params.seed = (uint64_t)config->train.seed;
    params.batch_size = config->evaluation.dense_batch_size;
    params.first = w->rows * comm_rank(w->params->comm);
    params.count = w->rows;
    params.step = step;
    params.step_end = step_end;
    return comm_agree(w->params->comm, pair_loader_create(loader, &params, w->train, error), error);
}

/* Mean and variance of the tokens, from samples that the training begins with. Collective over COMM. */
static Status observe(Work *w, Error *error)
{
    int64_t batch = w->params->config->evaluation.dense_batch_size, steps = (OBSERVED + batch - 1) / batch;
    PairLoader *loader = NULL;
    Status status = open_training(w, 0, steps, &loader, error);
    for (int64_t step = 0; step < steps && status == STATUS_OK; step++) {
        PairBatch *samples = NULL;
        status = comm_agree(w->params->comm, pair_loader_next(loader, &samples, error), error);
        if (status != STATUS_OK) break;
        for (int64_t i = 0; i < samples->count; i++)
            dense_tokens_observe(w->tokens, &samples->samples[i]);
        pair_loader_release(loader, samples);
    }
    if (status == STATUS_OK) dense_tokens_settle(w->tokens);
    pair_loader_destroy(loader);
    return status;
}

/* One step. Collective over COMM. */
static Status step(Work *w, const PairBatch *batch, Error *error)
{
    EvalDenseResult *result = w->result;
    int64_t patch = w->eval->backbone->vit->config.patch_size;
    double weight = 1.0 / (double)w->params->config->evaluation.dense_batch_size;
    memset(w->losses, 0, (size_t)result->count * sizeof *w->losses);
    for (int64_t i = 0; i < batch->count; i++) {
        double start = clock_seconds();
        LinearProbeTokens tokens = dense_tokens_run(w->tokens, &batch->samples[i]);
        result->backbone_seconds += clock_seconds() - start;
        dense_maps_forward(&w->maps[0], &tokens);
#pragma omp parallel for schedule(dynamic, 1) num_threads(w->ops->threads)
        for (int c = 0; c < result->count; c++)
            w->losses[c] += weight * w->task.learn(&w->task, &w->work[omp_get_thread_num()], patch,
                                                   &batch->samples[i], w->maps[0].map[c], weight);
        dense_maps_backward(&w->maps[0], &tokens);
    }
    result->wait_seconds += batch->wait_seconds;
    result->steps++;
    return linear_probe_descend(w->probe, w->losses, error);
}

/* Steps up to the last. Collective over COMM. */
static Status train_steps(Work *w, PairLoader *loader, Error *error)
{
    const Config *config = w->params->config;
    int64_t last = config->evaluation.dense_iterations;
    char what[64];
    snprintf(what, sizeof what, "%s: training", name_of(w->eval));
    Progress progress = progress_begin(w->params->log, what, linear_probe_iteration(w->probe), last,
                                       last / PROGRESS_LINES + 1);
    Status status = STATUS_OK;
    while (linear_probe_iteration(w->probe) < last && status == STATUS_OK) {
        PairBatch *batch = NULL;
        status = comm_agree(w->params->comm, pair_loader_next(loader, &batch, error), error);
        if (status == STATUS_OK) status = step(w, batch, error);
        if (status != STATUS_OK) break;
        pair_loader_release(loader, batch);
        char detail[64];
        snprintf(detail, sizeof detail, "loss %.4f", w->losses[w->result->count / 2]);
        progress_update(&progress, linear_probe_iteration(w->probe), detail);
        status = linear_state_pause(&w->state, w->probe, w->params->comm, w->params->log,
                                    config->evaluation.linear_save_iterations, error);
    }
    progress_end(&progress);
    return status;
}

static Status train(Work *w, Error *error)
{
    double start = clock_seconds();
    TRY(observe(w, error));
    if (w->eval->resume) linear_state_restore(&w->state, w->probe, w->params->comm, w->params->log);
    PairLoader *loader = NULL;
    Status status = open_training(w, linear_probe_iteration(w->probe),
                                  w->params->config->evaluation.dense_iterations, &loader, error);
    if (status == STATUS_OK) status = train_steps(w, loader, error);
    if (status == STATUS_OK && w->state.path) /* so that a test that is cut off begins with it */
        status = linear_state_save(&w->state, w->probe, w->params->comm, error);
    pair_loader_destroy(loader);
    for (int c = 0; c < w->result->count; c++)
        w->result->classifiers[c].loss = w->losses[c];
    w->result->train_seconds = clock_seconds() - start;
    return status;
}

/* --- measuring --- */

static void measure_picture(Work *w, const PairBatch *views, double *cells)
{
    int64_t patch = w->eval->backbone->vit->config.patch_size;
    for (int64_t v = 0; v < views->count; v++) {
        LinearProbeTokens tokens = dense_tokens_run(w->tokens, &views->samples[v]);
        dense_maps_forward(&w->maps[v], &tokens);
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(w->ops->threads)
    for (int c = 0; c < w->result->count; c++) {
        float *maps[VIEWS_MAX];
        for (int64_t v = 0; v < views->count; v++)
            maps[v] = w->maps[v].map[c];
        w->task.measure(&w->task, &w->work[omp_get_thread_num()], patch, views->samples, views->count, maps,
                        cells + c * w->task.cells);
    }
}

/* This rank's part of a set. Not collective. */
static Status measure_part(Work *w, const DataSet *set, double *cells, Error *error)
{
    int64_t n = data_set_count(set), rank = comm_rank(w->params->comm), ranks = comm_size(w->params->comm);
    PairLoaderParams params = loader_params(w);
    params.views = w->views;
    params.view_count = w->view_count;
    params.first = n * rank / ranks;
    params.count = n * (rank + 1) / ranks - params.first;
    PairLoader *loader = NULL;
    TRY(pair_loader_create(&loader, &params, set, error));
    Status status;
    for (;;) {
        PairBatch *views = NULL;
        status = pair_loader_next(loader, &views, error);
        if (status != STATUS_OK || !views) break;
        measure_picture(w, views, cells);
        pair_loader_release(loader, views);
    }
    pair_loader_destroy(loader);
    return status;
}

/* All classifiers on one set. Collective over COMM. */
static Status measure(Work *w, const char *spec, const char *name, EvalDenseSet *out, Error *error)
{
    Comm *comm = w->params->comm;
    int64_t count = w->result->count * w->task.cells;
    out->spec = spec;
    out->cells = memory_alloc_array((size_t)count, sizeof *out->cells);
    DataSet *set = NULL;
    Status status = open_set(w, spec, name, &set, error);
    if (status == STATUS_OK) out->pictures = data_set_count(set);
    if (status == STATUS_OK) status = measure_part(w, set, out->cells, error);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) comm_all_reduce(comm, out->cells, count, DTYPE_F64, COMM_SUM, NULL);
    data_set_destroy(set);
    return status;
}

/* --- all of it --- */

static Status run(Work *w, Error *error)
{
    const Config *config = w->params->config;
    EvalDenseResult *result = w->result;
    TRY(comm_agree(w->params->comm, check(w, error), error));
    make_views(w);
    TRY(make_probe(w, error));
    name_classifiers(w);
    result->task = w->task;
    result->train_images = data_set_count(w->train);
    TRY(train(w, error));
    result->set_count = w->eval->test_count + 1;
    result->sets = memory_alloc_array((size_t)result->set_count, sizeof *result->sets);
    TRY(measure(w, config->evaluation.val_dataset_path, "evaluation.val_dataset_path", &result->sets[0],
                error));
    double best = -INFINITY;
    for (int c = 0; c < result->count; c++) {
        double score = w->task.score(&w->task, result->sets[0].cells + c * w->task.cells);
        if (score > best) result->best = c;
        best = fmax(best, score);
    }
    for (int i = 0; i < w->eval->test_count; i++)
        TRY(measure(w, w->eval->test_specs[i], "--test-data", &result->sets[i + 1], error));
    return STATUS_OK;
}

Status eval_dense_run(const EvalDense *eval, EvalDenseResult *result, Error *error)
{
    double start = clock_seconds();
    const Config *config = eval->params->config;
    *result = (EvalDenseResult){.iterations = config->evaluation.dense_iterations,
                                .batch_size = config->evaluation.dense_batch_size};
    Work w = {.eval = eval, .params = eval->params, .result = result};
    Status status = run(&w, error);
    for (int64_t v = 0; v < w.view_count; v++)
        dense_maps_fini(&w.maps[v]);
    for (int t = 0; w.work && t < w.ops->threads; t++)
        dense_work_fini(&w.work[t]);
    memory_free(w.work);
    memory_free(w.losses);
    linear_probe_destroy(w.probe);
    dense_tokens_destroy(w.tokens);
    if (w.ops) ops_destroy(w.ops);
    if (w.host) device_close(w.host);
    data_set_destroy(w.train);
    result->seconds = clock_seconds() - start;
    return status;
}

void eval_dense_fini(EvalDenseResult *result)
{
    for (int i = 0; i < result->set_count; i++)
        memory_free(result->sets[i].cells);
    memory_free(result->sets);
    memory_free(result->classifiers);
    *result = (EvalDenseResult){0};
}

/* eval_linear.c - see eval_linear.h. */
#include "eval/eval_linear.h"

#include "base/clock.h"
#include "base/memory.h"
#include "data/eval_loader.h"
#include "data/loader.h"
#include "eval/linear_state.h"
#include "eval/linear_tokens.h"
#include "ops/ops_options.h"
#include "run/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RATES = 13, PREFETCH = 2, PROGRESS_LINES = 100 };

static const double CODE_RATES[RATES] = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3,
                                         2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1};
static const double PAPER_RATES[RATES] = {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2,
                                          2e-2, 5e-2, 0.1,  0.2,  0.3,  0.5};

/* Share of a picture's area that a training crop takes (torchvision's RandomResizedCrop). */
static const double CROP_AREA_MIN = 0.08, LR_BATCH = 256.0, MOMENTUM = 0.9;

/* Everything of one evaluation. */
typedef struct {
    const EvalLinear *eval;
    const EvalParams *params;
    EvalSets *sets;
    FeatureInput input;
    int64_t rows; /* of this rank's part of a batch */
    Device *host;
    Ops *ops, *probe_ops; /* of the backbone's device; of the host */
    LinearTokens *tokens;
    LinearProbe *probe;
    LinearState state;
    EvalLinearResult *result;
} Work;

/* --- settings --- */

static Status check(Work *w, Error *error)
{
    const Config *config = w->params->config;
    int ranks = comm_size(w->params->comm);
    int64_t batch = config->evaluation.linear_batch_size, depth = w->eval->backbone->vit->config.depth;
    if (batch % ranks != 0)
        return status_fail(error, STATUS_INPUT,
                           "evaluation.linear_batch_size: %lld is not a multiple of the %d ranks",
                           (long long)batch, ranks);
    const ConfigList *blocks = &config->evaluation.linear_last_blocks;
    for (int i = 0; i < blocks->count; i++)
        if (blocks->values[i] > depth)
            return status_fail(error, STATUS_INPUT,
                               "evaluation.linear_last_blocks: %lld of the network's %lld blocks",
                               (long long)blocks->values[i], (long long)depth);
    w->rows = batch / ranks;
    return STATUS_OK;
}

/* The rates as linear_probe wants them, for a batch of 256; returns their number. */
static int grid_rates(const Config *config, double rates[RATES])
{
    double unscale = LR_BATCH / (double)config->evaluation.linear_batch_size;
    bool code = config->evaluation.linear_grid == CONFIG_GRID_CODE;
    if (config->evaluation.linear_learning_rate > 0) {
        rates[0] = config->evaluation.linear_learning_rate * unscale;
        return 1;
    }
    for (int i = 0; i < RATES; i++)
        rates[i] = code ? CODE_RATES[i] : PAPER_RATES[i] * unscale;
    return RATES;
}

/* Of all that the training depends on but the number of ranks. */
static uint64_t digest_of(const Work *w, const LinearProbeSpec *spec)
{
    const Config *config = w->params->config;
    char text[256];
    int length =
        snprintf(text, sizeof text, "%lld %lld %lld %lld %lld %lld %lld %d", (long long)w->input.crop_size,
                 (long long)config->evaluation.linear_batch_size, (long long)spec->max_iterations,
                 (long long)spec->embed_dim, (long long)spec->classes, (long long)config->train.seed,
                 (long long)config->evaluation.limit, spec->last_blocks_count);
    uint64_t hash = rng_hash_bytes(RNG_HASH_START, text, (size_t)length);
    const char *train = config->evaluation.train_dataset_path;
    hash = rng_hash_bytes(hash, train, strlen(train));
    hash = rng_hash_bytes(hash, w->eval->subject, strlen(w->eval->subject));
    hash =
        rng_hash_bytes(hash, spec->last_blocks, (size_t)spec->last_blocks_count * sizeof *spec->last_blocks);
    return rng_hash_bytes(hash, spec->learning_rates,
                          (size_t)spec->learning_rate_count * sizeof *spec->learning_rates);
}

static Status make_probe(Work *w, Error *error)
{
    const EvalParams *params = w->params;
    const Config *config = params->config;
    const FeatureBackbone *backbone = w->eval->backbone;
    const ConfigList *blocks = &config->evaluation.linear_last_blocks;
    double rates[RATES];
    LinearProbeSpec spec = {.embed_dim = backbone->vit->config.embed_dim,
                            .classes = eval_sets_classes(w->sets),
                            .batch_rows = w->rows,
                            .max_iterations = config->evaluation.linear_iterations,
                            .last_blocks = blocks->values,
                            .learning_rates = rates,
                            .last_blocks_count = blocks->count,
                            .learning_rate_count = grid_rates(config, rates),
                            .momentum = MOMENTUM,
                            .seed = (uint64_t)config->train.seed};
    int64_t most = 0;
    for (int i = 0; i < blocks->count; i++)
        most = blocks->values[i] > most ? blocks->values[i] : most;
    OpsLimits limits = linear_probe_limits(&spec);
    w->host = device_open_host();
    w->probe_ops = ops_create(w->host, &limits, &(OpsOptions){.threads = params->threads});
    w->probe = linear_probe_create(&spec, w->probe_ops, params->comm);
    w->state = (LinearState){.path = w->eval->state_path, .digest = digest_of(w, &spec)};

    OpsOptions options;
    Status status = ops_options_from(&options, config, params->device, params->threads, error);
    TRY(comm_agree(params->comm, status, error));
    int64_t pass = w->rows < w->input.batch_size ? w->rows : w->input.batch_size, edge = w->input.crop_size;
    limits = backbone_pass_limits(backbone, pass, edge, edge);
    w->ops = ops_create(params->device, &limits, &options);
    LinearTokensSpec tokens = {
        .blocks = most, .most = w->rows, .pass_images = pass, .height = edge, .width = edge};
    w->tokens = linear_tokens_create(backbone, params->device, &tokens);
    return STATUS_OK;
}

/* --- training --- */

static LoaderParams training_loader(const Work *w)
{
    const EvalParams *params = w->params;
    AugmentView view = {.size = w->input.crop_size,
                        .scale_min = CROP_AREA_MIN,
                        .scale_max = 1.0,
                        .ratio_min = 3.0 / 4.0,
                        .ratio_max = 4.0 / 3.0,
                        .flip = 0.5,
                        .grayscale = w->input.grayscale ? 1.0 : 0.0};
    AugmentParams augment = augment_params_default();
    augment.global[0] = augment.global[1] = augment.local = view;
    augment.local_count = 0;
    int ranks = comm_size(params->comm);
    return (LoaderParams){.augment = augment,
                          .patch_size = params->config->student.patch_size,
                          .seed = (uint64_t)params->config->train.seed,
                          .group_size = w->rows,
                          .total_groups = ranks,
                          .first_group = comm_rank(params->comm),
                          .groups = 1,
                          .first_step = linear_probe_iteration(w->probe),
                          .num_workers = w->input.num_workers,
                          .prefetch = PREFETCH,
                          .in_use = 1};
}

/* One step on a loaded batch. pictures: room for one crop of each. Collective over COMM. */
static Status step(Work *w, const Batch *batch, uint8_t *pictures, int64_t *labels, Error *error)
{
    EvalLinearResult *result = w->result;
    const DataSet *train = eval_sets_train(w->sets);
    size_t bytes = (size_t)(3 * batch->global_size * batch->global_size);
    double start = clock_seconds();
    for (int64_t i = 0; i < batch->samples; i++) {
        memcpy(pictures + (size_t)i * bytes, (const uint8_t *)batch->global_crops + 2 * (size_t)i * bytes,
               bytes);
        labels[i] = data_set_label(train, batch->indices[i]);
    }
    LinearProbeTokens tokens = linear_tokens_run(w->tokens, w->ops, pictures, batch->samples);
    double middle = clock_seconds();
    Status status = linear_probe_step(w->probe, &tokens, labels, result->losses, error);
    result->wait_seconds += batch->wait_seconds;
    result->backbone_seconds += middle - start;
    result->classifier_seconds += clock_seconds() - middle;
    result->steps++;
    return status;
}

/* Steps up to the last. Collective over COMM. */
static Status train_steps(Work *w, Loader *loader, Error *error)
{
    int64_t edge = w->input.crop_size, last = w->params->config->evaluation.linear_iterations;
    uint8_t *pictures = memory_alloc((size_t)(w->rows * 3 * edge * edge));
    int64_t *labels = memory_alloc_array((size_t)w->rows, sizeof *labels);
    Progress progress = progress_begin(w->params->log, "linear probe: training",
                                       linear_probe_iteration(w->probe), last, last / PROGRESS_LINES + 1);
    Status status = STATUS_OK;
    while (linear_probe_iteration(w->probe) < last) {
        Batch *batch = NULL;
        status = comm_agree(w->params->comm, loader_next(loader, &batch, error), error);
        if (status == STATUS_OK) status = step(w, batch, pictures, labels, error);
        if (status != STATUS_OK) break;
        loader_release(loader, batch);
        char detail[64];
        snprintf(detail, sizeof detail, "loss %.4f", w->result->losses[w->result->count / 2]);
        progress_update(&progress, linear_probe_iteration(w->probe), detail);
        status = linear_state_pause(&w->state, w->probe, w->params->comm, w->params->log,
                                    w->params->config->evaluation.linear_save_iterations, error);
        if (status != STATUS_OK) break;
    }
    progress_end(&progress);
    memory_free(labels);
    memory_free(pictures);
    return status;
}

static Status train(Work *w, Error *error)
{
    double start = clock_seconds();
    if (w->eval->resume) linear_state_restore(&w->state, w->probe, w->params->comm, w->params->log);
    LoaderParams params = training_loader(w);
    Loader *loader = NULL;
    const DataSet *set = eval_sets_train(w->sets);
    Status status = comm_agree(w->params->comm, loader_create(&loader, &params, set, error), error);
    if (status == STATUS_OK) status = train_steps(w, loader, error);
    if (status == STATUS_OK) corrupt_list_tell(data_set_corrupt(set), w->params->comm, w->params->log);
    loader_destroy(loader);
    w->result->train_seconds = clock_seconds() - start;
    return status;
}

/* --- measuring --- */

/* Adds a batch to counts[classifiers][cells]. */
static int64_t count_batch(Work *w, const EvalBatch *batch, const int64_t *classes, int64_t *counts)
{
    int64_t K = eval_sets_classes(w->sets), cells = accuracy_cells(K), skipped = 0;
    LinearProbeTokens tokens = linear_tokens_run(w->tokens, w->ops, batch->images, batch->count);
    linear_probe_predict(w->probe, &tokens);
    for (int64_t i = 0; i < batch->count; i++) {
        if (!batch->valid[i]) {
            skipped++;
            continue;
        }
        int64_t label = classes[batch->labels[i]];
        for (int c = 0; c < w->result->count; c++)
            accuracy_add(counts + c * cells, linear_probe_scores(w->probe, c, i), &label, 1, K, -INFINITY);
    }
    return skipped;
}

/* This rank's part of a set. Not collective. */
static Status count_part(Work *w, const DataSet *set, const int64_t *classes, int64_t *counts,
                         int64_t *skipped, Error *error)
{
    Comm *comm = w->params->comm;
    int64_t n = data_set_count(set), rank = comm_rank(comm), ranks = comm_size(comm);
    EvalLoaderParams params = {.transform = EVAL_CENTRE,
                               .resize_size = w->input.resize_size,
                               .crop_size = w->input.crop_size,
                               .batch_size = w->rows,
                               .grayscale = w->input.grayscale,
                               .first = n * rank / ranks,
                               .last = n * (rank + 1) / ranks,
                               .num_workers = w->input.num_workers,
                               .prefetch = PREFETCH};
    EvalLoader *loader = NULL;
    TRY(eval_loader_create(&loader, &params, set, error));
    Status status;
    for (;;) {
        EvalBatch *batch = NULL;
        status = eval_loader_next(loader, &batch, error);
        if (status != STATUS_OK || !batch) break;
        *skipped += count_batch(w, batch, classes, counts);
        eval_loader_release(loader, batch);
    }
    eval_loader_destroy(loader);
    return status;
}

/* Figures of all classifiers on one set. Collective over COMM. */
static Status measure(Work *w, const char *spec, const char *name, EvalLinearSet *out, Error *error)
{
    EvalLinearResult *result = w->result;
    Comm *comm = w->params->comm;
    int64_t K = eval_sets_classes(w->sets), cells = accuracy_cells(K), *classes = NULL;
    int64_t *counts = memory_alloc_array((size_t)(result->count * cells), sizeof *counts);
    DataSet *set = NULL;
    out->spec = spec;
    out->accuracy = memory_alloc_array((size_t)result->count, sizeof *out->accuracy);
    Status status = eval_sets_open_other(w->sets, spec, name, &set, &classes, error);
    if (status == STATUS_OK) status = count_part(w, set, classes, counts, &out->skipped, error);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) {
        comm_all_reduce(comm, &out->skipped, 1, DTYPE_I64, COMM_SUM, NULL);
        for (int c = 0; c < result->count; c++)
            accuracy_reduce(&out->accuracy[c], comm, counts + c * cells, K);
    }
    data_set_destroy(set);
    memory_free(classes);
    memory_free(counts);
    return status;
}

/* Refuses test sets before a training, not behind it. */
static Status check_tests(const Work *w, Error *error)
{
    Status status = STATUS_OK;
    for (int i = 0; i < w->eval->test_count && status == STATUS_OK; i++) {
        DataSet *set = NULL;
        int64_t *classes = NULL;
        status = eval_sets_open_other(w->sets, w->eval->test_specs[i], "--test-data", &set, &classes, error);
        data_set_destroy(set);
        memory_free(classes);
    }
    return comm_agree(w->params->comm, status, error);
}

/* --- all of it --- */

static Status run(Work *w, Error *error)
{
    const Config *config = w->params->config;
    EvalLinearResult *result = w->result;
    TRY(check(w, error));
    TRY(eval_sets_open(&w->sets, w->params, "a linear probe", error));
    TRY(check_tests(w, error));
    TRY(make_probe(w, error));
    result->train_images = data_set_count(eval_sets_train(w->sets));
    result->classes = eval_sets_classes(w->sets);
    result->count = linear_probe_count(w->probe);
    result->classifiers = memory_alloc_array((size_t)result->count, sizeof *result->classifiers);
    result->losses = memory_alloc_array((size_t)result->count, sizeof *result->losses);
    for (int c = 0; c < result->count; c++) {
        result->classifiers[c] = *linear_probe_classifier(w->probe, c);
        result->classifiers[c].weight = result->classifiers[c].bias = NULL;
    }
    TRY(train(w, error));
    result->sets = memory_alloc_array((size_t)w->eval->test_count + 1, sizeof *result->sets);
    result->set_count = w->eval->test_count + 1;
    TRY(measure(w, config->evaluation.val_dataset_path, "evaluation.val_dataset_path", &result->sets[0],
                error));
    for (int c = 0; c < result->count; c++)
        if (result->sets[0].accuracy[c].top1 > result->sets[0].accuracy[result->best].top1) result->best = c;
    for (int i = 0; i < w->eval->test_count; i++)
        TRY(measure(w, w->eval->test_specs[i], "--test-data", &result->sets[i + 1], error));
    return STATUS_OK;
}

Status eval_linear_run(const EvalLinear *eval, EvalLinearResult *result, Error *error)
{
    double start = clock_seconds();
    const Config *config = eval->params->config;
    *result = (EvalLinearResult){.iterations = config->evaluation.linear_iterations,
                                 .batch_size = config->evaluation.linear_batch_size};
    Work w = {.eval = eval, .params = eval->params, .input = eval_sets_input(config), .result = result};
    Status status = run(&w, error);
    linear_probe_destroy(w.probe);
    linear_tokens_destroy(w.tokens);
    if (w.ops) ops_destroy(w.ops);
    if (w.probe_ops) ops_destroy(w.probe_ops);
    if (w.host) device_close(w.host);
    eval_sets_close(w.sets);
    result->seconds = clock_seconds() - start;
    return status;
}

void eval_linear_fini(EvalLinearResult *result)
{
    for (int i = 0; i < result->set_count; i++)
        memory_free(result->sets[i].accuracy);
    memory_free(result->sets);
    memory_free(result->classifiers);
    memory_free(result->losses);
    *result = (EvalLinearResult){0};
}

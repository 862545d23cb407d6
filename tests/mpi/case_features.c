/* case_features.c - features and k-NN do not depend on how a data set is dealt to ranks. */
#include "../support/ops_support.h"
#include "base/memory.h"
#include "eval/eval_knn.h"
#include "eval/eval_model.h"
#include "features/feature_stream.h"
#include "mpi_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IMAGES = 37, BANK = 150 };

static Status small_config(Config *config, Error *error)
{
    static const char *const keys[] = {
        "student.arch=vit_custom",   "student.embed_dim=32",       "student.depth=2",
        "student.num_heads=2",       "student.patch_size=8",       "crops.global_crops_size=32",
        "crops.local_crops_size=16", "student.layerscale=1.0",     "evaluation.crop_size=32",
        "evaluation.resize_size=32", "evaluation.batch_size=8",    "evaluation.knn_k=[1,7]",
        "train.num_workers=2",       "student.drop_path_rate=0.0", "student.num_register_tokens=1"};
    config_init(config);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        TRY(config_override(config, keys[i], error));
    TRY(config_override_text(config, "evaluation.train_dataset_path", "synthetic:size=32,count=150,seed=5",
                             "test", error));
    TRY(config_override_text(config, "evaluation.val_dataset_path", "synthetic:size=32,count=37,seed=6",
                             "test", error));
    return config_check(config, error);
}

/* Everything that comes to rank 0. */
typedef struct {
    MpiCase *c;
    int64_t next;
    float *values;
    int64_t *labels;
} Gathered;

static Status take(void *context, const FeaturePiece *piece, Error *error)
{
    Gathered *all = context;
    int64_t first = piece->first, count = piece->count;
    (void)error;
    EXPECT(all->c, first == all->next && !piece->tokens);
    all->next = first + count;
    memcpy(all->values + first * 32, piece->values, (size_t)(count * 32) * sizeof *all->values);
    memcpy(all->labels + first, piece->labels, (size_t)count * sizeof *all->labels);
    for (int64_t i = 0; i < count; i++)
        EXPECT(all->c, piece->indices[i] == first + i);
    return STATUS_OK;
}

/* In order to rank 0, and in `own` each rank's part; feature_rows_fini. */
static Status extract(MpiCase *c, Comm *comm, const EvalModel *model, const DataSet *set, Gathered *all,
                      FeatureRows *own)
{
    FeatureExtractor extractor = {.kind = FEATURE_CLASS_TOKEN,
                                  .input = eval_sets_input(&model->config),
                                  .backbone = &model->backbone,
                                  .log = &c->run->log,
                                  .what = "features"};
    extractor.input.batch_size = 5;
    OpsLimits limits = feature_extractor_limits(&extractor);
    Ops *ops = ops_support_open(&limits, 1);
    FeatureStreamResult result;
    *all = (Gathered){.c = c,
                      .values = memory_alloc(IMAGES * 32 * sizeof(float)),
                      .labels = memory_alloc(IMAGES * sizeof(int64_t))};
    Status status = feature_extractor_run(&extractor, ops, comm, set, own, &c->error);
    EXPECT(c, own->total == IMAGES && own->skipped == 0);
    if (status == STATUS_OK)
        status = feature_stream_run(&extractor, ops, comm, set, take, all, &result, &c->error);
    EXPECT(c, result.rows == IMAGES && result.skipped == 0);
    ops_support_close(ops);
    return status;
}

/* Features of all ranks together against those of one rank alone: what is handed on bit by bit, what ranks
 * keep within rounding. */
static void compare_features(MpiCase *c, const EvalModel *model, const DataSet *set)
{
    Gathered together, alone;
    FeatureRows own, whole;
    Comm *self = comm_self_create();
    EXPECT(c, extract(c, c->comm, model, set, &together, &own) == STATUS_OK);
    EXPECT(c, extract(c, self, model, set, &alone, &whole) == STATUS_OK);
    double worst = 0.0, largest = 0.0;
    for (int64_t i = 0; i < own.count * 32; i++) {
        worst = fmax(worst, fabs((double)own.values[i] - (double)alone.values[own.first * 32 + i]));
        largest = fmax(largest, fabs((double)own.values[i]));
    }
    EXPECT(c, largest > 0.1);
    EXPECT(c, worst <= 1e-5 * largest);
    EXPECT(c, memcmp(own.labels, alone.labels + own.first, (size_t)own.count * sizeof(int64_t)) == 0);
    if (c->rank == 0) {
        EXPECT(c, together.next == IMAGES);
        EXPECT(c, memcmp(together.values, alone.values, IMAGES * 32 * sizeof(float)) == 0);
        EXPECT(c, memcmp(together.labels, alone.labels, IMAGES * sizeof(int64_t)) == 0);
    }
    feature_rows_fini(&own);
    feature_rows_fini(&whole);
    memory_free(together.values);
    memory_free(together.labels);
    memory_free(alone.values);
    memory_free(alone.labels);
    comm_destroy(self);
}

static Status run_knn(MpiCase *c, Comm *comm, const EvalModel *model, EvalKnnResult *result)
{
    EvalParams params = {
        .config = &model->config, .comm = comm, .log = &c->run->log, .device = model->device, .threads = 1};
    EvalKnn *eval = NULL;
    TRY(eval_knn_create(&eval, &params, &c->error));
    Status status = eval_knn_run(eval, FEATURE_CLASS_TOKEN, &model->backbone, result, &c->error);
    eval_knn_destroy(eval);
    return status;
}

Status case_features(MpiCase *c)
{
    c->run->log.silent = true;
    Config config;
    TRY(small_config(&config, &c->error));
    EvalModel model;
    TRY(eval_model_untrained(&model, &config, &c->error));
    Device *device = device_open_host();
    eval_model_place(&model, device);
    DataSet *set = NULL;
    TRY(data_set_create(&set, config.evaluation.val_dataset_path, &c->error));
    compare_features(c, &model, set);

    EvalKnnResult together, alone;
    Comm *self = comm_self_create();
    EXPECT(c, run_knn(c, c->comm, &model, &together) == STATUS_OK);
    EXPECT(c, run_knn(c, self, &model, &alone) == STATUS_OK);
    EXPECT(c, together.train_images == BANK && together.val_images == IMAGES && together.count == 2);
    for (int i = 0; i < 2; i++) {
        EXPECT(c, together.score[i].top1 == alone.score[i].top1);
        EXPECT(c, together.score[i].top5 == alone.score[i].top5);
        EXPECT(c, together.score[i].top1_per_class == alone.score[i].top1_per_class);
    }
    comm_destroy(self);
    data_set_destroy(set);
    eval_model_fini(&model);
    device_close(device);
    config_fini(&config);
    return STATUS_OK;
}

/* Exact search over a sharded bank: one query and its k nearest, some of equal similarity on different ranks.
 */
Status case_knn_shards(MpiCase *c)
{
    enum { D = 3, EACH = 5, K = 8 };
    float bank[EACH * D] = {0}, query[D] = {0.0f, 0.0f, 1.0f};
    int64_t labels[EACH];
    int64_t count = c->rank == c->size - 1 ? EACH - 1 : EACH; /* shards of unequal size */
    for (int64_t i = 0; i < count; i++) {
        /* similarity i / 8: the same on every rank */
        bank[i * D + 2] = (float)i / 8.0f;
        labels[i] = c->rank;
    }
    KnnRows rows = {.count = count, .first = c->rank * EACH, .d = D, .values = bank, .labels = labels};
    KnnRows queries = {.count = c->rank == 0 ? 1 : 0, .d = D, .values = query, .labels = labels};
    OpsLimits limits = knn_limits(D);
    Ops *ops = ops_support_open(&limits, 1);
    KnnNeighbour found[K];
    Status status = knn_search(found, ops, c->comm, &rows, &queries, K, &c->error);
    ops_support_close(ops);
    TRY(status);
    if (c->rank != 0) return STATUS_OK;
    int64_t at = 0;
    for (int64_t i = EACH - 1; i >= 0 && at < K; i--)
        for (int r = 0; r < c->size && at < K; r++) {
            if (r == c->size - 1 && i == EACH - 1) continue;
            EXPECT(c, found[at].index == r * EACH + i && found[at].label == r);
            EXPECT(c, found[at].similarity == (float)i / 8.0f);
            at++;
        }
    return STATUS_OK;
}

/* h5_kinds.c - see h5_kinds.h. */
#include "h5_kinds.h"

#include "sscd_weights.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "curation/curation_state.h"
#include "curation/retrieval_file.h"
#include "data/data_set.h"
#include "data/pixel_levels.h"
#include "data/shard_writer.h"
#include "eval/descriptor_model.h"
#include "eval/eval_model.h"
#include "features/features_file.h"
#include "h5/result_file.h"
#include "ssl/ssl_meta_arch.h"

#include <stdio.h>
#include <string.h>

enum { ROWS = 12, COLUMNS = 5, PATH_BYTES = 512 };

static const char *const NAMES[] = {"features",  "shard", "checkpoint", "decisions",
                                    "retrieval", "state", "descriptor", "result"};

const char *h5_kinds_name(H5KindsKind kind)
{
    return NAMES[kind];
}

static void add(uint64_t *digest, const void *bytes, size_t size)
{
    *digest = rng_hash_bytes(*digest, bytes, size);
}

static void add_text(uint64_t *digest, const char *text)
{
    add(digest, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void must(Status status, const Error *error)
{
    if (status != STATUS_OK) fprintf(stderr, "%s\n", error->text);
    CHECK(status == STATUS_OK);
}

/* --- features --- */

static void write_features(const char *path)
{
    Error error = {0};
    FeaturesMeta meta = {.model = "m.h5",
                         .arch = "vit_small",
                         .layer = "class_token",
                         .data = "folder:x",
                         .config = "train: {}\n",
                         .version = "0",
                         .input_size = 16,
                         .views = 2,
                         .view_list = "whole,mirror"};
    float values[ROWS * COLUMNS];
    int64_t labels[ROWS];
    char text[ROWS][16];
    const char *keys[ROWS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        values[i] = (float)(i * i % 17) - 8.0f;
    for (int i = 0; i < ROWS; i++) {
        labels[i] = i / 2 % 3;
        snprintf(text[i], sizeof text[i], "picture %d", i / 2);
        keys[i] = text[i];
    }
    FeaturesFile file;
    must(features_file_create(&file, path, ROWS, COLUMNS, 3, 12, &meta, &error), &error);
    must(features_file_write(&file, 0, ROWS, values, labels, keys, &error), &error);
    must(features_file_commit(&file, &error), &error);
}

static Status read_rows(const FeaturesFile *file, uint64_t *digest, Error *error)
{
    size_t n = (size_t)file->n, room = file->key_bytes + 1;
    float *values = memory_alloc_array(n * (size_t)file->d, sizeof *values);
    int64_t *labels = memory_alloc_array(n, sizeof *labels);
    char *keys = memory_alloc_array(n, room);
    Status status = features_file_read(file, 0, file->n, values, labels, error);
    if (status == STATUS_OK) status = features_file_read_keys(file, 0, file->n, keys, error);
    add(digest, values, n * (size_t)file->d * sizeof *values);
    add(digest, labels, n * sizeof *labels);
    add(digest, keys, n * room);
    memory_free(values);
    memory_free(labels);
    memory_free(keys);
    return status;
}

static Status read_features(const char *path, uint64_t *digest, Error *error)
{
    FeaturesFile file;
    TRY(features_file_open(&file, path, error));
    const int64_t numbers[] = {file.n, file.d, file.classes, file.meta.views, file.meta.input_size};
    add(digest, numbers, sizeof numbers);
    const char *const texts[] = {file.meta.model,  file.meta.arch,    file.meta.layer,    file.meta.data,
                                 file.meta.config, file.meta.version, file.meta.view_list};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(digest, texts[i]);
    Status status = read_rows(&file, digest, error);
    features_file_close(&file);
    return status;
}

/* --- a shard of pictures --- */

static ShardProvenance provenance_of(const void *context, int64_t index)
{
    (void)context;
    return (ShardProvenance){.source = "pool",
                             .query_set = "q",
                             .mode = "sample",
                             .query = index,
                             .neighbour = 0,
                             .similarity = 0.5f};
}

static void write_shard(const char *path)
{
    Error error = {0};
    DataSet *set;
    must(data_set_create(&set, "synthetic:classes=3,size=16,count=12,seed=4", &error), &error);
    DataBuffer buffer = {0};
    int64_t indices[ROWS], sizes[ROWS];
    for (int64_t i = 0; i < ROWS; i++) {
        must(data_set_read(set, i, &buffer, &error), &error);
        indices[i] = i;
        sizes[i] = (int64_t)buffer.size;
    }
    ShardWriterParams params = {.set = set,
                                .indices = indices,
                                .sizes = sizes,
                                .count = ROWS,
                                .provenance = provenance_of,
                                .source = "synthetic",
                                .version = "0"};
    must(shard_writer_write(path, &params, &error), &error);
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
}

static Status read_shard(const char *path, uint64_t *digest, Error *error)
{
    char spec[PATH_BYTES], key[DATA_SET_KEY_MAX];
    snprintf(spec, sizeof spec, "hdf5:%s", path);
    DataSet *set;
    TRY(data_set_create(&set, spec, error));
    DataBuffer buffer = {0};
    Status status = STATUS_OK;
    for (int64_t i = 0; i < data_set_count(set) && status == STATUS_OK; i++) {
        int64_t label = data_set_label(set, i);
        status = data_set_read(set, i, &buffer, error);
        data_set_key(set, i, key, sizeof key);
        if (status == STATUS_OK) add(digest, buffer.bytes, buffer.size);
        add(digest, &label, sizeof label);
        add_text(digest, key);
    }
    for (int64_t c = 0; c < data_set_class_count(set); c++)
        add_text(digest, data_set_class_name(set, c));
    data_buffer_destroy(&buffer);
    data_set_destroy(set);
    return status;
}

/* --- a checkpoint --- */

static const char CONFIG[] =
    "student: {arch: vit_custom, embed_dim: 16, depth: 1, num_heads: 2, patch_size: 8, layerscale: 0.1}\n"
    "crops: {global_crops_size: 16, local_crops_size: 16}\n"
    "dino: {head_n_prototypes: 8, head_hidden_dim: 8, head_bottleneck_dim: 4}\n"
    "ibot: {head_n_prototypes: 8, head_hidden_dim: 8, head_bottleneck_dim: 4}\n";

/* Networks with room for a whole training state. */
typedef struct {
    Config config;
    Vit vit;
    DinoHead dino_head, ibot_head;
    ParamTable table;
    ShardMap map;
    float *flats; /* [4, map.count] owned */
    float center[8];
    CheckpointState state;
} Training;

static void training_init(Training *t, Comm *comm)
{
    Error error = {0};
    *t = (Training){0};
    config_init(&t->config);
    must(config_load_text(&t->config, "tiny", CONFIG, strlen(CONFIG), &error), &error);
    param_table_init(&t->table);
    ssl_build_networks(&t->config, &t->vit, &t->dino_head, &t->ibot_head, &t->table);
    shard_map_init_whole(&t->map, &t->table, comm);
    size_t n = (size_t)t->map.count;
    t->flats = memory_alloc_array(4 * n, sizeof *t->flats);
    t->state = (CheckpointState){.map = &t->map,
                                 .student = t->flats,
                                 .model_ema = t->flats + n,
                                 .exp_avg = t->flats + 2 * n,
                                 .exp_avg_sq = t->flats + 3 * n,
                                 .dino_center = t->center,
                                 .dino_center_count = 8};
}

static void training_fini(Training *t)
{
    memory_free(t->flats);
    shard_map_fini(&t->map);
    param_table_fini(&t->table);
    vit_fini(&t->vit);
    config_fini(&t->config);
}

static void write_checkpoint(const char *path, Comm *comm)
{
    Training t;
    training_init(&t, comm);
    for (int i = 0; i < 4; i++)
        param_table_initialise(&t.table, (uint64_t)i, t.flats + i * t.map.count);
    char *text = config_dump(&t.config);
    PixelNorm norm = pixel_levels_imagenet();
    t.state.meta = (CheckpointMeta){.iteration = 7,
                                    .optimizer_step = 8,
                                    .loss_scale = 1.0,
                                    .global_batch_size = 4,
                                    .samples_seen = 32,
                                    .config = text,
                                    .arch = "vit_custom",
                                    .embed_dim = 16,
                                    .patch_size = 8,
                                    .global_crops_size = 16,
                                    .local_crops_size = 16,
                                    .version = "0"};
    for (int c = 0; c < 3; c++) {
        t.state.meta.mean[c] = norm.mean[c];
        t.state.meta.std[c] = norm.std[c];
    }
    char folder[PATH_BYTES], written[CHECKPOINT_PATH_MAX];
    Error error = {0};
    snprintf(folder, sizeof folder, "%s.folder", path);
    must(checkpoint_clean(folder, comm, &error), &error);
    must(checkpoint_save(folder, &t.state, 0, 0, comm, &error), &error);
    snprintf(written, sizeof written, "%s/model_0000007.h5", folder);
    CHECK(rename(written, path) == 0);
    memory_free(text);
    training_fini(&t);
}

static void add_meta(uint64_t *digest, const CheckpointMeta *meta)
{
    CheckpointMeta plain = *meta;
    plain.config = NULL;
    plain.bytes = 0; /* what was appended is nobody's */
    add(digest, &plain, sizeof plain);
    add_text(digest, meta->config);
}

/* As a training resumes, and as all that evaluates loads. */
static Status read_checkpoint(const char *path, uint64_t *digest, Comm *comm, Error *error)
{
    Training t;
    training_init(&t, comm);
    Status status = checkpoint_load(path, &t.state, comm, error);
    if (status == STATUS_OK) {
        add_meta(digest, &t.state.meta);
        add(digest, t.flats, (size_t)(4 * t.map.count) * sizeof *t.flats);
        add(digest, t.center, sizeof t.center);
        checkpoint_meta_fini(&t.state.meta);
    }
    training_fini(&t);
    TRY(status);
    EvalModel model;
    Log log = log_create(1);
    status = eval_model_load(&model, path, CHECKPOINT_TEACHER, &(Options){0}, comm, &log, error);
    if (status == STATUS_OK) {
        add(digest, model.flat, (size_t)model.table.flat_count * sizeof *model.flat);
        add(digest, &model.norm, sizeof model.norm);
    }
    eval_model_fini(&model);
    return status;
}

/* --- what curation writes --- */

static const CurationMeta CURATION = {"dedup", "a.h5", 7, 8, "curation: {}\n", "0"};
static const int64_t GROUPS[ROWS] = {0, 0, 2, 2, 2, 5, -1, 7, 8, 0, 10, 11};

static void write_decisions(const char *path, Comm *comm)
{
    Error error = {0};
    CurationFile file;
    uint8_t keep[ROWS];
    for (int i = 0; i < ROWS; i++)
        keep[i] = GROUPS[i] == i;
    curation_file_create(&file, path, ROWS, &CURATION, comm);
    curation_file_put_double(&file, "threshold", 0.25);
    curation_file_put_rows(&file, "/group", H5_TYPE_I64, GROUPS, ROWS);
    curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, ROWS);
    must(curation_file_commit(&file, &error), &error);
}

static Status read_decisions(const char *path, uint64_t *digest, Error *error)
{
    CurationInput input;
    TRY(curation_file_open(&input, path, "/group", error));
    const uint64_t numbers[] = {(uint64_t)input.n, input.digest, input.key_digest};
    add(digest, numbers, sizeof numbers);
    int64_t *group = memory_alloc_array((size_t)input.n, sizeof *group);
    uint8_t *keep = memory_alloc((size_t)input.n);
    double threshold = 0;
    Status status = curation_file_read_indices(&input, "/group", 0, input.n, -1, input.n, group, error);
    if (status == STATUS_OK)
        status = curation_file_read(&input, "/keep", H5_TYPE_U8, 0, input.n, keep, error);
    if (status == STATUS_OK) status = curation_file_read_double(&input, "threshold", &threshold, error);
    add(digest, group, (size_t)input.n * sizeof *group);
    add(digest, keep, (size_t)input.n);
    add(digest, &threshold, sizeof threshold);
    memory_free(group);
    memory_free(keep);
    curation_file_close(&input);
    return status;
}

static void write_retrieval(const char *path, Comm *comm)
{
    Error error = {0};
    CurationFile file;
    const int64_t row[] = {3, 1, 4}, query[] = {0, 1, 1}, neighbour[] = {0, 0, 1}, cluster[] = {0, 1, 1};
    const float similarity[] = {0.9f, 0.8f, 0.7f};
    const uint8_t first[] = {1, 1, 1};
    curation_file_create(&file, path, 3, &CURATION, comm);
    curation_file_put_text(&file, "name", "q");
    curation_file_put_text(&file, "queries", "q.h5");
    curation_file_put_text(&file, "mode", "cluster");
    curation_file_put_int(&file, "pool_rows", ROWS);
    curation_file_put_int(&file, "query_rows", 2);
    curation_file_put_int(&file, "retrieved", 3);
    curation_file_put_int(&file, "collisions", 0);
    curation_file_put_rows(&file, "/row", H5_TYPE_I64, row, 3);
    curation_file_put_rows(&file, "/query", H5_TYPE_I64, query, 3);
    curation_file_put_rows(&file, "/neighbour", H5_TYPE_I64, neighbour, 3);
    curation_file_put_rows(&file, "/similarity", H5_TYPE_F32, similarity, 3);
    curation_file_put_rows(&file, "/first", H5_TYPE_U8, first, 3);
    curation_file_put_rows(&file, "/cluster", H5_TYPE_I64, cluster, 3);
    curation_file_put_array(&file, "/query_cluster", H5_TYPE_I64, cluster, 2);
    must(curation_file_commit(&file, &error), &error);
}

static Status read_retrieval(const char *path, uint64_t *digest, Error *error)
{
    RetrievalFile file;
    Status status = retrieval_file_read(&file, path, error);
    if (status == STATUS_OK) {
        size_t n = (size_t)file.n, queries = (size_t)file.query_rows;
        const int64_t numbers[] = {file.n,          file.pool_rows,  file.query_rows, (int64_t)file.digest,
                                   file.is_cluster, file.collisions, file.retrieved};
        add(digest, numbers, sizeof numbers);
        add_text(digest, file.name);
        add_text(digest, file.inputs);
        add_text(digest, file.queries);
        add(digest, file.row, n * sizeof *file.row);
        add(digest, file.query, n * sizeof *file.query);
        add(digest, file.neighbour, n * sizeof *file.neighbour);
        add(digest, file.similarity, n * sizeof *file.similarity);
        add(digest, file.first, n);
        if (file.cluster) add(digest, file.cluster, n * sizeof *file.cluster);
        if (file.query_cluster) add(digest, file.query_cluster, queries * sizeof *file.query_cluster);
    }
    retrieval_file_fini(&file);
    return status;
}

/* A step's state: 12 labels, flags, and a table of centroids. */
typedef struct {
    int64_t label[ROWS];
    uint8_t done[ROWS];
    float centroids[2 * COLUMNS];
    CurationState state;
} Step;

static void step_init(Step *step, const char *path)
{
    *step = (Step){.state = {.path = path,
                             .meta = CURATION,
                             .total = ROWS,
                             .count = ROWS,
                             .array_count = 2,
                             .tables = {{"/centroids", H5_TYPE_F32, step->centroids, 2, COLUMNS}},
                             .table_count = 1,
                             .numbers = {{"edges", 0}},
                             .number_count = 1}};
    step->state.arrays[0] = (CurationArray){"/label", H5_TYPE_I64, step->label, 0, CURATION_OWN_ROW};
    step->state.arrays[1] = (CurationArray){"/done", H5_TYPE_U8, step->done, 0, 0};
}

static void write_state(const char *path, Comm *comm)
{
    Error error = {0};
    Step step;
    step_init(&step, path);
    for (int i = 0; i < ROWS; i++) {
        step.label[i] = i / 3;
        step.done[i] = i % 2 != 0;
    }
    step.centroids[3] = 0.5f;
    step.state.numbers[0].value = 9;
    Log log = log_create(1);
    must(curation_state_pause(&step.state, comm, &log, &error), &error);
}

/* A state that cannot be used is told in the log, and the step starts anew. */
static Status read_state(const char *path, uint64_t *digest, Comm *comm, Error *error)
{
    Step step;
    step_init(&step, path);
    bool found;
    Log log = log_create(1);
    TRY(curation_state_restore(&step.state, true, &found, comm, &log, error));
    if (!found) return STATUS_INPUT; /* `error` has the line */
    *error = (Error){0};
    add(digest, step.label, sizeof step.label);
    add(digest, step.done, sizeof step.done);
    add(digest, step.centroids, sizeof step.centroids);
    add(digest, &step.state.numbers[0].value, sizeof(int64_t));
    return STATUS_OK;
}

/* --- a copy-detection network --- */

static void write_descriptor(const char *path, Comm *comm)
{
    Error error = {0};
    DescriptorMeta meta = {.config = {.arch = RESNET_18, .dims = 16, .gem_p = 3.0, .bn_eps = 1e-5},
                           .mean = {0.485, 0.456, 0.406},
                           .std = {0.229, 0.224, 0.225},
                           .source = "a formula"};
    Resnet resnet;
    ParamTable table;
    param_table_init(&table);
    resnet_build(&resnet, &meta.config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    sscd_weights_fill(&table, 2, flat);
    must(descriptor_file_save(path, &meta, &table, flat, comm, &error), &error);
    memory_free(flat);
    param_table_fini(&table);
}

static Status read_descriptor(const char *path, uint64_t *digest, Comm *comm, Error *error)
{
    DescriptorModel model;
    Status status = descriptor_model_load(&model, path, comm, error);
    if (status == STATUS_OK) {
        add(digest, &model.meta, sizeof model.meta);
        add(digest, model.folded, (size_t)model.resnet.folded_count * sizeof *model.folded);
    }
    descriptor_model_fini(&model);
    return status;
}

/* --- figures --- */

static void write_result(const char *path)
{
    Error error = {0};
    const Figure figures[] = {{"top1", "%", 35.1, 40.0, "table 4"}, {"rate", "images/s", 7.0, 0.0, ""}};
    Result result = {.job = "evaluate knn",
                     .subject = "m.h5",
                     .config = "train: {}\n",
                     .version = "0",
                     .figures = figures,
                     .count = 2};
    must(result_file_write(path, &result, &error), &error);
}

static Status read_result(const char *path, uint64_t *digest, Error *error)
{
    Result result;
    TRY(result_file_read(path, &result, error));
    const char *const texts[] = {result.job, result.subject, result.config, result.version};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(digest, texts[i]);
    for (int64_t i = 0; i < result.count; i++) {
        const Figure *figure = &result.figures[i];
        add_text(digest, figure->name);
        add_text(digest, figure->unit);
        add_text(digest, figure->source);
        add(digest, &figure->value, sizeof figure->value);
        add(digest, &figure->published, sizeof figure->published);
    }
    result_file_fini(&result);
    return STATUS_OK;
}

/* --- all --- */

void h5_kinds_write(H5KindsKind kind, const char *path, Comm *comm)
{
    switch (kind) {
    case H5_KINDS_FEATURES:
        write_features(path);
        break;
    case H5_KINDS_SHARD:
        write_shard(path);
        break;
    case H5_KINDS_CHECKPOINT:
        write_checkpoint(path, comm);
        break;
    case H5_KINDS_DECISIONS:
        write_decisions(path, comm);
        break;
    case H5_KINDS_RETRIEVAL:
        write_retrieval(path, comm);
        break;
    case H5_KINDS_STATE:
        write_state(path, comm);
        break;
    case H5_KINDS_DESCRIPTOR:
        write_descriptor(path, comm);
        break;
    default:
        write_result(path);
    }
}

Status h5_kinds_read(H5KindsKind kind, const char *path, uint64_t *digest, Comm *comm, Error *error)
{
    *digest = RNG_HASH_START;
    switch (kind) {
    case H5_KINDS_FEATURES:
        return read_features(path, digest, error);
    case H5_KINDS_SHARD:
        return read_shard(path, digest, error);
    case H5_KINDS_CHECKPOINT:
        return read_checkpoint(path, digest, comm, error);
    case H5_KINDS_DECISIONS:
        return read_decisions(path, digest, error);
    case H5_KINDS_RETRIEVAL:
        return read_retrieval(path, digest, error);
    case H5_KINDS_STATE:
        return read_state(path, digest, comm, error);
    case H5_KINDS_DESCRIPTOR:
        return read_descriptor(path, digest, comm, error);
    default:
        return read_result(path, digest, error);
    }
}

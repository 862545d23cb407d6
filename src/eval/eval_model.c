/* eval_model.c - see eval_model.h. */
#include "eval/eval_model.h"

#include "base/memory.h"
#include "ssl/ssl_meta_arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

Status eval_model_role(CheckpointRole *role, const char *word, Error *error)
{
    *role = CHECKPOINT_TEACHER;
    if (!word || strcmp(word, "teacher") == 0) return STATUS_OK;
    *role = CHECKPOINT_STUDENT;
    if (strcmp(word, "student") == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--which %s: expected teacher or student", word);
}

/* --- its configuration --- */

static bool shapes_the_network(const char *key)
{
    return strncmp(key, "student.", strlen("student.")) == 0 || strcmp(key, "crops.global_crops_size") == 0;
}

static Status overlay(Config *config, const Options *options, Error *error)
{
    for (int i = 0; i < options->config_file_count; i++)
        TRY(config_load_file(config, options->config_files[i], error));
    for (int i = 0; i < options->override_count; i++)
        TRY(config_override(config, options->overrides[i], error));
    return STATUS_OK;
}

/* A key that the options changed although the weights depend on it. */
static Status check_same_network(const Config *saved, const Config *config, const char *path, Error *error)
{
    ConfigDiff diff;
    config_diff_init(&diff, saved, config);
    Status status = STATUS_OK;
    for (int i = 0; i < diff.count && status == STATUS_OK; i++)
        if (shapes_the_network(diff.items[i].key))
            status = status_fail(error, STATUS_INPUT, "%s: %s is %s in the checkpoint, and cannot become %s",
                                 path, diff.items[i].key, diff.items[i].before, diff.items[i].after);
    config_diff_fini(&diff);
    return status;
}

/* The network stands in a checkpoint twice, for us as the configuration and for others as attributes. */
static Status check_attributes(const Config *saved, const CheckpointMeta *meta, const char *path,
                               Error *error)
{
    VitConfig v = ssl_vit_config(saved);
    const struct {
        const char *name;
        int64_t attribute, config;
    } both[] = {{"embed_dim", meta->embed_dim, v.embed_dim},
                {"patch_size", meta->patch_size, v.patch_size},
                {"n_registers", meta->n_registers, v.num_register_tokens},
                {"global_crops_size", meta->global_crops_size, v.img_size}};
    for (size_t i = 0; i < sizeof both / sizeof *both; i++)
        if (both[i].attribute != both[i].config)
            return status_fail(error, STATUS_INPUT, "%s: attribute %s is %lld, but %lld by its configuration",
                               path, both[i].name, (long long)both[i].attribute, (long long)both[i].config);
    return STATUS_OK;
}

static Status resolve_config(EvalModel *model, const CheckpointMeta *meta, const Options *options,
                             Error *error)
{
    Config saved;
    config_init(&saved);
    const char *text = meta->config;
    size_t size = strlen(text);
    Status status = config_load_text(&saved, model->path, text, size, error);
    if (status == STATUS_OK) status = check_attributes(&saved, meta, model->path, error);
    if (status == STATUS_OK) status = config_load_text(&model->config, model->path, text, size, error);
    if (status == STATUS_OK) status = overlay(&model->config, options, error);
    if (status == STATUS_OK) status = check_same_network(&saved, &model->config, model->path, error);
    if (status == STATUS_OK) status = config_check(&model->config, error);
    config_fini(&saved);
    return status;
}

/* --- the network --- */

/* `bytes`: of the file that shall fill it; a configuration may ask for more memory than there is. */
static Status build(EvalModel *model, int64_t bytes, Error *error)
{
    VitConfig config = ssl_vit_config(&model->config);
    config.drop_path_rate = 0.0;
    config.block_chunks = 0; /* of names in tables; files are unchunked */
    param_table_init(&model->table);
    vit_build(&model->vit, &config, &model->table);
    int64_t numbers = 0;
    for (int p = 0; p < model->table.count; p++)
        numbers += model->table.params[p].count;
    if (numbers > bytes / (int64_t)sizeof(float))
        return status_fail(error, STATUS_INPUT,
                           "%s: another architecture: the network of its configuration has %lld numbers",
                           model->path, (long long)numbers);
    size_t n = (size_t)model->table.flat_count;
    model->flat = memory_alloc_array(n, sizeof *model->flat);
    model->backbone = (FeatureBackbone){.vit = &model->vit, .weights = &model->weights};
    return STATUS_OK;
}

/* Training saves no others. */
static Status check_finite(const EvalModel *model, Error *error)
{
    for (int64_t i = 0; i < model->table.flat_count; i++)
        if (!isfinite(model->flat[i]))
            return status_fail(error, STATUS_INPUT, "%s: the weights are not finite", model->path);
    return STATUS_OK;
}

void eval_model_place(EvalModel *model, Device *device)
{
    int64_t n = model->table.flat_count;
    Ops *ops = ops_create(device, &(OpsLimits){0}, &(OpsOptions){0});
    Dtype asked = (Dtype)model->config.compute_precision.teacher.backbone.mixed_precision.param_dtype;
    model->device = device;
    model->placed = device_alloc(device, (size_t)n * sizeof *model->placed);
    device_upload(device, model->placed, model->flat, (size_t)n * sizeof *model->placed);
    if ((asked == DTYPE_BF16 && ops->has_bf16) || (asked == DTYPE_F16 && ops->has_fp16)) {
        model->reduced = device_alloc(device, (size_t)n * sizeof *model->reduced);
        ops->cast(ops, tensor_1d(model->reduced, asked, n), tensor_1d(model->placed, DTYPE_F32, n));
    }
    model->weights = (Weights){.master = param_values_flat(&model->table, model->placed),
                               .reduced = model->reduced,
                               .reduced_dtype = asked};
    model->backbone.levels = pixel_levels_create(device, &model->norm);
    ops_destroy(ops);
}

Status eval_model_load(EvalModel *model, const char *path, CheckpointRole role, const Options *options,
                       Comm *comm, Log *log, Error *error)
{
    *model = (EvalModel){.role = role};
    config_init(&model->config);
    Status status = checkpoint_resolve(path, model->path, comm, log, error);
    if (status != STATUS_OK) return status_prefix(error, status, "--model");
    CheckpointMeta meta = {0};
    TRY(checkpoint_read_meta(model->path, &meta, comm, error));
    model->iteration = meta.iteration;
    model->norm = pixel_levels_norm(meta.mean, meta.std);
    status = comm_agree(comm, resolve_config(model, &meta, options, error), error);
    checkpoint_meta_fini(&meta);
    TRY(status);
    TRY(build(model, meta.bytes, error)); /* the same on all ranks */
    ShardMap map;
    shard_map_init_whole(&map, &model->table, comm);
    status = checkpoint_load_backbone(model->path, role, &map, model->flat, comm, error);
    shard_map_fini(&map);
    return status == STATUS_OK ? check_finite(model, error) : status; /* all ranks have all of them */
}

Status eval_model_untrained(EvalModel *model, const Config *config, Error *error)
{
    *model = (EvalModel){.role = CHECKPOINT_STUDENT, .iteration = -1};
    config_init(&model->config);
    char *text = config_dump(config);
    Status status = config_load_text(&model->config, "configuration", text, strlen(text), error);
    memory_free(text);
    TRY(status);
    model->norm = pixel_levels_imagenet();
    TRY(build(model, INT64_MAX, error));
    param_table_initialise(&model->table, (uint64_t)model->config.train.seed, model->flat);
    return STATUS_OK;
}

void eval_model_fini(EvalModel *model)
{
    if (model->vit.blocks) {
        vit_fini(&model->vit);
        param_table_fini(&model->table);
    }
    memory_free(model->flat);
    if (model->device) {
        device_free(model->device, model->placed);
        device_free(model->device, model->reduced);
        device_free(model->device, model->backbone.levels.data);
    }
    config_fini(&model->config);
    *model = (EvalModel){0};
}

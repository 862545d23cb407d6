/* config_check.c - the rules between keys; those of single keys are bounds in the table.
 *
 * Sizes of the released architectures: dinov2/models/vision_transformer.py of the reference (only the depth
 * matters here). Rules that need the number of ranks or the data are checked by those who know them.
 */
#include "config/config_keys.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>

/* "FILE:LINE: key: message", with the place where `key` was set, or else `other`, or else "defaults". */
__attribute__((format(printf, 5, 6))) static Status fail(const Config *config, Error *error, const char *key,
                                                         const char *other, const char *format, ...)
{
    char message[512], line[32] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    int index = config_keys_find(key), second = other ? config_keys_find(other) : index;
    CHECK(index >= 0 && second >= 0);
    const ConfigOrigin *origin = &config->origins[index];
    if (!origin->source) origin = &config->origins[second];
    if (origin->source && origin->line > 0) snprintf(line, sizeof line, ":%lld", (long long)origin->line);
    return status_fail(error, STATUS_INPUT, "%s%s: %s: %s", origin->source ? origin->source : "defaults",
                       line, key, message);
}

static Status check_ranges(const Config *config, Error *error)
{
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        if (key->type != CONFIG_TYPE_PAIR) continue;
        const double *pair = (const double *)(const void *)((const char *)config + key->offset);
        if (pair[0] > pair[1])
            return fail(config, error, key->name, NULL,
                        "expected the smaller number first, got [%.10g, %.10g]", pair[0], pair[1]);
    }
    return STATUS_OK;
}

static int64_t depth_of(const Config *config)
{
    static const int64_t depths[] = {12, 12, 24, 40};
    if (config->student.arch == CONFIG_ARCH_VIT_CUSTOM) return config->student.depth;
    return depths[config->student.arch];
}

static Status check_custom_arch(const Config *config, Error *error)
{
    static const char *const names[] = {"student.embed_dim", "student.depth", "student.num_heads"};
    const int64_t values[] = {config->student.embed_dim, config->student.depth, config->student.num_heads};
    bool custom = config->student.arch == CONFIG_ARCH_VIT_CUSTOM;
    for (int i = 0; i < 3; i++) {
        if (custom && values[i] == 0)
            return fail(config, error, names[i], "student.arch",
                        "expected at least 1 for student.arch vit_custom, got 0");
        if (!custom && values[i] != 0)
            return fail(config, error, names[i], "student.arch",
                        "expected 0 unless student.arch is vit_custom, got %lld", (long long)values[i]);
    }
    if (custom && values[0] % values[2] != 0)
        return fail(config, error, names[0], names[2],
                    "expected a multiple of student.num_heads (%lld), got %lld", (long long)values[2],
                    (long long)values[0]);
    return STATUS_OK;
}

static Status check_patches(const Config *config, Error *error)
{
    int64_t patch = config->student.patch_size;
    const struct {
        const char *key;
        int64_t size;
        bool used;
    } crops[] = {
        {"crops.global_crops_size", config->crops.global_crops_size, true},
        {"crops.local_crops_size", config->crops.local_crops_size, config->crops.local_crops_number > 0},
        {"evaluation.crop_size", config->evaluation.crop_size, *config->evaluation.val_dataset_path != '\0'},
    };
    for (int i = 0; i < 3; i++)
        if (crops[i].used && crops[i].size % patch != 0)
            return fail(config, error, crops[i].key, "student.patch_size",
                        "expected a multiple of student.patch_size (%lld), got %lld", (long long)patch,
                        (long long)crops[i].size);
    return STATUS_OK;
}

static Status check_model(const Config *config, Error *error)
{
    TRY(check_custom_arch(config, error));
    TRY(check_patches(config, error));
    if (config->student.block_chunks > depth_of(config))
        return fail(config, error, "student.block_chunks", "student.arch",
                    "expected at most the %lld blocks, got %lld", (long long)depth_of(config),
                    (long long)config->student.block_chunks);
    return STATUS_OK;
}

/* The reference asserts both about iBOT; without any loss there is no gradient. */
static Status check_losses(const Config *config, Error *error)
{
    if (config->ibot.loss_weight > 0 && config->ibot.mask_sample_probability <= 0)
        return fail(config, error, "ibot.mask_sample_probability", "ibot.loss_weight",
                    "expected more than 0 while ibot.loss_weight is, got 0");
    if (config->ibot.loss_weight > 0 && config->ibot.mask_ratio_min_max[1] <= 0)
        return fail(config, error, "ibot.mask_ratio_min_max", "ibot.loss_weight",
                    "expected a ratio above 0 while ibot.loss_weight is, got [0, 0]");
    if (config->dino.loss_weight <= 0 && config->ibot.loss_weight <= 0 && config->dino.koleo_loss_weight <= 0)
        return fail(config, error, "dino.loss_weight", "ibot.loss_weight",
                    "expected a loss, got weight 0 for DINO, iBOT and KoLeo");
    return STATUS_OK;
}

static Status check_run(const Config *config, Error *error)
{
    if (config->train.global_batch_size % config->train.batch_size_per_gpu != 0)
        return fail(config, error, "train.global_batch_size", "train.batch_size_per_gpu",
                    "expected a multiple of train.batch_size_per_gpu (%lld), got %lld",
                    (long long)config->train.batch_size_per_gpu, (long long)config->train.global_batch_size);
    if (config->optim.warmup_epochs > config->optim.epochs)
        return fail(config, error, "optim.warmup_epochs", "optim.epochs",
                    "expected at most optim.epochs (%lld), got %lld", (long long)config->optim.epochs,
                    (long long)config->optim.warmup_epochs);
    return STATUS_OK;
}

static Status check_evaluation(const Config *config, Error *error)
{
    int64_t crop = config->evaluation.crop_size, resize = config->evaluation.resize_size;
    if (crop == 0) crop = config->crops.global_crops_size;
    if (resize != 0 && resize < crop)
        return fail(config, error, "evaluation.resize_size", "evaluation.crop_size",
                    "expected 0 or at least the crop (%lld), got %lld", (long long)crop, (long long)resize);
    return STATUS_OK;
}

/* Student and teacher share one shard map, which HYBRID_SHARD changes (design "Distribution"). */
static Status check_sharding(const Config *config, Error *error)
{
    static const char *const parts[] = {"backbone", "dino_head", "ibot_head"};
    const ConfigPrecisions *student = &config->compute_precision.student,
                           *teacher = &config->compute_precision.teacher;
    const ConfigSharding pairs[3][2] = {
        {student->backbone.sharding_strategy, teacher->backbone.sharding_strategy},
        {student->dino_head.sharding_strategy, teacher->dino_head.sharding_strategy},
        {student->ibot_head.sharding_strategy, teacher->ibot_head.sharding_strategy},
    };
    for (int i = 0; i < 3; i++) {
        bool hybrid = pairs[i][0] == CONFIG_SHARDING_HYBRID_SHARD;
        if (hybrid == (pairs[i][1] == CONFIG_SHARDING_HYBRID_SHARD)) continue;
        char key[96], other[96];
        snprintf(key, sizeof key, "compute_precision.%s.%s.sharding_strategy", hybrid ? "student" : "teacher",
                 parts[i]);
        snprintf(other, sizeof other, "compute_precision.%s.%s.sharding_strategy",
                 hybrid ? "teacher" : "student", parts[i]);
        return fail(config, error, key, other,
                    "expected HYBRID_SHARD on both sides or on neither, got it here and not in %s", other);
    }
    return STATUS_OK;
}

Status config_check(const Config *config, Error *error)
{
    TRY(check_ranges(config, error));
    TRY(check_run(config, error));
    TRY(check_model(config, error));
    TRY(check_losses(config, error));
    TRY(check_evaluation(config, error));
    return check_sharding(config, error);
}

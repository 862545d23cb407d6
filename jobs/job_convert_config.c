/* job_convert_config.c - see job_convert_config.h. */
#include "job_convert_config.h"

#include "ckpt/vit_weights.h"
#include "data/pixel_levels.h"
#include "run/version.h"
#include "ssl/ssl_meta_arch.h"

#include <stdio.h>
#include <string.h>

static const char *const ARCHS[] = {[CONFIG_ARCH_VIT_SMALL] = "vit_small",
                                    [CONFIG_ARCH_VIT_BASE] = "vit_base",
                                    [CONFIG_ARCH_VIT_LARGE] = "vit_large",
                                    [CONFIG_ARCH_VIT_GIANT2] = "vit_giant2",
                                    [CONFIG_ARCH_VIT_CUSTOM] = "vit_custom"};

Status job_convert_heads(VitConfig *found, int64_t heads, const char *path, Error *error)
{
    int64_t width = found->embed_dim;
    found->num_heads = heads ? heads : width / VIT_WEIGHTS_HEAD_DIM;
    if (heads ? width % heads == 0 : width % VIT_WEIGHTS_HEAD_DIM == 0) return STATUS_OK;
    if (heads)
        return status_fail(error, STATUS_INPUT, "--heads %lld: does not divide %s's width of %lld",
                           (long long)heads, path, (long long)width);
    return status_fail(error, STATUS_INPUT,
                       "%s: how many attention heads its width of %lld has is not known: give --heads N",
                       path, (long long)width);
}

/* The arch of that size. */
static ConfigArch arch_of(const VitConfig *found)
{
    Config config;
    ConfigArch arch = CONFIG_ARCH_VIT_SMALL;
    config_init(&config);
    for (; arch != CONFIG_ARCH_VIT_CUSTOM; arch++) {
        config.student.arch = arch;
        VitConfig known = ssl_vit_config(&config);
        if (known.embed_dim == found->embed_dim && known.depth == found->depth &&
            known.num_heads == found->num_heads)
            break;
    }
    config_fini(&config);
    return arch;
}

static Status set_number(Config *config, const char *key, int64_t value, Error *error)
{
    char text[96];
    snprintf(text, sizeof text, "%s=%lld", key, (long long)value);
    return config_override(config, text, error);
}

static Status set_word(Config *config, const char *key, const char *word, Error *error)
{
    char text[96];
    snprintf(text, sizeof text, "%s=%s", key, word);
    return config_override(config, text, error);
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

static Status set_network(Config *config, const VitConfig *found, Error *error)
{
    ConfigArch arch = arch_of(found);
    TRY(set_word(config, "student.arch", ARCHS[arch], error));
    if (arch == CONFIG_ARCH_VIT_CUSTOM) {
        TRY(set_number(config, "student.embed_dim", found->embed_dim, error));
        TRY(set_number(config, "student.depth", found->depth, error));
        TRY(set_number(config, "student.num_heads", found->num_heads, error));
    }
    TRY(set_number(config, "student.patch_size", found->patch_size, error));
    TRY(set_number(config, "student.num_register_tokens", found->num_register_tokens, error));
    TRY(set_word(config, "student.ffn_layer", found->swiglu ? "swiglufused" : "mlp", error));
    TRY(set_word(config, "student.qkv_bias", truth(found->qkv_bias), error));
    TRY(set_word(config, "student.proj_bias", truth(found->proj_bias), error));
    TRY(set_word(config, "student.ffn_bias", truth(found->ffn_bias), error));
    if (found->layerscale == 0.0) TRY(set_number(config, "student.layerscale", 0, error));
    if (found->num_register_tokens == 0) return STATUS_OK;
    TRY(set_word(config, "student.interpolate_antialias", "true", error));
    return set_number(config, "student.interpolate_offset", 0, error);
}

static Status set_head(Config *config, const char *module, const DinoHeadConfig *head, Error *error)
{
    const struct {
        const char *name;
        int64_t value;
    } keys[] = {{"n_prototypes", head->prototypes},
                {"bottleneck_dim", head->bottleneck_dim},
                {"nlayers", head->nlayers},
                {"hidden_dim", head->hidden_dim}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s.head_%s", module, keys[i].name);
        TRY(set_number(config, key, keys[i].value, error));
    }
    return STATUS_OK;
}

static Status set_heads(Config *config, const HeadWeights *heads, Error *error)
{
    TRY(set_head(config, "dino", &heads->dino, error));
    TRY(set_word(config, "ibot.separate_head", truth(heads->separate), error));
    return heads->separate ? set_head(config, "ibot", &heads->ibot, error) : STATUS_OK;
}

Status job_convert_image_size(Config *config, int64_t image_size, Error *error)
{
    int64_t patch = config->student.patch_size,
            local = (config->crops.local_crops_size + patch / 2) / patch * patch;
    TRY(set_number(config, "crops.global_crops_size", image_size, error));
    if (local < patch) local = patch;
    if (local > image_size) local = image_size;
    TRY(set_number(config, "crops.local_crops_size", local, error));
    return config_check(config, error);
}

Status job_convert_config(Config *config, const VitConfig *found, const HeadWeights *heads,
                          const Options *options, VitConfig *built, Error *error)
{
    TRY(set_network(config, found, error));
    if (heads) TRY(set_heads(config, heads, error));
    TRY(job_convert_image_size(config, found->img_size, error));
    for (int i = 0; i < options->config_file_count; i++)
        TRY(config_load_file(config, options->config_files[i], error));
    for (int i = 0; i < options->override_count; i++)
        TRY(config_override(config, options->overrides[i], error));
    TRY(config_check(config, error));
    VitConfig made = ssl_vit_config(config);
    made.block_chunks = 0; /* of names in tables; files are unchunked */
    *built = made;
    return STATUS_OK;
}

void job_convert_meta(CheckpointMeta *meta, const Config *config, const VitConfig *vit, char *text)
{
    PixelNorm norm = pixel_levels_imagenet();
    *meta = (CheckpointMeta){.iteration = -1,
                             .loss_scale = 1.0,
                             .global_batch_size = config->train.global_batch_size,
                             .seed = config->train.seed,
                             .config = text,
                             .embed_dim = vit->embed_dim,
                             .patch_size = vit->patch_size,
                             .n_registers = vit->num_register_tokens,
                             .block_chunks = config->student.block_chunks,
                             .global_crops_size = config->crops.global_crops_size,
                             .local_crops_size = config->crops.local_crops_size};
    for (int c = 0; c < 3; c++) {
        meta->mean[c] = norm.mean[c];
        meta->std[c] = norm.std[c];
    }
    snprintf(meta->arch, sizeof meta->arch, "%s", ARCHS[config->student.arch]);
    snprintf(meta->version, sizeof meta->version, "%s", version_number());
}

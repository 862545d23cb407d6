/* job_bench_presets.c - see job_bench_presets.h. */
#include "job_bench_presets.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ASSIGNMENTS = 16 };

#define FULL(arch)                                                                                           \
    {                                                                                                        \
        "student.arch=" arch, "student.patch_size=14", "student.drop_path_rate=0.3",                         \
            "crops.global_crops_size=224", "crops.local_crops_size=98", "crops.local_crops_number=8",        \
            "train.batch_size_per_gpu=32", "train.centering=sinkhorn_knopp", "ibot.separate_head=true",      \
            "dino.head_n_prototypes=131072", "ibot.head_n_prototypes=131072", "dino.head_bottleneck_dim=256" \
    }

/* The peer's settings, as assignments. */
static const struct {
    const char *name;
    const char *assignments[ASSIGNMENTS];
} PRESET_LIST[PRESETS] = {
    [PRESET_TINY] = {"tiny",
                     {"student.arch=vit_custom", "student.embed_dim=96", "student.depth=4",
                      "student.num_heads=3", "student.patch_size=4", "student.drop_path_rate=0.3",
                      "crops.global_crops_size=32", "crops.local_crops_size=16", "crops.local_crops_number=4",
                      "train.batch_size_per_gpu=32", "train.centering=sinkhorn_knopp",
                      "ibot.separate_head=true", "dino.head_n_prototypes=8192",
                      "ibot.head_n_prototypes=8192"}},
    [PRESET_VITS14] = {"vits14",
                       {"student.arch=vit_small", "student.patch_size=14", "student.drop_path_rate=0.3",
                        "crops.global_crops_size=224", "crops.local_crops_size=98",
                        "crops.local_crops_number=8", "train.batch_size_per_gpu=4",
                        "train.centering=sinkhorn_knopp", "ibot.separate_head=true",
                        "dino.head_n_prototypes=8192", "ibot.head_n_prototypes=8192"}},
    [PRESET_DEMO] = {"demo", {0}},
    [PRESET_FULL_S] = {"full-s", FULL("vit_small")},
    [PRESET_FULL_B] = {"full-b", FULL("vit_base")},
    [PRESET_FULL_L] = {"full-l", FULL("vit_large")},
    [PRESET_CONFIG] = {"config", {0}},
};

const char *job_bench_presets_name(int preset)
{
    return PRESET_LIST[preset].name;
}

Status job_bench_presets_find_demo(char *path, size_t size, Error *error)
{
    static const char FILE_NAME[] = "jobs/configs/demo.yaml";
    snprintf(path, size, "%s", FILE_NAME);
    if (access(path, R_OK) == 0) return STATUS_OK;
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 0) {
        program[length] = '\0';
        for (int i = 0; i < 2; i++) { /* away with the name and with build/ */
            char *slash = strrchr(program, '/');
            if (slash) *slash = '\0';
        }
        int written = snprintf(path, size, "%s/%s", program, FILE_NAME);
        if (written > 0 && (size_t)written < size && access(path, R_OK) == 0) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--preset demo: %s is not here; run it in the checkout",
                       FILE_NAME);
}

Status job_bench_presets_overlay(Config *config, int preset, const Options *options, Error *error)
{
    if (preset == PRESET_DEMO) {
        char path[PATH_MAX];
        TRY(job_bench_presets_find_demo(path, sizeof path, error));
        TRY(config_load_file(config, path, error));
    }
    if (preset == PRESET_CONFIG)
        for (int i = 0; i < options->config_file_count; i++)
            TRY(config_load_file(config, options->config_files[i], error));
    for (int i = 0; i < ASSIGNMENTS && PRESET_LIST[preset].assignments[i]; i++)
        TRY(config_override(config, PRESET_LIST[preset].assignments[i], error));
    for (int i = 0; i < options->override_count; i++)
        TRY(config_override(config, options->overrides[i], error));
    return config_check(config, error);
}

void job_bench_presets_set_dtype(Config *config, Dtype dtype)
{
    ConfigPrecisions *both[] = {&config->compute_precision.teacher, &config->compute_precision.student};
    for (int i = 0; i < 2; i++) {
        both[i]->backbone.mixed_precision.param_dtype = dtype;
        both[i]->dino_head.mixed_precision.param_dtype = dtype;
        both[i]->ibot_head.mixed_precision.param_dtype = dtype;
    }
}

bool job_bench_presets_is_full(int preset)
{
    return preset >= PRESET_FULL_S && preset <= PRESET_FULL_L;
}

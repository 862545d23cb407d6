/* descriptor_weights.c - see descriptor_weights.h. */
#include "ckpt/descriptor_weights.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { DIMS_MAX = 65536 };

/* sscd/models/model.py: GlobalGeMPool2d(3), torchvision's BatchNorm2d. */
static const double GEM_P = 3.0, BN_EPS = 1e-5;

bool descriptor_weights_detect(const SafetensorsFile *file, ResnetConfig *config)
{
    const SafetensorsTensor *fc = safetensors_find(file, "backbone.fc.weight");
    if (!fc || !safetensors_find(file, "backbone.layer1.0.conv1.weight")) return false;
    bool is_50 = safetensors_find(file, "backbone.layer1.0.conv3.weight") != NULL;
    int64_t dims = fc->shape[0] < 1 ? 1 : fc->shape[0] > DIMS_MAX ? DIMS_MAX : fc->shape[0];
    *config =
        (ResnetConfig){.arch = is_50 ? RESNET_50 : RESNET_18, .dims = dims, .gem_p = GEM_P, .bn_eps = BN_EPS};
    return true;
}

static bool is_counter(const char *name)
{
    static const char ending[] = ".num_batches_tracked";
    size_t length = strlen(name);
    return length >= sizeof ending && strcmp(name + length - (sizeof ending - 1), ending) == 0;
}

Status descriptor_weights_load(const SafetensorsFile *file, const ParamTable *table, float **flat,
                               Error *error)
{
    WeightPieces pieces = {0};
    *flat = NULL;
    for (int i = 0; i < table->count; i++) {
        const Param *param = &table->params[i];
        char name[sizeof((WeightPiece){0}).name];
        snprintf(name, sizeof name, "backbone.%s", param->name);
        weight_pieces_add(&pieces, name, param->ndim, param->shape, param->offset);
    }
    Status status = weight_pieces_match(&pieces, file, is_counter, "SSCD's network", error);
    if (status == STATUS_OK) {
        *flat = memory_alloc_array((size_t)table->flat_count, sizeof **flat);
        status = weight_pieces_read(&pieces, file, *flat, error);
    }
    weight_pieces_fini(&pieces);
    if (status == STATUS_OK) return STATUS_OK;
    memory_free(*flat);
    *flat = NULL;
    return status;
}

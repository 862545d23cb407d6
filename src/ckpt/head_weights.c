/* head_weights.c - see head_weights.h. */
#include "ckpt/head_weights.h"

#include <stdio.h>
#include <string.h>

void head_weights_name(const Param *param, char *name, size_t size)
{
    snprintf(name, size, "%s.%s", param_module_name(param->module), param->name);
}

bool head_weights_in_table(const ParamTable *table)
{
    for (int i = 0; i < table->count; i++)
        if (table->params[i].module != PARAM_BACKBONE) return true;
    return false;
}

static bool has_module(const SafetensorsFile *file, ParamModule module)
{
    const char *name = param_module_name(module);
    size_t length = strlen(name);
    for (int64_t t = 0; t < file->count; t++)
        if (strncmp(file->tensors[t].name, name, length) == 0 && file->tensors[t].name[length] == '.')
            return true;
    return false;
}

bool head_weights_there(const SafetensorsFile *file, const VitNames *names)
{
    return names->naming == VIT_NAMES_REFERENCE && names->prefix[0] &&
           (has_module(file, PARAM_DINO_HEAD) || has_module(file, PARAM_IBOT_HEAD));
}

static const SafetensorsTensor *find(const SafetensorsFile *file, ParamModule module, const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", param_module_name(module), name);
    return safetensors_find(file, text);
}

static Status describe(const SafetensorsFile *file, ParamModule module, DinoHeadConfig *head, Error *error)
{
    const SafetensorsTensor *prototypes = find(file, module, "last_layer.weight_v");
    const SafetensorsTensor *first = find(file, module, "mlp.0.weight"),
                            *only = find(file, module, "mlp.weight");
    if (!prototypes || prototypes->ndim != 2)
        return status_fail(error, STATUS_INPUT,
                           "%s: there is no %s.last_layer.weight_v [prototypes, bottleneck] in it",
                           file->path, param_module_name(module));
    if (only) first = only;
    if (!first || first->ndim != 2)
        return status_fail(error, STATUS_INPUT, "%s: there is no %s.mlp.0.weight [hidden, width] in it",
                           file->path, param_module_name(module));
    *head = (DinoHeadConfig){.in_dim = first->shape[1],
                             .hidden_dim = first->shape[0],
                             .bottleneck_dim = prototypes->shape[1],
                             .prototypes = prototypes->shape[0],
                             .nlayers = 1};
    for (; !only && head->nlayers <= DINO_HEAD_MAX_LAYERS; head->nlayers++) {
        char name[32];
        snprintf(name, sizeof name, "mlp.%lld.weight", (long long)(2 * head->nlayers));
        if (!find(file, module, name)) break;
    }
    return STATUS_OK;
}

Status head_weights_describe(const SafetensorsFile *file, HeadWeights *heads, Error *error)
{
    *heads = (HeadWeights){.separate = has_module(file, PARAM_IBOT_HEAD)};
    TRY(describe(file, PARAM_DINO_HEAD, &heads->dino, error));
    return heads->separate ? describe(file, PARAM_IBOT_HEAD, &heads->ibot, error) : STATUS_OK;
}

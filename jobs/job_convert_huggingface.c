/* job_convert_huggingface.c - see job_convert_huggingface.h. Source: configuration_dinov2.py and
 * configuration_dinov2_with_registers.py of transformers, and what their models always have. */
#include "job_convert_huggingface.h"

#include "base/atomic_file.h"
#include "base/memory.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

static const char WEIGHTS[] = "model.safetensors", CONFIG[] = "config.json";

/* The text of config.json; cJSON_free. */
static char *describe(const VitConfig *vit, SafetensorsType type)
{
    static const char *const types[] = {
        [SAFETENSORS_F32] = "float32", [SAFETENSORS_F16] = "float16", [SAFETENSORS_BF16] = "bfloat16"};
    bool registers = vit->num_register_tokens > 0;
    cJSON *tree = cJSON_CreateObject();
    const char *model = registers ? "Dinov2WithRegistersModel" : "Dinov2Model";
    cJSON_AddItemToObject(tree, "architectures", cJSON_CreateStringArray(&model, 1));
    cJSON_AddStringToObject(tree, "model_type", registers ? "dinov2_with_registers" : "dinov2");
    cJSON_AddNumberToObject(tree, "hidden_size", (double)vit->embed_dim);
    cJSON_AddNumberToObject(tree, "num_hidden_layers", (double)vit->depth);
    cJSON_AddNumberToObject(tree, "num_attention_heads", (double)vit->num_heads);
    cJSON_AddNumberToObject(tree, "mlp_ratio", vit->mlp_ratio);
    cJSON_AddStringToObject(tree, "hidden_act", "gelu");
    cJSON_AddBoolToObject(tree, "use_swiglu_ffn", vit->swiglu);
    cJSON_AddBoolToObject(tree, "qkv_bias", vit->qkv_bias);
    cJSON_AddNumberToObject(tree, "layer_norm_eps", 1e-6);
    cJSON_AddNumberToObject(tree, "image_size", (double)vit->img_size);
    cJSON_AddNumberToObject(tree, "patch_size", (double)vit->patch_size);
    cJSON_AddNumberToObject(tree, "num_channels", VIT_IMAGE_CHANNELS);
    if (registers) cJSON_AddNumberToObject(tree, "num_register_tokens", (double)vit->num_register_tokens);
    cJSON_AddStringToObject(tree, "torch_dtype", types[type]);
    char *text = cJSON_Print(tree);
    cJSON_Delete(tree);
    return text;
}

Status job_convert_huggingface_write(const char *path, const VitConfig *vit, SafetensorsType type, Log *log,
                                     Error *error)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (strcmp(name, WEIGHTS) != 0) {
        log_info(log, "from_pretrained(FOLDER) wants FOLDER/%s: no %s is written beside %s", WEIGHTS, CONFIG,
                 name);
        return STATUS_OK;
    }
    if (!vit->proj_bias || !vit->ffn_bias || vit->layerscale == 0.0) {
        log_warning(log, "Dinov2Model always has biases and LayerScale, which this network lacks: no %s",
                    CONFIG);
        return STATUS_OK;
    }
    size_t folder = (size_t)(name - path), size = folder + sizeof CONFIG;
    char *file = memory_alloc(size), *text = describe(vit, type);
    snprintf(file, size, "%.*s%s", (int)folder, path, CONFIG);
    Status status = atomic_file_write_text(file, text, error);
    cJSON_free(text);
    memory_free(file);
    return status;
}

/* class_attention.c - see class_attention.h. */
#include "features/class_attention.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/eval_loader.h"

#include <math.h>
#include <stdlib.h>

static double element(const void *values, Dtype dtype, int64_t i)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16);
    if (dtype == DTYPE_F32) return (double)((const float *)values)[i];
    uint16_t bits = ((const uint16_t *)values)[i];
    return (double)(dtype == DTYPE_BF16 ? dtype_f32_from_bf16(bits) : dtype_f32_from_f16(bits));
}

/* scores[tokens] become probabilities in out[tokens]. */
static void softmax(float *out, double *scores, int64_t tokens)
{
    double largest = scores[0], sum = 0.0;
    for (int64_t j = 1; j < tokens; j++)
        largest = fmax(largest, scores[j]);
    for (int64_t j = 0; j < tokens; j++)
        sum += scores[j] = exp(scores[j] - largest);
    for (int64_t j = 0; j < tokens; j++)
        out[j] = (float)(scores[j] / sum);
}

void class_attention_rows(float *out, const void *qkv, Dtype dtype, int64_t tokens, int64_t D, int64_t heads)
{
    int64_t width = D / heads;
    double *scores = memory_alloc_array((size_t)tokens, sizeof *scores);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t j = 0; j < tokens; j++) {
            double product = 0.0;
            for (int64_t c = h * width; c < (h + 1) * width; c++)
                product += element(qkv, dtype, c) * element(qkv, dtype, j * 3 * D + D + c);
            scores[j] = product / sqrt((double)width);
        }
        softmax(out + h * tokens, scores, tokens);
    }
    memory_free(scores);
}

/* --- of a picture --- */

/* On a real arena the image is on its way to the device when it returns. */
static VitPass layout(const FeatureBackbone *backbone, Device *device, uint8_t *image, EvalSize size,
                      int64_t blocks, Arena *arena)
{
    ArenaMark mark = arena_mark(arena);
    int64_t shape[] = {1, VIT_IMAGE_CHANNELS, size.height, size.width};
    VitCrops crops = {.sequences = 1,
                      .height = size.height,
                      .width = size.width,
                      .images = tensor_view(image, DTYPE_U8, 4, shape),
                      .levels = backbone->levels};
    bool host = device_kind(device) == DEVICE_CPU;
    if (!host) crops.images.data = arena_alloc(arena, tensor_bytes(crops.images));
    VitInput input = {
        .set_count = 1, .sets = {crops}, .act = weights_act(backbone->weights), .blocks = blocks};
    VitPass pass = vit_pass(backbone->vit, &input, arena);
    if (arena_is_measuring(arena)) return pass;
    device_upload_staged(device, arena, mark);
    if (!host) device_upload(device, crops.images.data, image, tensor_bytes(crops.images));
    return pass;
}

/* Blocks of a pass that keeps nothing share their activations, so what is left there is the last one's. */
void class_attention_compute(const FeatureBackbone *backbone, const Ops *ops, uint8_t *image, int64_t height,
                             int64_t width, int64_t block, float *out)
{
    const VitConfig *config = &backbone->vit->config;
    CHECK(block >= 0 && block < config->depth);
    EvalSize size = {height, width};
    Arena plan = arena_measuring();
    layout(backbone, ops->device, image, size, block + 1, &plan);
    Arena arena = device_arena_create(ops->device, &plan);
    VitPass pass = layout(backbone, ops->device, image, size, block + 1, &arena);
    vit_forward(backbone->vit, ops, backbone->weights, &pass, backbone->hooks);
    Tensor qkv = pass.blocks[0].qkv;
    void *host = memory_alloc(tensor_bytes(qkv));
    device_download(ops->device, host, qkv.data, tensor_bytes(qkv));
    class_attention_rows(out, host, qkv.dtype, qkv.shape[0], config->embed_dim, config->num_heads);
    memory_free(host);
    device_arena_destroy(ops->device, &arena);
}

/* --- what is shown of it --- */

typedef struct {
    float weight;
    int64_t at;
} Weighed;

static int heavier_first(const void *left, const void *right)
{
    const Weighed *a = left, *b = right;
    if (a->weight != b->weight) return a->weight > b->weight ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

void class_attention_keep(uint8_t *kept, const float *weights, int64_t n, double mass)
{
    Weighed *sorted = memory_alloc_array((size_t)n, sizeof *sorted);
    double sum = 0.0, before = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sorted[i] = (Weighed){weights[i], i};
        sum += (double)weights[i];
    }
    qsort(sorted, (size_t)n, sizeof *sorted, heavier_first);
    for (int64_t i = 0; i < n; i++) {
        kept[sorted[i].at] = before < mass * sum;
        before += (double)sorted[i].weight;
    }
    memory_free(sorted);
}

/* descriptor_pass.c - see descriptor_pass.h. */
#include "features/descriptor_pass.h"

#include "base/check.h"
#include "base/memory.h"

#include <string.h>

/* Pictures of one pass on a host, where more are no faster. */
enum { HOST_IMAGES = 8 };

struct DescriptorPass {
    const FeatureDescriptor *descriptor;
    Device *device;
    int64_t batch_size, pixels; /* most of one pass */
    Arena arena;
    uint8_t *images;  /* [pixels, 3] those of a pass, one after the other; host memory of the device */
    float *embedding; /* [batch_size, dims] so */
    int64_t *place;   /* [batch_size] of a pass's images in the batch */
    bool *done;       /* [batch_size] */
};

/* Pictures of one size that a pass takes. */
static int64_t images_of(const DescriptorPass *pass, EvalSize size)
{
    int64_t n = pass->pixels / (size.height * size.width);
    return n < 1 ? 1 : n < pass->batch_size ? n : pass->batch_size;
}

/* On a device with memory of its own the images are still to be uploaded. */
static ResnetPass lay_out(const DescriptorPass *pass, int64_t n, EvalSize size, Arena *arena)
{
    int64_t shape[] = {n, RESNET_CHANNELS, size.height, size.width};
    void *data = pass->images;
    if (device_kind(pass->device) != DEVICE_CPU)
        data = arena_alloc(arena, (size_t)(n * RESNET_CHANNELS * size.height * size.width));
    ResnetInput input = {.images = tensor_view(data, DTYPE_U8, 4, shape), .levels = pass->descriptor->levels};
    Tensor reduced = pass->descriptor->weights.reduced;
    return resnet_pass(pass->descriptor->resnet, &input, tensor_given(reduced) ? reduced.dtype : DTYPE_F32,
                       arena);
}

/* The largest pass over all sizes that the transform can make. */
static void plan_arena(DescriptorPass *pass, EvalTransform transform, int64_t crop_size)
{
    Arena largest = arena_measuring();
    int64_t longest = transform == EVAL_SHORTER ? EVAL_LONGEST * crop_size : crop_size;
    for (int64_t edge = crop_size; edge <= longest; edge++)
        for (int upright = 0; upright < 2; upright++) {
            EvalSize size = upright ? (EvalSize){edge, crop_size} : (EvalSize){crop_size, edge};
            Arena plan = arena_measuring();
            lay_out(pass, images_of(pass, size), size, &plan);
            if (plan.peak > largest.peak) largest = plan;
        }
    pass->arena = device_arena_create(pass->device, &largest);
}

DescriptorPass *descriptor_pass_create(const FeatureDescriptor *descriptor, Device *device,
                                       EvalTransform transform, int64_t crop_size, int64_t batch_size)
{
    CHECK(transform != EVAL_CENTRE && crop_size >= 1 && batch_size >= 1);
    DescriptorPass *pass = memory_alloc(sizeof *pass);
    int64_t images = batch_size;
    if (device_kind(device) == DEVICE_CPU && images > HOST_IMAGES) images = HOST_IMAGES;
    *pass = (DescriptorPass){.descriptor = descriptor,
                             .device = device,
                             .batch_size = batch_size,
                             .pixels = images * crop_size * crop_size};
    int64_t longest = transform == EVAL_SHORTER ? EVAL_LONGEST * crop_size * crop_size : 0;
    int64_t room = pass->pixels > longest ? pass->pixels : longest; /* one picture always has room */
    pass->images = device_alloc_host(device, (size_t)(room * RESNET_CHANNELS));
    pass->embedding = device_alloc_host(device, (size_t)(batch_size * descriptor->resnet->config.dims) *
                                                    sizeof *pass->embedding);
    pass->place = memory_alloc_array((size_t)batch_size, sizeof *pass->place);
    pass->done = memory_alloc_array((size_t)batch_size, sizeof *pass->done);
    plan_arena(pass, transform, crop_size);
    return pass;
}

void descriptor_pass_destroy(DescriptorPass *pass)
{
    if (!pass) return;
    device_arena_destroy(pass->device, &pass->arena);
    device_free_host(pass->device, pass->images);
    device_free_host(pass->device, pass->embedding);
    memory_free(pass->place);
    memory_free(pass->done);
    memory_free(pass);
}

/* Takes the first image that is not done, from `first` on, and others of its size into pass->images; returns
 * how many. */
static int64_t collect(DescriptorPass *pass, const EvalBatch *batch, int64_t first)
{
    EvalSize size = batch->sizes[first];
    size_t bytes = (size_t)(RESNET_CHANNELS * size.height * size.width);
    int64_t n = 0, most = images_of(pass, size);
    for (int64_t i = first; i < batch->count && n < most; i++) {
        EvalSize other = batch->sizes[i];
        if (pass->done[i] || other.height != size.height || other.width != size.width) continue;
        memcpy(pass->images + (size_t)n * bytes, batch->images + (size_t)i * batch->image_bytes, bytes);
        pass->done[i] = true;
        pass->place[n++] = i;
    }
    return n;
}

void descriptor_pass_run(DescriptorPass *pass, const Ops *ops, const EvalBatch *batch, float *out)
{
    CHECK(batch->count <= pass->batch_size);
    Device *device = pass->device;
    const FeatureDescriptor *descriptor = pass->descriptor;
    size_t row = (size_t)descriptor->resnet->config.dims;
    memset(pass->done, 0, (size_t)pass->batch_size * sizeof *pass->done);
    for (int64_t first = 0; first < batch->count; first++) {
        if (pass->done[first]) continue;
        int64_t n = collect(pass, batch, first);
        arena_reset(&pass->arena, ARENA_START);
        ResnetPass p = lay_out(pass, n, batch->sizes[first], &pass->arena);
        Tensor images = p.input.images;
        if (images.data != pass->images)
            device_upload(device, images.data, pass->images, tensor_bytes(images));
        resnet_forward(descriptor->resnet, ops, &descriptor->weights, &p, NULL, NULL);
        device_download(device, pass->embedding, p.embedding.data, tensor_bytes(p.embedding));
        device_finish(device);
        for (int64_t i = 0; i < n; i++)
            memcpy(out + (size_t)pass->place[i] * row, pass->embedding + (size_t)i * row, row * sizeof *out);
    }
}

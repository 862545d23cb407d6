/* descriptor_model.c - see descriptor_model.h. */
#include "eval/descriptor_model.h"

#include "base/memory.h"
#include "data/pixel_levels.h"

#include <math.h>

static Status load(DescriptorModel *model, const char *path, float *flat, Comm *comm, Error *error)
{
    TRY(descriptor_file_load(path, &model->table, flat, comm, error));
    resnet_fold(&model->resnet, flat, model->folded);
    for (int64_t i = 0; i < model->resnet.folded_count; i++)
        if (!isfinite(model->folded[i])) /* the same on every rank */
            return status_fail(error, STATUS_INPUT, "%s: the weights are not finite", path);
    return STATUS_OK;
}

Status descriptor_model_load(DescriptorModel *model, const char *path, Comm *comm, Error *error)
{
    *model = (DescriptorModel){0};
    TRY(descriptor_file_read_meta(path, &model->meta, comm, error));
    param_table_init(&model->table);
    resnet_build(&model->resnet, &model->meta.config, &model->table);
    model->folded = memory_alloc_array((size_t)model->resnet.folded_count, sizeof *model->folded);
    float *flat = memory_alloc_array((size_t)model->table.flat_count, sizeof *flat);
    Status status = load(model, path, flat, comm, error);
    memory_free(flat);
    return status;
}

void descriptor_model_place(DescriptorModel *model, Device *device, Dtype wanted)
{
    int64_t n = model->resnet.folded_count;
    Ops *ops = ops_create(device, &(OpsLimits){0}, &(OpsOptions){0});
    ResnetWeights *weights = &model->descriptor.weights;
    model->device = device;
    model->placed = device_alloc(device, (size_t)n * sizeof *model->placed);
    device_upload(device, model->placed, model->folded, (size_t)n * sizeof *model->placed);
    weights->exact = tensor_1d(model->placed, DTYPE_F32, n);
    if ((wanted == DTYPE_BF16 && ops->has_bf16) || (wanted == DTYPE_F16 && ops->has_fp16)) {
        model->reduced = device_alloc(device, (size_t)n * dtype_size(wanted));
        weights->reduced = tensor_1d(model->reduced, wanted, n);
        ops->cast(ops, weights->reduced, weights->exact);
    }
    PixelNorm norm = pixel_levels_norm(model->meta.mean, model->meta.std);
    model->descriptor.resnet = &model->resnet;
    model->descriptor.levels = pixel_levels_create(device, &norm);
    ops_destroy(ops);
}

void descriptor_model_fini(DescriptorModel *model)
{
    param_table_fini(&model->table);
    memory_free(model->folded);
    if (model->device) {
        device_free(model->device, model->placed);
        device_free(model->device, model->reduced);
        device_free(model->device, model->descriptor.levels.data);
    }
    *model = (DescriptorModel){0};
}

/* batch.c - the memory of a training batch. */
#include "data/batch.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/augment.h"

typedef struct {
    size_t global_crops, local_crops, masks; /* elements */
} BatchSizes;

static BatchSizes sizes_of(const Batch *batch)
{
    CHECK(batch->samples == batch->groups * batch->group_size);
    size_t samples = (size_t)batch->samples;
    size_t global = 3 * (size_t)batch->global_size * (size_t)batch->global_size;
    size_t local = 3 * (size_t)batch->local_size * (size_t)batch->local_size;
    return (BatchSizes){.global_crops = samples * AUGMENT_GLOBAL_CROPS * global,
                        .local_crops = samples * (size_t)batch->local_count * local,
                        .masks = samples * AUGMENT_GLOBAL_CROPS * (size_t)batch->patches};
}

size_t batch_bytes(const Batch *batch)
{
    BatchSizes sizes = sizes_of(batch);
    return (sizes.global_crops + sizes.local_crops) * dtype_size(batch->pixels) + sizes.masks +
           (size_t)(batch->groups + batch->samples) * sizeof(int64_t);
}

static void *pictures(const Batch *batch, size_t count)
{
    size_t each = dtype_size(batch->pixels);
    return batch->device ? device_alloc_host(batch->device, count * each) : memory_alloc_array(count, each);
}

void batch_init(Batch *batch, Device *device)
{
    BatchSizes sizes = sizes_of(batch);
    batch->device = device;
    batch->global_crops = pictures(batch, sizes.global_crops);
    batch->local_crops = pictures(batch, sizes.local_crops);
    batch->masks = memory_alloc(sizes.masks);
    batch->upperbound = memory_alloc_array((size_t)batch->groups, sizeof *batch->upperbound);
    batch->indices = memory_alloc_array((size_t)batch->samples, sizeof *batch->indices);
}

void batch_fini(Batch *batch)
{
    if (batch->device) {
        device_free_host(batch->device, batch->global_crops);
        device_free_host(batch->device, batch->local_crops);
    } else {
        memory_free(batch->global_crops);
        memory_free(batch->local_crops);
    }
    memory_free(batch->masks);
    memory_free(batch->upperbound);
    memory_free(batch->indices);
    *batch = (Batch){0};
}

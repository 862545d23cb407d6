/* data_pack.c - measure, plan, write. */
#include "data/data_pack.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/image_shrink.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 256 }; /* images between two calls of progress */

/* Sizes of all images, and where the shards begin. */
typedef struct {
    int64_t *sizes;      /* [padded] encoded bytes, -1: does not decode */
    int64_t *mask_sizes; /* [padded], or NULL */
    int64_t padded;      /* ranks * share */
    int64_t share;       /* images of one rank in the first pass */
    int64_t *indices;    /* [images] of those that decode */
    int64_t *starts;     /* [shards + 1] in `indices` */
} Plan;

static void report(const DataPackParams *params, const char *what, const char *unit, int64_t done,
                   int64_t total)
{
    if (params->progress) params->progress(params->progress_context, what, unit, done, total);
}

/* Sizes of image `index`; only a failure that is not the image's fault is handed up. */
static Status measure(const DataPackParams *params, const DataSet *set, int64_t index,
                      ImageShrinkScratch *scratch, DataBuffer *buffer, Plan *plan, Error *error)
{
    plan->sizes[index] = -1;
    Status status = data_set_read(set, index, buffer, error);
    if (status == STATUS_OK && params->shorter_side)
        status = image_shrink(buffer, params->shorter_side, scratch, error);
    else if (status == STATUS_OK)
        status = image_decode(&scratch->image, buffer->bytes, buffer->size, error);
    if (status == STATUS_INPUT) return STATUS_OK;
    TRY(status);
    plan->sizes[index] = (int64_t)buffer->size;
    if (!params->mask) return STATUS_OK;
    TRY(params->mask(params->mask_context, index, buffer, error));
    plan->mask_sizes[index] = (int64_t)buffer->size;
    return STATUS_OK;
}

static Status measure_chunk(const DataPackParams *params, const DataSet *set, int64_t first, int64_t last,
                            Plan *plan, Error *error)
{
    Status failed = STATUS_OK;
    int64_t failed_index = last;
#pragma omp parallel
    {
        ImageShrinkScratch scratch = {0};
        DataBuffer buffer = {0};
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = first; i < last; i++) {
            Error reason = {0};
            Status status = measure(params, set, i, &scratch, &buffer, plan, &reason);
            if (status == STATUS_OK) continue;
#pragma omp critical(data_pack_failure)
            if (i < failed_index) {
                failed_index = i;
                failed = status_fail(error, status, "%s", reason.text);
            }
        }
        image_shrink_scratch_fini(&scratch);
        data_buffer_destroy(&buffer);
    }
    return failed;
}

/* Pass 1: this rank's share of the images, then everybody has all sizes. */
static Status measure_all(const DataPackParams *params, const DataSet *set, Comm *comm, Plan *plan,
                          Error *error)
{
    int64_t count = data_set_count(set);
    plan->share = (count + comm_size(comm) - 1) / comm_size(comm);
    plan->padded = plan->share * comm_size(comm);
    plan->sizes = memory_alloc_array((size_t)plan->padded, sizeof *plan->sizes);
    if (params->mask) plan->mask_sizes = memory_alloc_array((size_t)plan->padded, sizeof *plan->mask_sizes);
    int64_t begin = plan->share * comm_rank(comm);
    int64_t end = begin + plan->share < count ? begin + plan->share : count;
    Status status = STATUS_OK;
    report(params, "reading", "images", 0, end - begin);
    for (int64_t i = begin; i < end && status == STATUS_OK; i += CHUNK) {
        status = measure_chunk(params, set, i, i + CHUNK < end ? i + CHUNK : end, plan, error);
        report(params, "reading", "images", (i + CHUNK < end ? i + CHUNK : end) - begin, end - begin);
    }
    TRY(comm_agree(comm, status, error));
    comm_all_gather(comm, plan->sizes, plan->sizes + begin, plan->share, DTYPE_I64, NULL);
    if (params->mask)
        comm_all_gather(comm, plan->mask_sizes, plan->mask_sizes + begin, plan->share, DTYPE_I64, NULL);
    return STATUS_OK;
}

static void plan_shards(const DataPackParams *params, int64_t count, Plan *plan, DataPackResult *result)
{
    for (int64_t i = 0; i < count; i++)
        result->corrupt += plan->sizes[i] < 0;
    result->images = count - result->corrupt;
    result->corrupt_indices = memory_alloc_array((size_t)result->corrupt, sizeof(int64_t));
    plan->indices = memory_alloc_array((size_t)result->images, sizeof *plan->indices);
    plan->starts = memory_alloc_array((size_t)result->images + 1, sizeof *plan->starts);
    int64_t taken = 0, left_out = 0, in_shard = 0;
    for (int64_t i = 0; i < count; i++) {
        if (plan->sizes[i] < 0) {
            result->corrupt_indices[left_out++] = i;
            continue;
        }
        if (taken == 0 || in_shard + plan->sizes[i] > params->shard_bytes) {
            plan->starts[result->shards++] = taken;
            in_shard = 0;
        }
        in_shard += plan->sizes[i];
        result->bytes += plan->sizes[i];
        plan->indices[taken++] = i;
    }
    plan->starts[result->shards] = taken;
}

static Status write_shard(const DataPackParams *params, const DataSet *set, const Plan *plan, int64_t shard,
                          Error *error)
{
    int64_t first = plan->starts[shard], count = plan->starts[shard + 1] - first;
    int64_t *sizes = memory_alloc_array((size_t)count, sizeof *sizes);
    int64_t *mask_sizes = params->mask ? memory_alloc_array((size_t)count, sizeof *mask_sizes) : NULL;
    for (int64_t i = 0; i < count; i++) {
        sizes[i] = plan->sizes[plan->indices[first + i]];
        if (mask_sizes) mask_sizes[i] = plan->mask_sizes[plan->indices[first + i]];
    }
    char path[DATA_SET_KEY_MAX];
    snprintf(path, sizeof path, "%s/shard_%05lld.h5", params->folder, (long long)shard);
    ShardWriterParams writer = {.set = set,
                                .indices = plan->indices + first,
                                .sizes = sizes,
                                .mask_sizes = mask_sizes,
                                .count = count,
                                .shorter_side = params->shorter_side,
                                .mask = params->mask,
                                .mask_context = params->mask_context,
                                .source = params->source,
                                .version = params->version};
    Status status = shard_writer_write(path, &writer, error);
    memory_free(sizes);
    memory_free(mask_sizes);
    return status;
}

/* Shards of an earlier run would be read together with the new ones. */
static Status refuse_old_shards(const char *folder, Error *error)
{
    char pattern[DATA_SET_KEY_MAX];
    if (strlen(folder) + 16 > sizeof pattern)
        return status_fail(error, STATUS_INPUT, "%s: path is too long", folder);
    snprintf(pattern, sizeof pattern, "%s/shard_*.h5", folder);
    glob_t found;
    if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0) return STATUS_OK;
    status_fail(error, STATUS_INPUT, "%s: is there already; give an empty folder", found.gl_pathv[0]);
    globfree(&found);
    return STATUS_INPUT;
}

static Status run(const DataPackParams *params, const DataSet *set, Comm *comm, Plan *plan,
                  DataPackResult *result, Error *error)
{
    TRY(comm_agree(comm, refuse_old_shards(params->folder, error), error));
    TRY(measure_all(params, set, comm, plan, error));
    plan_shards(params, data_set_count(set), plan, result);
    /* Every rank has the same sizes here, so this needs no agreement. */
    if (!result->images)
        return status_fail(error, STATUS_INPUT, "%s: none of its %lld images decodes", params->source,
                           (long long)result->corrupt);
    Status status = STATUS_OK;
    report(params, "writing", "shards", 0, result->shards);
    for (int64_t s = comm_rank(comm); s < result->shards && status == STATUS_OK; s += comm_size(comm)) {
        status = write_shard(params, set, plan, s, error);
        report(params, "writing", "shards", s + 1, result->shards);
    }
    return comm_agree(comm, status, error);
}

Status data_pack_run(const DataPackParams *params, const DataSet *set, Comm *comm, DataPackResult *result,
                     Error *error)
{
    CHECK(params->shard_bytes >= 1);
    *result = (DataPackResult){0};
    Plan plan = {0};
    Status status = run(params, set, comm, &plan, result, error);
    memory_free(plan.sizes);
    memory_free(plan.mask_sizes);
    memory_free(plan.indices);
    memory_free(plan.starts);
    return status;
}

void data_pack_fini(DataPackResult *result)
{
    memory_free(result->corrupt_indices);
    *result = (DataPackResult){0};
}

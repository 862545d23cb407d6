/* data_pack.c - measure, plan, write. */
#include "data/data_pack.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "data/image_shrink.h"
#include "run/signals.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK = 256,      /* images between two calls of progress */
    MAX_NAMED = 1000, /* corrupt images with a line of their own */
};

/* Sizes of all images, and where the shards begin. */
typedef struct {
    int64_t *sizes;      /* [padded] encoded bytes, or as pack_state.h says */
    int64_t *mask_sizes; /* [padded], or NULL */
    int64_t padded;      /* ranks * share */
    int64_t share;       /* images of one rank in the first pass */
    int64_t *indices;    /* [images] of those that decode */
    int64_t *starts;     /* [shards + 1] in `indices` */
    double saved;        /* clock_seconds of the state's last time */
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
    if (plan->sizes[index] != PACK_STATE_UNREAD) return STATUS_OK;
    plan->sizes[index] = PACK_STATE_CORRUPT;
    Status status = data_set_read(set, index, buffer, error);
    if (status == STATUS_OK && params->shorter_side)
        status = image_shrink(buffer, params->shorter_side, scratch, error);
    else if (status == STATUS_OK)
        status = image_decode(&scratch->image, buffer->bytes, buffer->size, error);
    if (status == STATUS_INPUT) return STATUS_OK;
    TRY(status);
    plan->sizes[index] = (int64_t)buffer->size;
    if (!params->masks) return STATUS_OK;
    TRY(data_set_read_mask(set, index, buffer, error));
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

/* Everybody has all sizes that are known. Collective over COMM. */
static void gather_sizes(Plan *plan, Comm *comm)
{
    comm_all_gather(comm, plan->sizes, plan->sizes + plan->share * comm_rank(comm), plan->share, DTYPE_I64,
                    NULL);
}

/* Between two pieces of work, of which every rank has as many: the agreed outcome of the last one, and with a
 * state STATUS_REQUEUE when a rank was asked to stop. `reading`: sizes change, and are saved when it is time
 * to. Collective over COMM. */
static Status end_piece(const DataPackParams *params, int64_t count, bool reading, Plan *plan, Comm *comm,
                        Status status, Error *error)
{
    double since = clock_seconds() - plan->saved;
    int64_t any[3] = {status != STATUS_OK, signals_stop_requested(),
                      reading && since >= 60 * params->state.save_minutes};
    comm_all_reduce(comm, any, 3, DTYPE_I64, COMM_MAX, NULL);
    if (any[0]) return comm_agree(comm, status, error);
    if (reading && (any[1] || any[2])) {
        gather_sizes(plan, comm);
        TRY(pack_state_save(&params->state, plan->sizes, count, comm, error));
        plan->saved = clock_seconds();
    }
    return any[1] ? pack_state_stopped(&params->state, error) : STATUS_OK;
}

/* Pass 1: this rank's share of the images, then everybody has all sizes. */
static Status measure_all(const DataPackParams *params, const DataSet *set, Comm *comm, Plan *plan,
                          Error *error)
{
    int64_t count = data_set_count(set);
    int64_t begin = plan->share * comm_rank(comm);
    int64_t end = begin + plan->share < count ? begin + plan->share : count;
    Status status = STATUS_OK;
    report(params, "reading", "images", 0, end - begin);
    for (int64_t done = 0; done < plan->share && status == STATUS_OK; done += CHUNK) {
        int64_t first = begin + done, last = first + CHUNK < end ? first + CHUNK : end;
        if (first < end) status = measure_chunk(params, set, first, last, plan, error);
        if (first < end) report(params, "reading", "images", last - begin, end - begin);
        if (params->state.path) status = end_piece(params, count, true, plan, comm, status, error);
    }
    TRY(comm_agree(comm, status, error));
    gather_sizes(plan, comm);
    if (params->masks)
        comm_all_gather(comm, plan->mask_sizes, plan->mask_sizes + begin, plan->share, DTYPE_I64, NULL);
    return params->state.path ? pack_state_save(&params->state, plan->sizes, count, comm, error) : STATUS_OK;
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
    char path[DATA_SET_KEY_MAX];
    snprintf(path, sizeof path, "%s/shard_%05lld.h5", params->folder, (long long)shard);
    if (params->state.path && access(path, F_OK) == 0) return STATUS_OK; /* complete, else it had no name */
    int64_t first = plan->starts[shard], count = plan->starts[shard + 1] - first;
    int64_t *sizes = memory_alloc_array((size_t)count, sizeof *sizes);
    int64_t *mask_sizes = params->masks ? memory_alloc_array((size_t)count, sizeof *mask_sizes) : NULL;
    for (int64_t i = 0; i < count; i++) {
        sizes[i] = plan->sizes[plan->indices[first + i]];
        if (mask_sizes) mask_sizes[i] = plan->mask_sizes[plan->indices[first + i]];
    }
    ShardWriterParams writer = {.set = set,
                                .indices = plan->indices + first,
                                .sizes = sizes,
                                .mask_sizes = mask_sizes,
                                .count = count,
                                .shorter_side = params->shorter_side,
                                .provenance = params->provenance,
                                .provenance_context = params->provenance_context,
                                .source = params->source,
                                .version = params->version};
    Status status = shard_writer_write(path, &writer, error);
    memory_free(sizes);
    memory_free(mask_sizes);
    return status;
}

static Status find_shards(const char *folder, const char *pattern, glob_t *found, bool *any, Error *error)
{
    char path[DATA_SET_KEY_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, pattern) >= (int)sizeof path)
        return status_fail(error, STATUS_INPUT, "%s: path is too long", folder);
    *any = glob(path, GLOB_NOSORT, NULL, found) == 0;
    return STATUS_OK;
}

void data_pack_remove_shards(const char *folder)
{
    bool any = false;
    glob_t found;
    if (find_shards(folder, "shard_*.h5*", &found, &any, NULL) != STATUS_OK || !any) return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        unlink(found.gl_pathv[i]);
    globfree(&found);
}

/* Shards of an earlier run would be read together with the new ones. */
static Status refuse_old_shards(const char *folder, Error *error)
{
    bool any = false;
    glob_t found;
    TRY(find_shards(folder, "shard_*.h5", &found, &any, error));
    if (!any) return STATUS_OK;
    status_fail(error, STATUS_INPUT, "%s: is there already; give an empty folder", found.gl_pathv[0]);
    globfree(&found);
    return STATUS_INPUT;
}

/* What an earlier run left in the folder is taken up, goes, or is refused. */
static Status restore(const DataPackParams *params, int64_t count, Comm *comm, Plan *plan, Error *error)
{
    bool found;
    plan->share = (count + comm_size(comm) - 1) / comm_size(comm);
    plan->padded = plan->share * comm_size(comm);
    plan->sizes = memory_alloc_array((size_t)plan->padded, sizeof *plan->sizes);
    if (params->masks) plan->mask_sizes = memory_alloc_array((size_t)plan->padded, sizeof *plan->mask_sizes);
    plan->saved = clock_seconds();
    pack_state_restore(&params->state, plan->sizes, count, &found, comm);
    if (found) log_info(params->log, "going on from %s", params->state.path);
    if (!params->state.path) return comm_agree(comm, refuse_old_shards(params->folder, error), error);
    if (!found && comm_rank(comm) == 0) data_pack_remove_shards(params->folder);
    comm_barrier(comm);
    return STATUS_OK;
}

static Status run(const DataPackParams *params, const DataSet *set, Comm *comm, Plan *plan,
                  DataPackResult *result, Error *error)
{
    int64_t count = data_set_count(set);
    TRY(restore(params, count, comm, plan, error));
    TRY(measure_all(params, set, comm, plan, error));
    plan_shards(params, count, plan, result);
    /* Every rank has the same sizes here, so this needs no agreement. */
    if (!result->images)
        return status_fail(error, STATUS_INPUT, "%s: none of its %lld images decodes", params->source,
                           (long long)result->corrupt);
    Status status = STATUS_OK;
    report(params, "writing", "shards", 0, result->shards);
    for (int64_t round = 0; round < result->shards && status == STATUS_OK; round += comm_size(comm)) {
        int64_t shard = round + comm_rank(comm);
        if (shard < result->shards) {
            status = write_shard(params, set, plan, shard, error);
            report(params, "writing", "shards", shard + 1, result->shards);
        }
        if (params->state.path) status = end_piece(params, count, false, plan, comm, status, error);
    }
    return comm_agree(comm, status, error);
}

Status data_pack_run(const DataPackParams *params, const DataSet *set, Comm *comm, DataPackResult *result,
                     Error *error)
{
    CHECK(params->shard_bytes >= 1 && !(params->state.path && params->masks));
    *result = (DataPackResult){0};
    Plan plan = {0};
    Status status = run(params, set, comm, &plan, result, error);
    memory_free(plan.sizes);
    memory_free(plan.mask_sizes);
    memory_free(plan.indices);
    memory_free(plan.starts);
    return status;
}

/* The reason is found by reading it again. */
void data_pack_name_corrupt(const DataPackResult *result, const DataSet *set, Log *log)
{
    Image image = {0};
    DataBuffer buffer = {0};
    for (int64_t i = 0; i < result->corrupt && i < MAX_NAMED; i++) {
        Error reason = {0};
        if (data_set_load_image(set, result->corrupt_indices[i], &image, &buffer, &reason) != STATUS_OK)
            log_warning(log, "%s; left out", reason.text);
    }
    if (result->corrupt > MAX_NAMED)
        log_warning(log, "%lld more corrupt images were left out", (long long)(result->corrupt - MAX_NAMED));
    image_destroy(&image);
    data_buffer_destroy(&buffer);
}

void data_pack_fini(DataPackResult *result)
{
    memory_free(result->corrupt_indices);
    *result = (DataPackResult){0};
}

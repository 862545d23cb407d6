/* checkpoint_write.c - saving: lay out, write in parallel, checksum, flush, rename. */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "ckpt/checkpoint.h"
#include "ckpt/checkpoint_io.h"
#include "ckpt/retention.h"
#include "h5/h5_attribute.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { METADATA_BYTES_PER_TENSOR = 2048, METADATA_BYTES = 4 << 20 };

static Status lay_out_tensors(const H5File *file, CheckpointLayout *layout, Error *error)
{
    for (int64_t t = 0; t < layout->count; t++) {
        CheckpointTensor *tensor = &layout->tensors[t];
        H5Info info = {.type = H5_TYPE_F32, .ndim = tensor->ndim, .layout = H5_LAYOUT_CONTIGUOUS};
        memcpy(info.shape, tensor->shape, sizeof tensor->shape);
        TRY(h5_dataset_create(file, tensor->path, &info, error));
        /* a place for the checksum, so that filling it in later moves nothing */
        TRY(h5_attribute_write_u32(file, tensor->path, "crc32", 0, error));
        tensor->offset = info.offset;
    }
    return STATUS_OK;
}

/* Rank 0: PATH.tmp with all data sets and attributes, and the offsets of the data. */
static Status lay_out(const char *path, const char *temporary, CheckpointLayout *layout,
                      CheckpointMetaWriter write_meta, const void *meta, Error *error)
{
    TRY(atomic_file_make_parent(path, error));
    int64_t metadata = METADATA_BYTES + layout->count * METADATA_BYTES_PER_TENSOR;
    TRY(atomic_file_probe_space(temporary, checkpoint_layout_bytes(layout) + metadata, error));
    H5File file;
    TRY(h5_file_create(&file, path, error));
    Status status = write_meta(&file, meta, error);
    if (status == STATUS_OK) status = lay_out_tensors(&file, layout, error);
    if (status != STATUS_OK) {
        h5_file_abandon(&file);
        return status;
    }
    return h5_file_close_temporary(&file, error);
}

/* Rank 0: the checksums into their attributes, everything to the disk, and the final name. */
static Status seal(const char *path, const char *temporary, const CheckpointLayout *layout,
                   const uint32_t *crcs, Error *error)
{
    H5File file;
    TRY(h5_file_open_writable(&file, temporary, error));
    Status status = STATUS_OK;
    for (int64_t t = 0; t < layout->count && status == STATUS_OK; t++)
        status = h5_attribute_write_u32(&file, layout->tensors[t].path, "crc32", crcs[t], error);
    Status closed = h5_file_close(&file, status == STATUS_OK ? error : NULL);
    TRY(status);
    TRY(closed);
    return atomic_file_commit(temporary, path, error);
}

/* The offsets that rank 0 found, to all. */
static void share_offsets(CheckpointLayout *layout, Comm *comm)
{
    int64_t *offsets = memory_alloc_array((size_t)layout->count + 1, sizeof *offsets);
    for (int64_t t = 0; t < layout->count; t++)
        offsets[t] = layout->tensors[t].offset;
    comm_broadcast(comm, offsets, layout->count, DTYPE_I64, 0, NULL);
    for (int64_t t = 0; t < layout->count; t++)
        layout->tensors[t].offset = offsets[t];
    memory_free(offsets);
}

/* All steps between the agreed start and the agreed end. Collective over COMM. */
static Status write_together(const char *path, const char *temporary, CheckpointLayout *layout,
                             CheckpointMetaWriter write_meta, const void *meta, Comm *comm, Error *error)
{
    int rank = comm_rank(comm);
    Status status = rank == 0 ? lay_out(path, temporary, layout, write_meta, meta, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    share_offsets(layout, comm);
    CheckpointPieces pieces = checkpoint_layout_deal(layout, CHECKPOINT_SHARE);
    status = comm_agree(comm, checkpoint_io_write(temporary, layout, &pieces, error), error);
    if (status == STATUS_OK) {
        uint32_t *crcs = memory_alloc_array((size_t)layout->count + 1, sizeof *crcs);
        checkpoint_layout_combine(layout, &pieces, crcs, comm);
        if (rank == 0) status = seal(path, temporary, layout, crcs, error);
        status = comm_agree(comm, status, error);
        memory_free(crcs);
    }
    checkpoint_layout_pieces_fini(&pieces);
    return status;
}

Status checkpoint_io_write_tensors(const char *path, CheckpointLayout *layout,
                                   CheckpointMetaWriter write_meta, const void *meta, Comm *comm,
                                   Error *error)
{
    size_t size = strlen(path) + 5;
    char *temporary = memory_alloc(size);
    snprintf(temporary, size, "%s.tmp", path);
    Status status = write_together(path, temporary, layout, write_meta, meta, comm, error);
    if (status != STATUS_OK && comm_rank(comm) == 0) unlink(temporary);
    memory_free(temporary);
    return status;
}

Status checkpoint_clean(const char *folder, Comm *comm, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) {
        status = atomic_file_make_folder(folder, error);
        if (status == STATUS_OK) status = retention_remove_temporary(folder, error);
    }
    return comm_agree(comm, status, error);
}

Status checkpoint_save(const char *folder, const CheckpointState *state, int keep, int64_t keep_every,
                       Comm *comm, Error *error)
{
    char path[CHECKPOINT_PATH_MAX];
    int64_t iteration = state->meta.iteration;
    TRY(retention_path(folder, iteration, path, sizeof path, error)); /* the same on every rank */
    CheckpointLayout layout = {0};
    checkpoint_layout_add_state(&layout, state, comm);
    Status status =
        checkpoint_io_write_tensors(path, &layout, checkpoint_io_write_meta, &state->meta, comm, error);
    checkpoint_layout_fini(&layout);
    TRY(status);
    if (comm_rank(comm) == 0) {
        status = retention_write_last(folder, iteration, error);
        if (status == STATUS_OK) status = retention_prune(folder, iteration, keep, keep_every, error);
    }
    return comm_agree(comm, status, error);
}

Status checkpoint_save_model_ema(const char *path, const CheckpointState *state, Comm *comm, Error *error)
{
    CheckpointLayout layout = {0};
    checkpoint_layout_add_role(&layout, checkpoint_layout_ema(&state->meta), state->map, state->model_ema,
                               false);
    Status status =
        checkpoint_io_write_tensors(path, &layout, checkpoint_io_write_meta, &state->meta, comm, error);
    checkpoint_layout_fini(&layout);
    return status;
}

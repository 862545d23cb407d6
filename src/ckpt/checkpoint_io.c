/* checkpoint_io.c - pwrite, pread, crc32, and attributes. */
#include "ckpt/checkpoint_io.h"

#include "base/memory.h"
#include "data/pixel_levels.h"
#include "h5/h5_attribute.h"
#include "h5/h5_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* The file is little-endian, and memory is copied as it lies. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are written without swapping bytes");

enum { BLOCK_BYTES = 4 << 20 }; /* checksummed while it is still in the cache */

static Status write_at(int fd, const char *path, const char *data, size_t bytes, int64_t offset, Error *error)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, data, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return status_fail(error, STATUS_FAILED, "%s: cannot write: %s", path,
                               n < 0 ? strerror(errno) : "nothing was taken");
        data += n;
        offset += n;
        bytes -= (size_t)n;
    }
    return STATUS_OK;
}

/* Of several threads' failures, one is told. */
static void keep_first(Status *status, Error *error, Status failure, const Error *own)
{
#pragma omp critical(checkpoint_io_failure)
    {
        if (*status == STATUS_OK && error) *error = *own;
        if (*status == STATUS_OK) *status = failure;
    }
}

static Status write_piece(int fd, const char *path, const CheckpointLayout *layout, CheckpointPiece *piece,
                          Error *error)
{
    const char *data = (const char *)piece->data;
    size_t bytes = (size_t)piece->count * sizeof(float);
    int64_t offset = layout->tensors[piece->tensor].offset + piece->start * (int64_t)sizeof(float);
    uLong crc = crc32(0, NULL, 0);
    for (size_t done = 0; done < bytes;) {
        size_t part = bytes - done < BLOCK_BYTES ? bytes - done : BLOCK_BYTES;
        crc = crc32(crc, (const Bytef *)data + done, (uInt)part);
        TRY(write_at(fd, path, data + done, part, offset + (int64_t)done, error));
        done += part;
    }
    piece->crc = (uint32_t)crc;
    return STATUS_OK;
}

Status checkpoint_io_write(const char *path, const CheckpointLayout *layout, CheckpointPieces *pieces,
                           Error *error)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return status_fail(error, STATUS_FAILED, "%s: cannot open: %s", path, strerror(errno));
    Status status = STATUS_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < pieces->count; i++) {
        Error own = {0};
        Status done = write_piece(fd, path, layout, &pieces->pieces[i], &own);
        if (done != STATUS_OK) keep_first(&status, error, done, &own);
    }
    /* every rank flushes: on a parallel file system another node's flush says nothing about our pages */
    if (status == STATUS_OK && fsync(fd) != 0)
        status = status_fail(error, STATUS_FAILED, "%s: cannot flush: %s", path, strerror(errno));
    if (close(fd) != 0 && status == STATUS_OK)
        status = status_fail(error, STATUS_FAILED, "%s: cannot write: %s", path, strerror(errno));
    return status;
}

static Status read_piece(int fd, const char *path, const CheckpointLayout *layout,
                         const CheckpointPiece *piece, Error *error)
{
    const CheckpointTensor *tensor = &layout->tensors[piece->tensor];
    char *data = (char *)piece->data;
    size_t bytes = (size_t)piece->count * sizeof(float);
    int64_t offset = tensor->offset + piece->start * (int64_t)sizeof(float);
    while (bytes > 0) {
        ssize_t n = pread(fd, data, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return status_fail(error, n < 0 ? STATUS_FAILED : STATUS_INPUT, "%s: %s: cannot be read: %s",
                               path, tensor->path, n < 0 ? strerror(errno) : "the file ends early");
        data += n;
        offset += n;
        bytes -= (size_t)n;
    }
    return STATUS_OK;
}

Status checkpoint_io_read(const char *path, const CheckpointLayout *layout, Error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return status_fail(error, STATUS_INPUT, "%s: cannot open: %s", path, strerror(errno));
    CheckpointPieces pieces = checkpoint_layout_deal(layout, CHECKPOINT_HELD);
    Status status = STATUS_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < pieces.count; i++) {
        Error own = {0};
        Status done = read_piece(fd, path, layout, &pieces.pieces[i], &own);
        if (done != STATUS_OK) keep_first(&status, error, done, &own);
    }
    checkpoint_layout_pieces_fini(&pieces);
    close(fd);
    return status;
}

void checkpoint_io_checksum(CheckpointPieces *pieces)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < pieces->count; i++) {
        CheckpointPiece *piece = &pieces->pieces[i];
        piece->crc = (uint32_t)crc32_z(crc32(0, NULL, 0), (const Bytef *)piece->data,
                                       (z_size_t)piece->count * sizeof(float));
    }
}

/* --- attributes ---------------------------------------------------------------------------------------- */

/* The members that are one int64 each. */
typedef struct {
    const char *name;
    size_t member;
} IntAttribute;

static const IntAttribute int_attributes[] = {
    {"iteration", offsetof(CheckpointMeta, iteration)},
    {"optimizer_step", offsetof(CheckpointMeta, optimizer_step)},
    {"loss_scale_good_steps", offsetof(CheckpointMeta, loss_scale_good_steps)},
    {"global_batch_size", offsetof(CheckpointMeta, global_batch_size)},
    {"samples_seen", offsetof(CheckpointMeta, samples_seen)},
    {"seed", offsetof(CheckpointMeta, seed)},
    {"embed_dim", offsetof(CheckpointMeta, embed_dim)},
    {"patch_size", offsetof(CheckpointMeta, patch_size)},
    {"n_registers", offsetof(CheckpointMeta, n_registers)},
    {"block_chunks", offsetof(CheckpointMeta, block_chunks)},
    {"global_crops_size", offsetof(CheckpointMeta, global_crops_size)},
    {"local_crops_size", offsetof(CheckpointMeta, local_crops_size)},
};

static const char bad_steps_name[] = "bad_steps"; /* apart: it may be missing */
static const char distilled_from_name[] = "distilled_from",
                  teacher_digest_name[] = "teacher_digest"; /* of distillations */

enum { INT_ATTRIBUTES = sizeof int_attributes / sizeof *int_attributes };

Status checkpoint_io_write_meta(const H5File *file, const void *of, Error *error)
{
    const CheckpointMeta *meta = of;
    H5Schema schema;
    h5_schema_load(&schema, "checkpoint");
    TRY(h5_schema_stamp(&schema, file, error));
    for (int i = 0; i < INT_ATTRIBUTES; i++) {
        int64_t value;
        memcpy(&value, (const char *)meta + int_attributes[i].member, sizeof value);
        TRY(h5_attribute_write_int(file, "/", int_attributes[i].name, value, error));
    }
    TRY(h5_attribute_write_int(file, "/", bad_steps_name, meta->bad_steps, error));
    TRY(h5_attribute_write_double(file, "/", "loss_scale", meta->loss_scale, error));
    TRY(h5_attribute_write_doubles(file, "/", "mean", meta->mean, 3, error));
    TRY(h5_attribute_write_doubles(file, "/", "std", meta->std, 3, error));
    TRY(h5_attribute_write_text(file, "/", "arch", meta->arch, error));
    TRY(h5_attribute_write_text(file, "/", "version", meta->version, error));
    if (*meta->distilled_from) {
        TRY(h5_attribute_write_text(file, "/", distilled_from_name, meta->distilled_from, error));
        TRY(h5_attribute_write_text(file, "/", teacher_digest_name, meta->teacher_digest, error));
    }
    return h5_attribute_write_text(file, "/", "config", meta->config ? meta->config : "", error);
}

static Status read_short_text(const H5File *file, const char *name, char *text, size_t size, Error *error)
{
    char *owned;
    TRY(h5_attribute_read_text(file, "/", name, &owned, error));
    snprintf(text, size, "%s", owned);
    memory_free(owned);
    return STATUS_OK;
}

/* The largest number that no sum of two of them overflows and a double holds. */
#define COUNT_MAX ((int64_t)1 << 52)

static Status check_int(const H5File *file, const IntAttribute *attribute, int64_t value, Error *error)
{
    bool is_seed = attribute->member == offsetof(CheckpointMeta, seed);
    int64_t least = attribute->member == offsetof(CheckpointMeta, iteration) ? -1 : 0;
    if (is_seed || (value >= least && value <= COUNT_MAX)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: attribute %s is %lld", file->path, attribute->name,
                       (long long)value);
}

/* Files of earlier versions lack it: 0. */
static Status read_bad_steps(const H5File *file, CheckpointMeta *meta, Error *error)
{
    H5AttributeInfo info;
    TRY(h5_attribute_info(file, "/", bad_steps_name, &info, error));
    if (!info.exists) return STATUS_OK;
    TRY(h5_attribute_read_ints(file, "/", bad_steps_name, &meta->bad_steps, 1, error));
    IntAttribute attribute = {bad_steps_name, offsetof(CheckpointMeta, bad_steps)};
    return check_int(file, &attribute, meta->bad_steps, error);
}

static Status check_doubles(const H5File *file, const CheckpointMeta *meta, Error *error)
{
    if (!pixel_levels_usable(meta->mean, meta->std))
        return status_fail(error, STATUS_INPUT, "%s: attributes mean and std are no normalisation",
                           file->path);
    if (isfinite(meta->loss_scale) && meta->loss_scale > 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: attribute loss_scale is %g", file->path, meta->loss_scale);
}

/* Files of pretraining lack them: "". */
static Status read_teacher(const H5File *file, CheckpointMeta *meta, Error *error)
{
    H5AttributeInfo info;
    TRY(h5_attribute_info(file, "/", distilled_from_name, &info, error));
    if (!info.exists) return STATUS_OK;
    TRY(read_short_text(file, distilled_from_name, meta->distilled_from, sizeof meta->distilled_from, error));
    return read_short_text(file, teacher_digest_name, meta->teacher_digest, sizeof meta->teacher_digest,
                           error);
}

Status checkpoint_io_read_meta(const H5File *file, CheckpointMeta *meta, Error *error)
{
    *meta = (CheckpointMeta){.bytes = file->bytes};
    for (int i = 0; i < INT_ATTRIBUTES; i++) {
        int64_t value;
        TRY(h5_attribute_read_ints(file, "/", int_attributes[i].name, &value, 1, error));
        TRY(check_int(file, &int_attributes[i], value, error));
        memcpy((char *)meta + int_attributes[i].member, &value, sizeof value);
    }
    TRY(read_bad_steps(file, meta, error));
    TRY(read_teacher(file, meta, error));
    TRY(h5_attribute_read_doubles(file, "/", "loss_scale", &meta->loss_scale, 1, error));
    TRY(h5_attribute_read_doubles(file, "/", "mean", meta->mean, 3, error));
    TRY(h5_attribute_read_doubles(file, "/", "std", meta->std, 3, error));
    TRY(check_doubles(file, meta, error));
    TRY(read_short_text(file, "arch", meta->arch, sizeof meta->arch, error));
    TRY(read_short_text(file, "version", meta->version, sizeof meta->version, error));
    return h5_attribute_read_text(file, "/", "config", &meta->config, error);
}

/* h5_checksum.c - Fletcher32 by reading, crc32 of whole data sets and of items. */
#include "h5/h5_checksum.h"

#include "base/memory.h"
#include "h5/h5_attribute.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK_BYTES = 4 << 20, MAX_ROW_BYTES = 64 << 20, ITEMS_AT_ONCE = 1 << 16 };

Status h5_checksum_by_reading(const H5File *file, const char *path, const H5Info *info, Error *error)
{
    if (info->count == 0) return STATUS_OK;
    if (info->layout != H5_LAYOUT_CHECKED)
        return status_fail(error, STATUS_INPUT, "%s: %s: expected the Fletcher32 filter", file->path, path);
    int64_t row_bytes = info->count / info->shape[0] * (int64_t)info->item_bytes;
    if (row_bytes > MAX_ROW_BYTES)
        return status_fail(error, STATUS_INPUT, "%s: %s: absurdly long rows", file->path, path);
    int64_t at_once = row_bytes < BLOCK_BYTES ? BLOCK_BYTES / row_bytes : 1;
    if (at_once > info->shape[0]) at_once = info->shape[0];
    void *block = memory_alloc((size_t)(at_once * row_bytes));
    Status status = STATUS_OK;
    for (int64_t first = 0; first < info->shape[0] && status == STATUS_OK; first += at_once) {
        int64_t rows = info->shape[0] - first < at_once ? info->shape[0] - first : at_once;
        status = h5_dataset_read_rows(file, path, info->type, first, rows, block, error);
    }
    memory_free(block);
    return status;
}

/* crc32 of bytes [offset, offset + bytes) of an open file; `block` has BLOCK_BYTES. */
static Status crc_of_range(int fd, const H5File *file, const char *path, int64_t offset, int64_t bytes,
                           unsigned char *block, uint32_t *crc, Error *error)
{
    uLong sum = crc32(0, NULL, 0);
    while (bytes > 0) {
        ssize_t n = pread(fd, block, (size_t)(bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return status_fail(error, STATUS_INPUT, "%s: %s: cannot be read: %s", file->path, path,
                               n < 0 ? strerror(errno) : "the file ends early");
        sum = crc32(sum, block, (uInt)n);
        offset += n;
        bytes -= n;
    }
    *crc = (uint32_t)sum;
    return STATUS_OK;
}

static Status open_raw(const H5File *file, int *fd, Error *error)
{
    *fd = open(file->path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? status_fail(error, STATUS_INPUT, "%s: %s", file->path, strerror(errno)) : STATUS_OK;
}

Status h5_checksum_by_attribute(const H5File *file, const char *path, const H5Info *info, Error *error)
{
    uint32_t expected, found = 0;
    TRY(h5_attribute_read_u32(file, path, "crc32", &expected, error));
    int fd;
    TRY(open_raw(file, &fd, error));
    unsigned char *block = memory_alloc(BLOCK_BYTES);
    Status status = crc_of_range(fd, file, path, info->offset, info->count * (int64_t)info->item_bytes, block,
                                 &found, error);
    if (status == STATUS_OK && found != expected)
        status = status_fail(error, STATUS_INPUT, "%s: %s: damaged: crc32 is %08x, expected %08x", file->path,
                             path, found, expected);
    memory_free(block);
    close(fd);
    return status;
}

/* What checking items carries along. */
typedef struct {
    const H5File *file;
    const H5SchemaObject *object;
    const H5Info *info;
    int fd;
    unsigned char *block;
    uint64_t *offsets; /* [ITEMS_AT_ONCE + 1] */
    uint32_t *crcs;    /* [ITEMS_AT_ONCE] */
} Items;

/* Items [first, first + count). */
static Status check_some_items(Items *items, int64_t first, int64_t count, Error *error)
{
    const H5File *file = items->file;
    const char *path = items->object->path;
    TRY(h5_dataset_read_rows(file, items->object->offsets, H5_TYPE_U64, first, count + 1, items->offsets,
                             error));
    TRY(h5_dataset_read_rows(file, items->object->crc, H5_TYPE_U32, first, count, items->crcs, error));
    if (first == 0 && items->offsets[0] != 0)
        return status_fail(error, STATUS_INPUT, "%s: %s: does not start at 0", file->path,
                           items->object->offsets);
    for (int64_t i = 0; i < count; i++) {
        uint64_t begin = items->offsets[i], end = items->offsets[i + 1];
        if (end < begin || end > (uint64_t)items->info->count)
            return status_fail(error, STATUS_INPUT, "%s: %s: item %lld lies outside %s", file->path,
                               items->object->offsets, (long long)(first + i), path);
        uint32_t crc = 0;
        int64_t offset = items->info->offset + (int64_t)begin;
        TRY(crc_of_range(items->fd, file, path, offset, (int64_t)(end - begin), items->block, &crc, error));
        if (crc != items->crcs[i])
            return status_fail(error, STATUS_INPUT,
                               "%s: %s: item %lld is damaged: crc32 is %08x, expected %08x", file->path, path,
                               (long long)(first + i), crc, items->crcs[i]);
    }
    return STATUS_OK;
}

static Status check_items(Items *items, int64_t n, Error *error)
{
    for (int64_t first = 0; first < n; first += ITEMS_AT_ONCE)
        TRY(check_some_items(items, first, n - first < ITEMS_AT_ONCE ? n - first : ITEMS_AT_ONCE, error));
    uint64_t last;
    const char *offsets = items->object->offsets;
    TRY(h5_dataset_read_rows(items->file, offsets, H5_TYPE_U64, n, 1, &last, error));
    if (last != (uint64_t)items->info->count)
        return status_fail(error, STATUS_INPUT, "%s: %s: does not end where %s ends", items->file->path,
                           offsets, items->object->path);
    return STATUS_OK;
}

Status h5_checksum_by_items(const H5File *file, const H5SchemaObject *object, const H5Info *info,
                            Error *error)
{
    if (info->layout != H5_LAYOUT_CONTIGUOUS)
        return status_fail(error, STATUS_INPUT, "%s: %s: expected contiguous storage", file->path,
                           object->path);
    H5Info crcs;
    TRY(h5_dataset_info(file, object->crc, &crcs, error));
    Items items = {.file = file, .object = object, .info = info};
    TRY(open_raw(file, &items.fd, error));
    items.block = memory_alloc(BLOCK_BYTES);
    items.offsets = memory_alloc((ITEMS_AT_ONCE + 1) * sizeof *items.offsets);
    items.crcs = memory_alloc(ITEMS_AT_ONCE * sizeof *items.crcs);
    Status status = check_items(&items, crcs.shape[0], error);
    memory_free(items.block);
    memory_free(items.offsets);
    memory_free(items.crcs);
    close(items.fd);
    return status;
}

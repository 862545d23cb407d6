/* h5_grids.c - see h5_grids.h. */
#include "h5/h5_grids.h"

#include "base/memory.h"

enum { ITEMS_AT_ONCE = 1 << 16 };

/* Items [first, first + count): their offsets [count + 1] and grids [count, 2]. */
static Status check_some(const H5File *file, const H5SchemaObject *object, int64_t rows, int64_t first,
                         int64_t count, uint64_t *offsets, int64_t *grids, Error *error)
{
    TRY(h5_dataset_read_rows(file, object->offsets, H5_TYPE_U64, first, count + 1, offsets, error));
    TRY(h5_dataset_read_rows(file, object->grid, H5_TYPE_I64, first, count, grids, error));
    if (first == 0 && offsets[0] != 0)
        return status_fail(error, STATUS_INPUT, "%s: %s: does not start at 0", file->path, object->offsets);
    for (int64_t i = 0; i < count; i++) {
        int64_t product;
        const int64_t *grid = grids + 2 * i;
        bool fits = grid[0] >= 1 && grid[1] >= 1 && !__builtin_mul_overflow(grid[0], grid[1], &product) &&
                    product <= rows && offsets[i] <= (uint64_t)(rows - product) &&
                    offsets[i + 1] == offsets[i] + (uint64_t)product;
        if (!fits)
            return status_fail(error, STATUS_INPUT, "%s: %s: item %lld is not a grid of %lld x %lld rows",
                               file->path, object->offsets, (long long)(first + i), (long long)grid[0],
                               (long long)grid[1]);
    }
    return STATUS_OK;
}

Status h5_grids_check(const H5File *file, const H5SchemaObject *object, const H5Info *info, Error *error)
{
    H5Info items;
    uint64_t last = 0;
    TRY(h5_dataset_info(file, object->grid, &items, error));
    int64_t n = items.shape[0], room = n < ITEMS_AT_ONCE ? n : ITEMS_AT_ONCE;
    uint64_t *offsets = memory_alloc_array((size_t)room + 1, sizeof *offsets);
    int64_t *grids = memory_alloc_array(2 * (size_t)room + 1, sizeof *grids);
    Status status = STATUS_OK;
    for (int64_t first = 0; first < n && status == STATUS_OK; first += room) {
        int64_t count = n - first < room ? n - first : room;
        status = check_some(file, object, info->shape[0], first, count, offsets, grids, error);
    }
    memory_free(offsets);
    memory_free(grids);
    TRY(status);
    TRY(h5_dataset_read_rows(file, object->offsets, H5_TYPE_U64, n, 1, &last, error));
    if (last == (uint64_t)info->shape[0]) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: %s: does not end where %s ends", file->path, object->offsets,
                       object->path);
}

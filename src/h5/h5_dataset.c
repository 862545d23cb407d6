/* h5_dataset.c - creating, describing, reading and writing data sets. */
#include "h5/h5_dataset.h"

#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_driver.h"
#include "h5/h5_guard.h"

#include <hdf5.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20, MAX_TEXT_BYTES = 1 << 16, FLETCHER32_BYTES = 4 };

static const char *const type_names[H5_TYPE_COUNT] = {
    [H5_TYPE_OTHER] = "other", [H5_TYPE_F16] = "float16", [H5_TYPE_F32] = "float32",
    [H5_TYPE_F64] = "float64", [H5_TYPE_I32] = "int32",   [H5_TYPE_I64] = "int64",
    [H5_TYPE_U8] = "uint8",    [H5_TYPE_U32] = "uint32",  [H5_TYPE_U64] = "uint64",
    [H5_TYPE_TEXT] = "text",
};

const char *h5_type_name(H5Type type)
{
    CHECK((unsigned)type < H5_TYPE_COUNT);
    return type_names[type];
}

H5Type h5_type_parse(const char *name)
{
    for (int t = H5_TYPE_F16; t < H5_TYPE_COUNT; t++)
        if (strcmp(name, type_names[t]) == 0) return (H5Type)t;
    return H5_TYPE_OTHER;
}

/* --- creating ------------------------------------------------------------------------------------------ */

/* Whole rows of about CHUNK_BYTES; of rows larger than that, a part. */
static void choose_chunk(const H5Info *info, hsize_t chunk[H5_MAX_DIMS])
{
    int64_t budget = (int64_t)(CHUNK_BYTES / info->item_bytes);
    for (int d = info->ndim - 1; d >= 0; d--) {
        int64_t extent = info->shape[d] < budget ? info->shape[d] : budget;
        chunk[d] = (hsize_t)(extent > 0 ? extent : 1);
        budget /= (int64_t)chunk[d];
    }
}

static hid_t creation_properties(const H5Info *info)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(dcpl, false); /* the same contents are the same bytes */
    if (info->layout == H5_LAYOUT_CONTIGUOUS) {
        H5Pset_layout(dcpl, H5D_CONTIGUOUS);
        H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    } else {
        hsize_t chunk[H5_MAX_DIMS];
        choose_chunk(info, chunk);
        H5Pset_chunk(dcpl, info->ndim, chunk);
        H5Pset_fletcher32(dcpl);
    }
    return dcpl;
}

/* Offset of the first byte of a contiguous, non-empty data set; else -1. */
static int64_t offset_of(hid_t dataset, const H5Info *info)
{
    if (info->layout != H5_LAYOUT_CONTIGUOUS || info->count == 0) return -1;
    haddr_t offset = H5Dget_offset(dataset);
    return offset == HADDR_UNDEF || offset > INT64_MAX ? -1 : (int64_t)offset;
}

Status h5_dataset_create(const H5File *file, const char *object, H5Info *info, Error *error)
{
    CHECK(info->ndim >= 1 && info->ndim <= H5_MAX_DIMS);
    hsize_t dims[H5_MAX_DIMS];
    info->count = 1;
    for (int d = 0; d < info->ndim; d++) {
        CHECK(info->shape[d] >= 0);
        dims[d] = (hsize_t)info->shape[d];
        info->count *= info->shape[d];
    }
    if (info->count == 0) info->layout = H5_LAYOUT_CONTIGUOUS;
    h5_guard_enter();
    hid_t type = h5_guard_type(info->type, info->item_bytes);
    CHECK(type >= 0);
    info->item_bytes = H5Tget_size(type);
    hid_t space = H5Screate_simple(info->ndim, dims, NULL);
    hid_t dcpl = creation_properties(info);
    hid_t dataset = -1;
    Status status = h5_guard_make_groups(file, object, false, error);
    if (status == STATUS_OK) {
        dataset = H5Dcreate2(file->id, object, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
        if (dataset < 0)
            status = h5_guard_fail(error, STATUS_FAILED, file, object, "cannot make the data set");
    }
    if (dataset >= 0) {
        info->offset = offset_of(dataset, info);
        H5Dclose(dataset);
    }
    H5Pclose(dcpl);
    H5Sclose(space);
    H5Tclose(type);
    h5_guard_leave();
    return status;
}

/* --- describing ---------------------------------------------------------------------------------------- */

/* Opens the data set; STATUS_INPUT when `object` is none. */
static Status open_dataset(const H5File *file, const char *object, hid_t *dataset, Error *error)
{
    *dataset = -1;
    H5Kind kind;
    TRY(h5_guard_kind(file, object, &kind, error));
    if (kind == H5_KIND_ABSENT) return h5_guard_fail(error, STATUS_INPUT, file, object, "missing");
    if (kind != H5_KIND_DATASET) return h5_guard_fail(error, STATUS_INPUT, file, object, "not a data set");
    *dataset = H5Dopen2(file->id, object, H5P_DEFAULT);
    if (*dataset < 0) return h5_guard_fail(error, STATUS_INPUT, file, object, "cannot be opened");
    return STATUS_OK;
}

/* Type and shape; NULL or what is wrong. */
static const char *describe_shape(hid_t dataset, H5Info *info)
{
    hid_t type = H5Dget_type(dataset);
    if (type < 0) return "unreadable type";
    info->type = h5_guard_classify(type);
    info->item_bytes = H5Tget_size(type);
    H5Tclose(type);
    if (info->item_bytes == 0 || info->item_bytes > MAX_TEXT_BYTES) return "elements of an absurd size";
    hid_t space = H5Dget_space(dataset);
    if (space < 0) return "unreadable shape";
    hsize_t dims[H5S_MAX_RANK] = {0};
    int ndim = H5Sis_simple(space) > 0 ? H5Sget_simple_extent_dims(space, dims, NULL) : -1;
    H5Sclose(space);
    if (ndim < 1 || ndim > H5_MAX_DIMS) return "expected 1 to 4 dimensions";
    info->ndim = ndim;
    info->count = 1;
    int64_t bytes = 0;
    for (int d = 0; d < ndim; d++) {
        if (dims[d] > INT64_MAX) return "absurdly large";
        info->shape[d] = (int64_t)dims[d];
        if (__builtin_mul_overflow(info->count, info->shape[d], &info->count)) return "absurdly large";
    }
    if (__builtin_mul_overflow(info->count, (int64_t)info->item_bytes, &bytes)) return "absurdly large";
    return NULL;
}

/* Chunked storage: only Fletcher32, all chunks there, none larger than the file. */
static const char *describe_chunks(hid_t dataset, hid_t dcpl, H5Info *info, int64_t file_bytes)
{
    hsize_t chunk[H5S_MAX_RANK] = {0};
    if (H5Pget_chunk(dcpl, H5_MAX_DIMS, chunk) != info->ndim) return "unreadable storage";
    int64_t chunk_bytes = (int64_t)info->item_bytes;
    for (int d = 0; d < info->ndim; d++)
        if (chunk[d] > INT64_MAX || __builtin_mul_overflow(chunk_bytes, (int64_t)chunk[d], &chunk_bytes))
            return "absurdly large chunks";
    unsigned flags = 0;
    size_t values = 0;
    int filters = H5Pget_nfilters(dcpl);
    for (int i = 0; i < filters; i++)
        if (H5Pget_filter2(dcpl, (unsigned)i, &flags, &values, NULL, 0, NULL, NULL) != H5Z_FILTER_FLETCHER32)
            return "a filter other than Fletcher32";
    int64_t bytes = info->count * (int64_t)info->item_bytes;
    hsize_t stored = bytes ? H5Dget_storage_size(dataset) : 0;
    if (stored > (hsize_t)file_bytes || (int64_t)stored < bytes || (bytes && chunk_bytes > file_bytes))
        return "its data does not lie wholly in the file";
    if (filters != 1 && bytes) return "expected the Fletcher32 filter";
    info->layout = H5_LAYOUT_CHECKED;
    return NULL;
}

static const char *describe_range(hid_t dataset, H5Info *info, int64_t file_bytes)
{
    info->layout = H5_LAYOUT_CONTIGUOUS;
    info->offset = offset_of(dataset, info);
    int64_t bytes = info->count * (int64_t)info->item_bytes;
    if (bytes && (info->offset < 0 || bytes > file_bytes || info->offset > file_bytes - bytes))
        return "its data does not lie wholly in the file";
    return NULL;
}

/* The kind of storage comes first: to ask for the shape of a virtual data set opens other files. */
static const char *describe_all(hid_t dataset, hid_t dcpl, H5Info *info, int64_t file_bytes)
{
    H5D_layout_t layout = H5Pget_layout(dcpl);
    if (H5Pget_external_count(dcpl) != 0) return "its data lies in another file";
    if (layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS) return "expected contiguous or chunked storage";
    const char *trouble = describe_shape(dataset, info);
    if (trouble) return trouble;
    return layout == H5D_CHUNKED ? describe_chunks(dataset, dcpl, info, file_bytes)
                                 : describe_range(dataset, info, file_bytes);
}

static Status describe(const H5File *file, const char *object, hid_t dataset, H5Info *info, Error *error)
{
    *info = (H5Info){.offset = -1};
    hid_t dcpl = H5Dget_create_plist(dataset);
    if (dcpl < 0) return h5_guard_fail(error, STATUS_INPUT, file, object, "unreadable storage");
    const char *trouble = describe_all(dataset, dcpl, info, file->temporary ? INT64_MAX : file->bytes);
    H5Pclose(dcpl);
    return trouble ? h5_guard_fail(error, STATUS_INPUT, file, object, trouble) : STATUS_OK;
}

Status h5_dataset_info(const H5File *file, const char *object, H5Info *info, Error *error)
{
    hid_t dataset;
    h5_guard_enter();
    Status status = open_dataset(file, object, &dataset, error);
    if (status == STATUS_OK) status = describe(file, object, dataset, info, error);
    if (dataset >= 0) H5Dclose(dataset);
    h5_guard_leave();
    return status;
}

/* The first element of the chunk after the one at `at`; false behind the last. */
static bool next_chunk(const H5Info *info, const hsize_t *chunk, hsize_t *at)
{
    for (int d = info->ndim - 1; d >= 0; d--) {
        at[d] += chunk[d];
        if (at[d] < (hsize_t)info->shape[d]) return true;
        at[d] = 0;
    }
    return false;
}

/* A chunk that is not found would be read as whatever was in memory before. */
static const char *find_chunks(hid_t dataset, const H5Info *info)
{
    hsize_t chunk[H5_MAX_DIMS], at[H5_MAX_DIMS] = {0}, stored;
    hid_t dcpl = H5Dget_create_plist(dataset);
    bool known = dcpl >= 0 && H5Pget_chunk(dcpl, H5_MAX_DIMS, chunk) == info->ndim;
    if (dcpl >= 0) H5Pclose(dcpl);
    if (!known) return "unreadable storage";
    hsize_t expected = info->item_bytes;
    for (int d = 0; d < info->ndim; d++)
        expected *= chunk[d];
    expected += FLETCHER32_BYTES;
    do {
        if (H5Dget_chunk_storage_size(dataset, at, &stored) < 0) return "unreadable storage";
        if (stored != expected) return "a part of it is missing or of a wrong size";
    } while (next_chunk(info, chunk, at));
    return NULL;
}

Status h5_dataset_check_chunks(const H5File *file, const char *object, Error *error)
{
    hid_t dataset;
    H5Info info;
    h5_guard_enter();
    Status status = open_dataset(file, object, &dataset, error);
    if (status == STATUS_OK) status = describe(file, object, dataset, &info, error);
    const char *trouble = NULL;
    if (status == STATUS_OK && info.layout == H5_LAYOUT_CHECKED && info.count > 0)
        trouble = find_chunks(dataset, &info);
    if (trouble) status = h5_guard_fail(error, STATUS_INPUT, file, object, trouble);
    if (dataset >= 0) H5Dclose(dataset);
    h5_guard_leave();
    return status;
}

/* --- reading and writing ------------------------------------------------------------------------------- */

/* Rows [first, first + rows) of an open data set, in the direction that `out` or `in` says. */
static bool transfer(hid_t dataset, const H5Info *info, int64_t first, int64_t rows, const void *in,
                     void *out)
{
    hsize_t start[H5_MAX_DIMS] = {(hsize_t)first}, count[H5_MAX_DIMS] = {(hsize_t)rows};
    for (int d = 1; d < info->ndim; d++)
        count[d] = (hsize_t)info->shape[d];
    hid_t in_file = H5Dget_space(dataset);
    hid_t in_memory = H5Screate_simple(info->ndim, count, NULL);
    hid_t type = H5Dget_type(dataset);
    bool done = H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start, NULL, count, NULL) >= 0;
    if (done && in) done = H5Dwrite(dataset, type, in_memory, in_file, H5P_DEFAULT, in) >= 0;
    if (done && out) done = H5Dread(dataset, type, in_memory, in_file, H5P_DEFAULT, out) >= 0;
    H5Sclose(in_file);
    H5Sclose(in_memory);
    H5Tclose(type);
    return done;
}

Status h5_dataset_write_rows(const H5File *file, const char *object, int64_t first, int64_t rows,
                             const void *data, Error *error)
{
    hid_t dataset;
    H5Info info = {0};
    h5_guard_enter();
    Status status = open_dataset(file, object, &dataset, error);
    if (status == STATUS_OK && describe_shape(dataset, &info))
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "unreadable");
    if (status == STATUS_OK) CHECK(first >= 0 && rows >= 0 && first <= info.shape[0] - rows);
    bool any = status == STATUS_OK && rows > 0 && info.count > 0;
    if (any && !transfer(dataset, &info, first, rows, data, NULL))
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "cannot write");
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == STATUS_OK)
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "cannot write");
    int failure = h5_driver_failure(file->id);
    if (failure != 0 && status == STATUS_OK) status = h5_guard_not_written(error, file, failure);
    h5_guard_leave();
    return status;
}

Status h5_dataset_shorten(const H5File *file, const char *object, int64_t rows, Error *error)
{
    hid_t dataset;
    H5Info info = {0};
    h5_guard_enter();
    Status status = open_dataset(file, object, &dataset, error);
    if (status == STATUS_OK && describe_shape(dataset, &info))
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "unreadable");
    hsize_t size[H5_MAX_DIMS];
    for (int d = 0; d < info.ndim; d++)
        size[d] = (hsize_t)(d == 0 ? rows : info.shape[d]);
    if (status == STATUS_OK) CHECK(rows >= 0 && rows <= info.shape[0]);
    if (status == STATUS_OK && rows < info.shape[0] && H5Dset_extent(dataset, size) < 0)
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "cannot be shortened");
    if (dataset >= 0 && H5Dclose(dataset) < 0 && status == STATUS_OK)
        status = h5_guard_fail(error, STATUS_FAILED, file, object, "cannot write");
    h5_guard_leave();
    return status;
}

Status h5_dataset_read_rows(const H5File *file, const char *object, H5Type type, int64_t first, int64_t rows,
                            void *out, Error *error)
{
    hid_t dataset;
    H5Info info = {0};
    h5_guard_enter();
    Status status = open_dataset(file, object, &dataset, error);
    if (status == STATUS_OK) status = describe(file, object, dataset, &info, error);
    if (status == STATUS_OK && info.type != type)
        status = status_fail(error, STATUS_INPUT, "%s: %s: %s, expected %s", file->path, object,
                             h5_type_name(info.type), h5_type_name(type));
    if (status == STATUS_OK && (first < 0 || rows < 0 || first > info.shape[0] - rows))
        status = h5_guard_fail(error, STATUS_INPUT, file, object, "has fewer rows than expected");
    bool any = status == STATUS_OK && rows > 0 && info.count > 0;
    if (any && !transfer(dataset, &info, first, rows, NULL, out))
        status = h5_guard_fail(error, STATUS_INPUT, file, object, "damaged");
    if (dataset >= 0) H5Dclose(dataset);
    h5_guard_leave();
    return status;
}

Status h5_dataset_put(const H5File *file, const char *object, H5Type type, int ndim, const int64_t *shape,
                      const void *data, Error *error)
{
    H5Info info = {.type = type, .ndim = ndim, .layout = H5_LAYOUT_CHECKED};
    CHECK(ndim >= 1 && ndim <= H5_MAX_DIMS);
    memcpy(info.shape, shape, (size_t)ndim * sizeof *shape);
    TRY(h5_dataset_create(file, object, &info, error));
    return h5_dataset_write_rows(file, object, 0, shape[0], data, error);
}

Status h5_dataset_put_text(const H5File *file, const char *object, int64_t count, const char *const *texts,
                           Error *error)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < count; i++)
        if (strlen(texts[i]) > bytes) bytes = strlen(texts[i]);
    if (bytes > MAX_TEXT_BYTES)
        return status_fail(error, STATUS_INPUT, "%s: %s: a text of more than %d bytes", file->path, object,
                           MAX_TEXT_BYTES);
    H5Info info = {
        .type = H5_TYPE_TEXT, .item_bytes = bytes, .ndim = 1, .shape = {count}, .layout = H5_LAYOUT_CHECKED};
    TRY(h5_dataset_create(file, object, &info, error));
    char *packed = memory_alloc_array((size_t)count, bytes);
    for (int64_t i = 0; i < count; i++)
        memcpy(packed + (size_t)i * bytes, texts[i], strlen(texts[i]));
    Status status = h5_dataset_write_rows(file, object, 0, count, packed, error);
    memory_free(packed);
    return status;
}

Status h5_dataset_get(const H5File *file, const char *object, H5Type type, int ndim, H5Info *info, void **out,
                      Error *error)
{
    *out = NULL;
    TRY(h5_dataset_info(file, object, info, error));
    if (info->ndim != ndim)
        return status_fail(error, STATUS_INPUT, "%s: %s: %d dimensions, expected %d", file->path, object,
                           info->ndim, ndim);
    *out = memory_alloc_array((size_t)info->count, info->item_bytes);
    Status status = h5_dataset_read_rows(file, object, type, 0, info->shape[0], *out, error);
    if (status != STATUS_OK) {
        memory_free(*out);
        *out = NULL;
    }
    return status;
}

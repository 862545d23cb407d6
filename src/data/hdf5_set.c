/* hdf5_set.c - the tables of all shards behind each other. */
#include "data/hdf5_set.h"

#include "base/memory.h"
#include "data/data_set.h"
#include "data/item_runs.h"
#include "data/shard_files.h"
#include "h5/h5_check.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

typedef struct {
    ShardFiles files;
    ItemRuns runs;     /* one per shard; source: its number */
    TextTable keys;    /* [count] */
    uint64_t *offsets; /* [count] of the image in its file */
    uint32_t *sizes;   /* [count] */
    uint32_t *crc;     /* [count] */
    int32_t *labels;   /* [count] */
    /* Of masks; NULL where shards have none. */
    uint64_t *mask_offsets;
    uint32_t *mask_sizes, *mask_crc;
    int64_t count;
} Hdf5Set;

/* Of a shard's masks, beside those of its images. */
typedef struct {
    H5Info bytes;
    uint64_t *offsets; /* [n + 1], NULL: no masks */
    uint32_t *crc;     /* [n] */
} MaskTables;

/* The tables of one shard, as they are in the file. */
typedef struct {
    H5Info bytes;
    uint64_t *offsets; /* [n + 1] */
    uint32_t *crc;     /* [n] */
    int64_t *labels;   /* [n] */
    char *keys;        /* [n, key_bytes] padded with NUL */
    char *classes;     /* [class_count, class_bytes] */
    size_t key_bytes, class_bytes;
    int64_t count, class_count;
    MaskTables masks;
} Tables;

static void tables_fini(Tables *tables)
{
    memory_free(tables->offsets);
    memory_free(tables->crc);
    memory_free(tables->labels);
    memory_free(tables->keys);
    memory_free(tables->classes);
    memory_free(tables->masks.offsets);
    memory_free(tables->masks.crc);
}

/* The schema has seen to it that all three are there, with the right lengths, or none. */
static Status read_mask_tables(const H5File *file, MaskTables *masks, Error *error)
{
    H5Kind kind;
    H5Info info;
    TRY(h5_file_kind(file, "/mask_bytes", &kind, error));
    if (kind == H5_KIND_ABSENT) return STATUS_OK;
    TRY(h5_dataset_info(file, "/mask_bytes", &masks->bytes, error));
    TRY(h5_dataset_get(file, "/mask_offsets", H5_TYPE_U64, 1, &info, (void **)&masks->offsets, error));
    return h5_dataset_get(file, "/mask_crc32", H5_TYPE_U32, 1, &info, (void **)&masks->crc, error);
}

static Status read_tables(const H5File *file, Tables *tables, Error *error)
{
    H5Info info;
    TRY(h5_dataset_info(file, "/bytes", &tables->bytes, error));
    TRY(h5_dataset_get(file, "/offsets", H5_TYPE_U64, 1, &info, (void **)&tables->offsets, error));
    tables->count = info.count - 1;
    TRY(h5_dataset_get(file, "/crc32", H5_TYPE_U32, 1, &info, (void **)&tables->crc, error));
    TRY(h5_dataset_get(file, "/labels", H5_TYPE_I64, 1, &info, (void **)&tables->labels, error));
    TRY(h5_dataset_get(file, "/keys", H5_TYPE_TEXT, 1, &info, (void **)&tables->keys, error));
    tables->key_bytes = info.item_bytes;
    TRY(h5_dataset_get(file, "/classes", H5_TYPE_TEXT, 1, &info, (void **)&tables->classes, error));
    tables->class_bytes = info.item_bytes;
    tables->class_count = info.count;
    return read_mask_tables(file, &tables->masks, error);
}

/* Items lie one after the other inside /NAMEbytes. */
static Status check_offsets(const char *path, const char *name, const H5Info *bytes, const uint64_t *offsets,
                            int64_t count, Error *error)
{
    if (count > 0 && bytes->count > 0 && bytes->offset < 0)
        return status_fail(error, STATUS_INPUT, "%s: /%sbytes is not contiguous", path, name);
    for (int64_t i = 0; i < count; i++) {
        uint64_t from = offsets[i], to = offsets[i + 1];
        if (from > to || to > (uint64_t)bytes->count || to - from > DATA_KIND_MAX_BYTES)
            return status_fail(error, STATUS_INPUT, "%s: /%soffsets[%lld] is wrong", path, name,
                               (long long)i);
    }
    return STATUS_OK;
}

/* What the schema cannot say: how items lie, and that labels name classes. */
static Status check_tables(const Tables *tables, const char *path, Error *error)
{
    const MaskTables *masks = &tables->masks;
    TRY(check_offsets(path, "", &tables->bytes, tables->offsets, tables->count, error));
    if (masks->offsets)
        TRY(check_offsets(path, "mask_", &masks->bytes, masks->offsets, tables->count, error));
    for (int64_t i = 0; i < tables->count; i++) {
        if (tables->labels[i] < -1 || tables->labels[i] >= tables->class_count)
            return status_fail(error, STATUS_INPUT, "%s: /labels[%lld] is %lld, but there are %lld classes",
                               path, (long long)i, (long long)tables->labels[i],
                               (long long)tables->class_count);
    }
    return STATUS_OK;
}

static Status take_classes(const Tables *tables, const char *path, bool first, TextTable *classes,
                           Error *error)
{
    bool same = first || classes->count == tables->class_count;
    for (int64_t c = 0; same && c < tables->class_count; c++) {
        const char *name = tables->classes + (size_t)c * tables->class_bytes;
        size_t length = strnlen(name, tables->class_bytes);
        if (first) {
            text_table_append(classes, name, length);
        } else {
            const char *known = text_table_get(classes, c);
            same = strlen(known) == length && memcmp(known, name, length) == 0;
        }
    }
    if (!same)
        return status_fail(error, STATUS_INPUT, "%s: its /classes are not those of the shards before it",
                           path);
    return STATUS_OK;
}

static Status take_masks(Hdf5Set *set, const Tables *tables, const char *path, bool first, Error *error)
{
    const MaskTables *masks = &tables->masks;
    if (!first && (masks->offsets != NULL) != (set->mask_offsets != NULL))
        return status_fail(error, STATUS_INPUT, "%s: it %s masks, other than the shards before it", path,
                           masks->offsets ? "has" : "has no");
    if (!masks->offsets) return STATUS_OK;
    size_t old = (size_t)set->count, all = old + (size_t)tables->count;
    set->mask_offsets =
        memory_grow(set->mask_offsets, old * sizeof *set->mask_offsets, all * sizeof *set->mask_offsets);
    set->mask_sizes =
        memory_grow(set->mask_sizes, old * sizeof *set->mask_sizes, all * sizeof *set->mask_sizes);
    set->mask_crc = memory_grow(set->mask_crc, old * sizeof *set->mask_crc, all * sizeof *set->mask_crc);
    for (int64_t i = 0; i < tables->count; i++) {
        int64_t to = set->count + i;
        set->mask_offsets[to] = (uint64_t)masks->bytes.offset + masks->offsets[i];
        set->mask_sizes[to] = (uint32_t)(masks->offsets[i + 1] - masks->offsets[i]);
        set->mask_crc[to] = masks->crc[i];
    }
    return STATUS_OK;
}

static void take_items(Hdf5Set *set, const Tables *tables, int64_t source)
{
    size_t old = (size_t)set->count, all = old + (size_t)tables->count;
    set->offsets = memory_grow(set->offsets, old * sizeof *set->offsets, all * sizeof *set->offsets);
    set->sizes = memory_grow(set->sizes, old * sizeof *set->sizes, all * sizeof *set->sizes);
    set->crc = memory_grow(set->crc, old * sizeof *set->crc, all * sizeof *set->crc);
    set->labels = memory_grow(set->labels, old * sizeof *set->labels, all * sizeof *set->labels);
    if (tables->count) item_runs_append(&set->runs, (ItemRun){.first = set->count, .source = source}, "");
    for (int64_t i = 0; i < tables->count; i++) {
        int64_t to = set->count + i;
        set->offsets[to] = (uint64_t)tables->bytes.offset + tables->offsets[i];
        set->sizes[to] = (uint32_t)(tables->offsets[i + 1] - tables->offsets[i]);
        set->crc[to] = tables->crc[i];
        set->labels[to] = (int32_t)tables->labels[i];
        const char *key = tables->keys + (size_t)i * tables->key_bytes;
        size_t length = strnlen(key, tables->key_bytes);
        text_table_append(&set->keys, key, length < DATA_SET_KEY_MAX / 2 ? length : DATA_SET_KEY_MAX / 2);
    }
    set->count += tables->count;
}

static Status read_shard(Hdf5Set *set, int64_t source, TextTable *classes, Error *error)
{
    const char *path = shard_files_path(&set->files, source);
    H5File file;
    TRY(h5_file_open(&file, path, error));
    Tables tables = {0};
    Status status = read_tables(&file, &tables, error);
    Error closing;
    Status closed = h5_file_close(&file, &closing);
    if (status == STATUS_OK && closed != STATUS_OK) status = status_fail(error, closed, "%s", closing.text);
    if (status == STATUS_OK) status = check_tables(&tables, path, error);
    if (status == STATUS_OK) status = take_classes(&tables, path, source == 0, classes, error);
    if (status == STATUS_OK) status = take_masks(set, &tables, path, source == 0, error);
    if (status == STATUS_OK) take_items(set, &tables, source);
    tables_fini(&tables);
    return status;
}

/* There may be thousands: one child looks at all of them. */
static Status check_shards(const Hdf5Set *set, Error *error)
{
    int64_t count = set->files.paths.count;
    const char **paths = memory_alloc_array((size_t)count, sizeof *paths);
    for (int64_t i = 0; i < count; i++)
        paths[i] = shard_files_path(&set->files, i);
    Status status = h5_check_files(paths, count, "dataset", error);
    memory_free(paths);
    return status;
}

/* --- the kind's functions --- */

static int64_t hdf5_label(const void *self, int64_t item)
{
    return ((const Hdf5Set *)self)->labels[item];
}

static void hdf5_key(const void *self, int64_t item, char *text, size_t size)
{
    snprintf(text, size, "%s", text_table_get(&((const Hdf5Set *)self)->keys, item));
}

static int64_t source_of(const Hdf5Set *set, int64_t item)
{
    return set->runs.runs[item_runs_find(&set->runs, item)].source;
}

static void hdf5_location(const void *self, int64_t item, char *text, size_t size)
{
    const Hdf5Set *set = self;
    snprintf(text, size, "%s:%s", shard_files_path(&set->files, source_of(set, item)),
             text_table_get(&set->keys, item));
}

static Status read_bytes(const Hdf5Set *set, int64_t item, uint64_t offset, uint32_t crc, DataBuffer *buffer,
                         Error *error)
{
    if (!buffer->size) return STATUS_OK;
    TRY(shard_files_read(&set->files, source_of(set, item), (int64_t)offset, buffer->bytes, buffer->size,
                         error));
    if (crc32_z(0, buffer->bytes, buffer->size) != crc)
        return status_fail(error, STATUS_INPUT, "its bytes do not match their crc32");
    return STATUS_OK;
}

static Status hdf5_read(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    const Hdf5Set *set = self;
    data_buffer_resize(buffer, set->sizes[item]);
    return read_bytes(set, item, set->offsets[item], set->crc[item], buffer, error);
}

static Status hdf5_read_mask(const void *self, int64_t item, DataBuffer *buffer, Error *error)
{
    const Hdf5Set *set = self;
    data_buffer_resize(buffer, set->mask_sizes[item]);
    Status status = read_bytes(set, item, set->mask_offsets[item], set->mask_crc[item], buffer, error);
    return status == STATUS_OK ? status : status_prefix(error, status, "mask");
}

static void hdf5_destroy(void *self)
{
    Hdf5Set *set = self;
    shard_files_fini(&set->files);
    item_runs_destroy(&set->runs);
    text_table_destroy(&set->keys);
    memory_free(set->offsets);
    memory_free(set->sizes);
    memory_free(set->crc);
    memory_free(set->labels);
    memory_free(set->mask_offsets);
    memory_free(set->mask_sizes);
    memory_free(set->mask_crc);
    memory_free(set);
}

Status hdf5_set_open(DataKind *kind, const char *pattern, Error *error)
{
    Hdf5Set *set = memory_alloc(sizeof *set);
    *kind = (DataKind){.self = set,
                       .label = hdf5_label,
                       .key = hdf5_key,
                       .location = hdf5_location,
                       .read = hdf5_read,
                       .destroy = hdf5_destroy};
    TRY(shard_files_init(&set->files, pattern, error));
    TRY(check_shards(set, error));
    for (int64_t file = 0; file < set->files.paths.count; file++)
        TRY(read_shard(set, file, &kind->classes, error));
    kind->count = set->count;
    if (set->mask_offsets) kind->read_mask = hdf5_read_mask;
    if (!set->count) return status_fail(error, STATUS_INPUT, "%s: no image in it", pattern);
    return STATUS_OK;
}

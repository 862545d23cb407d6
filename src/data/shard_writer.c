/* shard_writer.c - two streams of bytes (images, masks) with offsets and checksums, and the small tables. */
#include "data/shard_writer.h"

#include "base/memory.h"
#include "data/image_shrink.h"
#include "h5/h5_attribute.h"
#include "h5/h5_schema.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { FLUSH_BYTES = 8 << 20 };

/* One of the two streams. */
typedef struct {
    const H5File *file;
    const char *object; /* "/bytes" */
    DataBuffer pending; /* not yet in the file */
    int64_t written;
    uint64_t *offsets; /* [count + 1] */
    uint32_t *crc;     /* [count] */
} Stream;

static Status stream_begin(Stream *stream, const H5File *file, const char *object, const int64_t *sizes,
                           int64_t count, Error *error)
{
    *stream = (Stream){.file = file,
                       .object = object,
                       .offsets = memory_alloc_array((size_t)count + 1, sizeof *stream->offsets),
                       .crc = memory_alloc_array((size_t)count, sizeof *stream->crc)};
    for (int64_t i = 0; i < count; i++)
        stream->offsets[i + 1] = stream->offsets[i] + (uint64_t)sizes[i];
    H5Info info = {.type = H5_TYPE_U8,
                   .ndim = 1,
                   .shape = {(int64_t)stream->offsets[count]},
                   .layout = H5_LAYOUT_CONTIGUOUS};
    return h5_dataset_create(file, object, &info, error);
}

static void stream_fini(Stream *stream)
{
    data_buffer_destroy(&stream->pending);
    memory_free(stream->offsets);
    memory_free(stream->crc);
}

static Status stream_flush(Stream *stream, Error *error)
{
    int64_t rows = (int64_t)stream->pending.size;
    if (rows)
        TRY(h5_dataset_write_rows(stream->file, stream->object, stream->written, rows, stream->pending.bytes,
                                  error));
    stream->written += rows;
    data_buffer_resize(&stream->pending, 0);
    return STATUS_OK;
}

static Status stream_append(Stream *stream, int64_t i, const DataBuffer *bytes, Error *error)
{
    uint64_t expected = stream->offsets[i + 1] - stream->offsets[i];
    if (bytes->size != expected)
        return status_fail(error, STATUS_FAILED, "changed while it was packed: %zu bytes, before %llu",
                           bytes->size, (unsigned long long)expected);
    stream->crc[i] = (uint32_t)crc32_z(0, bytes->bytes, bytes->size);
    data_buffer_append(&stream->pending, bytes->bytes, bytes->size);
    return stream->pending.size >= FLUSH_BYTES ? stream_flush(stream, error) : STATUS_OK;
}

/* Flushes, and writes the stream's offsets and checksums. */
static Status stream_end(Stream *stream, const char *offsets, const char *crc, int64_t count, Error *error)
{
    TRY(stream_flush(stream, error));
    int64_t places = count + 1;
    TRY(h5_dataset_put(stream->file, offsets, H5_TYPE_U64, 1, &places, stream->offsets, error));
    return h5_dataset_put(stream->file, crc, H5_TYPE_U32, 1, &count, stream->crc, error);
}

static Status write_images(const H5File *file, const ShardWriterParams *params, Error *error)
{
    Stream stream;
    DataBuffer bytes = {0};
    ImageShrinkScratch scratch = {0};
    Status status = stream_begin(&stream, file, "/bytes", params->sizes, params->count, error);
    for (int64_t i = 0; i < params->count && status == STATUS_OK; i++) {
        status = data_set_read(params->set, params->indices[i], &bytes, error);
        if (status != STATUS_OK) continue;
        char location[DATA_SET_KEY_MAX];
        if (params->shorter_side) status = image_shrink(&bytes, params->shorter_side, &scratch, error);
        if (status == STATUS_OK) status = stream_append(&stream, i, &bytes, error);
        if (status == STATUS_OK) continue;
        data_set_location(params->set, params->indices[i], location, sizeof location);
        status_prefix(error, status, "%s", location);
    }
    if (status == STATUS_OK) status = stream_end(&stream, "/offsets", "/crc32", params->count, error);
    image_shrink_scratch_fini(&scratch);
    stream_fini(&stream);
    data_buffer_destroy(&bytes);
    return status;
}

static Status write_masks(const H5File *file, const ShardWriterParams *params, Error *error)
{
    if (!params->mask_sizes) return STATUS_OK;
    Stream stream;
    DataBuffer bytes = {0};
    Status status = stream_begin(&stream, file, "/mask_bytes", params->mask_sizes, params->count, error);
    for (int64_t i = 0; i < params->count && status == STATUS_OK; i++) {
        status = data_set_read_mask(params->set, params->indices[i], &bytes, error);
        if (status == STATUS_OK) status = stream_append(&stream, i, &bytes, error);
    }
    if (status == STATUS_OK)
        status = stream_end(&stream, "/mask_offsets", "/mask_crc32", params->count, error);
    stream_fini(&stream);
    data_buffer_destroy(&bytes);
    return status;
}

/* Length of the UTF-8 character at `text`, 0 if there is none. */
static size_t utf8_length(const unsigned char *text)
{
    size_t length = text[0] < 0x80   ? 1
                    : text[0] < 0xC2 ? 0
                    : text[0] < 0xE0 ? 2
                    : text[0] < 0xF0 ? 3
                    : text[0] < 0xF5 ? 4
                                     : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    bool overlong = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
    bool surrogate = text[0] == 0xED && text[1] >= 0xA0;
    bool beyond = text[0] == 0xF4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

/* File names may hold any bytes, HDF5 text is UTF-8: other bytes become \xHH. Owned by the caller. */
static char *to_utf8(const char *text)
{
    char *result = memory_alloc(4 * strlen(text) + 1), *to = result;
    for (const unsigned char *from = (const unsigned char *)text; *from;) {
        size_t length = utf8_length(from);
        if (length) {
            memcpy(to, from, length);
            to += length;
            from += length;
        } else {
            to += snprintf(to, 5, "\\x%02X", *from++);
        }
    }
    *to = '\0';
    return result;
}

static Status write_texts(const H5File *file, const char *object, char **texts, int64_t count, Error *error)
{
    Status status = h5_dataset_put_text(file, object, count, (const char *const *)texts, error);
    for (int64_t i = 0; i < count; i++)
        memory_free(texts[i]);
    memory_free(texts);
    return status;
}

static Status write_tables(const H5File *file, const ShardWriterParams *params, Error *error)
{
    int64_t *labels = memory_alloc_array((size_t)params->count, sizeof *labels);
    for (int64_t i = 0; i < params->count; i++)
        labels[i] = data_set_label(params->set, params->indices[i]);
    Status status = h5_dataset_put(file, "/labels", H5_TYPE_I64, 1, &params->count, labels, error);
    memory_free(labels);
    TRY(status);
    char **keys = memory_alloc_array((size_t)params->count, sizeof *keys);
    for (int64_t i = 0; i < params->count; i++) {
        char key[DATA_SET_KEY_MAX];
        data_set_key(params->set, params->indices[i], key, sizeof key);
        keys[i] = to_utf8(key);
    }
    TRY(write_texts(file, "/keys", keys, params->count, error));
    int64_t class_count = data_set_class_count(params->set);
    char **classes = memory_alloc_array((size_t)class_count, sizeof *classes);
    for (int64_t c = 0; c < class_count; c++)
        classes[c] = to_utf8(data_set_class_name(params->set, c));
    return write_texts(file, "/classes", classes, class_count, error);
}

static Status write_provenance(const H5File *file, const ShardWriterParams *params, Error *error)
{
    if (!params->provenance) return STATUS_OK;
    size_t n = (size_t)params->count;
    const char **texts = memory_alloc_array(3 * n, sizeof *texts), **source = texts;
    const char **query_set = texts + n, **mode = texts + 2 * n;
    int64_t *numbers = memory_alloc_array(2 * n, sizeof *numbers), *query = numbers, *neighbour = numbers + n;
    float *similarity = memory_alloc_array(n, sizeof *similarity);
    for (size_t i = 0; i < n; i++) {
        ShardProvenance provenance = params->provenance(params->provenance_context, params->indices[i]);
        source[i] = provenance.source;
        query_set[i] = provenance.query_set;
        mode[i] = provenance.mode;
        query[i] = provenance.query;
        neighbour[i] = provenance.neighbour;
        similarity[i] = provenance.similarity;
    }
    const int64_t *shape = &params->count;
    Status status = h5_dataset_put_text(file, "/source", *shape, source, error);
    if (status == STATUS_OK) status = h5_dataset_put_text(file, "/query_set", *shape, query_set, error);
    if (status == STATUS_OK) status = h5_dataset_put_text(file, "/mode", *shape, mode, error);
    if (status == STATUS_OK) status = h5_dataset_put(file, "/query", H5_TYPE_I64, 1, shape, query, error);
    if (status == STATUS_OK)
        status = h5_dataset_put(file, "/neighbour", H5_TYPE_I64, 1, shape, neighbour, error);
    if (status == STATUS_OK)
        status = h5_dataset_put(file, "/similarity", H5_TYPE_F32, 1, shape, similarity, error);
    memory_free(similarity);
    memory_free(numbers);
    memory_free(texts);
    return status;
}

static Status write_attributes(const H5File *file, const ShardWriterParams *params, Error *error)
{
    H5Schema *schema = memory_alloc(sizeof *schema);
    h5_schema_load(schema, "dataset");
    Status status = h5_schema_stamp(schema, file, error);
    memory_free(schema);
    TRY(status);
    TRY(h5_attribute_write_text(file, "/", "source", params->source, error));
    return h5_attribute_write_text(file, "/", "version", params->version, error);
}

Status shard_writer_write(const char *path, const ShardWriterParams *params, Error *error)
{
    H5File file;
    TRY(h5_file_create(&file, path, error));
    Status status = write_attributes(&file, params, error);
    if (status == STATUS_OK) status = write_images(&file, params, error);
    if (status == STATUS_OK) status = write_masks(&file, params, error);
    if (status == STATUS_OK) status = write_tables(&file, params, error);
    if (status == STATUS_OK) status = write_provenance(&file, params, error);
    if (status == STATUS_OK) return h5_file_commit(&file, error);
    h5_file_abandon(&file);
    return status;
}

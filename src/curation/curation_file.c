/* curation_file.c - see curation_file.h. */
#include "curation/curation_file.h"

#include "base/atomic_file.h"
#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"

#include <math.h>

enum { PIECE = 1 << 20 }; /* rows that travel at a time */

/* --- writing --- */

static Status write_meta(const H5File *file, int64_t n, const CurationMeta *meta, Error *error)
{
    H5Schema schema;
    h5_schema_load(&schema, "curation");
    TRY(h5_schema_stamp(&schema, file, error));
    TRY(h5_attribute_write_text(file, "/", "step", meta->step, error));
    TRY(h5_attribute_write_text(file, "/", "inputs", meta->inputs, error));
    TRY(h5_attribute_write_int(file, "/", "digest", (int64_t)meta->digest, error));
    TRY(h5_attribute_write_int(file, "/", "key_digest", (int64_t)meta->key_digest, error));
    TRY(h5_attribute_write_int(file, "/", "rows", n, error));
    TRY(h5_attribute_write_text(file, "/", "config", meta->config, error));
    return h5_attribute_write_text(file, "/", "version", meta->version, error);
}

void curation_file_create(CurationFile *file, const char *path, int64_t n, const CurationMeta *meta,
                          Comm *comm)
{
    *file = (CurationFile){.comm = comm, .file = {.id = -1}, .writes = comm_rank(comm) == 0, .n = n};
    if (!file->writes) return;
    file->status = atomic_file_make_parent(path, &file->error);
    if (file->status == STATUS_OK) file->status = h5_file_create(&file->file, path, &file->error);
    if (file->status == STATUS_OK) file->status = write_meta(&file->file, n, meta, &file->error);
}

static bool goes_on(const CurationFile *file)
{
    return file->writes && file->status == STATUS_OK;
}

void curation_file_put_int(CurationFile *file, const char *name, int64_t value)
{
    if (goes_on(file)) file->status = h5_attribute_write_int(&file->file, "/", name, value, &file->error);
}

void curation_file_put_double(CurationFile *file, const char *name, double value)
{
    if (goes_on(file)) file->status = h5_attribute_write_double(&file->file, "/", name, value, &file->error);
}

void curation_file_put_text(CurationFile *file, const char *name, const char *text)
{
    if (goes_on(file)) file->status = h5_attribute_write_text(&file->file, "/", name, text, &file->error);
}

static size_t bytes_of(H5Type type)
{
    return type == H5_TYPE_U8 ? 1 : type == H5_TYPE_I64 ? 8 : 4;
}

/* The rows of rank `source`, which stand from `first` on in the file. Collective over COMM. */
static void put_rank(CurationFile *file, const char *object, size_t bytes, int source, int64_t first,
                     int64_t count, const char *mine, char *piece)
{
    int size = comm_size(file->comm), rank = comm_rank(file->comm);
    int64_t *counts = memory_alloc_array(2 * (size_t)size, sizeof *counts);
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;
        counts[0] = source == rank ? n * (int64_t)bytes : 0;
        counts[size + source] = file->writes ? n * (int64_t)bytes : 0;
        comm_all_to_all(file->comm, piece, counts + size, source == rank ? mine + (size_t)at * bytes : mine,
                        counts, DTYPE_U8);
        if (goes_on(file))
            file->status = h5_dataset_write_rows(&file->file, object, first + at, n, piece, &file->error);
    }
    memory_free(counts);
}

void curation_file_put_rows(CurationFile *file, const char *object, H5Type type, const void *mine,
                            int64_t count)
{
    CHECK(type == H5_TYPE_U8 || type == H5_TYPE_I32 || type == H5_TYPE_I64 || type == H5_TYPE_F32);
    int size = comm_size(file->comm);
    int64_t *counts = memory_alloc_array((size_t)size, sizeof *counts), first = 0;
    comm_all_gather(file->comm, counts, &count, 1, DTYPE_I64, NULL);
    H5Info info = {.type = type, .ndim = 1, .shape = {file->n}, .layout = H5_LAYOUT_CHECKED};
    if (goes_on(file)) file->status = h5_dataset_create(&file->file, object, &info, &file->error);
    char *piece = memory_alloc(file->writes ? PIECE * bytes_of(type) : 1);
    for (int source = 0; source < size; source++) {
        put_rank(file, object, bytes_of(type), source, first, counts[source], mine, piece);
        first += counts[source];
    }
    CHECK(first == file->n);
    memory_free(piece);
    memory_free(counts);
}

void curation_file_put_table(CurationFile *file, const char *object, const float *values, int64_t rows,
                             int64_t columns)
{
    int64_t shape[] = {rows, columns};
    if (goes_on(file))
        file->status = h5_dataset_put(&file->file, object, H5_TYPE_F32, 2, shape, values, &file->error);
}

void curation_file_put_array(CurationFile *file, const char *object, H5Type type, const void *values,
                             int64_t count)
{
    if (goes_on(file))
        file->status = h5_dataset_put(&file->file, object, type, 1, &count, values, &file->error);
}

Status curation_file_commit(CurationFile *file, Error *error)
{
    if (goes_on(file))
        file->status = h5_file_commit(&file->file, &file->error);
    else if (file->writes)
        h5_file_abandon(&file->file);
    if (error) *error = file->error;
    return comm_agree(file->comm, file->status, error);
}

/* --- reading --- */

static Status read_description(CurationInput *input, const char *object, Error *error)
{
    TRY(curation_file_read_int(input, "rows", &input->n, error));
    int64_t digest, key_digest;
    TRY(curation_file_read_int(input, "digest", &digest, error));
    TRY(curation_file_read_int(input, "key_digest", &key_digest, error));
    input->digest = (uint64_t)digest;
    input->key_digest = (uint64_t)key_digest;
    H5Info info;
    TRY(h5_dataset_info(&input->file, object, &info, error));
    if (info.ndim == 1 && info.shape[0] != input->n)
        return status_fail(error, STATUS_INPUT, "%s: %s: expected %lld rows, as the file says, got %lld",
                           input->file.path, object, (long long)input->n, (long long)info.shape[0]);
    return STATUS_OK;
}

Status curation_file_open(CurationInput *input, const char *path, const char *object, Error *error)
{
    *input = (CurationInput){.file = {.id = -1}};
    TRY(h5_check_open(&input->file, path, "curation", error));
    Status status = read_description(input, object, error);
    if (status != STATUS_OK) curation_file_close(input);
    return status;
}

void curation_file_close(CurationInput *input)
{
    h5_file_close(&input->file, NULL);
    *input = (CurationInput){.file = {.id = -1}};
}

Status curation_file_read(const CurationInput *input, const char *object, H5Type type, int64_t first,
                          int64_t rows, void *out, Error *error)
{
    CHECK(first >= 0 && rows >= 0 && first + rows <= input->n);
    return h5_dataset_read_rows(&input->file, object, type, first, rows, out, error);
}

Status curation_file_read_indices(const CurationInput *input, const char *object, int64_t first, int64_t rows,
                                  int64_t low, int64_t end, int64_t *out, Error *error)
{
    TRY(curation_file_read(input, object, H5_TYPE_I64, first, rows, out, error));
    for (int64_t i = 0; i < rows; i++)
        if (out[i] < low || out[i] >= end)
            return status_fail(error, STATUS_INPUT, "%s: %s[%lld] is %lld, expected %lld to %lld",
                               input->file.path, object, (long long)(first + i), (long long)out[i],
                               (long long)low, (long long)end - 1);
    return STATUS_OK;
}

Status curation_file_check_finite(const CurationInput *input, const char *object, H5Type type,
                                  const void *values, int64_t count, Error *error)
{
    CHECK(type == H5_TYPE_F32 || type == H5_TYPE_F64);
    const float *narrow = values;
    const double *wide = values;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(type == H5_TYPE_F32 ? (double)narrow[i] : wide[i]))
            return status_fail(error, STATUS_INPUT, "%s: %s holds a number that is not finite",
                               input->file.path, object);
    return STATUS_OK;
}

Status curation_file_read_int(const CurationInput *input, const char *name, int64_t *value, Error *error)
{
    return h5_attribute_read_ints(&input->file, "/", name, value, 1, error);
}

Status curation_file_read_double(const CurationInput *input, const char *name, double *value, Error *error)
{
    TRY(h5_attribute_read_doubles(&input->file, "/", name, value, 1, error));
    if (isfinite(*value)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: attribute %s is not finite", input->file.path, name);
}

bool curation_file_has(const CurationInput *input, const char *name)
{
    H5AttributeInfo info;
    return h5_attribute_info(&input->file, "/", name, &info, NULL) == STATUS_OK && info.exists;
}

Status curation_file_read_table(const CurationInput *input, const char *object, float **values, int64_t *rows,
                                int64_t *columns, Error *error)
{
    H5Info info;
    void *data;
    TRY(h5_dataset_get(&input->file, object, H5_TYPE_F32, 2, &info, &data, error));
    *values = data;
    *rows = info.shape[0];
    *columns = info.shape[1];
    Status status = curation_file_check_finite(input, object, H5_TYPE_F32, data, info.count, error);
    if (status != STATUS_OK) memory_free(data);
    return status;
}

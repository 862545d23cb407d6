/* result_file.c - writing and reading results. */
#include "h5/result_file.h"

#include "base/memory.h"
#include "h5/h5_attribute.h"
#include "h5/h5_check.h"

#include <string.h>

enum { MAX_FIGURES = 1 << 16 };

static Status write_texts(const H5File *file, const char *object, const Result *result, size_t member,
                          Error *error)
{
    const char **texts = memory_alloc_array((size_t)result->count, sizeof *texts);
    for (int64_t i = 0; i < result->count; i++)
        memcpy(&texts[i], (const char *)&result->figures[i] + member, sizeof *texts);
    Status status = h5_dataset_put_text(file, object, result->count, texts, error);
    memory_free(texts);
    return status;
}

static Status write_numbers(const H5File *file, const char *object, const Result *result, size_t member,
                            Error *error)
{
    double *values = memory_alloc_array((size_t)result->count, sizeof *values);
    for (int64_t i = 0; i < result->count; i++)
        memcpy(&values[i], (const char *)&result->figures[i] + member, sizeof *values);
    Status status = h5_dataset_put(file, object, H5_TYPE_F64, 1, &result->count, values, error);
    memory_free(values);
    return status;
}

static Status fill(const H5File *file, const Result *result, Error *error)
{
    H5Schema schema;
    h5_schema_load(&schema, "result");
    TRY(h5_schema_stamp(&schema, file, error));
    TRY(h5_attribute_write_text(file, "/", "job", result->job, error));
    TRY(h5_attribute_write_text(file, "/", "subject", result->subject, error));
    TRY(h5_attribute_write_text(file, "/", "config", result->config, error));
    TRY(h5_attribute_write_text(file, "/", "version", result->version, error));
    if (result->digest) TRY(h5_attribute_write_text(file, "/", "digest", result->digest, error));
    TRY(write_texts(file, "/name", result, offsetof(Figure, name), error));
    TRY(write_texts(file, "/unit", result, offsetof(Figure, unit), error));
    TRY(write_numbers(file, "/value", result, offsetof(Figure, value), error));
    TRY(write_numbers(file, "/published", result, offsetof(Figure, published), error));
    TRY(write_texts(file, "/source", result, offsetof(Figure, source), error));
    const ResultConfusion *confusion = &result->confusion;
    if (!confusion->counts) return STATUS_OK;
    int64_t shape[] = {confusion->sets, confusion->classes, confusion->classes};
    return h5_dataset_put(file, "/confusion", H5_TYPE_F64, 3, shape, confusion->counts, error);
}

Status result_file_write(const char *path, const Result *result, Error *error)
{
    H5File file;
    TRY(h5_file_create(&file, path, error));
    Status status = fill(&file, result, error);
    if (status == STATUS_OK) return h5_file_commit(&file, error);
    h5_file_abandon(&file);
    return status;
}

static Status read_texts(const H5File *file, const char *object, Figure *figures, size_t member, Error *error)
{
    H5Info info;
    void *packed;
    TRY(h5_dataset_get(file, object, H5_TYPE_TEXT, 1, &info, &packed, error));
    for (int64_t i = 0; i < info.count; i++) {
        char *text = memory_strndup((const char *)packed + (size_t)i * info.item_bytes, info.item_bytes);
        memcpy((char *)&figures[i] + member, &text, sizeof text);
    }
    memory_free(packed);
    return STATUS_OK;
}

static Status read_numbers(const H5File *file, const char *object, Figure *figures, size_t member,
                           Error *error)
{
    H5Info info;
    void *values;
    TRY(h5_dataset_get(file, object, H5_TYPE_F64, 1, &info, &values, error));
    for (int64_t i = 0; i < info.count; i++)
        memcpy((char *)&figures[i] + member, (const double *)values + i, sizeof(double));
    memory_free(values);
    return STATUS_OK;
}

static Status read_text(const H5File *file, const char *name, const char **text, Error *error)
{
    char *owned;
    TRY(h5_attribute_read_text(file, "/", name, &owned, error));
    *text = owned;
    return STATUS_OK;
}

static Status read_digest(const H5File *file, Result *result, Error *error)
{
    H5AttributeInfo info;
    TRY(h5_attribute_info(file, "/", "digest", &info, error));
    if (info.exists) return read_text(file, "digest", &result->digest, error);
    result->digest = memory_strdup("");
    return STATUS_OK;
}

static Status read_confusion(const H5File *file, ResultConfusion *confusion, Error *error)
{
    H5Kind kind;
    H5Info info;
    void *counts;
    TRY(h5_file_kind(file, "/confusion", &kind, error));
    if (kind == H5_KIND_ABSENT) return STATUS_OK;
    TRY(h5_dataset_get(file, "/confusion", H5_TYPE_F64, 3, &info, &counts, error));
    *confusion = (ResultConfusion){.counts = counts, .sets = info.shape[0], .classes = info.shape[1]};
    return STATUS_OK;
}

static Status read_all(const H5File *file, Result *result, Error *error)
{
    H5Info info;
    TRY(h5_dataset_info(file, "/value", &info, error));
    if (info.count > MAX_FIGURES) return status_fail(error, STATUS_INPUT, "%s: too many figures", file->path);
    Figure *figures = memory_alloc_array((size_t)info.count, sizeof *figures);
    result->figures = figures;
    result->count = info.count;
    TRY(read_text(file, "job", &result->job, error));
    TRY(read_text(file, "subject", &result->subject, error));
    TRY(read_text(file, "config", &result->config, error));
    TRY(read_text(file, "version", &result->version, error));
    TRY(read_digest(file, result, error));
    TRY(read_texts(file, "/name", figures, offsetof(Figure, name), error));
    TRY(read_texts(file, "/unit", figures, offsetof(Figure, unit), error));
    TRY(read_numbers(file, "/value", figures, offsetof(Figure, value), error));
    TRY(read_numbers(file, "/published", figures, offsetof(Figure, published), error));
    TRY(read_texts(file, "/source", figures, offsetof(Figure, source), error));
    return read_confusion(file, &result->confusion, error);
}

Status result_file_read(const char *path, Result *result, Error *error)
{
    *result = (Result){0};
    H5File file;
    TRY(h5_check_open(&file, path, "result", error));
    Status status = read_all(&file, result, error);
    h5_file_close(&file, NULL);
    if (status != STATUS_OK) result_file_fini(result);
    return status;
}

void result_file_fini(Result *result)
{
    for (int64_t i = 0; i < result->count; i++) {
        memory_free((char *)(uintptr_t)result->figures[i].name);
        memory_free((char *)(uintptr_t)result->figures[i].unit);
        memory_free((char *)(uintptr_t)result->figures[i].source);
    }
    memory_free((Figure *)(uintptr_t)result->figures);
    memory_free((double *)(uintptr_t)result->confusion.counts);
    memory_free((char *)(uintptr_t)result->job);
    memory_free((char *)(uintptr_t)result->subject);
    memory_free((char *)(uintptr_t)result->config);
    memory_free((char *)(uintptr_t)result->version);
    memory_free((char *)(uintptr_t)result->digest);
    *result = (Result){0};
}

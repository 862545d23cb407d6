/* retrieval_file.c - see retrieval_file.h. */
#include "curation/retrieval_file.h"

#include "base/memory.h"
#include "curation/curation_file.h"
#include "h5/h5_attribute.h"

#include <math.h>
#include <string.h>

#define POOL_ROWS_MAX ((int64_t)1 << 36) /* for each of which a bit is held later */

static Status read_attributes(RetrievalFile *file, const CurationInput *input, Error *error)
{
    char *mode;
    file->n = input->n;
    file->digest = input->digest;
    TRY(h5_attribute_read_text(&input->file, "/", "name", &file->name, error));
    TRY(h5_attribute_read_text(&input->file, "/", "inputs", &file->inputs, error));
    TRY(h5_attribute_read_text(&input->file, "/", "queries", &file->queries, error));
    TRY(curation_file_read_int(input, "pool_rows", &file->pool_rows, error));
    TRY(curation_file_read_int(input, "query_rows", &file->query_rows, error));
    TRY(curation_file_read_int(input, "retrieved", &file->retrieved, error));
    TRY(curation_file_read_int(input, "collisions", &file->collisions, error));
    TRY(h5_attribute_read_text(&input->file, "/", "mode", &mode, error));
    file->is_cluster = strcmp(mode, "cluster") == 0;
    memory_free(mode);
    if (file->pool_rows >= 0 && file->pool_rows <= POOL_ROWS_MAX && file->query_rows >= 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: pool_rows is %lld and query_rows %lld", input->file.path,
                       (long long)file->pool_rows, (long long)file->query_rows);
}

/* A data set [count] into memory of its own. */
static Status get(const CurationInput *input, const char *object, H5Type type, int64_t count, void **out,
                  Error *error)
{
    H5Info info;
    TRY(h5_dataset_get(&input->file, object, type, 1, &info, out, error));
    if (info.count == count) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: %s: expected %lld numbers, got %lld", input->file.path,
                       object, (long long)count, (long long)info.count);
}

static Status read_objects(RetrievalFile *file, const CurationInput *input, Error *error)
{
    TRY(get(input, "/row", H5_TYPE_I64, file->n, (void **)&file->row, error));
    TRY(get(input, "/query", H5_TYPE_I64, file->n, (void **)&file->query, error));
    TRY(get(input, "/neighbour", H5_TYPE_I64, file->n, (void **)&file->neighbour, error));
    TRY(get(input, "/similarity", H5_TYPE_F32, file->n, (void **)&file->similarity, error));
    TRY(get(input, "/first", H5_TYPE_U8, file->n, (void **)&file->first, error));
    if (!file->is_cluster) return STATUS_OK;
    TRY(get(input, "/cluster", H5_TYPE_I64, file->n, (void **)&file->cluster, error));
    return get(input, "/query_cluster", H5_TYPE_I64, file->query_rows, (void **)&file->query_cluster, error);
}

static Status check(const RetrievalFile *file, const char *path, Error *error)
{
    for (int64_t i = 0; i < file->n; i++)
        if (file->row[i] < 0 || file->row[i] >= file->pool_rows || file->query[i] < -1 ||
            file->query[i] >= file->query_rows)
            return status_fail(error, STATUS_INPUT, "%s: picture %lld is of row %lld and query %lld", path,
                               (long long)i, (long long)file->row[i], (long long)file->query[i]);
    for (int64_t i = 0; i < file->n; i++)
        if (file->neighbour[i] < -1 || file->neighbour[i] > INT32_MAX || !isfinite(file->similarity[i]))
            return status_fail(error, STATUS_INPUT, "%s: picture %lld is neighbour %lld, similarity %g", path,
                               (long long)i, (long long)file->neighbour[i], (double)file->similarity[i]);
    return STATUS_OK;
}

Status retrieval_file_read(RetrievalFile *file, const char *path, Error *error)
{
    *file = (RetrievalFile){0};
    CurationInput input;
    TRY(curation_file_open(&input, path, "/row", error));
    Status status = read_attributes(file, &input, error);
    if (status == STATUS_OK) status = read_objects(file, &input, error);
    curation_file_close(&input);
    return status == STATUS_OK ? check(file, path, error) : status;
}

void retrieval_file_fini(RetrievalFile *file)
{
    memory_free(file->name);
    memory_free(file->inputs);
    memory_free(file->queries);
    memory_free(file->row);
    memory_free(file->query);
    memory_free(file->neighbour);
    memory_free(file->similarity);
    memory_free(file->first);
    memory_free(file->cluster);
    memory_free(file->query_cluster);
    *file = (RetrievalFile){0};
}

const char **retrieval_file_split(char *inputs, int *count)
{
    const char **paths = memory_alloc_array(strlen(inputs) + 1, sizeof *paths);
    *count = 0;
    for (char *path = strsep(&inputs, "\n"); path; path = strsep(&inputs, "\n"))
        paths[(*count)++] = path;
    return paths;
}

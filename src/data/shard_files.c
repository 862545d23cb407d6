/* shard_files.c - glob, open, pread. */
#include "data/shard_files.h"

#include "base/memory.h"
#include "data/data_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static Status find(TextTable *paths, const char *pattern, Error *error)
{
    struct stat exact;
    if (stat(pattern, &exact) == 0) {
        if (S_ISDIR(exact.st_mode))
            return status_fail(error, STATUS_INPUT, "%s: is a folder, expected a file or a glob", pattern);
        text_table_append(paths, pattern, strlen(pattern));
        return STATUS_OK;
    }
    glob_t found;
    int failed = glob(pattern, GLOB_ERR | GLOB_NOSORT, NULL, &found);
    if (failed == GLOB_NOMATCH) return status_fail(error, STATUS_INPUT, "%s: no such file", pattern);
    if (failed) return status_fail(error, STATUS_INPUT, "%s: cannot search the folder", pattern);
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_bytes);
    for (size_t i = 0; i < found.gl_pathc; i++)
        text_table_append(paths, found.gl_pathv[i], strlen(found.gl_pathv[i]));
    globfree(&found);
    return STATUS_OK;
}

Status shard_files_init(ShardFiles *files, const char *pattern, Error *error)
{
    *files = (ShardFiles){0};
    TRY(find(&files->paths, pattern, error));
    files->descriptors = memory_alloc_array((size_t)files->paths.count, sizeof *files->descriptors);
    for (int64_t i = 0; i < files->paths.count; i++)
        files->descriptors[i] = -1;
    for (int64_t i = 0; i < files->paths.count && i < SHARD_FILES_OPEN; i++) {
        const char *path = shard_files_path(files, i);
        files->descriptors[i] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (files->descriptors[i] < 0)
            return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    }
    return STATUS_OK;
}

void shard_files_fini(ShardFiles *files)
{
    for (int64_t i = 0; files->descriptors && i < files->paths.count; i++)
        if (files->descriptors[i] >= 0) close(files->descriptors[i]);
    memory_free(files->descriptors);
    text_table_destroy(&files->paths);
    *files = (ShardFiles){0};
}

const char *shard_files_path(const ShardFiles *files, int64_t file)
{
    return text_table_get(&files->paths, file);
}

static Status read_all(int descriptor, int64_t offset, uint8_t *bytes, size_t size, Error *error)
{
    while (size > 0) {
        ssize_t got = pread(descriptor, bytes, size, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return data_kind_io_error(error, errno);
        if (got == 0) return status_fail(error, STATUS_INPUT, "the file ends before the image does");
        bytes += got;
        offset += got;
        size -= (size_t)got;
    }
    return STATUS_OK;
}

Status shard_files_read(const ShardFiles *files, int64_t file, int64_t offset, void *bytes, size_t size,
                        Error *error)
{
    int kept = files->descriptors[file];
    int descriptor =
        kept >= 0 ? kept : open(shard_files_path(files, file), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return data_kind_io_error(error, errno);
    Status status = read_all(descriptor, offset, bytes, size, error);
    if (kept < 0) close(descriptor);
    return status;
}

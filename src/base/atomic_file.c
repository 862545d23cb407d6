/* atomic_file.c - the few system calls that make a write survive a crash. */
#include "base/atomic_file.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static Status fail(Error *error, const char *what, const char *path)
{
    return status_fail(error, STATUS_FAILED, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* --- folders --- */

static Status make_one(const char *path, Error *error)
{
    struct stat facts;
    if (mkdir(path, 0777) == 0) return STATUS_OK;
    int why = errno;
    if (stat(path, &facts) == 0) {
        if (S_ISDIR(facts.st_mode)) return STATUS_OK;
        return status_fail(error, STATUS_INPUT, "%s: is a file, not a folder", path);
    }
    Status status = why == ENOSPC || why == EDQUOT || why == EIO ? STATUS_FAILED : STATUS_INPUT;
    return status_fail(error, status, "%s: cannot make the folder: %s", path, strerror(why));
}

Status atomic_file_make_folder(const char *folder, Error *error)
{
    if (!folder[0]) return status_fail(error, STATUS_INPUT, "the folder's name is empty");
    char *path = memory_strdup(folder);
    Status status = STATUS_OK;
    for (char *end = path; *end && status == STATUS_OK;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        status = make_one(path, error);
        *end = kept;
    }
    memory_free(path);
    return status;
}

/* The folder part of a path, owned: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return memory_strdup(".");
    return memory_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

Status atomic_file_make_parent(const char *path, Error *error)
{
    char *parent = parent_of(path);
    Status status = atomic_file_make_folder(parent, error);
    memory_free(parent);
    return status;
}

/* --- replacing --- */

static Status flush(const char *path, int flags, Error *error)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return fail(error, "open", path);
    int failed = fsync(fd);
    /* Some file systems cannot fsync a folder and say EINVAL; then there is nothing more to be done. */
    Status status = failed && errno != EINVAL ? fail(error, "flush", path) : STATUS_OK;
    close(fd);
    return status;
}

Status atomic_file_commit(const char *temporary, const char *path, Error *error)
{
    TRY(flush(temporary, O_RDONLY, error));
    if (rename(temporary, path) != 0) return fail(error, "replace", path);
    char *parent = parent_of(path);
    Status status = flush(parent, O_RDONLY | O_DIRECTORY, error);
    memory_free(parent);
    return status;
}

static Status write_all(const char *path, const char *data, size_t size, Error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail(error, "create", path);
    while (size) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            Status status = fail(error, "write", path);
            close(fd);
            return status;
        }
        data += written;
        size -= (size_t)written;
    }
    return close(fd) == 0 ? STATUS_OK : fail(error, "close", path);
}

Status atomic_file_write(const char *path, const void *data, size_t size, Error *error)
{
    size_t bytes = strlen(path) + sizeof ".tmp";
    char *temporary = memory_alloc(bytes);
    snprintf(temporary, bytes, "%s.tmp", path);
    Status status = write_all(temporary, data, size, error);
    if (status == STATUS_OK) status = atomic_file_commit(temporary, path, error);
    if (status != STATUS_OK) unlink(temporary);
    memory_free(temporary);
    return status;
}

Status atomic_file_write_text(const char *path, const char *text, Error *error)
{
    return atomic_file_write(path, text, strlen(text), error);
}

Status atomic_file_probe_space(const char *path, int64_t bytes, Error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail(error, "create", path);
    Status status = STATUS_OK;
    if (fallocate(fd, 0, 0, bytes > 0 ? bytes : 1) != 0 && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EINTR)
        status = status_fail(error, STATUS_FAILED, "%s: cannot write %lld bytes: %s", path, (long long)bytes,
                             strerror(errno));
    close(fd);
    unlink(path);
    return status;
}

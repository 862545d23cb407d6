/* durable.c - the few system calls that make a write survive a crash. */
#include "h5/durable.h"

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

Status durable_make_folder(const char *folder, Error *error)
{
    char *path = memory_strdup(folder);
    Status status = STATUS_OK;
    for (char *end = path; *end && status == STATUS_OK;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST) status = fail(error, "make the folder", path);
        *end = kept;
    }
    struct stat info;
    if (status == STATUS_OK && folder[0] && (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)))
        status = status_fail(error, STATUS_FAILED, "%s: not a folder", folder);
    memory_free(path);
    return status;
}

/* The folder part of a path, owned: "a/b" -> "a", "b" -> ".". */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return memory_strdup(".");
    return memory_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

Status durable_make_parent(const char *path, Error *error)
{
    char *parent = parent_of(path);
    Status status = durable_make_folder(parent, error);
    memory_free(parent);
    return status;
}

static Status flush(const char *path, int flags, Error *error)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return fail(error, "open", path);
    Status status = fsync(fd) == 0 ? STATUS_OK : fail(error, "flush", path);
    close(fd);
    return status;
}

Status durable_flush(const char *path, Error *error)
{
    return flush(path, O_RDONLY, error);
}

Status durable_rename(const char *from, const char *to, Error *error)
{
    if (rename(from, to) != 0) return fail(error, "rename to its final name", from);
    char *parent = parent_of(to);
    Status status = flush(parent, O_RDONLY | O_DIRECTORY, error);
    memory_free(parent);
    return status;
}

static Status write_and_flush(int fd, const char *path, const char *text, Error *error)
{
    size_t length = strlen(text);
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, text + done, length - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(error, "write", path);
        done += (size_t)n;
    }
    return fsync(fd) == 0 ? STATUS_OK : fail(error, "flush", path);
}

Status durable_write_text(const char *path, const char *text, Error *error)
{
    size_t size = strlen(path) + 5;
    char *temporary = memory_alloc(size);
    snprintf(temporary, size, "%s.tmp", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    Status status = fd < 0 ? fail(error, "create", temporary) : write_and_flush(fd, temporary, text, error);
    if (fd >= 0 && close(fd) != 0 && status == STATUS_OK) status = fail(error, "write", temporary);
    if (status == STATUS_OK) status = durable_rename(temporary, path, error);
    if (status != STATUS_OK) unlink(temporary);
    memory_free(temporary);
    return status;
}

Status durable_probe_space(const char *path, int64_t bytes, Error *error)
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

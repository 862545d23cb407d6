/* atomic_file.c - write beside, fsync, rename, fsync the folder. */
#include "run/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static Status fail(Error *error, const char *what, const char *path)
{
    return status_fail(error, STATUS_FAILED, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* The folder of `path`; "." when it has none. */
static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, PATH_MAX, ".");
    else if (slash == path)
        snprintf(folder, PATH_MAX, "/");
    else
        snprintf(folder, PATH_MAX, "%.*s", (int)(slash - path), path);
}

static Status sync_path(const char *path, int flags, Error *error)
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
    char folder[PATH_MAX];
    folder_of(path, folder);
    TRY(sync_path(temporary, O_RDONLY, error));
    if (rename(temporary, path) != 0) return fail(error, "replace", path);
    return sync_path(folder, O_RDONLY | O_DIRECTORY, error);
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
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length >= (int)sizeof temporary)
        return status_fail(error, STATUS_FAILED, "%.100s...: the name is too long", path);
    Status status = write_all(temporary, data, size, error);
    if (status == STATUS_OK) status = atomic_file_commit(temporary, path, error);
    if (status != STATUS_OK) unlink(temporary);
    return status;
}

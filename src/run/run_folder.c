/* run_folder.c - making and checking the folder, on one rank or on all. */
#include "run/run_folder.h"

#include "base/atomic_file.h"
#include "base/memory.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Status run_folder_make_path(const char *path, Error *error)
{
    if (strlen(path) >= PATH_MAX)
        return status_fail(error, STATUS_INPUT, "%.100s...: the name is too long", path);
    return atomic_file_make_folder(path, error);
}

char *run_folder_path(const RunFolder *folder, const char *relative)
{
    size_t bytes = strlen(folder->path) + strlen(relative) + 2;
    char *path = memory_alloc(bytes);
    snprintf(path, bytes, "%s/%s", folder->path, relative);
    return path;
}

static Status make_relative(const RunFolder *folder, const char *relative, Error *error)
{
    char *path = run_folder_path(folder, relative);
    Status status = run_folder_make_path(path, error);
    memory_free(path);
    return status;
}

/* access() lies for root and on some network file systems; only writing tells. log.txt must be writable
 * anyway. */
static Status open_log(RunFolder *folder, Error *error)
{
    char *path = run_folder_path(folder, "log.txt");
    Status status = STATUS_OK;
    folder->text = fopen(path, "ae");
    if (!folder->text)
        status = status_fail(error, STATUS_INPUT, "%s: cannot be written: %s", path, strerror(errno));
    memory_free(path);
    return status;
}

static Status prepare(RunFolder *folder, Error *error)
{
    TRY(run_folder_make_path(folder->path, error));
    TRY(make_relative(folder, "checkpoints", error));
    TRY(make_relative(folder, "eval", error));
    return open_log(folder, error);
}

static Status check_seen(const RunFolder *folder, Error *error)
{
    struct stat facts;
    char *path = run_folder_path(folder, "checkpoints");
    Status status = STATUS_OK;
    if (stat(path, &facts) != 0)
        status = status_fail(error, STATUS_INPUT, "%s: not seen on host %s: is it on a shared file system?",
                             path, folder->log->host);
    memory_free(path);
    return status;
}

Status run_folder_open(RunFolder *folder, Comm *comm, Log *log, const char *path, Error *error)
{
    *folder = (RunFolder){.comm = comm, .log = log, .path = memory_strdup(path)};
    size_t length = strlen(path);
    while (length > 1 && folder->path[length - 1] == '/')
        folder->path[--length] = '\0';

    Status status = comm_rank(comm) == 0 ? prepare(folder, error) : STATUS_OK;
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) status = comm_agree(comm, check_seen(folder, error), error);
    if (status != STATUS_OK) {
        run_folder_close(folder);
        return status;
    }
    log->file = folder->text;
    return STATUS_OK;
}

void run_folder_close(RunFolder *folder)
{
    if (folder->log && folder->text && folder->log->file == folder->text) folder->log->file = NULL;
    if (folder->text) fclose(folder->text);
    memory_free(folder->path);
    *folder = (RunFolder){0};
}

Status run_folder_make(const RunFolder *folder, const char *relative, Error *error)
{
    Status status = comm_rank(folder->comm) == 0 ? make_relative(folder, relative, error) : STATUS_OK;
    return comm_agree(folder->comm, status, error);
}

Status run_folder_write(const RunFolder *folder, const char *relative, const char *text, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(folder->comm) == 0) {
        char *path = run_folder_path(folder, relative);
        status = atomic_file_write_text(path, text, error);
        memory_free(path);
    }
    return comm_agree(folder->comm, status, error);
}

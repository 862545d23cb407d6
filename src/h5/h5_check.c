/* h5_check.c - checking a file in a child process.
 *
 * libhdf5 trusts what it reads more than a stranger's file deserves: a flipped byte in its metadata can crash
 * it. The child may crash; the parent reads the verdict from a pipe or finds none.
 */
#include "h5/h5_check.h"

#include "base/check.h"
#include "base/memory.h"
#include "h5/h5_attribute.h"
#include "h5/h5_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child hands back. */
typedef struct {
    Status status;
    Error error;
    H5Report report;
} Verdict;

/* The schema whose format is the file's. */
static Status choose_schema(const H5File *file, H5Schema *schema, Error *error)
{
    char *format;
    TRY(h5_attribute_read_text(file, "/", "format", &format, error));
    const H5SchemaText *entry = h5_schema_texts;
    for (; entry->name; entry++) {
        h5_schema_load(schema, entry->name);
        if (strcmp(schema->format, format) == 0) break;
    }
    Status status = STATUS_OK;
    if (!entry->name) status = status_fail(error, STATUS_INPUT, "%s: unknown format %s", file->path, format);
    memory_free(format);
    return status;
}

static Status check_here(const char *path, const char *kind, H5CheckDepth depth, H5Report *report,
                         Error *error)
{
    H5File file;
    TRY(h5_file_open(&file, path, error));
    H5Schema *schema = memory_alloc(sizeof *schema);
    Status status = STATUS_OK;
    if (kind)
        h5_schema_load(schema, kind);
    else
        status = choose_schema(&file, schema, error);
    if (status == STATUS_OK) status = h5_schema_check(schema, &file, depth, error);
    if (status == STATUS_OK) {
        snprintf(report->format, sizeof report->format, "%s", schema->format);
        report->version = schema->version;
        report->bytes = file.bytes;
    }
    memory_free(schema);
    h5_file_close(&file, NULL);
    return status;
}

/* In the child: no core, no noise, no endless loop. */
static void confine(int64_t file_bytes)
{
    rlim_t seconds = (rlim_t)(30 + file_bytes / (50 << 20));
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_CPU, &(struct rlimit){seconds, seconds});
    int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
    for (int signal_number = 1; signal_number < 32; signal_number++)
        signal(signal_number, SIG_DFL);
}

static _Noreturn void run_child(int pipe_end, const char *path, const char *kind, H5CheckDepth depth)
{
    struct stat info;
    confine(stat(path, &info) == 0 ? info.st_size : 0);
    Verdict verdict = {0};
    verdict.status = check_here(path, kind, depth, &verdict.report, &verdict.error);
    ssize_t written = write(pipe_end, &verdict, sizeof verdict); /* below PIPE_BUF: all or nothing */
    _exit(written == (ssize_t)sizeof verdict ? 0 : 1);
}

static bool read_verdict(int pipe_end, Verdict *verdict)
{
    size_t done = 0;
    while (done < sizeof *verdict) {
        ssize_t n = read(pipe_end, (char *)verdict + done, sizeof *verdict - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    return done == sizeof *verdict;
}

/* Under the lock, so that the child's copy of libhdf5 is at rest. */
static pid_t fork_at_rest(void)
{
    h5_guard_enter();
    H5open();
    pid_t child = fork();
    h5_guard_leave();
    return child;
}

Status h5_check_file(const char *path, const char *kind, H5CheckDepth depth, H5Report *report, Error *error)
{
    H5Report unused;
    if (!report) report = &unused;
    *report = (H5Report){0};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return status_fail(error, STATUS_FAILED, "%s: cannot check: %s", path, strerror(errno));
    pid_t child = fork_at_rest();
    if (child == 0) run_child(ends[1], path, kind, depth);
    close(ends[1]);
    Verdict verdict = {0};
    bool answered = child > 0 && read_verdict(ends[0], &verdict);
    close(ends[0]);
    if (child < 0) return status_fail(error, STATUS_FAILED, "%s: cannot check: %s", path, strerror(errno));
    int how = 0;
    while (waitpid(child, &how, 0) < 0 && errno == EINTR)
        ;
    if (!answered)
        return status_fail(error, STATUS_INPUT, "%s: unreadable: the HDF5 library breaks on it (signal %d)",
                           path, WIFSIGNALED(how) ? WTERMSIG(how) : 0);
    *report = verdict.report;
    if (error && verdict.status != STATUS_OK) *error = verdict.error;
    return verdict.status;
}

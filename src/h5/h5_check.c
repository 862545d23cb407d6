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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPARE_BYTES ((rlim_t)1 << 31) /* that checking may take */

/* What the child hands back of a file. */
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

/* --- the child --- */

typedef struct {
    const char *const *paths;
    int64_t count;
    const char *kind; /* or NULL */
    H5CheckDepth depth;
} Request;

/* Bytes of address space in use; 0: unknown. */
static rlim_t address_space(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (!statm) return 0;
    if (fscanf(statm, "%lu", &pages) != 1) pages = 0;
    fclose(statm);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* No core, no noise, no outliving of the parent, and no more memory than any of our files asks for. What asks
 * a job to stop, which Slurm may send to all its processes, is the parent's to answer. */
static void confine(pid_t parent)
{
    static const int not_ours[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE};
    for (int signal_number = 1; signal_number < 32; signal_number++)
        signal(signal_number, SIG_DFL);
    for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++)
        signal(not_ours[i], SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    rlim_t used = address_space();
    struct rlimit memory;
    if (used && getrlimit(RLIMIT_AS, &memory) == 0 && memory.rlim_cur > used + SPARE_BYTES) {
        memory.rlim_cur = used + SPARE_BYTES;
        setrlimit(RLIMIT_AS, &memory);
    }
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
}

/* No endless loop over the next file: processor seconds by its size. */
static void limit_seconds(const char *path, H5CheckDepth depth)
{
    struct stat info;
    struct rusage used;
    struct rlimit limit;
    rlim_t mebibytes = stat(path, &info) == 0 && info.st_size > 0 ? (rlim_t)(info.st_size >> 20) : 0;
    rlim_t seconds = 10 + mebibytes / (depth == H5_CHECK_CHECKSUMS ? 50 : 1000);
    if (getrusage(RUSAGE_SELF, &used) != 0 || getrlimit(RLIMIT_CPU, &limit) != 0) return;
    seconds += (rlim_t)used.ru_utime.tv_sec + (rlim_t)used.ru_stime.tv_sec;
    if (limit.rlim_max == RLIM_INFINITY || seconds < limit.rlim_max) limit.rlim_cur = seconds;
    setrlimit(RLIMIT_CPU, &limit);
}

/* A verdict for each file, up to the first that is wrong. */
static _Noreturn void run_child(int pipe_end, pid_t parent, const Request *request)
{
    confine(parent);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < request->count && status == STATUS_OK; i++) {
        Verdict verdict = {0};
        limit_seconds(request->paths[i], request->depth);
        verdict.status = status =
            check_here(request->paths[i], request->kind, request->depth, &verdict.report, &verdict.error);
        ssize_t written = write(pipe_end, &verdict, sizeof verdict); /* below PIPE_BUF: all or nothing */
        if (written != (ssize_t)sizeof verdict) _exit(1);
    }
    _exit(0);
}

/* --- the parent --- */

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

/* Where no child can be had: without its protection, since files are whole far more often than not. */
static Status check_alone(const Request *request, Verdict *verdict, Error *error)
{
    for (int64_t i = 0; i < request->count; i++)
        TRY(check_here(request->paths[i], request->kind, request->depth, &verdict->report, error));
    return STATUS_OK;
}

/* The child ended without a word about this file. */
static Status silent(const char *path, int how, Error *error)
{
    int signal_number = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    if (signal_number == SIGKILL)
        return status_fail(error, STATUS_FAILED, "%s: cannot check: something killed the process that did",
                           path);
    if (signal_number == SIGXCPU)
        return status_fail(error, STATUS_INPUT, "%s: unreadable: the HDF5 library does not get to an end",
                           path);
    return status_fail(error, STATUS_INPUT, "%s: unreadable: the HDF5 library breaks on it (signal %d)", path,
                       signal_number);
}

static Status check_in_child(const Request *request, Verdict *verdict, Error *error)
{
    int ends[2];
    *verdict = (Verdict){0};
    if (request->count == 0) return STATUS_OK;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return status_fail(error, STATUS_FAILED, "%s: cannot check: %s", request->paths[0], strerror(errno));
    pid_t parent = getpid(), child = fork_at_rest();
    if (child == 0) run_child(ends[1], parent, request);
    close(ends[1]);
    int64_t done = 0;
    while (child > 0 && done < request->count && verdict->status == STATUS_OK &&
           read_verdict(ends[0], verdict))
        done++;
    close(ends[0]);
    if (child < 0) return check_alone(request, verdict, error);
    int how = 0;
    while (waitpid(child, &how, 0) < 0 && errno == EINTR)
        ;
    if (verdict->status == STATUS_OK && done < request->count)
        return silent(request->paths[done], how, error);
    if (error && verdict->status != STATUS_OK) *error = verdict->error;
    return verdict->status;
}

Status h5_check_file(const char *path, const char *kind, H5CheckDepth depth, H5Report *report, Error *error)
{
    Verdict verdict;
    Request request = {.paths = &path, .count = 1, .kind = kind, .depth = depth};
    Status status = check_in_child(&request, &verdict, error);
    if (report) *report = status == STATUS_OK ? verdict.report : (H5Report){0};
    return status;
}

Status h5_check_files(const char *const *paths, int64_t count, const char *kind, Error *error)
{
    Verdict verdict;
    Request request = {.paths = paths, .count = count, .kind = kind, .depth = H5_CHECK_STRUCTURE};
    return check_in_child(&request, &verdict, error);
}

Status h5_check_open(H5File *file, const char *path, const char *kind, Error *error)
{
    *file = (H5File){.id = -1};
    TRY(h5_check_files(&path, 1, kind, error));
    return h5_file_open(file, path, error);
}

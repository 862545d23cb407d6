/* job_doctor_folder.c - does every rank see what the others write, whole and soon? And HDF5 in that folder.
 *
 * What touches the file system runs in children (job_doctor_child.h), but for HDF5's collective calls, which
 * need MPI: a watchdog ends the job there. One rank sees a disk, not what other nodes see, and says so.
 */
#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "comm/comm_watchdog.h"
#include "h5/h5_parallel.h"
#include "job_doctor_checks.h"
#include "job_doctor_child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    FILE_BYTES = 1 << 20,
    PART_BYTES = 100003, /* of a rank in the file of all: parts share pages, as a checkpoint's do */
    REPLACEMENTS = 50,
    REPLACED_BYTES = 60000
};

#define SPACE_WANTED (1LL << 30)

/* What all steps need. */
typedef struct {
    char folder[PATH_MAX - 64];
    size_t made;   /* of its path, from its end, what is ours to remove */
    uint64_t mark; /* of this trial: in names and contents */
    int rank, size;
    double limit; /* seconds of a step; another node has half of them to see a file */
} Trial;

/* What a step found. */
typedef struct {
    Status status;
    Error error;
    double seconds;
    int64_t free_bytes;
    size_t made; /* of the folder's path, from its end, what was not there before */
} Finding;

static void name_file(const Trial *trial, const char *kind, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/.doctor-%016llx.%s", trial->folder, (unsigned long long)trial->mark, kind);
}

/* Contents that differ in every trial, place and version. */
static void fill(unsigned char *bytes, size_t count, uint64_t mark, uint64_t version)
{
    Rng rng = rng_at(mark, RNG_TRIAL, version, 0);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)rng_u32(&rng);
}

static void pause_seconds(double seconds)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(seconds * 1e9)}, NULL);
}

/* --- steps, in children --- */

/* The part of the path, from its start, that exists. */
static size_t existing_part(const char *path)
{
    char part[PATH_MAX];
    struct stat facts;
    size_t length = strlen(path);
    snprintf(part, sizeof part, "%s", path);
    while (length > 0 && stat(part, &facts) != 0) {
        while (length > 0 && part[length - 1] != '/')
            length--;
        while (length > 0 && part[length - 1] == '/')
            length--;
        part[length] = '\0';
    }
    return length;
}

static void publish(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    struct statvfs facts;
    found->made = strlen(trial->folder) - existing_part(trial->folder);
    found->status = atomic_file_make_folder(trial->folder, &found->error);
    if (found->status != STATUS_OK) return;
    unsigned char *bytes = memory_alloc(FILE_BYTES);
    fill(bytes, FILE_BYTES, trial->mark, 0);
    name_file(trial, "whole", path);
    double start = clock_seconds();
    found->status = atomic_file_write(path, bytes, FILE_BYTES, &found->error);
    found->seconds = clock_seconds() - start;
    if (statvfs(trial->folder, &facts) == 0)
        found->free_bytes = (int64_t)facts.f_bavail * (int64_t)facts.f_frsize;
}

/* 0, or the error number of what kept `count` bytes from coming; EFBIG: more than those, ENODATA: fewer. */
static int read_whole(const char *path, unsigned char *bytes, size_t count)
{
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), reason = 0;
    if (fd < 0) return errno;
    for (ssize_t got; length < count && (got = read(fd, bytes + length, count - length)) != 0;) {
        if (got < 0 && errno != EINTR) {
            reason = errno;
            break;
        }
        length += got > 0 ? (size_t)got : 0;
    }
    char more;
    if (reason == 0 && length < count) reason = ENODATA;
    if (reason == 0 && read(fd, &more, 1) != 0) reason = EFBIG;
    close(fd);
    return reason;
}

/* Waits until the file of `publish` is seen; then it must be whole. */
static void look_for(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(2 * FILE_BYTES), *wanted = bytes + FILE_BYTES;
    int reason;
    name_file(trial, "whole", path);
    double start = clock_seconds();
    while ((reason = read_whole(path, bytes, FILE_BYTES)) == ENOENT &&
           clock_seconds() - start < trial->limit / 2)
        pause_seconds(0.005);
    found->seconds = clock_seconds() - start;
    fill(wanted, FILE_BYTES, trial->mark, 0);
    if (reason == ENOENT)
        found->status = status_fail(&found->error, STATUS_FAILED,
                                    "does not see a file of rank 0 within %.1f s", trial->limit / 2);
    else if (reason)
        found->status =
            status_fail(&found->error, STATUS_FAILED, "cannot read a file of rank 0: %s", strerror(reason));
    else if (memcmp(bytes, wanted, FILE_BYTES) != 0)
        found->status =
            status_fail(&found->error, STATUS_FAILED, "reads other bytes than rank 0 has written");
}

static void write_part(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(PART_BYTES);
    fill(bytes, PART_BYTES, trial->mark, (uint64_t)trial->rank + 1);
    name_file(trial, "parts", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    bool good = fd >= 0;
    for (size_t done = 0; good && done < PART_BYTES;) {
        off_t at = (off_t)trial->rank * PART_BYTES + (off_t)done;
        ssize_t put = pwrite(fd, bytes + done, PART_BYTES - done, at);
        good = put > 0;
        done += good ? (size_t)put : 0;
    }
    good = good && fsync(fd) == 0;
    if (!good)
        found->status =
            status_fail(&found->error, STATUS_FAILED, "cannot write its part: %s", strerror(errno));
    if (fd >= 0) close(fd);
}

static void read_parts(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    size_t all = (size_t)trial->size * PART_BYTES;
    unsigned char *bytes = memory_alloc(all + PART_BYTES), *wanted = bytes + all;
    name_file(trial, "parts", path);
    int reason = read_whole(path, bytes, all);
    if (reason)
        found->status =
            status_fail(&found->error, STATUS_FAILED, "cannot read the parts of all: %s", strerror(reason));
    for (int r = 0; r < trial->size && found->status == STATUS_OK; r++) {
        fill(wanted, PART_BYTES, trial->mark, (uint64_t)r + 1);
        if (memcmp(bytes + (size_t)r * PART_BYTES, wanted, PART_BYTES) != 0)
            found->status = status_fail(&found->error, STATUS_FAILED,
                                        "reads other bytes than rank %d has written beside it", r);
    }
}

/* Rank 0 replaces a file again and again; the others must see one version or a later one, whole. */
static void replace(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(REPLACED_BYTES);
    name_file(trial, "replaced", path);
    for (uint64_t v = 1; v <= REPLACEMENTS && found->status == STATUS_OK; v++) {
        fill(bytes, REPLACED_BYTES, trial->mark, v);
        memcpy(bytes, &v, sizeof v);
        found->status = atomic_file_write(path, bytes, REPLACED_BYTES, &found->error);
        pause_seconds(0.002);
    }
}

static void watch(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(2 * REPLACED_BYTES), *wanted = bytes + REPLACED_BYTES;
    uint64_t seen = 0, version = 0;
    name_file(trial, "replaced", path);
    for (double start = clock_seconds(); seen < REPLACEMENTS; pause_seconds(0.001)) {
        if (clock_seconds() - start > trial->limit / 2) {
            found->status = status_fail(&found->error, STATUS_FAILED, "sees version %llu of %d within %.1f s",
                                        (unsigned long long)seen, REPLACEMENTS, trial->limit / 2);
            return;
        }
        int reason = read_whole(path, bytes, REPLACED_BYTES);
        if (reason == ENOENT && seen == 0) continue;
        memcpy(&version, bytes, sizeof version);
        fill(wanted, REPLACED_BYTES, trial->mark, version);
        memcpy(wanted, &version, sizeof version);
        if (reason || version < seen || memcmp(bytes, wanted, REPLACED_BYTES) != 0) {
            found->status = status_fail(&found->error, STATUS_FAILED, "behind version %llu it %s%s",
                                        (unsigned long long)seen,
                                        reason           ? "cannot read: "
                                        : version < seen ? "sees an older one"
                                                         : "sees a mixture",
                                        reason ? strerror(reason) : "");
            return;
        }
        seen = version;
    }
}

static void replace_or_watch(const void *argument, void *result)
{
    const Trial *trial = argument;
    if (trial->rank == 0)
        replace(argument, result);
    else
        watch(argument, result);
}

/* As HDF5 1.10 and MPI-IO want them. */
static void lock_files(const void *argument, void *result)
{
    const Trial *trial = argument;
    Finding *found = result;
    char path[PATH_MAX];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    name_file(trial, "whole", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        found->status = status_fail(&found->error, STATUS_FAILED, "flock: %s", strerror(errno));
    else if (fcntl(fd, F_SETLK, &whole) != 0)
        found->status = status_fail(&found->error, STATUS_FAILED, "fcntl: %s", strerror(errno));
    if (fd >= 0) close(fd);
}

static void clean(const void *argument, void *result)
{
    static const char *const kinds[] = {"whole", "whole.tmp", "parts", "replaced", "replaced.tmp", "h5"};
    const Trial *trial = argument;
    char path[PATH_MAX];
    (void)result;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        name_file(trial, kinds[i], path);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s", trial->folder);
    while (strlen(path) > strlen(trial->folder) - trial->made && rmdir(path) == 0) {
        char *slash = strrchr(path, '/');
        if (!slash) break;
        *slash = '\0';
    }
}

/* --- together --- */

/* A step on this rank if it `takes_part`; the outcome of all, seconds of the slowest. Collective over COMM.
 */
static Status step(Comm *comm, bool takes_part, DoctorWork work, const Trial *trial, Finding *found,
                   Error *error)
{
    Status status = STATUS_OK;
    *found = (Finding){0};
    if (takes_part) {
        status = doctor_child_call(work, trial, found, sizeof *found, trial->limit, error);
        if (status == STATUS_OK) status = found->status;
        if (found->status != STATUS_OK && error) *error = found->error;
    }
    comm_all_reduce(comm, &found->seconds, 1, DTYPE_F64, COMM_MAX, NULL);
    return comm_agree(comm, status, error);
}

static int count_nodes(const Run *run)
{
    int nodes = 0;
    for (int r = 0; r < comm_size(run->comm); r++) {
        const char *host = run->hosts + (size_t)r * RUN_HOST_BYTES;
        int before = 0;
        for (int other = 0; other < r; other++)
            before += strcmp(host, run->hosts + (size_t)other * RUN_HOST_BYTES) == 0;
        nodes += before == 0;
    }
    return nodes;
}

static Status check_writing(DoctorChecks *checks, Comm *comm, Trial *trial)
{
    static const char name[] = "output folder";
    Finding found;
    Error error = {0};
    Status status = step(comm, trial->rank == 0, publish, trial, &found, &error);
    trial->made = found.made;
    if (status != STATUS_OK)
        doctor_checks_add(checks, name, DOCTOR_FAILED, "%s; name a folder that rank 0 may write to",
                          error.text);
    else
        doctor_checks_add(checks, name, found.free_bytes < SPACE_WANTED ? DOCTOR_WARNING : DOCTOR_OK,
                          "%.300s: 1 MiB written and flushed in %.1f ms, %.1f GiB free%s", trial->folder,
                          found.seconds * 1e3, (double)found.free_bytes / (1 << 30),
                          found.free_bytes < SPACE_WANTED ? "; checkpoints want more" : "");
    return status;
}

/* Between ranks; *shared: all see the same folder. */
static void check_sharing(DoctorChecks *checks, const Run *run, const Trial *trial, bool *shared)
{
    Comm *comm = run->comm;
    Finding found;
    Error error = {0};
    int nodes = count_nodes(run);
    *shared = step(comm, true, look_for, trial, &found, &error) == STATUS_OK;
    if (!*shared) {
        doctor_checks_add(checks, "seen by all", DOCTOR_FAILED, "%s; take a file system that all nodes share",
                          error.text);
        return;
    }
    if (trial->size == 1)
        doctor_checks_add(
            checks, "seen by all", DOCTOR_SKIPPED,
            "one rank reads back what it wrote; what others see, mpirun or srun on some nodes tells");
    else
        doctor_checks_add(checks, "seen by all", DOCTOR_OK, "%d ranks on %d node%s, the last after %.1f ms%s",
                          trial->size, nodes, nodes > 1 ? "s" : "", found.seconds * 1e3,
                          nodes > 1 ? "" : "; start on several nodes to see about others");
    Status status = step(comm, true, write_part, trial, &found, &error);
    if (status == STATUS_OK) status = step(comm, true, read_parts, trial, &found, &error);
    if (status == STATUS_OK)
        doctor_checks_add(checks, "written by all", DOCTOR_OK,
                          "the parts of %d rank%s, side by side in one file, read back by all", trial->size,
                          trial->size > 1 ? "s" : "");
    else
        doctor_checks_add(
            checks, "written by all", DOCTOR_FAILED,
            "%s; checkpoints need a parallel file system (Lustre, GPFS, BeeGFS, NFS without client cache)",
            error.text);
    status = trial->size > 1 ? step(comm, true, replace_or_watch, trial, &found, &error) : STATUS_OK;
    if (status != STATUS_OK)
        doctor_checks_add(checks, "rename", DOCTOR_FAILED,
                          "%s; files are replaced by rename, and readers must see the old or the new one",
                          error.text);
    else if (trial->size > 1)
        doctor_checks_add(checks, "rename", DOCTOR_OK,
                          "%d replacements, each seen whole or not yet by %d other rank%s", REPLACEMENTS,
                          trial->size - 1, trial->size > 2 ? "s" : "");
    else
        doctor_checks_add(checks, "rename", DOCTOR_SKIPPED, "one rank; others must look while it replaces");
}

static void check_locks(DoctorChecks *checks, Comm *comm, const Trial *trial)
{
    Finding found;
    Error error = {0};
    Status status = step(comm, trial->rank == 0, lock_files, trial, &found, &error);
    if (status == STATUS_OK)
        doctor_checks_add(checks, "file locks", DOCTOR_OK, "flock and fcntl");
    else
        doctor_checks_add(checks, "file locks", DOCTOR_WARNING,
                          "%s; this program takes none, but h5ls and h5py want HDF5_USE_FILE_LOCKING=FALSE",
                          error.text);
}

/* --- HDF5 --- */

typedef struct {
    DoctorChecks *checks;
    Comm *comm;
    const Trial *trial;
} Watched;

/* In the watchdog's thread. */
static _Noreturn void end_job(void *context, const char *operation, double seconds)
{
    const Watched *watched = context;
    Finding found;
    doctor_checks_add(watched->checks, "hdf5 parallel", DOCTOR_FAILED,
                      "%s not done after %.0f s; try OMPI_MCA_io=romio321, or another file system", operation,
                      seconds);
    if (watched->checks->speaks) doctor_child_call(clean, watched->trial, &found, sizeof found, 1, NULL);
    comm_abort(watched->comm, STATUS_FAILED);
}

static void check_hdf5(DoctorChecks *checks, Comm *comm, const Trial *trial)
{
    static const char name[] = "hdf5 parallel";
    char path[PATH_MAX];
    Error error = {0};
    if (!h5_parallel_built()) {
        doctor_checks_add(checks, name, DOCTOR_WARNING,
                          "libhdf5 is built without MPI; checkpoints do not need it, other programs may");
        return;
    }
    Watched watched = {checks, comm, trial};
    /* Rank 0 first, for it can say so. */
    CommWatchdog *watchdog =
        comm_watchdog_create(checks->limit + (checks->speaks ? 0 : 5), end_job, NULL, &watched);
    name_file(trial, "h5", path);
    double start = clock_seconds();
    comm_watchdog_enter(watchdog, "a collective write and read");
    Status status = h5_parallel_try(path, comm, &error);
    comm_watchdog_leave(watchdog);
    comm_watchdog_destroy(watchdog);
    if (status == STATUS_INPUT)
        doctor_checks_add(checks, name, DOCTOR_FAILED, "%s; do not trust this file system", error.text);
    else if (status != STATUS_OK)
        doctor_checks_add(checks, name, DOCTOR_WARNING,
                          "%s; checkpoints do not need it, each rank writes its part by itself", error.text);
    else
        doctor_checks_add(checks, name, DOCTOR_OK, "a collective write and read by %d rank%s in %.1f ms",
                          trial->size, trial->size > 1 ? "s" : "", (clock_seconds() - start) * 1e3);
}

void doctor_folder_check(DoctorChecks *checks, const Run *run, const char *folder)
{
    Comm *comm = run->comm;
    Trial trial = {.rank = comm_rank(comm), .size = comm_size(comm), .limit = checks->limit};
    bool shared = false;
    if (!folder || strlen(folder) >= sizeof trial.folder) {
        doctor_checks_add(checks, "output folder", DOCTOR_SKIPPED,
                          "name one by --output-dir DIR: writing, sharing, renaming, locks and HDF5 in it");
        return;
    }
    snprintf(trial.folder, sizeof trial.folder, "%s", folder);
    for (size_t end = strlen(folder); end > 1 && folder[end - 1] == '/'; end--)
        trial.folder[end - 1] = '\0';
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    trial.mark = ((uint64_t)now.tv_sec << 30) ^ (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 48;
    comm_broadcast(comm, &trial.mark, sizeof trial.mark, DTYPE_U8, 0, NULL);
    if (check_writing(checks, comm, &trial) == STATUS_OK) {
        check_sharing(checks, run, &trial, &shared);
        check_locks(checks, comm, &trial);
        if (shared) check_hdf5(checks, comm, &trial);
    }
    Finding found;
    step(comm, trial.rank == 0, clean, &trial, &found, NULL);
}

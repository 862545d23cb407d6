/* job_doctor_folder.c - does every rank see what the others write, whole and soon? And HDF5 in that folder.
 *
 * What touches the file system runs in children (job_doctor_trial.h), but for HDF5's collective calls, which
 * need MPI: a watchdog ends the job there. One rank sees a disk, not what other nodes see, and says so.
 */
#include "base/clock.h"
#include "comm/comm_watchdog.h"
#include "h5/h5_parallel.h"
#include "job_doctor_checks.h"
#include "job_doctor_child.h"
#include "job_doctor_trial.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPACE_WANTED (1LL << 30)

/* --- together --- */

/* A step on this rank if it `takes_part`; the outcome of all, seconds of the slowest. Collective over COMM.
 */
static Status step(Comm *comm, bool takes_part, DoctorWork work, const DoctorTrial *trial,
                   DoctorFinding *found, Error *error)
{
    Status status = STATUS_OK;
    *found = (DoctorFinding){0};
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

static Status check_writing(DoctorChecks *checks, Comm *comm, DoctorTrial *trial)
{
    static const char name[] = "output folder";
    DoctorFinding found;
    Error error = {0};
    Status status = step(comm, trial->rank == 0, doctor_trial_publish, trial, &found, &error);
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
static void check_sharing(DoctorChecks *checks, const Run *run, const DoctorTrial *trial, bool *shared)
{
    Comm *comm = run->comm;
    DoctorFinding found;
    Error error = {0};
    int nodes = count_nodes(run);
    *shared = step(comm, true, doctor_trial_look_for, trial, &found, &error) == STATUS_OK;
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
    Status status = step(comm, true, doctor_trial_write_part, trial, &found, &error);
    if (status == STATUS_OK) status = step(comm, true, doctor_trial_read_parts, trial, &found, &error);
    if (status == STATUS_OK)
        doctor_checks_add(checks, "written by all", DOCTOR_OK,
                          "the parts of %d rank%s, side by side in one file, read back by all", trial->size,
                          trial->size > 1 ? "s" : "");
    else
        doctor_checks_add(
            checks, "written by all", DOCTOR_FAILED,
            "%s; checkpoints need a parallel file system (Lustre, GPFS, BeeGFS, NFS without client cache)",
            error.text);
    status =
        trial->size > 1 ? step(comm, true, doctor_trial_replace_or_watch, trial, &found, &error) : STATUS_OK;
    if (status != STATUS_OK)
        doctor_checks_add(checks, "rename", DOCTOR_FAILED,
                          "%s; files are replaced by rename, and readers must see the old or the new one",
                          error.text);
    else if (trial->size > 1)
        doctor_checks_add(checks, "rename", DOCTOR_OK,
                          "%d replacements, each seen whole or not yet by %d other rank%s",
                          DOCTOR_TRIAL_REPLACEMENTS, trial->size - 1, trial->size > 2 ? "s" : "");
    else
        doctor_checks_add(checks, "rename", DOCTOR_SKIPPED, "one rank; others must look while it replaces");
}

static void check_locks(DoctorChecks *checks, Comm *comm, const DoctorTrial *trial)
{
    DoctorFinding found;
    Error error = {0};
    Status status = step(comm, trial->rank == 0, doctor_trial_lock_files, trial, &found, &error);
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
    const DoctorTrial *trial;
} Watched;

/* In the watchdog's thread. */
static _Noreturn void end_job(void *context, const char *operation, double seconds)
{
    const Watched *watched = context;
    DoctorFinding found;
    doctor_checks_add(watched->checks, "hdf5 parallel", DOCTOR_FAILED,
                      "%s not done after %.0f s; try OMPI_MCA_io=romio321, or another file system", operation,
                      seconds);
    if (watched->checks->speaks)
        doctor_child_call(doctor_trial_clean, watched->trial, &found, sizeof found, 1, NULL);
    comm_abort(watched->comm, STATUS_FAILED);
}

static void check_hdf5(DoctorChecks *checks, Comm *comm, const DoctorTrial *trial)
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
    doctor_trial_name_file(trial, "h5", path);
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
    DoctorTrial trial = {.rank = comm_rank(comm), .size = comm_size(comm), .limit = checks->limit};
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
    DoctorFinding found;
    step(comm, trial.rank == 0, doctor_trial_clean, &trial, &found, NULL);
}

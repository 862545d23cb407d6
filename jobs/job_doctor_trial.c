/* job_doctor_trial.c - see job_doctor_trial.h. */
#include "job_doctor_trial.h"

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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
    REPLACED_BYTES = 60000
};

void doctor_trial_name_file(const DoctorTrial *trial, const char *kind, char path[PATH_MAX])
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

void doctor_trial_publish(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    struct statvfs facts;
    found->made = strlen(trial->folder) - existing_part(trial->folder);
    found->status = atomic_file_make_folder(trial->folder, &found->error);
    if (found->status != STATUS_OK) return;
    unsigned char *bytes = memory_alloc(FILE_BYTES);
    fill(bytes, FILE_BYTES, trial->mark, 0);
    doctor_trial_name_file(trial, "whole", path);
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

void doctor_trial_look_for(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(2 * FILE_BYTES), *wanted = bytes + FILE_BYTES;
    int reason;
    doctor_trial_name_file(trial, "whole", path);
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

void doctor_trial_write_part(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(PART_BYTES);
    fill(bytes, PART_BYTES, trial->mark, (uint64_t)trial->rank + 1);
    doctor_trial_name_file(trial, "parts", path);
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

void doctor_trial_read_parts(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    size_t all = (size_t)trial->size * PART_BYTES;
    unsigned char *bytes = memory_alloc(all + PART_BYTES), *wanted = bytes + all;
    doctor_trial_name_file(trial, "parts", path);
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

static void replace(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(REPLACED_BYTES);
    doctor_trial_name_file(trial, "replaced", path);
    for (uint64_t v = 1; v <= DOCTOR_TRIAL_REPLACEMENTS && found->status == STATUS_OK; v++) {
        fill(bytes, REPLACED_BYTES, trial->mark, v);
        memcpy(bytes, &v, sizeof v);
        found->status = atomic_file_write(path, bytes, REPLACED_BYTES, &found->error);
        pause_seconds(0.002);
    }
}

static void watch(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    unsigned char *bytes = memory_alloc(2 * REPLACED_BYTES), *wanted = bytes + REPLACED_BYTES;
    uint64_t seen = 0, version = 0;
    doctor_trial_name_file(trial, "replaced", path);
    for (double start = clock_seconds(); seen < DOCTOR_TRIAL_REPLACEMENTS; pause_seconds(0.001)) {
        if (clock_seconds() - start > trial->limit / 2) {
            found->status =
                status_fail(&found->error, STATUS_FAILED, "sees version %llu of %d within %.1f s",
                            (unsigned long long)seen, DOCTOR_TRIAL_REPLACEMENTS, trial->limit / 2);
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

void doctor_trial_replace_or_watch(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    if (trial->rank == 0)
        replace(argument, result);
    else
        watch(argument, result);
}

void doctor_trial_lock_files(const void *argument, void *result)
{
    const DoctorTrial *trial = argument;
    DoctorFinding *found = result;
    char path[PATH_MAX];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    doctor_trial_name_file(trial, "whole", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        found->status = status_fail(&found->error, STATUS_FAILED, "flock: %s", strerror(errno));
    else if (fcntl(fd, F_SETLK, &whole) != 0)
        found->status = status_fail(&found->error, STATUS_FAILED, "fcntl: %s", strerror(errno));
    if (fd >= 0) close(fd);
}

void doctor_trial_clean(const void *argument, void *result)
{
    static const char *const kinds[] = {"whole", "whole.tmp", "parts", "replaced", "replaced.tmp", "h5"};
    const DoctorTrial *trial = argument;
    char path[PATH_MAX];
    (void)result;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        doctor_trial_name_file(trial, kinds[i], path);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s", trial->folder);
    while (strlen(path) > strlen(trial->folder) - trial->made && rmdir(path) == 0) {
        char *slash = strrchr(path, '/');
        if (!slash) break;
        *slash = '\0';
    }
}

/* job_doctor_checks.h - what `doctor` tries of a site, and what came of it.
 *
 * A check never decides what the job does next beyond its own line: all are made, and printed as they end, so
 * that what was found stands there even if a later one breaks the job.
 */
#ifndef DINOBATCH_JOBS_JOB_DOCTOR_CHECKS_H
#define DINOBATCH_JOBS_JOB_DOCTOR_CHECKS_H

#include "job.h"

typedef enum {
    DOCTOR_OK,
    DOCTOR_SKIPPED, /* nothing to check it with, or on */
    DOCTOR_WARNING, /* works, but not as one would expect or want */
    DOCTOR_FAILED   /* a training would not work */
} DoctorVerdict;

typedef struct {
    const char *name; /* static */
    DoctorVerdict verdict;
    char text[768];
} DoctorCheck;

enum { DOCTOR_CHECKS_MAX = 24 };

typedef struct {
    bool speaks;  /* rank 0 */
    double limit; /* seconds for what may hang, of each check */
    int count;
    DoctorCheck checks[DOCTOR_CHECKS_MAX];
} DoctorChecks;

/* Keeps and prints one line: what was found and, after "; ", what to do about it. */
void doctor_checks_add(DoctorChecks *checks, const char *name, DoctorVerdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "ok", "skipped", "warning", "failed" */
const char *doctor_checks_word(DoctorVerdict verdict);

/* Launcher plugins: what srun offers, what this Open MPI was built for, what slurm/launch.sh takes of it.
 * Rank 0 alone. */
void doctor_launch_check(DoctorChecks *checks);

/* `starts` copies of this program at once, each an MPI job of one rank. Rank 0 alone. */
void doctor_starts_check(DoctorChecks *checks, int64_t starts);

/* Ranks of each node against the GPUs that they see. Collective over COMM. */
void doctor_gpus_check(DoctorChecks *checks, const Run *run);

/* A folder that all ranks write to, and HDF5 in it; `folder` NULL: none was named. Leaves it as it was.
 * Collective over COMM. */
void doctor_folder_check(DoctorChecks *checks, const Run *run, const char *folder);

#endif

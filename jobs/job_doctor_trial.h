/* job_doctor_trial.h - what a rank does to a folder to see whether it serves: steps for doctor_child_call,
 * whose argument is a DoctorTrial and whose result a DoctorFinding.
 */
#ifndef DINOBATCH_JOBS_JOB_DOCTOR_TRIAL_H
#define DINOBATCH_JOBS_JOB_DOCTOR_TRIAL_H

#include "base/status.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum { DOCTOR_TRIAL_REPLACEMENTS = 50 };

/* What all steps need. */
typedef struct {
    char folder[PATH_MAX - 64];
    size_t made;   /* of its path, from its end, what is ours to remove */
    uint64_t mark; /* of this trial: in names and contents */
    int rank, size;
    double limit; /* seconds of a step; another node has half of them to see a file */
} DoctorTrial;

/* What a step found. */
typedef struct {
    Status status;
    Error error;
    double seconds;
    int64_t free_bytes;
    size_t made; /* of the folder's path, from its end, what was not there before */
} DoctorFinding;

/* path: the trial's file of that kind ("whole", "parts", "replaced", "h5"). */
void doctor_trial_name_file(const DoctorTrial *trial, const char *kind, char path[PATH_MAX]);

/* Rank 0: makes the folder and puts a file into it; found: made, free_bytes, seconds. */
void doctor_trial_publish(const void *argument, void *result);

/* Waits until that file is seen, which must be whole then. */
void doctor_trial_look_for(const void *argument, void *result);

/* This rank's part of one file of all ranks; and what all of them wrote, once they have. */
void doctor_trial_write_part(const void *argument, void *result);
void doctor_trial_read_parts(const void *argument, void *result);

/* Rank 0 replaces a file DOCTOR_TRIAL_REPLACEMENTS times; the others must see one version or a later one,
 * whole. */
void doctor_trial_replace_or_watch(const void *argument, void *result);

/* As HDF5 1.10 and MPI-IO want them. */
void doctor_trial_lock_files(const void *argument, void *result);

/* Takes away the trial's files, and of the folder's path what `made` says. */
void doctor_trial_clean(const void *argument, void *result);

#endif

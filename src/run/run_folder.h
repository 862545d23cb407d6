/* run_folder.h - the folder that a job writes to: OUTPUT/{checkpoints,eval}, config.yaml, log.txt.
 *
 * All ranks hold its path; rank 0 writes the small files. Parallel files (checkpoints) are written by ckpt.
 */
#ifndef DINOBATCH_RUN_RUN_FOLDER_H
#define DINOBATCH_RUN_RUN_FOLDER_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"

typedef struct {
    char *path; /* owned; as the user gave it, without a trailing slash */
    Comm *comm; /* borrowed */
    Log *log;   /* borrowed; speaks into log.txt while the folder is open */
    FILE *text; /* log.txt on rank 0, else NULL; owned */
} RunFolder;

/* Makes `path` with its parents, checkpoints/ and eval/, tries that it can be written, and lets `log` speak
 * into log.txt (appended). Own storage, released by run_folder_close. STATUS_INPUT on all ranks when it is a
 * file, cannot be made or written, or is not seen by every rank (not a shared file system). Collective over
 * COMM. */
Status run_folder_open(RunFolder *folder, Comm *comm, Log *log, const char *path, Error *error);

/* Detaches the log. Fine on a zeroed folder. Not collective. */
void run_folder_close(RunFolder *folder);

/* PATH/relative, owned by the caller (memory_free). Not collective. */
char *run_folder_path(const RunFolder *folder, const char *relative);

/* Makes the sub-folder `relative` (and those above it). Collective over COMM. */
Status run_folder_make(const RunFolder *folder, const char *relative, Error *error);

/* Rank 0 replaces the file `relative` by `text`, atomically; all ranks learn the outcome. Collective over
 * COMM. */
Status run_folder_write(const RunFolder *folder, const char *relative, const char *text, Error *error);

/* mkdir -p; an existing folder is fine. STATUS_INPUT naming the part that failed. Not collective. */
Status run_folder_make_path(const char *path, Error *error);

#endif

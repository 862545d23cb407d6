/* manifest.h - manifest.json: who ran what, where, with which code, from when to when, and how it ended.
 *
 * Written at the start, so that a killed job leaves one without an end; completed at the end. A job that
 * continues in the same folder keeps what the earlier ones said under "earlier_runs". Of jobs that run there
 * at the same time (an array) the file is whole, and tells of one or some. Rank 0 writes; not collective.
 */
#ifndef DINOBATCH_RUN_MANIFEST_H
#define DINOBATCH_RUN_MANIFEST_H

#include "base/status.h"

typedef struct {
    int argc;
    char **argv; /* borrowed */
    const char *launcher;
    const char *device; /* "cpu", ... */
    const char *hosts;  /* [ranks * host_bytes] NUL-terminated names in rank order */
    int host_bytes;
    int ranks;
    int threads;              /* per rank */
    const char *thread_level; /* of MPI */
} ManifestFacts;

typedef struct {
    char *path; /* owned; NULL: none */
} Manifest;

/* Writes `path` with the facts and the start time. STATUS_FAILED naming the file. Own storage; manifest_fini.
 */
Status manifest_start(Manifest *manifest, const char *path, const ManifestFacts *facts, Error *error);

/* Adds the end time and the exit status. */
Status manifest_finish(const Manifest *manifest, int exit_status, Error *error);

void manifest_fini(Manifest *manifest);

#endif

/* h5_kinds.h - a small valid file of each kind that the program reads, and reading it by the functions that
 * jobs read it by. */
#ifndef DINOBATCH_TESTS_SUPPORT_H5_KINDS_H
#define DINOBATCH_TESTS_SUPPORT_H5_KINDS_H

#include "base/status.h"
#include "comm/comm.h"

typedef enum {
    H5_KINDS_FEATURES,
    H5_KINDS_SHARD,
    H5_KINDS_CHECKPOINT,
    H5_KINDS_DECISIONS, /* of curate dedup */
    H5_KINDS_RETRIEVAL, /* of curate retrieve */
    H5_KINDS_STATE,     /* of a curation step that was stopped */
    H5_KINDS_DESCRIPTOR,
    H5_KINDS_RESULT,
    H5_KINDS_COUNT
} H5KindsKind;

const char *h5_kinds_name(H5KindsKind kind);

/* Writes a valid file; CHECK-fails where the disk does not take it. */
void h5_kinds_write(H5KindsKind kind, const char *path, Comm *comm);

/* Reads all of it. *digest: of everything in it that a job would use. */
Status h5_kinds_read(H5KindsKind kind, const char *path, uint64_t *digest, Comm *comm, Error *error);

#endif

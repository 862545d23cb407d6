/* h5_guard.h - inside src/h5 only: the lock around libhdf5, and its errors as lines of ours. */
#ifndef DINOBATCH_H5_H5_GUARD_H
#define DINOBATCH_H5_H5_GUARD_H

#include "h5/h5_dataset.h"

/* Every call into libhdf5 lies between these two. Not recursive. */
void h5_guard_enter(void);
void h5_guard_leave(void);

/* "FILE: OBJECT: what (why libhdf5 says so)"; the lock must be held. `object` may be NULL. */
Status h5_guard_fail(Error *error, Status status, const H5File *file, const char *object, const char *what);

/* STATUS_FAILED: a write to the file failed with that error number. */
Status h5_guard_not_written(Error *error, const H5File *file, int failure);

/* The parts of public functions that others of this folder need while they hold the lock. */
Status h5_guard_kind(const H5File *file, const char *object, H5Kind *kind, Error *error);
Status h5_guard_make_groups(const H5File *file, const char *path, bool also_last, Error *error);

/* libhdf5's handle of a type (to be closed by H5Tclose), and back. `item_bytes` matters for text. */
int64_t h5_guard_type(H5Type type, size_t item_bytes);
H5Type h5_guard_classify(int64_t type_id);

#endif

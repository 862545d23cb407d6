/* h5_parallel.h - does libhdf5's own parallel mode (MPI-IO) work on a file system?
 *
 * A trial for `doctor`. No file of ours is written in this way: of a checkpoint every rank writes its byte
 * ranges by itself (h5_file.h). Other programs on the same site may depend on it.
 */
#ifndef DINOBATCH_H5_H5_PARALLEL_H
#define DINOBATCH_H5_H5_PARALLEL_H

#include "base/status.h"
#include "comm/comm.h"

#include <stdbool.h>

/* Whether the library was built with MPI. */
bool h5_parallel_built(void);

/* All ranks write `path`, a file of one data set, collectively and read each other's part of it back the same
 * way; the file stays. STATUS_FAILED: the library or MPI-IO refuses, with the step and the reason.
 * STATUS_INPUT: other numbers come back than were written. May wait for ever where a file system does: the
 * caller limits it. Collective over COMM. */
Status h5_parallel_try(const char *path, Comm *comm, Error *error);

#endif

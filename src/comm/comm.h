/* comm.h - collectives behind one face: `self` (one process), `mpi` (host memory; comm/mpi/comm_mpi.h makes
 * one).
 *
 * Counts are elements per rank, never bytes. Unless its comment says "Not collective", every function here
 * that takes a Comm is collective over COMM: all ranks call it, in the same order, with the same count, dtype
 * and operation; a build with DINOBATCH_POISON verifies that (comm_set_checking). A transport that breaks
 * ends the job (one line, then abort on all ranks); so these functions return nothing. Sums are made in rank
 * order in fp32 (fp64 for fp64 data, exact for int64): the result is the same on every rank, and the same in
 * every run on the same number of ranks. A count of zero is legal. One thread at a time.
 *
 * `device` says whose memory the buffers are: NULL or a CPU, host memory; a GPU, its memory, and the
 * collective stands in the order of its work. The host transports copy such data over and back.
 */
#ifndef DINOBATCH_COMM_COMM_H
#define DINOBATCH_COMM_COMM_H

#include "base/dtype.h"
#include "base/status.h"
#include "device/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Comm Comm;

typedef enum { COMM_SUM, COMM_MAX, COMM_MIN } CommReduce;

/* One process that is the whole world. Owned by the caller. */
Comm *comm_self_create(void);

/* Not collective. */
int comm_rank(const Comm *comm);
int comm_size(const Comm *comm);

/* "self" or "mpi". Not collective. */
const char *comm_backend_name(const Comm *comm);

/* Makes room for collectives on up to `bytes` of one rank's data (the whole `in` of reduce_scatter, the
 * buffer of all_reduce), so that later calls of that size allocate nothing. Without it the room grows at the
 * first use. Not collective. */
void comm_reserve(Comm *comm, size_t bytes);

/* A collective that takes longer than this ends the job with one line that names rank, collective and
 * seconds; 0: wait for ever (the default). Communicators split off later inherit it. Not collective, but
 * meant to be the same on all ranks. */
void comm_set_timeout(Comm *comm, double seconds);

/* Before each collective, verify that all ranks call the same one with the same count, dtype and operation,
 * and end the job with one line if not. On by default in builds with DINOBATCH_POISON. Not collective, but
 * must be the same on all ranks. */
void comm_set_checking(Comm *comm, bool on);

/* A new communicator of the ranks that give the same color (>= 0), ordered by rank. Collective over COMM. */
Comm *comm_split(Comm *comm, int color);

/* Collective over COMM. NULL is fine. */
void comm_destroy(Comm *comm);

/* out[size * count] = the ranks' in[count], in rank order. `in` may be out + rank * count. */
void comm_all_gather(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device);

/* out[count] = element-wise sum over ranks of their in[size * count], the part of this rank. fp32 and fp64.
 * `out` may be in + rank * count. */
void comm_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device);

/* buffer[count] = element-wise reduction over ranks, in place, the same bits on every rank. fp32, fp64,
 * int64. A NaN on any rank gives NaN, for COMM_MAX and COMM_MIN too. */
void comm_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce, Device *device);

/* buffer[count] of `root` to everyone. */
void comm_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device);

void comm_barrier(Comm *comm);

/* The agreed outcome of a local status: the same on every rank. STATUS_OK if all are; else the status and the
 * message of the lowest rank that failed (prefixed "rank R: " when it is not this one and more than one rank
 * exists). Call it before any branch on a local outcome that changes what all ranks do next. */
Status comm_agree(Comm *comm, Status local, Error *error);

/* Lets a transport without a progress thread move data during long computations; cheap. Not collective. */
void comm_progress(Comm *comm);

/* Ends the whole job at once with this exit status after a failure of one rank alone. Not collective. */
_Noreturn void comm_abort(Comm *comm, int exit_status);

#endif

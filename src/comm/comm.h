/* comm.h - collectives behind one face: `self` (one process), `mpi` (host memory; comm/mpi/comm_mpi.h makes
 * one), and for the memory of a GPU NCCL (comm_attach_device) or a detour through host memory.
 *
 * Counts are elements per rank, never bytes. Unless its comment says "Not collective", every function here
 * that takes a Comm is collective over COMM: all ranks call it, in the same order, with the same count, dtype
 * and operation; a build with DINOBATCH_POISON verifies that (comm_set_checking). A transport that breaks
 * ends the job (one line, then abort on all ranks); so these functions return no status. A count of zero is
 * legal. One thread at a time.
 *
 * `device` says whose memory the buffers are: NULL or a CPU, host memory; a GPU, its memory, and the
 * collective stands in the order of its work.
 *
 * Reductions are made in fp32 (fp64 for fp64 data, exact for int64), and the result is the same on every
 * rank. Through host memory, also for a GPU's data, sums are made in rank order: the same bits in every run
 * on the same number of ranks. Of bf16 and fp16, 16 bits per number travel; they are added in fp32 and the
 * sum is rounded once, to nearest even (fp16: to infinity from 65520 on). NCCL adds in the order of its rings
 * and trees, which it chooses by topology, element count and version, and rounds 16-bit sums at each rank on
 * the way: other bits than the host's, and, where comm_attach_device was told to be deterministic, the same
 * bits in every run on the same machines. A NaN on any rank gives NaN; only for
 * COMM_MAX and COMM_MIN through NCCL (which calls fmax and fmin) a number on another rank wins over it. So
 * what all ranks do next is decided by reductions of host memory alone.
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

/* Collectives of one communicator that are started and not waited for, at most. */
enum { COMM_UNDER_WAY_MAX = 32 };

/* A collective that was started. All zero: none. A plain value: a copy waited for makes the original invalid.
 */
typedef struct {
    int64_t number; /* of the start, from 1; 0: none */
} CommRequest;

/* One process that is the whole world. Owned by the caller. */
Comm *comm_self_create(void);

/* Not collective. */
int comm_rank(const Comm *comm);
int comm_size(const Comm *comm);

/* "self" or "mpi". Not collective. */
const char *comm_backend_name(const Comm *comm);

/* Makes room for collectives on up to `bytes` of one rank's data (the whole `out` of all_gather, the whole
 * `in` of reduce_scatter, the buffer of all_reduce) and up to `under_way` reduce_scatters at a time (one that
 * is not only started counts, too), so that later calls within that allocate nothing. Through MPI each of
 * those reduce_scatters has `bytes` of room from its start to its wait; other collectives under way need
 * none. Without this, room grows at the first use, as it always does for a GPU's data that go through host
 * memory; room is kept for later calls. Nothing may be under way. Not collective. */
void comm_reserve(Comm *comm, size_t bytes, int under_way);

/* A call that waits longer than this for other ranks ends the job with one line that names rank, collective
 * and seconds; 0: wait for ever (the default). Of a collective that was started, the time in comm_wait
 * counts; through NCCL the time in which it is the oldest one under way. Communicators split off later
 * inherit it. Not collective, but meant to be the same on all ranks. */
void comm_set_timeout(Comm *comm, double seconds);

/* Before each collective, verify that all ranks call the same one with the same count, dtype and operation,
 * and end the job with one line if not. On by default in builds with DINOBATCH_POISON. Not collective, but
 * must be the same on all ranks. */
void comm_set_checking(Comm *comm, bool on);

/* A new communicator of the ranks that give the same color (>= 0), ordered by rank. Collective over COMM. */
Comm *comm_split(Comm *comm, int color);

/* Nothing may be under way. Collective over COMM. NULL is fine. An attached device may have been closed
 * before. */
void comm_destroy(Comm *comm);

/* Finds the best way for collectives on this rank's `device` (NULL: the CPU), which comm_device_transport
 * then names: NCCL, if every rank has a GPU, no two the same one, and all find the library; otherwise data in
 * a GPU's memory goes through host memory, as it does without this call. With NCCL the host does not wait for
 * the device; a collective that breaks or takes longer than the time-out ends the job all the same.
 * `deterministic` keeps NCCL from summing in network switches, whose order differs from call to call. NCCL
 * that is there but does not start ends the job with its reason. Takes the place of a device attached
 * before; the device is borrowed until comm_detach_device or comm_destroy. Communicators split off have to
 * be attached themselves. Collective over COMM. */
void comm_attach_device(Comm *comm, Device *device, bool deterministic);

/* Waits for the collectives on the device, also for those only started (comm_wait is still to be called), and
 * lets go of it; call it before device_close. Nothing happens if none is attached. Collective over COMM. */
void comm_detach_device(Comm *comm);

/* How collectives on this rank's device travel, for a log: "host", "nccl 2.28.9", "staged: ranks share a
 * GPU", "none: one rank". Lives until the next attach or detach. Not collective. */
const char *comm_device_transport(const Comm *comm);

/* out[size * count] = the ranks' in[count], in rank order. `in` may be out + rank * count. */
void comm_all_gather(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device);

/* out[count] = element-wise sum over ranks of their in[size * count], the part of this rank. fp32, fp64, bf16
 * and fp16. `out` may be in + rank * count. */
void comm_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device);

/* The same two, only started: the functions above are these and comm_wait. Until comm_wait returns, the
 * caller neither writes to `in` nor touches `out`. Any other collective may come in between, and up to
 * COMM_UNDER_WAY_MAX may be under way at a time.
 * - Host memory by MPI: nobody's data move unless the ranks are inside of MPI; comm_progress lets them. The
 *   sums of reduce_scatter are made in comm_wait.
 * - A GPU's memory by NCCL: `device` must not be given other work on the buffers before comm_wait. The
 *   collective runs beside the device's later work.
 * - A GPU's data through host memory, and one process alone: the start does all of it. */
CommRequest comm_all_gather_start(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype,
                                  Device *device);
CommRequest comm_reduce_scatter_start(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype,
                                      Device *device);

/* Ends what was started, in any order, which is the same on all ranks; *request becomes none. Of a GPU's
 * collective by NCCL: the host does not wait; the device's later work stands behind the collective. None:
 * returns at once, and other ranks need not call it. */
void comm_wait(Comm *comm, CommRequest *request);

/* buffer[count] = element-wise reduction over ranks, in place, the same bits on every rank. fp32, fp64, bf16,
 * fp16, int64. NaN: above. */
void comm_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce, Device *device);

/* buffer[count] of `root` to everyone. */
void comm_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device);

/* Every rank sends every rank a piece of its own length. in: the pieces for rank 0, 1, ..., in_counts[size]
 * elements each; out: those of rank 0, 1, ..., out_counts[size] each, where out_counts[r] here is
 * in_counts[this rank] on r (comm_exchange_counts tells). The own piece is copied. Host memory; `in` and
 * `out` do not overlap. Counts may differ between ranks. */
void comm_all_to_all(Comm *comm, void *out, const int64_t *out_counts, const void *in,
                     const int64_t *in_counts, Dtype dtype);

/* out_counts[size] for comm_all_to_all, of in_counts[size]; returns their sum. */
int64_t comm_exchange_counts(Comm *comm, int64_t *out_counts, const int64_t *in_counts);

void comm_barrier(Comm *comm);

/* The agreed outcome of a local status: the same on every rank. STATUS_OK if all are; else the status and the
 * message of the lowest rank that failed (prefixed "rank R: " when it is not this one and more than one rank
 * exists). Call it before any branch on a local outcome that changes what all ranks do next. */
Status comm_agree(Comm *comm, Status local, Error *error);

/* Moves the data of what is under way, on a transport without a progress thread: to be called every
 * millisecond or so of a long computation. Cheap when nothing can move; else it takes the time to copy what
 * has come. Not collective. */
void comm_progress(Comm *comm);

/* Ends the whole job at once with this exit status after a failure of one rank alone. Not collective. */
_Noreturn void comm_abort(Comm *comm, int exit_status);

#endif

/* comm_backend.h - what a transport implements, and what every communicator has.
 *
 * For src/comm only; everyone else includes comm.h. Backends move bytes and reduce; counts, dtypes, aliasing,
 * the watchdog and the cross-check of calls are handled once, in comm.c.
 */
#ifndef DINOBATCH_COMM_COMM_BACKEND_H
#define DINOBATCH_COMM_COMM_BACKEND_H

#include "comm/comm.h"
#include "comm/comm_watchdog.h"

/* One entry per operation of comm.h with the same meaning. REQUIRED unless marked. */
typedef struct {
    const char *name;
    void (*destroy)(Comm *comm); /* releases `state` */
    Comm *(*split)(Comm *comm, int color);
    /* `in` == out + rank * bytes: in place. */
    void (*all_gather)(Comm *comm, void *out, const void *in, size_t bytes);
    void (*reduce_scatter)(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype);
    void (*all_reduce)(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce);
    void (*broadcast)(Comm *comm, void *buffer, size_t bytes, int root);
    void (*barrier)(Comm *comm);
    void (*progress)(Comm *comm);
    void (*reserve)(Comm *comm, size_t bytes);
    void (*abort)(Comm *comm, int exit_status); /* must not return */
} CommBackend;

/* What ranks must have in common when they enter a collective. */
typedef struct {
    uint64_t operation; /* hash of its name */
    int64_t count;
    int32_t dtype;
    int32_t detail; /* root or reduction */
} CommCall;

struct Comm {
    const CommBackend *backend;
    void *state; /* the backend's own; owned */
    int rank, size;
    bool checking;          /* cross-check every call */
    CommCall *calls;        /* [size] of the cross-check; owned; NULL before the first */
    CommWatchdog *watchdog; /* owned; NULL: no time-out */
    char *room;             /* [room_bytes] host memory through which a device's data goes; owned */
    size_t room_bytes;
};

/* A communicator around a backend's state, with the defaults of comm.h. */
Comm *comm_backend_create(const CommBackend *backend, void *state, int rank, int size);

#endif

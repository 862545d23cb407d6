/* comm_backend.h - what a transport implements, and what every communicator has.
 *
 * For src/comm only; everyone else includes comm.h. Backends move bytes and reduce; counts, dtypes, aliasing,
 * the watchdog and the cross-check of calls are handled once, in comm.c.
 */
#ifndef DINOBATCH_COMM_COMM_BACKEND_H
#define DINOBATCH_COMM_COMM_BACKEND_H

#include "comm/comm.h"
#include "comm/comm_link.h"
#include "comm/comm_watchdog.h"

#include <stdatomic.h>

/* Places of collectives under way. The last one is for those that comm.c and comm_device.c make themselves,
 * which are waited for at once. */
enum { COMM_PLACE_OWN = COMM_UNDER_WAY_MAX, COMM_PLACES };

/* One entry per operation of comm.h with the same meaning. REQUIRED unless marked. */
typedef struct {
    const char *name;
    void (*destroy)(Comm *comm); /* releases `state` */
    Comm *(*split)(Comm *comm, int color);
    /* `place` is free, and taken until `wait`. `in` == out + rank * bytes: in place. */
    void (*all_gather_start)(Comm *comm, int place, void *out, const void *in, size_t bytes);
    void (*reduce_scatter_start)(Comm *comm, int place, void *out, const void *in, int64_t count,
                                 Dtype dtype);
    void (*wait)(Comm *comm, int place);
    void (*all_reduce)(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce);
    void (*broadcast)(Comm *comm, void *buffer, size_t bytes, int root);
    /* bytes for and of each rank; pieces lie one behind the other */
    void (*all_to_all)(Comm *comm, void *out, const size_t *out_bytes, const void *in,
                       const size_t *in_bytes);
    void (*barrier)(Comm *comm);
    void (*progress)(Comm *comm);
    void (*reserve)(Comm *comm, size_t bytes, int under_way);
    void (*abort)(Comm *comm, int exit_status); /* must not return */
} CommBackend;

/* What ranks must have in common when they enter a collective. */
typedef struct {
    uint64_t operation; /* hash of its name */
    int64_t count;
    int32_t dtype;
    int32_t detail; /* root or reduction */
} CommCall;

/* Where a collective that was started is. */
typedef enum { COMM_PATH_DONE, COMM_PATH_BACKEND, COMM_PATH_LINK } CommPath;

typedef struct {
    int64_t number; /* of the CommRequest; 0: the place is free */
    CommPath path;
    int64_t queued;        /* COMM_PATH_LINK: the link's name for it */
    const char *operation; /* a literal: what waiting for it is called */
} CommStarted;

struct Comm {
    const CommBackend *backend;
    void *state; /* the backend's own; owned */
    int rank, size;
    bool checking;          /* cross-check every call */
    CommCall *calls;        /* [size] of the cross-check; owned; NULL before the first */
    size_t *lengths;        /* [2 * size] bytes of all_to_all's pieces; owned */
    CommWatchdog *watchdog; /* owned; NULL: nothing to watch */
    double timeout;         /* seconds of one collective; 0: none */
    atomic_bool ending;     /* the job is being ended: nothing that this rank still does may count */
    char *room;             /* [room_bytes] host memory through which a device's data goes; owned */
    size_t room_bytes;
    const Device *device; /* attached; borrowed, only compared; NULL: none */
    CommLink *link;       /* among the ranks' devices; owned; NULL: their data goes through `room` */
    char transport[64];   /* comm_device_transport */
    int64_t starts;       /* so far */
    CommStarted started[COMM_UNDER_WAY_MAX]; /* by place */
};

/* A communicator around a backend's state, with the defaults of comm.h. */
Comm *comm_backend_create(const CommBackend *backend, void *state, int rank, int size);

/* Around everything that may wait for other ranks: the watchdog and the cross-check. */
void comm_backend_enter(Comm *comm, const char *operation, int64_t count, Dtype dtype, int detail);
void comm_backend_leave(Comm *comm);

/* The backend's own start and wait, at once. */
void comm_backend_all_gather(Comm *comm, void *out, const void *in, size_t bytes);
void comm_backend_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype);

/* Sets comm->link, which the watchdog's thread reads, and returns the one before. */
CommLink *comm_backend_exchange_link(Comm *comm, CommLink *link);

/* Ends the job from any thread: one line, then abort on all ranks. The first caller speaks; a later one waits
 * for the end. */
_Noreturn void comm_backend_fail(Comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

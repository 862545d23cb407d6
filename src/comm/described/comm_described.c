/* comm_described.c - a transport, and for a described GPU a link, that only tell. */
#include "comm/described/comm_described.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm_backend.h"
#include "comm/comm_device.h"

#include <stdio.h>

typedef struct {
    CommLink link; /* first; used for a GPU alone */
    Comm *comm;    /* whose state it is */
    CommListener listener;
    bool gpu;
    int64_t numbers; /* told so far */
    int64_t places[COMM_PLACES];
} Described;

static Described *of_link(CommLink *link)
{
    return (Described *)(void *)link;
}

static Described *of_comm(Comm *comm)
{
    return comm->state;
}

static int64_t tell(Described *d, CommMove move, const void *buffer, size_t bytes)
{
    d->listener.started(d->listener.context, ++d->numbers, move, buffer, bytes);
    return d->numbers;
}

static void tell_whole(Described *d, CommMove move, const void *buffer, size_t bytes)
{
    d->listener.waited(d->listener.context, tell(d, move, buffer, bytes));
}

/* --- among GPUs --- */

static void link_nothing(CommLink *link)
{
    (void)link;
}

static int64_t link_all_gather(CommLink *link, void *out, const void *in, int64_t count, Dtype dtype)
{
    (void)in;
    Described *d = of_link(link);
    return tell(d, COMM_MOVE_ALL_GATHER, out, (size_t)d->comm->size * (size_t)count * dtype_size(dtype));
}

static int64_t link_reduce_scatter(CommLink *link, void *out, const void *in, int64_t count, Dtype dtype)
{
    (void)out;
    Described *d = of_link(link);
    return tell(d, COMM_MOVE_REDUCE_SCATTER, in, (size_t)d->comm->size * (size_t)count * dtype_size(dtype));
}

static void link_wait(CommLink *link, int64_t queued)
{
    const CommListener *listener = &of_link(link)->listener;
    listener->waited(listener->context, queued);
}

static void link_all_reduce(CommLink *link, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    (void)reduce;
    tell_whole(of_link(link), COMM_MOVE_ALL_REDUCE, buffer, (size_t)count * dtype_size(dtype));
}

static void link_broadcast(CommLink *link, void *buffer, int64_t count, Dtype dtype, int root)
{
    (void)root;
    tell_whole(of_link(link), COMM_MOVE_BROADCAST, buffer, (size_t)count * dtype_size(dtype));
}

static void link_look(CommLink *link, double timeout)
{
    (void)link, (void)timeout;
}

/* --- in host memory: told where the device is a CPU --- */

static void described_all_gather_start(Comm *comm, int place, void *out, const void *in, size_t bytes)
{
    (void)in;
    Described *d = of_comm(comm);
    if (!d->gpu) d->places[place] = tell(d, COMM_MOVE_ALL_GATHER, out, (size_t)comm->size * bytes);
}

static void described_reduce_scatter_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                           Dtype dtype)
{
    (void)out;
    Described *d = of_comm(comm);
    size_t bytes = (size_t)comm->size * (size_t)count * dtype_size(dtype);
    if (!d->gpu) d->places[place] = tell(d, COMM_MOVE_REDUCE_SCATTER, in, bytes);
}

static void described_wait(Comm *comm, int place)
{
    Described *d = of_comm(comm);
    if (!d->gpu) d->listener.waited(d->listener.context, d->places[place]);
}

static void described_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    (void)reduce;
    Described *d = of_comm(comm);
    if (!d->gpu) tell_whole(d, COMM_MOVE_ALL_REDUCE, buffer, (size_t)count * dtype_size(dtype));
}

static void described_broadcast(Comm *comm, void *buffer, size_t bytes, int root)
{
    (void)root;
    Described *d = of_comm(comm);
    if (!d->gpu) tell_whole(d, COMM_MOVE_BROADCAST, buffer, bytes);
}

static void described_nothing(Comm *comm)
{
    (void)comm;
}

static void described_reserve(Comm *comm, size_t bytes, int under_way)
{
    (void)comm, (void)bytes, (void)under_way;
}

static Comm *described_split(Comm *comm, int color)
{
    (void)comm, (void)color;
    CHECK(!"ranks that are not there do not say their colors");
    return NULL;
}

static void described_abort(Comm *comm, int exit_status)
{
    (void)comm, (void)exit_status;
}

static void described_destroy(Comm *comm)
{
    memory_free(comm->state);
}

Comm *comm_described_create(int rank, int size, Device *device, CommListener listener)
{
    static const CommBackend BACKEND = {.name = "described",
                                        .destroy = described_destroy,
                                        .split = described_split,
                                        .all_gather_start = described_all_gather_start,
                                        .reduce_scatter_start = described_reduce_scatter_start,
                                        .wait = described_wait,
                                        .all_reduce = described_all_reduce,
                                        .broadcast = described_broadcast,
                                        .barrier = described_nothing,
                                        .progress = described_nothing,
                                        .reserve = described_reserve,
                                        .abort = described_abort};
    static const CommLinkBackend LINK = {.close = link_nothing,
                                         .start = link_nothing,
                                         .all_gather_start = link_all_gather,
                                         .reduce_scatter_start = link_reduce_scatter,
                                         .wait = link_wait,
                                         .all_reduce = link_all_reduce,
                                         .broadcast = link_broadcast,
                                         .finish = link_nothing,
                                         .look = link_look,
                                         .abort = link_nothing};
    Described *d = memory_alloc(sizeof *d);
    *d = (Described){.listener = listener, .gpu = comm_device_is_elsewhere(device)};
    d->link.backend = &LINK;
    snprintf(d->link.name, sizeof d->link.name, "described");
    d->comm = comm_backend_create(&BACKEND, d, rank, size);
    d->comm->checking = false; /* nobody answers */
    if (d->gpu) {              /* without a watchdog: nothing can hang */
        d->comm->link = &d->link;
        d->comm->device = device;
    }
    return d->comm;
}

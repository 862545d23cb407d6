/* comm_device.c - which way data in a GPU's memory takes, and the way through host memory.
 *
 * Staged, `in` comes over, the host transport does its work, and the result goes back, in order with the
 * device's work but with the host waiting: what several ranks on one GPU can do, and what is left where NCCL
 * is missing. Deliberately not MPI on device pointers: whether a library takes those differs from machine to
 * machine.
 */
#include "comm/comm_device.h"

#include "base/memory.h"
#include "comm/comm_backend.h"

#include <stdio.h>
#include <string.h>

/* Why a rank cannot use a link. The greatest one of all ranks is everybody's. */
typedef enum { LINK_FINE, LINK_SHARED, LINK_MISSING, LINK_NO_GPU } LinkVerdict;

/* --- attaching --- */

/* Whether two ranks have the same GPU. */
static bool is_shared(Comm *comm, const CommLink *link)
{
    unsigned char *gpus = memory_alloc_array((size_t)comm->size, COMM_LINK_GPU_BYTES);
    comm_backend_all_gather(comm, gpus, link->gpu, COMM_LINK_GPU_BYTES);
    bool shared = false;
    for (int a = 0; a < comm->size; a++)
        for (int b = 0; b < a; b++)
            if (memcmp(gpus + a * COMM_LINK_GPU_BYTES, gpus + b * COMM_LINK_GPU_BYTES, COMM_LINK_GPU_BYTES) ==
                0)
                shared = true;
    memory_free(gpus);
    return shared;
}

static LinkVerdict agree_on_link(Comm *comm, const CommLink *link, LinkVerdict mine)
{
    int64_t worst = mine;
    comm->backend->all_reduce(comm, &worst, 1, DTYPE_I64, COMM_MAX);
    if (worst != LINK_FINE) return (LinkVerdict)worst;
    return is_shared(comm, link) ? LINK_SHARED : LINK_FINE;
}

/* The words of comm_device_transport. `reason`: why this rank has no link of its own, or NULL. */
static void name_transport(Comm *comm, const CommLink *link, LinkVerdict verdict, const char *reason)
{
    const char *words = verdict == LINK_SHARED   ? "ranks share a GPU"
                        : verdict == LINK_NO_GPU ? "a rank computes on its CPU"
                        : reason                 ? reason
                                                 : "another rank has no NCCL";
    if (verdict == LINK_FINE)
        snprintf(comm->transport, sizeof comm->transport, "%s", link->name);
    else
        snprintf(comm->transport, sizeof comm->transport, "staged: %s", words);
}

static void attach(Comm *comm, Device *device, bool deterministic)
{
    const char *reason = NULL;
    bool elsewhere = comm_device_is_elsewhere(device);
    CommLink *link = elsewhere ? comm_nccl_open(comm, device, deterministic, &reason) : NULL;
    LinkVerdict verdict = agree_on_link(comm, link,
                                        !elsewhere ? LINK_NO_GPU
                                        : link     ? LINK_FINE
                                                   : LINK_MISSING);
    if (elsewhere) name_transport(comm, link, verdict, reason);
    if (verdict == LINK_FINE) {
        link->backend->start(link);
        comm->device = device;
        (void)comm_backend_exchange_link(comm, link);
    } else if (link) {
        link->backend->close(link);
    }
}

void comm_attach_device(Comm *comm, Device *device, bool deterministic)
{
    comm_detach_device(comm);
    comm_backend_enter(comm, "attach_device", 0, DTYPE_U8, deterministic);
    if (comm->size > 1)
        attach(comm, device, deterministic);
    else if (comm_device_is_elsewhere(device))
        snprintf(comm->transport, sizeof comm->transport, "none: one rank");
    comm_backend_leave(comm);
}

void comm_detach_device(Comm *comm)
{
    if (comm->link) {
        comm_backend_enter(comm, "detach_device", 0, DTYPE_U8, 0);
        comm->link->backend->finish(comm->link);
        for (int place = 0; place < COMM_UNDER_WAY_MAX; place++)
            if (comm->started[place].path == COMM_PATH_LINK) comm->started[place].path = COMM_PATH_DONE;
        CommLink *link = comm_backend_exchange_link(comm, NULL);
        comm_watchdog_enter(comm->watchdog, "detach_device"); /* it is a new one */
        link->backend->close(link);
        comm_backend_leave(comm);
    }
    comm->device = NULL;
    comm->transport[0] = '\0';
}

const char *comm_device_transport(const Comm *comm)
{
    return comm->transport[0] ? comm->transport : "host";
}

/* --- collectives --- */

bool comm_device_is_elsewhere(const Device *device)
{
    return device && device_kind(device) != DEVICE_CPU;
}

/* The link that this device's data takes, or NULL. */
static CommLink *link_of(const Comm *comm, const Device *device)
{
    return device == comm->device ? comm->link : NULL;
}

/* The host memory of a collective, `room` bytes of it, with the device's `bytes` at `offset`. */
static void *fetch(Comm *comm, Device *device, const void *from, size_t bytes, size_t offset, size_t room)
{
    if (comm->room_bytes < room) {
        memory_free(comm->room);
        comm->room = memory_alloc(room);
        comm->room_bytes = room;
    }
    device_download(device, comm->room + offset, from, bytes);
    return comm->room;
}

static void leave_to_wait(Comm *comm, int place, int64_t queued)
{
    comm->started[place].path = COMM_PATH_LINK;
    comm->started[place].queued = queued;
}

void comm_device_all_gather_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                  Dtype dtype, Device *device)
{
    CommLink *link = link_of(comm, device);
    size_t bytes = (size_t)count * dtype_size(dtype), all = bytes * (size_t)comm->size;
    if (comm->size == 1) {
        device_copy(device, out, in, bytes);
    } else if (link) {
        leave_to_wait(comm, place, link->backend->all_gather_start(link, out, in, count, dtype));
    } else {
        char *host = fetch(comm, device, in, bytes, bytes * (size_t)comm->rank, all);
        comm_backend_all_gather(comm, host, host + bytes * (size_t)comm->rank, bytes);
        device_upload(device, out, host, all);
    }
}

void comm_device_reduce_scatter_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                      Dtype dtype, Device *device)
{
    CommLink *link = link_of(comm, device);
    size_t bytes = (size_t)count * dtype_size(dtype), all = bytes * (size_t)comm->size;
    if (comm->size == 1) {
        device_copy(device, out, in, bytes);
    } else if (link) {
        leave_to_wait(comm, place, link->backend->reduce_scatter_start(link, out, in, count, dtype));
    } else {
        char *host = fetch(comm, device, in, all, 0, all), *mine = host + bytes * (size_t)comm->rank;
        comm_backend_reduce_scatter(comm, mine, host, count, dtype);
        device_upload(device, out, mine, bytes);
    }
}

void comm_device_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce,
                            Device *device)
{
    CommLink *link = link_of(comm, device);
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (comm->size == 1) return;
    if (link) {
        link->backend->all_reduce(link, buffer, count, dtype, reduce);
    } else {
        void *host = fetch(comm, device, buffer, bytes, 0, bytes);
        comm->backend->all_reduce(comm, host, count, dtype, reduce);
        device_upload(device, buffer, host, bytes);
    }
}

void comm_device_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device)
{
    CommLink *link = link_of(comm, device);
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (comm->size == 1) return;
    if (link) {
        link->backend->broadcast(link, buffer, count, dtype, root);
    } else {
        void *host = fetch(comm, device, buffer, bytes, 0, bytes);
        comm->backend->broadcast(comm, host, bytes, root);
        device_upload(device, buffer, host, bytes);
    }
}

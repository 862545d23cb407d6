/* comm.c - what all transports share: checks of the arguments, the watchdog, agreement on outcomes. */
#include "comm/comm.h"

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/comm_backend.h"

#include <string.h>
#include <unistd.h>

enum { ABORT_GRACE_SECONDS = 10 };

Comm *comm_backend_create(const CommBackend *backend, void *state, int rank, int size)
{
    Comm *comm = memory_alloc(sizeof *comm);
    *comm = (Comm){.backend = backend, .state = state, .rank = rank, .size = size};
#ifdef DINOBATCH_POISON
    comm->checking = true;
#endif
    return comm;
}

int comm_rank(const Comm *comm)
{
    return comm->rank;
}

int comm_size(const Comm *comm)
{
    return comm->size;
}

const char *comm_backend_name(const Comm *comm)
{
    return comm->backend->name;
}

void comm_reserve(Comm *comm, size_t bytes)
{
    comm->backend->reserve(comm, bytes);
}

/* --- time-out --- */

static void expired(void *context, const char *operation, double seconds)
{
    Comm *comm = context;
    Log log = log_create(comm->rank);
    log_error(&log, "rank %d has waited %.1f s in %s, which is over the time-out; the job ends here",
              comm->rank, seconds, operation);
    /* The main thread sits inside the transport, which may therefore not be able to end the job in order. */
    alarm(ABORT_GRACE_SECONDS);
    comm_abort(comm, STATUS_FAILED);
}

void comm_set_timeout(Comm *comm, double seconds)
{
    comm_watchdog_destroy(comm->watchdog);
    comm->watchdog = seconds > 0 ? comm_watchdog_create(seconds, expired, comm) : NULL;
}

/* --- cross-check of calls --- */

void comm_set_checking(Comm *comm, bool on)
{
    comm->checking = on;
}

static uint64_t hash_name(const char *name)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash;
}

static void cross_check(Comm *comm, const char *operation, int64_t count, int dtype, int detail)
{
    CommCall mine = {hash_name(operation), count, dtype, detail};
    if (!comm->calls) comm->calls = memory_alloc_array((size_t)comm->size, sizeof *comm->calls);
    const CommCall *all = comm->calls;
    comm->backend->all_gather(comm, comm->calls, &mine, sizeof mine);
    for (int r = 0; r < comm->size; r++) {
        if (memcmp(&all[r], &mine, sizeof mine) == 0) continue;
        Log log = log_create(comm->rank);
        log_error(&log, "ranks disagree: rank %d calls %s with count %lld, dtype %d, detail %d; rank %d %s",
                  comm->rank, operation, (long long)count, dtype, detail, r,
                  all[r].operation == mine.operation ? "calls it with others" : "calls something else");
        comm_abort(comm, STATUS_FAILED);
    }
}

static void enter(Comm *comm, const char *operation, int64_t count, int dtype, int detail)
{
    CHECK(count >= 0 && dtype >= 0 && dtype < DTYPE_COUNT);
    comm_watchdog_enter(comm->watchdog, operation);
    if (comm->checking && comm->size > 1) cross_check(comm, operation, count, dtype, detail);
}

static void leave(Comm *comm)
{
    comm_watchdog_leave(comm->watchdog);
}

/* --- collectives --- */

Comm *comm_split(Comm *comm, int color)
{
    CHECK(color >= 0);
    enter(comm, "split", 0, 0, 0);
    Comm *part = comm->backend->split(comm, color);
    leave(comm);
    part->checking = comm->checking;
    if (comm->watchdog) comm_set_timeout(part, comm_watchdog_seconds(comm->watchdog));
    return part;
}

void comm_destroy(Comm *comm)
{
    if (!comm) return;
    comm_watchdog_destroy(comm->watchdog);
    comm->backend->destroy(comm);
    memory_free(comm->room);
    memory_free(comm->calls);
    memory_free(comm);
}

/* Data in a device's memory goes through host memory. `in` comes over, the result goes back: the transports
 * see host memory only. */
static bool is_elsewhere(const Device *device)
{
    return device && device_kind(device) != DEVICE_CPU;
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

void comm_all_gather(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device)
{
    enter(comm, "all_gather", count, (int)dtype, 0);
    size_t bytes = (size_t)count * dtype_size(dtype), all = bytes * (size_t)comm->size;
    if (count > 0 && is_elsewhere(device)) {
        char *host = fetch(comm, device, in, bytes, bytes * (size_t)comm->rank, all);
        comm->backend->all_gather(comm, host, host + bytes * (size_t)comm->rank, bytes);
        device_upload(device, out, host, all);
    } else if (count > 0) {
        comm->backend->all_gather(comm, out, in, bytes);
    }
    leave(comm);
}

void comm_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F64);
    enter(comm, "reduce_scatter", count, (int)dtype, COMM_SUM);
    size_t bytes = (size_t)count * dtype_size(dtype), all = bytes * (size_t)comm->size;
    if (count > 0 && is_elsewhere(device)) {
        char *host = fetch(comm, device, in, all, 0, all), *mine = host + bytes * (size_t)comm->rank;
        comm->backend->reduce_scatter(comm, mine, host, count, dtype);
        device_upload(device, out, mine, bytes);
    } else if (count > 0) {
        comm->backend->reduce_scatter(comm, out, in, count, dtype);
    }
    leave(comm);
}

void comm_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce, Device *device)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_I64);
    enter(comm, "all_reduce", count, (int)dtype, (int)reduce);
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (count > 0 && comm->size > 1 && is_elsewhere(device)) {
        void *host = fetch(comm, device, buffer, bytes, 0, bytes);
        comm->backend->all_reduce(comm, host, count, dtype, reduce);
        device_upload(device, buffer, host, bytes);
    } else if (count > 0 && !is_elsewhere(device)) {
        comm->backend->all_reduce(comm, buffer, count, dtype, reduce);
    }
    leave(comm);
}

void comm_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device)
{
    CHECK(root >= 0 && root < comm->size);
    enter(comm, "broadcast", count, (int)dtype, root);
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (count > 0 && comm->size > 1 && is_elsewhere(device)) {
        void *host = fetch(comm, device, buffer, bytes, 0, bytes);
        comm->backend->broadcast(comm, host, bytes, root);
        device_upload(device, buffer, host, bytes);
    } else if (count > 0 && !is_elsewhere(device)) {
        comm->backend->broadcast(comm, buffer, bytes, root);
    }
    leave(comm);
}

void comm_barrier(Comm *comm)
{
    enter(comm, "barrier", 0, 0, 0);
    comm->backend->barrier(comm);
    leave(comm);
}

void comm_progress(Comm *comm)
{
    comm->backend->progress(comm);
}

void comm_abort(Comm *comm, int exit_status)
{
    comm->backend->abort(comm, exit_status);
    _exit(exit_status); /* a function pointer cannot say that it does not return */
}

/* --- agreement --- */

static Status agree(Comm *comm, Status local, Error *error)
{
    /* One int64 per rank orders failures by rank: 0 is success, else (size - rank) << 32 | status; the
     * greatest is the lowest failing rank's. */
    int64_t worst = local == STATUS_OK ? 0 : ((int64_t)(comm->size - comm->rank) << 32 | (int64_t)local);
    comm->backend->all_reduce(comm, &worst, 1, DTYPE_I64, COMM_MAX);
    if (worst == 0) return STATUS_OK;

    int root = comm->size - (int)(worst >> 32);
    Error agreed = {0};
    if (root == comm->rank && error) agreed = *error;
    comm->backend->broadcast(comm, agreed.text, sizeof agreed.text, root);
    Status status = (Status)(worst & 0xffffffff);
    if (root != comm->rank)
        status_fail(error, status, "rank %d: %s", root, agreed.text[0] ? agreed.text : "no message");
    return status;
}

Status comm_agree(Comm *comm, Status local, Error *error)
{
    if (comm->size == 1) return local;
    enter(comm, "agree", 0, 0, 0);
    Status status = agree(comm, local, error);
    leave(comm);
    return status;
}

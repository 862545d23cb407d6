/* comm.c - what all transports share: checks of the arguments, the watchdog, agreement on outcomes. */
#include "comm/comm.h"

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/comm_backend.h"
#include "comm/comm_device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ABORT_GRACE_SECONDS = 10 };

Comm *comm_backend_create(const CommBackend *backend, void *state, int rank, int size)
{
    Comm *comm = memory_alloc(sizeof *comm);
    *comm = (Comm){.backend = backend,
                   .state = state,
                   .rank = rank,
                   .size = size,
                   .lengths = memory_alloc_array(2 * (size_t)size, sizeof(size_t))};
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

/* Whether nothing is under way. */
static bool is_idle(const Comm *comm)
{
    for (int place = 0; place < COMM_UNDER_WAY_MAX; place++)
        if (comm->started[place].number != 0) return false;
    return true;
}

void comm_reserve(Comm *comm, size_t bytes, int under_way)
{
    CHECK(under_way >= 0 && under_way <= COMM_UNDER_WAY_MAX && is_idle(comm));
    comm->backend->reserve(comm, bytes, under_way);
}

/* --- time-out and failure --- */

void comm_backend_fail(Comm *comm, const char *format, ...)
{
    while (atomic_exchange(&comm->ending, true))
        pause(); /* another thread is at it */
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    Log log = log_create(comm->rank);
    log_error(&log, "%s", text);
    /* The main thread may sit inside of the transport, which then may not be able to end the job in order. */
    alarm(ABORT_GRACE_SECONDS);
    if (comm->link) comm->link->backend->abort(comm->link);
    comm_abort(comm, STATUS_FAILED);
}

static void expired(void *context, const char *operation, double seconds)
{
    Comm *comm = context;
    comm_backend_fail(comm, "rank %d has waited %.1f s in %s, which is over the time-out; the job ends here",
                      comm->rank, seconds, operation);
}

static void look_at_link(void *context)
{
    Comm *comm = context;
    comm->link->backend->look(comm->link, comm->timeout);
}

/* The thread sees neither the time-out nor the link change. */
static void restart_watchdog(Comm *comm, double timeout, CommLink *link)
{
    comm_watchdog_destroy(comm->watchdog);
    comm->watchdog = NULL;
    comm->timeout = timeout;
    comm->link = link;
    if (timeout > 0 || link)
        comm->watchdog = comm_watchdog_create(timeout, expired, link ? look_at_link : NULL, comm);
}

void comm_set_timeout(Comm *comm, double seconds)
{
    restart_watchdog(comm, seconds > 0 ? seconds : 0, comm->link);
}

CommLink *comm_backend_exchange_link(Comm *comm, CommLink *link)
{
    CommLink *before = comm->link;
    restart_watchdog(comm, comm->timeout, link);
    return before;
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
    comm_backend_all_gather(comm, comm->calls, &mine, sizeof mine);
    for (int r = 0; r < comm->size; r++) {
        if (memcmp(&all[r], &mine, sizeof mine) == 0) continue;
        comm_backend_fail(
            comm, "ranks disagree: rank %d calls %s with count %lld, dtype %d, detail %d; rank %d %s",
            comm->rank, operation, (long long)count, dtype, detail, r,
            all[r].operation == mine.operation ? "calls it with others" : "calls something else");
    }
}

void comm_backend_enter(Comm *comm, const char *operation, int64_t count, Dtype dtype, int detail)
{
    CHECK(count >= 0 && dtype >= 0 && dtype < DTYPE_COUNT);
    while (atomic_load(&comm->ending))
        pause(); /* what came out of an aborted collective must go no further */
    comm_watchdog_enter(comm->watchdog, operation);
    if (comm->checking && comm->size > 1) cross_check(comm, operation, count, (int)dtype, detail);
}

void comm_backend_leave(Comm *comm)
{
    comm_watchdog_leave(comm->watchdog);
}

/* --- life --- */

Comm *comm_split(Comm *comm, int color)
{
    CHECK(color >= 0);
    comm_backend_enter(comm, "split", 0, 0, 0);
    Comm *part = comm->backend->split(comm, color);
    comm_backend_leave(comm);
    part->checking = comm->checking;
    comm_set_timeout(part, comm->timeout);
    return part;
}

void comm_destroy(Comm *comm)
{
    if (!comm) return;
    CHECK(is_idle(comm) && "what was started is waited for");
    comm_detach_device(comm);
    comm_watchdog_destroy(comm->watchdog);
    comm->backend->destroy(comm);
    memory_free(comm->room);
    memory_free(comm->calls);
    memory_free(comm->lengths);
    memory_free(comm);
}

/* --- collectives that are started and waited for later --- */

static bool is_floating(Dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

/* The place of start `number`; of 0, a free one. */
static int place_of(const Comm *comm, int64_t number)
{
    int place = 0;
    while (place < COMM_UNDER_WAY_MAX && comm->started[place].number != number)
        place++;
    CHECK(place < COMM_UNDER_WAY_MAX && "waited for once, and not too many under way");
    return place;
}

/* Enters the collective. */
static int take_place(Comm *comm, const char *operation, const char *wait, int64_t count, Dtype dtype)
{
    comm_backend_enter(comm, operation, count, dtype, COMM_SUM);
    int place = place_of(comm, 0);
    comm->started[place] = (CommStarted){.number = ++comm->starts, .operation = wait};
    return place;
}

CommRequest comm_all_gather_start(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype,
                                  Device *device)
{
    int place = take_place(comm, "all_gather", "the wait for all_gather", count, dtype);
    if (count > 0 && comm_device_is_elsewhere(device)) {
        comm_device_all_gather_start(comm, place, out, in, count, dtype, device);
    } else if (count > 0) {
        comm->started[place].path = COMM_PATH_BACKEND;
        comm->backend->all_gather_start(comm, place, out, in, (size_t)count * dtype_size(dtype));
    }
    comm_backend_leave(comm);
    return (CommRequest){comm->started[place].number};
}

CommRequest comm_reduce_scatter_start(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype,
                                      Device *device)
{
    CHECK(is_floating(dtype));
    int place = take_place(comm, "reduce_scatter", "the wait for reduce_scatter", count, dtype);
    if (count > 0 && comm_device_is_elsewhere(device)) {
        comm_device_reduce_scatter_start(comm, place, out, in, count, dtype, device);
    } else if (count > 0) {
        comm->started[place].path = COMM_PATH_BACKEND;
        comm->backend->reduce_scatter_start(comm, place, out, in, count, dtype);
    }
    comm_backend_leave(comm);
    return (CommRequest){comm->started[place].number};
}

void comm_wait(Comm *comm, CommRequest *request)
{
    if (request->number == 0) return;
    int place = place_of(comm, request->number);
    CommStarted *started = &comm->started[place];
    comm_backend_enter(comm, started->operation, started->number, DTYPE_U8, 0);
    if (started->path == COMM_PATH_BACKEND)
        comm->backend->wait(comm, place);
    else if (started->path == COMM_PATH_LINK)
        comm->link->backend->wait(comm->link, started->queued);
    *started = (CommStarted){0};
    *request = (CommRequest){0};
    comm_backend_leave(comm);
}

void comm_backend_all_gather(Comm *comm, void *out, const void *in, size_t bytes)
{
    comm->backend->all_gather_start(comm, COMM_PLACE_OWN, out, in, bytes);
    comm->backend->wait(comm, COMM_PLACE_OWN);
}

void comm_backend_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype)
{
    comm->backend->reduce_scatter_start(comm, COMM_PLACE_OWN, out, in, count, dtype);
    comm->backend->wait(comm, COMM_PLACE_OWN);
}

/* --- collectives --- */

void comm_all_gather(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device)
{
    CommRequest request = comm_all_gather_start(comm, out, in, count, dtype, device);
    comm_wait(comm, &request);
}

void comm_reduce_scatter(Comm *comm, void *out, const void *in, int64_t count, Dtype dtype, Device *device)
{
    CommRequest request = comm_reduce_scatter_start(comm, out, in, count, dtype, device);
    comm_wait(comm, &request);
}

void comm_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce, Device *device)
{
    CHECK(is_floating(dtype) || dtype == DTYPE_I64);
    comm_backend_enter(comm, "all_reduce", count, dtype, (int)reduce);
    if (count > 0 && comm_device_is_elsewhere(device))
        comm_device_all_reduce(comm, buffer, count, dtype, reduce, device);
    else if (count > 0)
        comm->backend->all_reduce(comm, buffer, count, dtype, reduce);
    comm_backend_leave(comm);
}

void comm_broadcast(Comm *comm, void *buffer, int64_t count, Dtype dtype, int root, Device *device)
{
    CHECK(root >= 0 && root < comm->size);
    comm_backend_enter(comm, "broadcast", count, dtype, root);
    if (count > 0 && comm_device_is_elsewhere(device))
        comm_device_broadcast(comm, buffer, count, dtype, root, device);
    else if (count > 0)
        comm->backend->broadcast(comm, buffer, (size_t)count * dtype_size(dtype), root);
    comm_backend_leave(comm);
}

void comm_all_to_all(Comm *comm, void *out, const int64_t *out_counts, const void *in,
                     const int64_t *in_counts, Dtype dtype)
{
    comm_backend_enter(comm, "all_to_all", 0, dtype, 0);
    size_t *out_bytes = comm->lengths, *in_bytes = comm->lengths + comm->size;
    for (int r = 0; r < comm->size; r++) {
        CHECK(out_counts[r] >= 0 && in_counts[r] >= 0);
        out_bytes[r] = (size_t)out_counts[r] * dtype_size(dtype);
        in_bytes[r] = (size_t)in_counts[r] * dtype_size(dtype);
    }
    CHECK(out_bytes[comm->rank] == in_bytes[comm->rank]);
    comm->backend->all_to_all(comm, out, out_bytes, in, in_bytes);
    comm_backend_leave(comm);
}

int64_t comm_exchange_counts(Comm *comm, int64_t *out_counts, const int64_t *in_counts)
{
    comm_backend_enter(comm, "exchange_counts", 0, DTYPE_I64, 0);
    for (int r = 0; r < 2 * comm->size; r++)
        comm->lengths[r] = sizeof(int64_t);
    comm->backend->all_to_all(comm, out_counts, comm->lengths, in_counts, comm->lengths + comm->size);
    comm_backend_leave(comm);
    int64_t sum = 0;
    for (int r = 0; r < comm->size; r++)
        sum += out_counts[r];
    return sum;
}

void comm_barrier(Comm *comm)
{
    comm_backend_enter(comm, "barrier", 0, 0, 0);
    comm->backend->barrier(comm);
    comm_backend_leave(comm);
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
    comm_backend_enter(comm, "agree", 0, 0, 0);
    Status status = agree(comm, local, error);
    comm_backend_leave(comm);
    return status;
}

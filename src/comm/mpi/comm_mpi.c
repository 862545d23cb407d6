/* comm_mpi.c - collectives in host memory by MPI: messages by the library, sums by ourselves.
 *
 * all_gather and reduce_scatter post all their messages when they start, and the end of the messages is
 * waited for later; then reduce_scatter sums in rank order. all_reduce is an exchange of slices, that sum,
 * and a gather of the slices, or, when small, a gather and the same sum on every rank. It is deliberately not
 * MPI_Allreduce: that may give other bits for another message size, algorithm or run; nor are the others
 * MPI's non-blocking collectives, which move nothing more between calls than messages do. Long transfers go
 * in pieces, which bounds the room of all_reduce and keeps MPI's int counts far from their limit.
 *
 * Messages between two ranks are matched in the order in which they were posted, which is that of the starts;
 * so one tag does for any number of collectives under way.
 */
#include "comm/mpi/comm_mpi.h"

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/comm_backend.h"
#include "comm/mpi/comm_combine.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TAG_EXCHANGE = 7321,
    PIECE_DEFAULT = 16 << 20,   /* bytes of one message */
    SCRATCH_TARGET = 64 << 20,  /* bytes for the pieces of all ranks together */
    PIECE_LEAST = 4096,         /* bytes, whatever the rank count */
    SMALL_ALL_REDUCE = 64 << 10 /* bytes: below, latency counts and bandwidth does not */
};

/* Memory for the pieces of other ranks. */
typedef struct {
    char *memory; /* [bytes] owned */
    size_t bytes;
    bool taken;
} Room;

/* A collective under way. */
typedef struct {
    const char *call;
    MPI_Request *messages; /* [message_room] owned */
    int message_count, message_room;
    Room *room; /* NULL: nothing is summed; otherwise what follows says what */
    CombinePieces pieces;
    void *out;
    int64_t count;
    Dtype dtype;
} Started;

typedef struct {
    MPI_Comm handle;
    size_t piece;                 /* bytes of one message at most; a multiple of 8 */
    Room scratch;                 /* of all_reduce */
    Room rooms[COMM_PLACES];      /* of reduce_scatters under way */
    Started started[COMM_PLACES]; /* by place */
    MPI_Request *requests;        /* [2 * size] owned */
    int *lengths, *displacements; /* [size] owned */
} MpiState;

static const CommBackend mpi_backend;

static MpiState *state_of(const Comm *comm)
{
    return comm->state;
}

/* --- failure --- */

static _Noreturn void mpi_abort(Comm *comm, int exit_status)
{
    (void)comm;
    fflush(NULL);
    int world = 1;
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    /* Nobody else has to be told, and MPI_Abort would add six lines of its own. */
    if (world > 1) MPI_Abort(MPI_COMM_WORLD, exit_status);
    _exit(exit_status);
}

static void check_mpi(Comm *comm, const char *call, int code)
{
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(code, text, &length);
    Log log = log_create(comm->rank);
    log_error(&log, "%s failed on rank %d: %s", call, comm->rank, text);
    mpi_abort(comm, STATUS_FAILED);
}

/* --- room --- */

static void need_room(Room *room, size_t bytes)
{
    if (room->bytes >= bytes) return;
    memory_free(room->memory);
    room->memory = memory_alloc(bytes);
    room->bytes = bytes;
}

/* The smallest free room that does; else the largest free one grows. */
static Room *take_room(MpiState *state, size_t bytes)
{
    Room *best = NULL;
    for (int i = 0; i < COMM_PLACES; i++) {
        Room *room = &state->rooms[i];
        if (room->taken) continue;
        bool does = room->bytes >= bytes, best_does = best && best->bytes >= bytes;
        if (!best || (does && !best_does) || (does == best_does && (room->bytes < best->bytes) == does))
            best = room;
    }
    need_room(best, bytes);
    best->taken = true;
    return best;
}

static void need_messages(Started *started, int count)
{
    if (started->message_room >= count) return;
    memory_free(started->messages);
    started->messages = memory_alloc_array((size_t)count, sizeof(MPI_Request));
    started->message_room = count;
}

/* Messages of a collective that sends `bytes` to every other rank and has as many of each. */
static int count_messages(const Comm *comm, size_t bytes)
{
    size_t piece = state_of(comm)->piece, pieces = (bytes + piece - 1) / piece;
    size_t count = pieces * 2 * (size_t)(comm->size - 1);
    CHECK(count <= INT_MAX);
    return (int)count;
}

/* Bytes of one rank's slice in a chunk of all_reduce, whose slices lie in the scratch room at once. */
static size_t piece_bytes(const Comm *comm)
{
    size_t piece = (size_t)SCRATCH_TARGET / (size_t)comm->size / 8 * 8;
    if (piece < PIECE_LEAST) piece = PIECE_LEAST;
    return piece < state_of(comm)->piece ? piece : state_of(comm)->piece;
}

static bool is_small(const Comm *comm, size_t bytes)
{
    size_t limit = state_of(comm)->piece < SMALL_ALL_REDUCE ? state_of(comm)->piece : SMALL_ALL_REDUCE;
    return bytes <= limit;
}

static void mpi_reserve(Comm *comm, size_t bytes, int under_way)
{
    MpiState *state = state_of(comm);
    size_t share = bytes / (size_t)comm->size + 8;
    size_t piece = piece_bytes(comm) < share ? piece_bytes(comm) : share;
    size_t small = bytes < SMALL_ALL_REDUCE ? bytes : SMALL_ALL_REDUCE;
    need_room(&state->scratch, (size_t)comm->size * (piece > small ? piece : small));
    for (int place = 0; place < COMM_PLACES; place++)
        need_messages(&state->started[place], count_messages(comm, share));
    for (int i = 0; i < under_way; i++)
        need_room(&state->rooms[i], bytes);
}

/* --- exchange --- */

/* A range of bytes for each rank: base + first[r] (length[r] bytes) = base + r * stride + offset, cut at
 * `limit`. */
typedef struct {
    char *base;
    size_t stride, offset;
    size_t length; /* bytes to move */
    size_t limit;  /* end of the last rank's range, from base */
} Ranges;

static size_t range_length(const Ranges *ranges, int rank)
{
    size_t first = (size_t)rank * ranges->stride + ranges->offset;
    if (first >= ranges->limit) return 0;
    return ranges->limit - first < ranges->length ? ranges->limit - first : ranges->length;
}

/* Sends each other rank its range of `source`, and receives `bytes_for_me` of each rank r at
 * target + r * target_stride. All messages are under way at once, the nearest rank's first. Returns their
 * number, at most 2 * (size - 1). */
static int post(Comm *comm, const char *call, const Ranges *source, char *target, size_t target_stride,
                size_t bytes_for_me, MPI_Request *messages)
{
    MPI_Comm handle = state_of(comm)->handle;
    int posted = 0;
    for (int k = 1; k < comm->size && bytes_for_me; k++) {
        int peer = (comm->rank - k + comm->size) % comm->size;
        check_mpi(comm, call,
                  MPI_Irecv(target + (size_t)peer * target_stride, (int)bytes_for_me, MPI_BYTE, peer,
                            TAG_EXCHANGE, handle, &messages[posted++]));
    }
    for (int k = 1; k < comm->size; k++) {
        int peer = (comm->rank + k) % comm->size;
        size_t length = range_length(source, peer);
        if (!length) continue;
        check_mpi(comm, call,
                  MPI_Isend(source->base + (size_t)peer * source->stride + source->offset, (int)length,
                            MPI_BYTE, peer, TAG_EXCHANGE, handle, &messages[posted++]));
    }
    return posted;
}

/* --- collectives that are started --- */

/* Posts all messages of a collective that moves `bytes` from every rank to every other one: for rank r those
 * at from + r * from_stride, into its memory at to + own rank * bytes. */
static Started *start(Comm *comm, int place, const char *call, const char *from, size_t from_stride, char *to,
                      size_t bytes)
{
    size_t piece = state_of(comm)->piece;
    Started *started = &state_of(comm)->started[place];
    CHECK(started->message_count == 0 && !started->room);
    need_messages(started, count_messages(comm, bytes));
    started->call = call;
    for (size_t first = 0; first < bytes; first += piece) {
        size_t length = bytes - first < piece ? bytes - first : piece;
        /* MPI takes no const in old bindings; it only reads. */
        Ranges source = {(char *)(uintptr_t)from, from_stride, first, length, SIZE_MAX};
        started->message_count +=
            post(comm, call, &source, to + first, bytes, length, started->messages + started->message_count);
    }
    return started;
}

static void mpi_all_gather_start(Comm *comm, int place, void *out, const void *in, size_t bytes)
{
    char *own = (char *)out + (size_t)comm->rank * bytes;
    if (own != in) memcpy(own, in, bytes);
    start(comm, place, "all_gather", in, 0, out, bytes);
}

static void mpi_reduce_scatter_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                     Dtype dtype)
{
    size_t bytes = (size_t)count * dtype_size(dtype);
    Room *room = take_room(state_of(comm), (size_t)comm->size * bytes);
    Started *started = start(comm, place, "reduce_scatter", in, bytes, room->memory, bytes);
    started->room = room;
    started->pieces = (CombinePieces){(const char *)in + (size_t)comm->rank * bytes, room->memory, bytes,
                                      comm->rank, comm->size};
    started->out = out;
    started->count = count;
    started->dtype = dtype;
}

static void mpi_wait(Comm *comm, int place)
{
    Started *started = &state_of(comm)->started[place];
    check_mpi(comm, started->call,
              MPI_Waitall(started->message_count, started->messages, MPI_STATUSES_IGNORE));
    started->message_count = 0;
    if (!started->room) return;
    comm_combine(started->out, started->pieces, started->count, started->dtype, COMM_SUM);
    started->room->taken = false;
    started->room = NULL;
}

/* --- collectives --- */

/* One chunk of an all-reduce: rank r reduces its slice, then all slices are gathered. The last may be
 * shorter. */
static void all_reduce_chunk(Comm *comm, char *chunk, size_t bytes, Dtype dtype, CommReduce reduce)
{
    MpiState *state = state_of(comm);
    size_t element = dtype_size(dtype), ranks = (size_t)comm->size;
    size_t slice = (bytes / element + ranks - 1) / ranks * element;
    need_room(&state->scratch, ranks * slice);
    Ranges source = {.base = chunk, .stride = slice, .length = slice, .limit = bytes};
    size_t mine = range_length(&source, comm->rank);
    int posted = post(comm, "all_reduce", &source, state->scratch.memory, slice, mine, state->requests);
    check_mpi(comm, "all_reduce", MPI_Waitall(posted, state->requests, MPI_STATUSES_IGNORE));
    char *own = chunk + (mine ? (size_t)comm->rank * slice : 0);
    CombinePieces pieces = {own, state->scratch.memory, slice, comm->rank, comm->size};
    comm_combine(own, pieces, (int64_t)(mine / element), dtype, reduce);

    for (int r = 0; r < comm->size; r++) {
        state->lengths[r] = (int)range_length(&source, r);
        state->displacements[r] = state->lengths[r] ? (int)((size_t)r * slice) : 0;
    }
    check_mpi(comm, "all_reduce",
              MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, chunk, state->lengths, state->displacements,
                             MPI_BYTE, state->handle));
}

static void mpi_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    MpiState *state = state_of(comm);
    size_t bytes = (size_t)count * dtype_size(dtype);
    if (is_small(comm, bytes)) {
        need_room(&state->scratch, (size_t)comm->size * bytes);
        char *all = state->scratch.memory;
        check_mpi(comm, "all_reduce",
                  MPI_Allgather(buffer, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, state->handle));
        CombinePieces pieces = {buffer, all, bytes, comm->rank, comm->size};
        comm_combine(buffer, pieces, count, dtype, reduce);
        return;
    }
    size_t chunk = piece_bytes(comm) * (size_t)comm->size;
    for (size_t first = 0; first < bytes; first += chunk)
        all_reduce_chunk(comm, (char *)buffer + first, bytes - first < chunk ? bytes - first : chunk, dtype,
                         reduce);
}

static void mpi_broadcast(Comm *comm, void *buffer, size_t bytes, int root)
{
    size_t piece = state_of(comm)->piece;
    for (size_t first = 0; first < bytes; first += piece) {
        size_t length = bytes - first < piece ? bytes - first : piece;
        check_mpi(comm, "broadcast",
                  MPI_Bcast((char *)buffer + first, (int)length, MPI_BYTE, root, state_of(comm)->handle));
    }
}

static size_t before(const size_t *bytes, int rank)
{
    size_t sum = 0;
    for (int r = 0; r < rank; r++)
        sum += bytes[r];
    return sum;
}

/* Long pieces go in turns, one message of each at a time. Both ends of a pair see the same length, so the
 * same turns. */
static void mpi_all_to_all(Comm *comm, void *out, const size_t *out_bytes, const void *in,
                           const size_t *in_bytes)
{
    MpiState *state = state_of(comm);
    size_t longest = 0;
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank) continue;
        longest = out_bytes[r] > longest ? out_bytes[r] : longest;
        longest = in_bytes[r] > longest ? in_bytes[r] : longest;
    }
    for (size_t first = 0; first < longest; first += state->piece) {
        int posted = 0;
        for (int k = 1; k < comm->size; k++) {
            int peer = (comm->rank - k + comm->size) % comm->size;
            if (out_bytes[peer] <= first) continue;
            size_t length = out_bytes[peer] - first;
            check_mpi(comm, "all_to_all",
                      MPI_Irecv((char *)out + before(out_bytes, peer) + first,
                                (int)(length < state->piece ? length : state->piece), MPI_BYTE, peer,
                                TAG_EXCHANGE, state->handle, &state->requests[posted++]));
        }
        for (int k = 1; k < comm->size; k++) {
            int peer = (comm->rank + k) % comm->size;
            if (in_bytes[peer] <= first) continue;
            size_t length = in_bytes[peer] - first;
            check_mpi(comm, "all_to_all",
                      MPI_Isend((const char *)in + before(in_bytes, peer) + first,
                                (int)(length < state->piece ? length : state->piece), MPI_BYTE, peer,
                                TAG_EXCHANGE, state->handle, &state->requests[posted++]));
        }
        check_mpi(comm, "all_to_all", MPI_Waitall(posted, state->requests, MPI_STATUSES_IGNORE));
    }
    size_t own = in_bytes[comm->rank];
    if (own)
        memcpy((char *)out + before(out_bytes, comm->rank), (const char *)in + before(in_bytes, comm->rank),
               own);
}

static void mpi_barrier(Comm *comm)
{
    check_mpi(comm, "barrier", MPI_Barrier(state_of(comm)->handle));
}

static void mpi_progress(Comm *comm)
{
    int found;
    check_mpi(comm, "progress",
              MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, state_of(comm)->handle, &found, MPI_STATUS_IGNORE));
}

/* --- life --- */

/* Takes the handle over. */
static Comm *from_handle(MPI_Comm handle)
{
    int rank = 0, size = 1;
    MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN);
    MPI_Comm_rank(handle, &rank);
    MPI_Comm_size(handle, &size);
    MpiState *state = memory_alloc(sizeof *state);
    state->handle = handle;
    state->piece = PIECE_DEFAULT;
    state->requests = memory_alloc_array(2 * (size_t)size, sizeof *state->requests);
    state->lengths = memory_alloc_array((size_t)size, sizeof *state->lengths);
    state->displacements = memory_alloc_array((size_t)size, sizeof *state->displacements);
    return comm_backend_create(&mpi_backend, state, rank, size);
}

static void mpi_destroy(Comm *comm)
{
    MpiState *state = state_of(comm);
    check_mpi(comm, "destroy", MPI_Comm_free(&state->handle));
    memory_free(state->scratch.memory);
    for (int place = 0; place < COMM_PLACES; place++) {
        memory_free(state->rooms[place].memory);
        memory_free(state->started[place].messages);
    }
    memory_free(state->requests);
    memory_free(state->lengths);
    memory_free(state->displacements);
    memory_free(state);
}

static Comm *mpi_split(Comm *comm, int color)
{
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(comm, "split", MPI_Comm_split(state_of(comm)->handle, color, comm->rank, &part));
    Comm *result = from_handle(part);
    state_of(result)->piece = state_of(comm)->piece;
    return result;
}

static const CommBackend mpi_backend = {
    .name = "mpi",
    .destroy = mpi_destroy,
    .split = mpi_split,
    .all_gather_start = mpi_all_gather_start,
    .reduce_scatter_start = mpi_reduce_scatter_start,
    .wait = mpi_wait,
    .all_reduce = mpi_all_reduce,
    .broadcast = mpi_broadcast,
    .all_to_all = mpi_all_to_all,
    .barrier = mpi_barrier,
    .progress = mpi_progress,
    .reserve = mpi_reserve,
    .abort = mpi_abort,
};

Comm *comm_mpi_create(MPI_Comm from)
{
    MPI_Comm handle = MPI_COMM_NULL;
    int code = MPI_Comm_dup(from, &handle);
    CHECK(code == MPI_SUCCESS);
    return from_handle(handle);
}

MPI_Comm comm_mpi_handle(const Comm *comm)
{
    return comm->backend == &mpi_backend ? state_of(comm)->handle : MPI_COMM_SELF;
}

void comm_mpi_set_piece(Comm *comm, size_t bytes)
{
    CHECK(comm->backend == &mpi_backend && bytes >= 8 && bytes % 8 == 0 && bytes <= INT_MAX);
    state_of(comm)->piece = bytes;
}

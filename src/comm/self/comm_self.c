/* comm_self.c - the communicator of one process: every collective is a copy or nothing.
 *
 * Deliberately without MPI: tests, tools and single-process jobs use the same code paths as large ones.
 */
#include "base/check.h"
#include "comm/comm_backend.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void self_destroy(Comm *comm)
{
    (void)comm;
}

static Comm *self_split(Comm *comm, int color)
{
    (void)comm;
    (void)color;
    return comm_self_create();
}

static void self_all_gather_start(Comm *comm, int place, void *out, const void *in, size_t bytes)
{
    (void)comm;
    (void)place;
    if (out != in && bytes) memcpy(out, in, bytes);
}

static void self_reduce_scatter_start(Comm *comm, int place, void *out, const void *in, int64_t count,
                                      Dtype dtype)
{
    self_all_gather_start(comm, place, out, in, (size_t)count * dtype_size(dtype));
}

static void self_wait(Comm *comm, int place)
{
    (void)comm;
    (void)place;
}

static void self_all_reduce(Comm *comm, void *buffer, int64_t count, Dtype dtype, CommReduce reduce)
{
    (void)comm;
    (void)buffer;
    (void)count;
    (void)dtype;
    (void)reduce;
}

static void self_broadcast(Comm *comm, void *buffer, size_t bytes, int root)
{
    (void)comm;
    (void)buffer;
    (void)bytes;
    CHECK(root == 0);
}

static void self_all_to_all(Comm *comm, void *out, const size_t *out_bytes, const void *in,
                            const size_t *in_bytes)
{
    (void)comm;
    (void)out_bytes;
    if (in_bytes[0]) memcpy(out, in, in_bytes[0]);
}

static void self_nothing(Comm *comm)
{
    (void)comm;
}

static void self_reserve(Comm *comm, size_t bytes, int under_way)
{
    (void)comm;
    (void)bytes;
    (void)under_way;
}

static _Noreturn void self_abort(Comm *comm, int exit_status)
{
    (void)comm;
    fflush(NULL);
    _exit(exit_status);
}

static const CommBackend self_backend = {
    .name = "self",
    .destroy = self_destroy,
    .split = self_split,
    .all_gather_start = self_all_gather_start,
    .reduce_scatter_start = self_reduce_scatter_start,
    .wait = self_wait,
    .all_reduce = self_all_reduce,
    .broadcast = self_broadcast,
    .all_to_all = self_all_to_all,
    .barrier = self_nothing,
    .progress = self_nothing,
    .reserve = self_reserve,
    .abort = self_abort,
};

Comm *comm_self_create(void)
{
    return comm_backend_create(&self_backend, NULL, 0, 1);
}

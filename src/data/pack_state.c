/* pack_state.c - see pack_state.h. */
#include "data/pack_state.h"

#include "base/atomic_file.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MAGIC = 0x31657a6973626e64; /* "dnbsize1" */

typedef struct {
    uint64_t magic, digest;
    int64_t count;
} Head;

/* Whether the whole file is there and is of these images. */
static bool read_sizes(const PackState *state, int64_t *sizes, int64_t count)
{
    Head head;
    char more;
    FILE *file = fopen(state->path, "rbe");
    if (!file) return false;
    bool good = fread(&head, sizeof head, 1, file) == 1 && head.magic == MAGIC &&
                head.digest == state->digest && head.count == count &&
                fread(sizes, sizeof *sizes, (size_t)count, file) == (size_t)count &&
                fread(&more, 1, 1, file) == 0;
    fclose(file);
    return good;
}

void pack_state_restore(const PackState *state, int64_t *sizes, int64_t count, bool *found, Comm *comm)
{
    int64_t good = state->path && state->resume && comm_rank(comm) == 0 && read_sizes(state, sizes, count);
    if (state->path) comm_broadcast(comm, &good, 1, DTYPE_I64, 0, NULL);
    *found = good != 0;
    if (*found)
        comm_broadcast(comm, sizes, count, DTYPE_I64, 0, NULL);
    else
        for (int64_t i = 0; i < count; i++)
            sizes[i] = PACK_STATE_UNREAD;
}

static Status write_sizes(const PackState *state, const int64_t *sizes, int64_t count, Error *error)
{
    Head head = {MAGIC, state->digest, count};
    size_t bytes = (size_t)count * sizeof *sizes;
    char *all = memory_alloc(sizeof head + bytes);
    memcpy(all, &head, sizeof head);
    memcpy(all + sizeof head, sizes, bytes);
    Status status = atomic_file_write(state->path, all, sizeof head + bytes, error);
    memory_free(all);
    return status;
}

Status pack_state_save(const PackState *state, const int64_t *sizes, int64_t count, Comm *comm, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) status = write_sizes(state, sizes, count, error);
    return comm_agree(comm, status, error);
}

Status pack_state_stopped(const PackState *state, Error *error)
{
    return status_fail(error, STATUS_REQUEUE, "stopped on request; %s has what it takes to go on",
                       state->path);
}

void pack_state_remove(const PackState *state, const Comm *comm)
{
    if (comm_rank(comm) == 0) unlink(state->path);
}

/* linear_state.c - see linear_state.h. The file: a header, weights, velocities, and a hash of all before. */
#include "eval/linear_state.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "run/signals.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char magic[8];
    uint64_t digest;
    int64_t iteration, count;
} Header;

static const char MAGIC[8] = "dblinear";

static size_t size_of(int64_t count)
{
    return sizeof(Header) + 2 * (size_t)count * sizeof(float) + sizeof(uint64_t);
}

/* NULL: the file is no state of this digest and size. memory_free. */
static char *read_whole(const LinearState *state, int64_t count)
{
    FILE *file = fopen(state->path, "rb");
    if (!file) return NULL;
    size_t size = size_of(count);
    char *bytes = memory_alloc(size);
    bool whole = fread(bytes, 1, size, file) == size && fgetc(file) == EOF;
    fclose(file);
    const Header *header = (const Header *)(const void *)bytes;
    uint64_t hash;
    memcpy(&hash, bytes + size - sizeof hash, sizeof hash);
    whole = whole && memcmp(header->magic, MAGIC, sizeof MAGIC) == 0 && header->digest == state->digest &&
            header->count == count && rng_hash_bytes(RNG_HASH_START, bytes, size - sizeof hash) == hash;
    if (whole) return bytes;
    memory_free(bytes);
    return NULL;
}

void linear_state_restore(const LinearState *state, LinearProbe *probe, Comm *comm, Log *log)
{
    float *values, *velocity;
    int64_t count = linear_probe_state(probe, &values, &velocity), iteration = -1;
    if (!state->path) return;
    if (comm_rank(comm) == 0 && access(state->path, F_OK) == 0) {
        char *bytes = read_whole(state, count);
        if (bytes) {
            size_t each = (size_t)count * sizeof *values;
            iteration = ((const Header *)(const void *)bytes)->iteration;
            memcpy(values, bytes + sizeof(Header), each);
            memcpy(velocity, bytes + sizeof(Header) + each, each);
        } else {
            log_warning(log, "%s is damaged, or of other data or settings; starting anew", state->path);
        }
        memory_free(bytes);
    }
    comm_broadcast(comm, &iteration, 1, DTYPE_I64, 0, NULL);
    if (iteration < 0) return;
    comm_broadcast(comm, values, count, DTYPE_F32, 0, NULL);
    comm_broadcast(comm, velocity, count, DTYPE_F32, 0, NULL);
    linear_probe_resume(probe, iteration);
    log_info(log, "going on from %s, iteration %lld", state->path, (long long)iteration);
}

Status linear_state_save(const LinearState *state, LinearProbe *probe, Comm *comm, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0) {
        float *values, *velocity;
        int64_t count = linear_probe_state(probe, &values, &velocity);
        size_t size = size_of(count), each = (size_t)count * sizeof *values;
        char *bytes = memory_alloc(size);
        Header header = {.digest = state->digest, .iteration = linear_probe_iteration(probe), .count = count};
        memcpy(header.magic, MAGIC, sizeof MAGIC);
        memcpy(bytes, &header, sizeof header);
        memcpy(bytes + sizeof header, values, each);
        memcpy(bytes + sizeof header + each, velocity, each);
        uint64_t hash = rng_hash_bytes(RNG_HASH_START, bytes, size - sizeof hash);
        memcpy(bytes + size - sizeof hash, &hash, sizeof hash);
        status = atomic_file_make_parent(state->path, error);
        if (status == STATUS_OK) status = atomic_file_write(state->path, bytes, size, error);
        memory_free(bytes);
    }
    return comm_agree(comm, status, error);
}

Status linear_state_pause(const LinearState *state, LinearProbe *probe, Comm *comm, Log *log, int64_t period,
                          Error *error)
{
    if (!state->path) return STATUS_OK;
    int64_t iteration = linear_probe_iteration(probe), asked = signals_stop_requested();
    comm_all_reduce(comm, &asked, 1, DTYPE_I64, COMM_MAX, NULL);
    if (!asked && (period == 0 || iteration % period != 0)) return STATUS_OK;
    TRY(linear_state_save(state, probe, comm, error));
    if (!asked) return STATUS_OK;
    log_info(log, "asked to stop: saved %s", state->path);
    return status_fail(error, STATUS_REQUEUE, "stopped on request; %s has what it takes to go on",
                       state->path);
}

void linear_state_remove(const char *path)
{
    unlink(path);
}

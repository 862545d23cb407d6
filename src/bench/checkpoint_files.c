/* checkpoint_files.c - timed writes, reads and removals. */
#include "bench/checkpoint_files.h"

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_operands.h"
#include "ckpt/retention.h"
#include "run/version.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4 << 20, ITERATION = 0 };

static const char PLAIN[] = "plain";

CheckpointState checkpoint_files_state(const Config *config, const ShardMap *map, float *const memory[4])
{
    CheckpointState s = {.map = map,
                         .student = memory[0],
                         .model_ema = memory[1],
                         .exp_avg = memory[2],
                         .exp_avg_sq = memory[3]};
    VitConfig v = ssl_vit_config(config);
    s.meta = (CheckpointMeta){.iteration = ITERATION,
                              .loss_scale = 1,
                              .config = config_dump(config),
                              .arch = "bench",
                              .embed_dim = v.embed_dim,
                              .patch_size = v.patch_size,
                              .n_registers = v.num_register_tokens,
                              .block_chunks = v.block_chunks,
                              .global_crops_size = config->crops.global_crops_size,
                              .local_crops_size = config->crops.local_crops_size,
                              .std = {1, 1, 1}};
    snprintf(s.meta.version, sizeof s.meta.version, "%s", version_number());
    return s;
}

/* FOLDER/name, or the checkpoint's name for NULL. Too long a name fails where it is used. */
static void path_of(const char *folder, const char *name, char path[CHECKPOINT_PATH_MAX])
{
    if (name)
        snprintf(path, CHECKPOINT_PATH_MAX, "%s/%s", folder, name);
    else
        retention_path(folder, ITERATION, path, CHECKPOINT_PATH_MAX, NULL);
}

/* A file that is not there is fine. */
static Status remove_one(const char *path, Error *error)
{
    if (remove(path) == 0 || errno == ENOENT) return STATUS_OK;
    return status_fail(error, STATUS_FAILED, "%s: cannot be removed: %s", path, strerror(errno));
}

Status checkpoint_files_remove(const char *folder, Comm *comm, Error *error)
{
    static const char *const NAMES[] = {PLAIN, NULL, "last_checkpoint"};
    Status status = STATUS_OK;
    for (int i = 0; i < 3 && comm_rank(comm) == 0 && status == STATUS_OK; i++) {
        char path[CHECKPOINT_PATH_MAX];
        path_of(folder, NAMES[i], path);
        status = remove_one(path, error);
    }
    if (comm_rank(comm) == 0 && status == STATUS_OK) status = remove_one(folder, error);
    return comm_agree(comm, status, error);
}

/* Seconds since `start` on the slowest rank. Collective over COMM. */
static double slowest(Comm *comm, double start)
{
    double seconds = clock_seconds() - start;
    comm_all_reduce(comm, &seconds, 1, DTYPE_F64, COMM_MAX, NULL);
    return seconds;
}

static Status write_plain(const char *path, const char *buffer, int64_t bytes, Error *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool failed = fd < 0;
    while (bytes > 0 && !failed) {
        ssize_t n = write(fd, buffer, (size_t)(bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES));
        failed = n <= 0;
        bytes -= n;
    }
    failed = failed || fsync(fd) != 0;
    Status status =
        failed ? status_fail(error, STATUS_FAILED, "%s: cannot write: %s", path, strerror(errno)) : STATUS_OK;
    if (fd >= 0) close(fd);
    return status;
}

Status checkpoint_files_plain(const char *folder, double bytes, Comm *comm, double *seconds, Error *error)
{
    char path[CHECKPOINT_PATH_MAX];
    path_of(folder, PLAIN, path);
    bool writes = comm_rank(comm) == 0;
    Status status = writes ? atomic_file_make_folder(folder, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    float *buffer = memory_alloc(BUFFER_BYTES);
    bench_operands_fill(buffer, BUFFER_BYTES / sizeof *buffer, 1.0);
    double start = clock_seconds();
    if (writes) status = write_plain(path, (const char *)buffer, (int64_t)bytes, error);
    *seconds = clock_seconds() - start;
    comm_broadcast(comm, seconds, 1, DTYPE_F64, 0, NULL);
    memory_free(buffer);
    return comm_agree(comm, status, error);
}

Status checkpoint_files_save(const char *folder, const CheckpointState *state, Comm *comm, double *seconds,
                             Error *error)
{
    comm_barrier(comm);
    double start = clock_seconds();
    TRY(checkpoint_save(folder, state, 1, 0, comm, error));
    *seconds = slowest(comm, start);
    return STATUS_OK;
}

/* Asks the kernel to forget a file's pages, which are all on the disk. */
static void forget_pages(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

Status checkpoint_files_load(const char *folder, CheckpointState *state, Comm *comm, double *seconds,
                             Error *error)
{
    char path[CHECKPOINT_PATH_MAX];
    path_of(folder, NULL, path);
    forget_pages(path);
    char *config = state->meta.config;
    comm_barrier(comm);
    double start = clock_seconds();
    TRY(checkpoint_load(path, state, comm, error));
    *seconds = slowest(comm, start);
    memory_free(config);
    return STATUS_OK;
}

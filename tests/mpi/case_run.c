/* case_run.c - how jobs start, stop and end on several ranks. */
#include "base/clock.h"
#include "base/memory.h"
#include "mpi_case.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* A training loop in miniature: steps until the ranks agree that one of them was asked to stop. With an
 * argument R, rank R asks itself; without, the test signals mpirun after "ready". */
Status case_run_stop(MpiCase *c)
{
    int64_t asker = mpi_case_number(c, 0, -1);
    comm_barrier(c->comm);
    if (c->rank == 0) fprintf(stderr, "ready\n");
    for (double end = clock_seconds() + 20; clock_seconds() < end;) {
        if (asker == c->rank) raise(SIGUSR1);
        int64_t stop = run_stop_requested(c->run);
        comm_all_reduce(c->comm, &stop, 1, DTYPE_I64, COMM_MAX, NULL);
        if (stop) return STATUS_REQUEUE;
        pause_briefly();
    }
    EXPECT(c, 0 && "asked to stop in time");
    return STATUS_OK;
}

/* A job that does not hear: only a second request ends it. */
Status case_run_deaf(MpiCase *c)
{
    fprintf(stderr, "ready\n");
    for (double end = clock_seconds() + 20; clock_seconds() < end;)
        pause_briefly();
    EXPECT(c, 0 && "ended by the second request");
    return STATUS_OK;
}

/* Every rank but the one in argument 1 comes to the end with 0, that one with the status in argument 0. The
 * slower ranks must not be killed on their way: each leaves a line. */
Status case_run_exit(MpiCase *c)
{
    Status status = (Status)mpi_case_number(c, 0, 0);
    if (c->rank == c->size - 1) {
        for (int i = 0; i < 20; i++)
            pause_briefly();
    }
    printf("rank %d came through\n", c->rank);
    return c->rank == mpi_case_number(c, 1, 0) ? status : STATUS_OK;
}

/* Opens the run folder in argument 0; its manifest and configuration must be there on every rank. */
Status case_run_folder(MpiCase *c)
{
    Status status = run_open_folder(c->run, c->argv[0], "train:\n  seed: 3\n", "cpu", &c->error);
    if (status != STATUS_OK) {
        /* The same words everywhere: rank 0 says them in run_finish, the others here. */
        if (c->rank != 0) fprintf(stderr, "also on rank %d: %s\n", c->rank, c->error.text);
        return status;
    }
    const char *names[] = {"config.yaml", "manifest.json", "log.txt", "checkpoints", "eval"};
    for (int i = 0; i < 5; i++) {
        char *path = run_folder_path(&c->run->folder, names[i]);
        struct stat facts;
        EXPECT(c, stat(path, &facts) == 0);
        memory_free(path);
    }
    log_info(&c->run->log, "a line for log.txt");
    return STATUS_OK;
}

/* One rank fails alone while the others wait in a collective. */
Status case_run_fail(MpiCase *c)
{
    if (c->rank == c->size - 1) {
        Status status = status_fail(&c->error, STATUS_INPUT, "shard 7 is unreadable");
        run_fail(c->run, status, &c->error);
    }
    comm_barrier(c->comm);
    return STATUS_OK;
}

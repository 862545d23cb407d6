/* checkpoint_writer.c - a thread for each save. */
#include "ckpt/checkpoint_writer.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct CheckpointWriter {
    Comm *comm; /* owned: what the thread says to other ranks' threads */
    pthread_t thread;
    bool busy;
    atomic_bool done;
    char *folder; /* owned */
    CheckpointState state;
    int keep;
    int64_t keep_every;
    Status status;
    Error error;
    double seconds;
};

CheckpointWriter *checkpoint_writer_create(Comm *comm)
{
    CheckpointWriter *writer = memory_alloc(sizeof *writer);
    writer->comm = comm_size(comm) > 1 ? comm_split(comm, 0) : comm_self_create();
    return writer;
}

void checkpoint_writer_destroy(CheckpointWriter *writer)
{
    if (!writer) return;
    CHECK(!writer->busy);
    comm_destroy(writer->comm);
    memory_free(writer);
}

static void *write_checkpoint(void *context)
{
    CheckpointWriter *w = context;
    double start = clock_seconds();
    omp_set_num_threads(1); /* of this thread's parallel regions: the cores are for training */
    w->status = checkpoint_save(w->folder, &w->state, w->keep, w->keep_every, w->comm, &w->error);
    w->seconds = clock_seconds() - start;
    atomic_store(&w->done, true);
    return NULL;
}

void checkpoint_writer_start(CheckpointWriter *w, const char *folder, const CheckpointState *state, int keep,
                             int64_t keep_every)
{
    CHECK(!w->busy);
    w->folder = memory_strdup(folder);
    w->state = *state;
    w->keep = keep;
    w->keep_every = keep_every;
    w->error = (Error){0};
    w->busy = true;
    atomic_store(&w->done, false);
    /* Requests to stop are for the main thread, whose waiting they interrupt. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&w->thread, NULL, write_checkpoint, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CHECK(!failed);
}

bool checkpoint_writer_is_busy(const CheckpointWriter *w)
{
    return w && w->busy;
}

bool checkpoint_writer_is_done(const CheckpointWriter *w)
{
    return atomic_load(&w->done);
}

Status checkpoint_writer_collect(CheckpointWriter *w, int64_t *iteration, double *seconds, Error *error)
{
    CHECK(w->busy);
    pthread_join(w->thread, NULL);
    w->busy = false;
    memory_free(w->folder);
    w->folder = NULL;
    *iteration = w->state.meta.iteration;
    *seconds = w->seconds;
    if (w->status != STATUS_OK && error) *error = w->error;
    return w->status;
}

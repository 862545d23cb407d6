/* task_ring.c - one mutex, two conditions: "there is work" and "a round is complete". */
#include "data/task_ring.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

typedef enum { SLOT_FREE, SLOT_FILLING, SLOT_HELD } SlotState;

typedef struct {
    SlotState state;
    int64_t tasks, taken, done;
    int64_t failed_task; /* lowest that failed, valid when status is not OK */
    Status status;
    Error error;
} Slot;

typedef struct {
    TaskRing *ring;
    int number;
    pthread_t thread;
} Worker;

struct TaskRing {
    TaskRingParams params;
    Slot *slots;           /* [params.slots] */
    Worker *workers;       /* [params.workers] */
    int started;           /* threads that run */
    int64_t filling_round; /* whose tasks are being handed out */
    int64_t next_round;    /* that the consumer gets next */
    bool stop;
    pthread_mutex_t mutex; /* protects all of the above but params */
    pthread_cond_t work, complete;
};

static int slot_of(const TaskRing *ring, int64_t round)
{
    return (int)(round % ring->params.slots);
}

static void begin_round(TaskRing *ring, int slot, int64_t round)
{
    int64_t tasks = ring->params.begin(ring->params.context, slot, round);
    CHECK(tasks >= 1);
    ring->slots[slot] = (Slot){.state = SLOT_FILLING, .tasks = tasks};
}

/* Takes the next task, with the mutex held; false: none can be had now. */
static bool take_task(TaskRing *ring, int *slot, int64_t *task)
{
    if (ring->filling_round >= ring->params.last_round) return false;
    *slot = slot_of(ring, ring->filling_round);
    Slot *s = &ring->slots[*slot];
    bool begun = s->state == SLOT_FILLING && s->taken < s->tasks;
    if (!begun) {
        if (s->state != SLOT_FREE) return false;
        begin_round(ring, *slot, ring->filling_round);
        pthread_cond_broadcast(&ring->work);
    }
    *task = s->taken++;
    if (s->taken == s->tasks) ring->filling_round++;
    return true;
}

static void record(Slot *slot, int64_t task, Status status, const Error *error)
{
    if (status != STATUS_OK && (slot->status == STATUS_OK || task < slot->failed_task)) {
        slot->status = status;
        slot->failed_task = task;
        slot->error = *error;
    }
    slot->done++;
}

static void *work(void *argument)
{
    Worker *worker = argument;
    TaskRing *ring = worker->ring;
    pthread_mutex_lock(&ring->mutex);
    while (!ring->stop) {
        int slot;
        int64_t task;
        if (!take_task(ring, &slot, &task)) {
            pthread_cond_wait(&ring->work, &ring->mutex);
            continue;
        }
        pthread_mutex_unlock(&ring->mutex);
        Error error = {0};
        Status status = ring->params.run(ring->params.context, worker->number, slot, task, &error);
        pthread_mutex_lock(&ring->mutex);
        record(&ring->slots[slot], task, status, &error);
        if (ring->slots[slot].done == ring->slots[slot].tasks) pthread_cond_signal(&ring->complete);
    }
    pthread_mutex_unlock(&ring->mutex);
    return NULL;
}

static Status start_workers(TaskRing *ring, Error *error)
{
    /* Signals are for the main thread, which turns them into an agreed stop. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    for (int w = 0; w < ring->params.workers && !failed; w++) {
        Worker *worker = &ring->workers[w];
        *worker = (Worker){.ring = ring, .number = w};
        failed = pthread_create(&worker->thread, NULL, work, worker);
        if (!failed) ring->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return status_fail(error, STATUS_FAILED, "loader: cannot start thread %d of %d: %s",
                           ring->started + 1, ring->params.workers, strerror(failed));
    return STATUS_OK;
}

Status task_ring_create(TaskRing **out, const TaskRingParams *params, Error *error)
{
    CHECK(params->slots >= 1 && params->workers >= 0 && params->first_round >= 0);
    TaskRing *ring = memory_alloc(sizeof *ring);
    ring->params = *params;
    ring->slots = memory_alloc_array((size_t)params->slots, sizeof *ring->slots);
    ring->workers = memory_alloc_array((size_t)params->workers, sizeof *ring->workers);
    ring->filling_round = ring->next_round = params->first_round;
    pthread_mutex_init(&ring->mutex, NULL);
    pthread_cond_init(&ring->work, NULL);
    pthread_cond_init(&ring->complete, NULL);
    Status status = start_workers(ring, error);
    if (status != STATUS_OK) {
        task_ring_destroy(ring);
        ring = NULL;
    }
    *out = ring;
    return status;
}

void task_ring_destroy(TaskRing *ring)
{
    if (!ring) return;
    pthread_mutex_lock(&ring->mutex);
    ring->stop = true;
    pthread_cond_broadcast(&ring->work);
    pthread_mutex_unlock(&ring->mutex);
    for (int w = 0; w < ring->started; w++)
        pthread_join(ring->workers[w].thread, NULL);
    pthread_cond_destroy(&ring->work);
    pthread_cond_destroy(&ring->complete);
    pthread_mutex_destroy(&ring->mutex);
    memory_free(ring->workers);
    memory_free(ring->slots);
    memory_free(ring);
}

/* Without workers: all tasks of the round, here and now. */
static void do_round(TaskRing *ring, int slot, int64_t round)
{
    Slot *s = &ring->slots[slot];
    begin_round(ring, slot, round);
    for (int64_t task = 0; task < s->tasks; task++) {
        Error error = {0};
        Status status = ring->params.run(ring->params.context, 0, slot, task, &error);
        record(s, task, status, &error);
    }
}

Status task_ring_next(TaskRing *ring, int *slot, double *wait_seconds, Error *error)
{
    *slot = -1;
    *wait_seconds = 0;
    if (ring->next_round >= ring->params.last_round) return STATUS_OK;
    double start = clock_seconds();
    *slot = slot_of(ring, ring->next_round);
    Slot *s = &ring->slots[*slot];
    pthread_mutex_lock(&ring->mutex);
    CHECK(s->state != SLOT_HELD);
    if (ring->params.workers == 0)
        do_round(ring, *slot, ring->next_round);
    else
        while (s->state != SLOT_FILLING || s->done < s->tasks)
            pthread_cond_wait(&ring->complete, &ring->mutex);
    s->state = SLOT_HELD;
    ring->next_round++;
    pthread_mutex_unlock(&ring->mutex);
    *wait_seconds = clock_seconds() - start;
    if (s->status != STATUS_OK && error) *error = s->error;
    return s->status;
}

void task_ring_release(TaskRing *ring, int slot)
{
    pthread_mutex_lock(&ring->mutex);
    CHECK(ring->slots[slot].state == SLOT_HELD);
    ring->slots[slot].state = SLOT_FREE;
    pthread_cond_broadcast(&ring->work);
    pthread_mutex_unlock(&ring->mutex);
}

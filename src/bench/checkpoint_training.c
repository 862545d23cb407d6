/* checkpoint_training.c - steps, and three ways to have nothing or something written. */
#include "bench/checkpoint_training.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_model.h"
#include "bench/checkpoint_files.h"
#include "ckpt/checkpoint_writer.h"

#include <stdio.h>

enum {
    ROUNDS = 3,
    STEPS = 8,
    QUICK_STEPS = 2,
    MOST_BESIDE = 200,
    VECTORS = 4,
    MOST_STEPS = ROUNDS * MOST_BESIDE
};

/* Seconds of steps of one kind. */
typedef struct {
    double seconds[MOST_STEPS];
    int count;
} Steps;

typedef struct {
    const CheckpointBenchParams *params;
    BenchModel model;
    CheckpointWriter *writer; /* owned; NULL: none can write beside */
    float *copies[VECTORS];   /* [map.count] host memory of the device; owned */
    CheckpointState state;    /* in the copies */
    Steps alone, between, beside;
    double save[ROUNDS], copy[ROUNDS], write[ROUNDS];
} Training;

static Status training_init(Training *t, const CheckpointBenchParams *params, bool several, Error *error)
{
    *t = (Training){.params = params};
    TRY(bench_model_init(&t->model, params->config, params->comm, params->device, params->threads, NULL,
                         error));
    const ShardMap *map = &t->model.ssl.student.map;
    for (int i = 0; i < VECTORS; i++)
        t->copies[i] = device_alloc_host(params->device, (size_t)map->count * sizeof(float));
    t->state = checkpoint_files_state(params->config, map, t->copies);
    if (several) t->writer = checkpoint_writer_create(params->comm);
    return STATUS_OK;
}

static void training_fini(Training *t)
{
    checkpoint_writer_destroy(t->writer);
    for (int i = 0; i < VECTORS; i++)
        device_free_host(t->params->device, t->copies[i]);
    memory_free(t->state.meta.config);
    bench_model_fini(&t->model);
}

/* The slowest rank's. */
static double slowest(const Training *t, double seconds)
{
    comm_all_reduce(t->params->comm, &seconds, 1, DTYPE_F64, COMM_MAX, NULL);
    return seconds;
}

/* As training does it: every step starts with a word among the ranks. */
static bool take_step(Training *t, Steps *steps)
{
    bench_model_next_batch(&t->model);
    double start = clock_seconds();
    int64_t busy = checkpoint_writer_is_busy(t->writer) && !checkpoint_writer_is_done(t->writer);
    comm_all_reduce(t->params->comm, &busy, 1, DTYPE_I64, COMM_MAX, NULL);
    bench_model_step(&t->model);
    device_finish(t->params->device);
    double seconds = slowest(t, clock_seconds() - start);
    if (steps && steps->count < MOST_STEPS) steps->seconds[steps->count++] = seconds;
    return busy != 0;
}

static void copy_state(Training *t)
{
    const SslMetaArch *ssl = &t->model.ssl;
    const float *from[VECTORS] = {ssl->student.local, ssl->teacher.local, t->model.optimizer.exp_avg,
                                  t->model.optimizer.exp_avg_sq};
    for (int i = 0; i < VECTORS; i++)
        device_download(t->params->device, t->copies[i], from[i],
                        (size_t)ssl->student.map.count * sizeof(float));
    device_finish(t->params->device);
}

static Status write_between(Training *t, int round, int steps, Error *error)
{
    const CheckpointBenchParams *p = t->params;
    TRY(checkpoint_files_remove(p->folder, p->comm, error));
    double start = clock_seconds(), seconds;
    copy_state(t);
    /* without need where the processor computes in memory that can be written */
    double copied = device_kind(p->device) == DEVICE_CPU ? 0 : clock_seconds() - start;
    TRY(checkpoint_files_save(p->folder, &t->state, p->comm, &seconds, error));
    t->save[round] = slowest(t, copied + seconds);
    for (int i = 0; i < steps; i++)
        take_step(t, &t->between);
    return STATUS_OK;
}

static Status write_beside(Training *t, int round, Error *error)
{
    const CheckpointBenchParams *p = t->params;
    TRY(checkpoint_files_remove(p->folder, p->comm, error));
    comm_barrier(p->comm);
    double start = clock_seconds();
    copy_state(t);
    checkpoint_writer_start(t->writer, p->folder, &t->state, 1, 0);
    t->copy[round] = slowest(t, clock_seconds() - start);
    while (take_step(t, &t->beside) && t->beside.count < (round + 1) * MOST_BESIDE)
        ;
    int64_t iteration;
    Status status = checkpoint_writer_collect(t->writer, &iteration, &t->write[round], error);
    t->write[round] = slowest(t, t->write[round]);
    return status;
}

static Status take_rounds(Training *t, int rounds, Error *error)
{
    int steps = t->params->quick ? QUICK_STEPS : STEPS;
    take_step(t, NULL); /* warms up */
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < steps; i++)
            take_step(t, &t->alone);
        TRY(write_between(t, round, steps, error));
        if (t->writer) TRY(write_beside(t, round, error));
    }
    return STATUS_OK;
}

static void fill(CheckpointTraining *result, Training *t, int rounds)
{
    result->bytes = VECTORS * sizeof(float) * (double)t->model.ssl.student.table.flat_count;
    result->alone = bench_timer_statistics(t->alone.seconds, t->alone.count);
    result->between = bench_timer_statistics(t->between.seconds, t->between.count);
    result->save = bench_timer_statistics(t->save, rounds);
    if (!t->writer) return;
    result->beside = bench_timer_statistics(t->beside.seconds, t->beside.count);
    result->copy = bench_timer_statistics(t->copy, rounds);
    result->write = bench_timer_statistics(t->write, rounds);
    double longer = (result->beside.median - result->alone.median) * (double)result->beside.count / rounds;
    result->cost_beside = result->copy.median + longer;
}

Status checkpoint_training_run(CheckpointTraining *result, const CheckpointBenchParams *params, bool several,
                               Error *error)
{
    *result = (CheckpointTraining){.ranks = comm_size(params->comm), .threads = params->threads};
    snprintf(result->name, sizeof result->name, "%s", params->name);
    int rounds = params->quick ? 1 : ROUNDS;
    Training *t = memory_alloc(sizeof *t);
    Status status = training_init(t, params, several, error);
    if (status == STATUS_OK) {
        status = take_rounds(t, rounds, error);
        if (status == STATUS_OK) fill(result, t, rounds);
        Error late = {0};
        Status removed = checkpoint_files_remove(params->folder, params->comm, &late);
        if (status == STATUS_OK && removed != STATUS_OK) {
            status = removed;
            *error = late;
        }
    }
    training_fini(t);
    memory_free(t);
    return status;
}

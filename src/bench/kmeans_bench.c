/* kmeans_bench.c - see kmeans_bench.h. */
#include "bench/kmeans_bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_descriptors.h"
#include "index/kmeans.h"
#include "index/shard_index.h"

enum { SEEDS = 3, ITERATIONS = 10 };

typedef struct {
    int64_t rows, d, k;
} Size;

static const Size SIZES[] = {{100000, 128, 1000}, {50000, 384, 1000}};
static const Size QUICK = {2000, 16, 20};

typedef struct {
    const KmeansBenchParams *params;
    KmeansBench *result;
    BenchDescriptors descriptors;
    float *unit;         /* [rows, d] what Faiss is given; owned */
    int32_t *assignment; /* [rows] owned */
    Ops *ops;
    double ours[SEEDS], faiss[SEEDS]; /* seconds */
    double our_inertia[SEEDS], faiss_inertia[SEEDS];
} Bench;

static Status inertia_of(Bench *bench, const KmeansState *state, const KmeansOptions *options,
                         double *inertia, Error *error)
{
    return kmeans_assign(state, &bench->descriptors.rows, options, bench->assignment, NULL, inertia,
                         bench->ops, bench->params->comm, error);
}

static Status iterate(Bench *bench, KmeansState *state, const KmeansOptions *options, Error *error)
{
    const IndexRows *rows = &bench->descriptors.rows;
    while (state->iteration < bench->result->iterations)
        TRY(kmeans_iterate(state, rows, options, bench->ops, bench->params->comm, error));
    return STATUS_OK;
}

static Status run_ours(Bench *bench, int seed, Error *error)
{
    KmeansState state;
    KmeansOptions options = {.k = bench->result->k, .spherical = true, .seed = (uint64_t)seed};
    Comm *comm = bench->params->comm;
    comm_barrier(comm);
    double start = clock_seconds();
    TRY(kmeans_start(&state, &bench->descriptors.rows, &options, bench->ops, comm, error));
    Status status = iterate(bench, &state, &options, error);
    bench->ours[seed] = clock_seconds() - start;
    comm_all_reduce(comm, &bench->ours[seed], 1, DTYPE_F64, COMM_MAX, NULL);
    if (status == STATUS_OK) status = inertia_of(bench, &state, &options, &bench->our_inertia[seed], error);
    kmeans_fini(&state);
    return status;
}

static Status run_faiss(Bench *bench, int seed, Error *error)
{
    const KmeansBench *r = bench->result;
    KmeansState state;
    KmeansOptions options = {.k = r->k, .spherical = true};
    kmeans_restore(&state, r->k, r->d);
    double start = clock_seconds();
    Status status = faiss_shim_kmeans(state.centroids, r->k, bench->unit, r->rows, r->d, (int)r->iterations,
                                      true, seed + 1, r->threads, error);
    bench->faiss[seed] = clock_seconds() - start;
    if (status == STATUS_OK) status = inertia_of(bench, &state, &options, &bench->faiss_inertia[seed], error);
    kmeans_fini(&state);
    return status;
}

static Status run_seeds(Bench *bench, Error *error)
{
    bool both = bench->result->ranks == 1;
    for (int seed = 0; seed < bench->result->seeds; seed++)
        for (int turn = 0; turn < 2; turn++) {
            if (turn == seed % 2)
                TRY(run_ours(bench, seed, error));
            else if (both)
                TRY(run_faiss(bench, seed, error));
        }
    return STATUS_OK;
}

static void summarise(Bench *bench)
{
    KmeansBench *r = bench->result;
    bool both = r->ranks == 1;
    r->worst_excess = both ? -1 : 0;
    for (int seed = 0; seed < r->seeds; seed++) {
        r->our_inertia += bench->our_inertia[seed] / r->seeds;
        r->faiss_inertia += bench->faiss_inertia[seed] / r->seeds;
        if (!both) continue;
        double excess = bench->our_inertia[seed] / bench->faiss_inertia[seed] - 1;
        if (excess > r->worst_excess) r->worst_excess = excess;
    }
    r->ours = bench_timer_statistics(bench->ours, r->seeds);
    if (both) r->faiss = bench_timer_statistics(bench->faiss, r->seeds);
}

static Status measure_threads(Bench *bench, int threads, Error *error)
{
    const IndexRows *rows = &bench->descriptors.rows;
    OpsLimits limits = shard_index_limits(rows->d);
    Device *device = device_open_host();
    bench->ops = ops_create(device, &limits, &(OpsOptions){.threads = threads});
    bench->result->threads = threads;
    bench->result->ranks = comm_size(bench->params->comm);
    bench->result->rows = rows->total;
    bench->result->d = rows->d;
    Status status = run_seeds(bench, error);
    if (status == STATUS_OK) summarise(bench);
    ops_destroy(bench->ops);
    device_close(device);
    return status;
}

/* One size, first with one thread, then with all. */
static Status measure_size(KmeansBench *results, int *count, const KmeansBenchParams *params,
                           const Size *size, Error *error)
{
    const int threads[] = {1, params->threads};
    Bench bench = {.params = params};
    BenchDescriptorsParams descriptors = {
        .rows = size->rows, .d = size->d, .clusters = size->k, .seed = 2, .threads = params->threads};
    TRY(bench_descriptors_init(&bench.descriptors, &descriptors, params->comm, error));
    const IndexRows *rows = &bench.descriptors.rows;
    bench.assignment = memory_alloc_array((size_t)rows->count, sizeof *bench.assignment);
    bench.unit = memory_alloc_array((size_t)(rows->count * rows->d), sizeof *bench.unit);
    Status status = index_rows_read(rows, 0, rows->count, INDEX_ROWS_UNIT, bench.unit, error);
    status = comm_agree(params->comm, status, error);
    for (int i = 0; i < (params->threads > 1 ? 2 : 1) && status == STATUS_OK; i++) {
        bench.result = &results[(*count)++];
        *bench.result =
            (KmeansBench){.seeds = params->quick ? 1 : SEEDS, .k = size->k, .iterations = ITERATIONS};
        status = measure_threads(&bench, threads[i], error);
    }
    memory_free(bench.unit);
    memory_free(bench.assignment);
    bench_descriptors_fini(&bench.descriptors);
    return status;
}

Status kmeans_bench_run(KmeansBench results[KMEANS_BENCHES], int *count, const KmeansBenchParams *params,
                        Error *error)
{
    *count = 0;
    if (params->quick) return measure_size(results, count, params, &QUICK, error);
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        TRY(measure_size(results, count, params, &SIZES[i], error));
    return STATUS_OK;
}

/* index_bench.c - see index_bench.h. */
#include "bench/index_bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench_descriptors.h"
#include "index/cluster_assign.h"
#include "index/knn_graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    MOST_SAMPLES = 100,
    MOST_PROBES = 256,
    REFINE = 4,
    SEED = 1,
    DRAW_QUERIES = 2000, /* random stream */
    BLOCK = 4096,        /* rows that are assigned at a time, as k-means does it */
};

static const double THRESHOLD = 0.6; /* of duplicates: DINOv2 paper, appendix A.3 */

typedef struct {
    const IndexBenchParams *params;
    IndexBench *result;
    BenchDescriptors pool;
    IndexRows queries;   /* of this rank: some of its pool rows */
    float *query_values; /* [queries.count, d] owned */
    int64_t *query_ids;  /* [queries.count] their ids in the pool; owned */
    Neighbour *truth;    /* [queries.count, k] owned */
    Neighbour *found;    /* [queries.count, k] owned */
    Ops *ops;
} Bench;

/* --- pool and queries --- */

static Status choose_queries(Bench *bench, int64_t wanted, Error *error)
{
    const IndexRows *pool = &bench->pool.rows;
    int64_t begin, end, m = wanted < pool->total ? wanted : pool->total;
    int64_t *ids = memory_alloc_array((size_t)m, sizeof *ids);
    index_rows_sample(ids, m, pool->total, SEED, DRAW_QUERIES);
    index_rows_own(pool, ids, m, &begin, &end);
    size_t count = (size_t)(end - begin);
    bench->query_ids = memory_alloc_array(count, sizeof *ids);
    memcpy(bench->query_ids, ids + begin, count * sizeof *ids);
    memory_free(ids);
    bench->query_values = memory_alloc_array(count * (size_t)pool->d, sizeof *bench->query_values);
    Status status =
        index_rows_pick(pool, bench->query_ids, end - begin, INDEX_ROWS_RAW, bench->query_values, error);
    TRY(comm_agree(bench->params->comm, status, error));
    bench->queries = index_rows_memory("queries", bench->query_values, end - begin, pool->d);
    bench->truth = memory_alloc_array(count * KNN_GRAPH_K, sizeof *bench->truth);
    bench->found = memory_alloc_array(count * KNN_GRAPH_K, sizeof *bench->found);
    return index_rows_place(&bench->queries, bench->params->comm, error);
}

static Status bench_init(Bench *bench, IndexBench *result, const IndexBenchParams *params, Error *error)
{
    enum { ROWS_A_CLUSTER = 100, COLUMNS = 512, QUERIES = 4096 };
    enum { QUICK_ROWS = 3000, QUICK_COLUMNS = 32, QUICK_QUERIES = 300 };
    *bench = (Bench){.params = params, .result = result};
    int64_t rows = params->rows > 0 ? params->rows : params->quick ? QUICK_ROWS : INDEX_BENCH_ROWS;
    BenchDescriptorsParams pool = {.rows = rows,
                                   .d = params->quick ? QUICK_COLUMNS : COLUMNS,
                                   .clusters = 1 + rows / ROWS_A_CLUSTER,
                                   .seed = SEED,
                                   .path = params->features,
                                   .threads = params->threads};
    TRY(bench_descriptors_init(&bench->pool, &pool, params->comm, error));
    OpsLimits limits = shard_index_limits(bench->pool.rows.d);
    bench->ops = ops_create(device_open_host(), &limits, &(OpsOptions){.threads = params->threads});
    TRY(choose_queries(bench, params->quick ? QUICK_QUERIES : QUERIES, error));
    *result = (IndexBench){.ranks = comm_size(params->comm),
                           .threads = params->threads,
                           .rows = bench->pool.rows.total,
                           .d = bench->pool.rows.d,
                           .queries = bench->queries.total,
                           .k = KNN_GRAPH_K,
                           .threshold = THRESHOLD};
    memcpy(result->source, bench->pool.source, sizeof result->source);
    return STATUS_OK;
}

static void bench_fini(Bench *bench)
{
    if (bench->ops) {
        Device *device = bench->ops->device;
        ops_destroy(bench->ops);
        device_close(device);
    }
    memory_free(bench->query_values);
    memory_free(bench->query_ids);
    memory_free(bench->truth);
    memory_free(bench->found);
    bench_descriptors_fini(&bench->pool);
}

/* --- searching --- */

typedef struct {
    const Bench *bench;
    Neighbour *lists; /* [queries.count, k] */
} Keeping;

/* Without the query itself; where that was not found, without the last. */
static Status keep(void *context, const ShardSearchRound *round, Error *error)
{
    (void)error;
    const Keeping *keeping = context;
    int64_t first = round->first - keeping->bench->queries.first;
    for (int64_t q = 0; q < round->count; q++) {
        const Neighbour *from = round->neighbours + q * round->k;
        Neighbour *to = keeping->lists + (first + q) * KNN_GRAPH_K;
        for (int64_t i = 0, n = 0; i < round->k && n < KNN_GRAPH_K; i++)
            if (from[i].id != keeping->bench->query_ids[first + q]) to[n++] = from[i];
    }
    return STATUS_OK;
}

/* The slowest rank's seconds since `start`. */
static double seconds_since(const Bench *bench, double start)
{
    double seconds = clock_seconds() - start;
    comm_all_reduce(bench->params->comm, &seconds, 1, DTYPE_F64, COMM_MAX, NULL);
    return seconds;
}

/* Of all threads of this process. */
static double processor_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* All ranks' since `start`. */
static double processor_since(const Bench *bench, double start)
{
    double seconds = processor_seconds() - start;
    comm_all_reduce(bench->params->comm, &seconds, 1, DTYPE_F64, COMM_SUM, NULL);
    return seconds;
}

static Status time_search(const Bench *bench, const ShardIndex *index, Neighbour *lists, BenchTimes *times,
                          double *processor, Error *error)
{
    Keeping keeping = {.bench = bench, .lists = lists};
    ShardSearch search = {.k = KNN_GRAPH_K + 1, .above = -INFINITY};
    double samples[MOST_SAMPLES], all = 0, used = processor_seconds();
    int count = 0;
    do {
        comm_barrier(bench->params->comm);
        double start = clock_seconds();
        TRY(shard_search_run(index, &bench->queries, &search, keep, &keeping, bench->ops, bench->params->comm,
                             error));
        samples[count] = seconds_since(bench, start);
        all += samples[count++];
    } while (count < MOST_SAMPLES && all < bench->params->seconds);
    *times = bench_timer_statistics(samples, count);
    *processor = processor_since(bench, used) / count;
    return STATUS_OK;
}

/* --- what was found --- */

enum { TRUE_NEIGHBOURS, FOUND, TRUE_EDGES, FOUND_EDGES, SAID_EDGES, RIGHT_EDGES, SUMS };

static const Neighbour *look_up(const Neighbour *list, int64_t id)
{
    for (int i = 0; i < KNN_GRAPH_K && list[i].id >= 0; i++)
        if (list[i].id == id) return &list[i];
    return NULL;
}

static void count_query(const Neighbour *truth, const Neighbour *found, double sums[SUMS])
{
    for (int i = 0; i < KNN_GRAPH_K && truth[i].id >= 0; i++) {
        const Neighbour *same = look_up(found, truth[i].id);
        bool edge = truth[i].similarity > THRESHOLD;
        sums[TRUE_NEIGHBOURS] += 1;
        sums[FOUND] += same != NULL;
        sums[TRUE_EDGES] += edge;
        sums[FOUND_EDGES] += edge && same && same->similarity > THRESHOLD;
    }
    if (truth[KNN_GRAPH_K - 1].similarity > THRESHOLD) return; /* there may be true edges beyond the list */
    for (int i = 0; i < KNN_GRAPH_K && found[i].similarity > THRESHOLD; i++) {
        const Neighbour *same = look_up(truth, found[i].id);
        sums[SAID_EDGES] += 1;
        sums[RIGHT_EDGES] += same && same->similarity > THRESHOLD;
    }
}

static void count_found(const Bench *bench, IndexBenchPoint *point)
{
    double sums[SUMS] = {0};
    for (int64_t q = 0; q < bench->queries.count; q++)
        count_query(bench->truth + q * KNN_GRAPH_K, bench->found + q * KNN_GRAPH_K, sums);
    comm_all_reduce(bench->params->comm, sums, SUMS, DTYPE_F64, COMM_SUM, NULL);
    point->recall = sums[FOUND] / sums[TRUE_NEIGHBOURS];
    point->edge_recall = sums[TRUE_EDGES] > 0 ? sums[FOUND_EDGES] / sums[TRUE_EDGES] : 1;
    point->edge_precision = sums[SAID_EDGES] > 0 ? sums[RIGHT_EDGES] / sums[SAID_EDGES] : 1;
    bench->result->edges = (int64_t)sums[TRUE_EDGES];
}

/* --- kinds of index --- */

static Status measure_point(const Bench *bench, ShardIndex *index, IndexBenchKind *kind, int64_t nprobe,
                            Error *error)
{
    IndexBenchPoint *point = &kind->points[kind->point_count++];
    point->nprobe = nprobe;
    shard_index_tune(index, nprobe, kind->refine);
    TRY(time_search(bench, index, bench->found, &point->times, &point->processor, error));
    count_found(bench, point);
    return STATUS_OK;
}

/* All lists are looked at last where that finds everything; among codes it would only take long. */
static Status measure_points(const Bench *bench, ShardIndex *index, IndexBenchKind *kind, bool exact,
                             Error *error)
{
    int64_t last = kind->lists < MOST_PROBES ? kind->lists : MOST_PROBES;
    for (int64_t nprobe = 1; nprobe <= last; nprobe *= 2)
        TRY(measure_point(bench, index, kind, nprobe, error));
    if (exact && last < kind->lists) return measure_point(bench, index, kind, kind->lists, error);
    return STATUS_OK;
}

/* Makes the index of `kind`, and its figures. */
static Status build(const Bench *bench, ShardIndex **index, IndexBenchKind *kind, double fixed_bytes,
                    Error *error)
{
    const IndexRows *pool = &bench->pool.rows;
    ShardIndexOptions options = {
        .factory = kind->factory, .nprobe = 1, .train_rows = kind->train_rows, .seed = SEED};
    double start = clock_seconds(), used = processor_seconds();
    TRY(shard_index_create(index, pool, &options, bench->ops, bench->params->comm, error));
    double processor = processor_since(bench, used);
    kind->build_share =
        processor / (seconds_since(bench, start) * (double)(bench->result->ranks * bench->result->threads));
    ShardIndexSeconds seconds = shard_index_seconds(*index);
    double slowest[] = {seconds.train, seconds.fill}, bytes = (double)shard_index_bytes(*index);
    comm_all_reduce(bench->params->comm, slowest, 2, DTYPE_F64, COMM_MAX, NULL);
    comm_all_reduce(bench->params->comm, &bytes, 1, DTYPE_F64, COMM_SUM, NULL);
    kind->train_seconds = slowest[0];
    kind->fill_seconds = slowest[1];
    kind->fixed_bytes = fixed_bytes;
    kind->bytes_a_row = (bytes - bench->result->ranks * fixed_bytes) / (double)pool->total;
    return STATUS_OK;
}

static Status measure_rows(Bench *bench, const IndexBenchKind *wanted, Error *error)
{
    IndexBenchKind *kind = &bench->result->kinds[bench->result->kind_count++];
    *kind = *wanted;
    ShardIndex *index = NULL;
    double lists = 4.0 * (double)(kind->lists * bench->result->d);
    Status status = build(bench, &index, kind, lists, error);
    if (status == STATUS_OK) status = measure_points(bench, index, kind, true, error);
    shard_index_destroy(index);
    return status;
}

/* One index, searched without and with its candidates computed again from the rows. */
static Status measure_codes(Bench *bench, const IndexBenchKind *wanted, Error *error)
{
    IndexBenchKind *kinds = &bench->result->kinds[bench->result->kind_count];
    bench->result->kind_count += 2;
    kinds[0] = *wanted;
    ShardIndex *index = NULL;
    double fixed = 4.0 * (double)(kinds->lists * bench->result->d) + 4.0 * 256.0 * (double)bench->result->d;
    Status status = build(bench, &index, &kinds[0], fixed, error);
    kinds[1] = kinds[0];
    kinds[1].refine = REFINE;
    for (int i = 0; i < 2 && status == STATUS_OK; i++)
        status = measure_points(bench, index, &kinds[i], false, error);
    shard_index_destroy(index);
    return status;
}

/* Lists as the square root of the rows asks for, codes of a byte for eight columns. */
static Status measure_kinds(Bench *bench, Error *error)
{
    const IndexBench *result = bench->result;
    IndexBenchKind wanted = {.lists = 1};
    while (wanted.lists * wanted.lists < 5 * result->rows)
        wanted.lists *= 2;
    wanted.train_rows = SHARD_INDEX_ROWS_A_LIST * wanted.lists;
    if (wanted.train_rows > result->rows) wanted.train_rows = result->rows;
    int64_t bytes = result->d / 8 > 0 ? result->d / 8 : 1;
    while (result->d % bytes != 0)
        bytes--;
    snprintf(wanted.factory, sizeof wanted.factory, "IVF%lld,Flat", (long long)wanted.lists);
    TRY(measure_rows(bench, &wanted, error));
    snprintf(wanted.factory, sizeof wanted.factory, "IVF%lld,PQ%lld", (long long)wanted.lists,
             (long long)bytes);
    return measure_codes(bench, &wanted, error);
}

/* --- all of it --- */

/* Rows of the pool stand for centroids. */
static void time_assignment(Bench *bench)
{
    const IndexRows *pool = &bench->pool.rows;
    int64_t n = bench->queries.count, least = pool->total / bench->result->ranks;
    int32_t *assignment = memory_alloc_array((size_t)n, sizeof *assignment);
    float *distances = memory_alloc_array((size_t)n, sizeof *distances);
    ClusterAssign assign;
    cluster_assign_init(&assign, bench->pool.values, least, pool->d, bench->ops);
    double samples[MOST_SAMPLES], all = 0, used = processor_seconds();
    int count = 0;
    do {
        comm_barrier(bench->params->comm);
        double start = clock_seconds();
        for (int64_t i = 0; i < n; i += BLOCK)
            cluster_assign_block(&assign, assignment + i, distances + i, bench->query_values + i * pool->d,
                                 n - i < BLOCK ? n - i : BLOCK);
        samples[count] = seconds_since(bench, start);
        all += samples[count++];
    } while (count < MOST_SAMPLES && all < bench->params->seconds);
    bench->result->assign_processor = processor_since(bench, used) / count;
    cluster_assign_fini(&assign);
    memory_free(assignment);
    memory_free(distances);
    bench->result->assign = bench_timer_statistics(samples, count);
    bench->result->centroids = least;
}

static Status measure(Bench *bench, Error *error)
{
    ShardIndex *flat = NULL;
    ShardIndexOptions options = {.factory = "Flat"};
    Comm *comm = bench->params->comm;
    TRY(shard_index_create(&flat, &bench->pool.rows, &options, bench->ops, comm, error));
    Status status =
        time_search(bench, flat, bench->truth, &bench->result->flat, &bench->result->flat_processor, error);
    shard_index_destroy(flat);
    if (status != STATUS_OK) return status;
    time_assignment(bench);
    return measure_kinds(bench, error);
}

Status index_bench_run(IndexBench *result, const IndexBenchParams *params, Error *error)
{
    Bench bench;
    Status status = bench_init(&bench, result, params, error);
    if (status == STATUS_OK) status = measure(&bench, error);
    bench_fini(&bench);
    return status;
}

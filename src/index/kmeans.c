/* kmeans.c - see kmeans.h. */
#include "index/kmeans.h"

#include "base/check.h"
#include "base/memory.h"
#include "index/cluster_assign.h"
#include "index/kmeans_seed.h"

#include <math.h>
#include <string.h>

enum { ROWS = 4096 }; /* read and assigned at a time */

static const double SPLIT = 1.0 / 1024.0; /* how far the halves of a split cluster are moved apart */

/* Work space of one pass over rows. */
typedef struct {
    ClusterAssign assign;
    float *rows;         /* [ROWS, d] */
    int32_t *assignment; /* [ROWS] */
    float *distances;    /* [ROWS] */
    double *sums;        /* [k, d] of each cluster's rows, then [k] their number, then the inertia */
} Pass;

static size_t sums_length(const KmeansState *state)
{
    return (size_t)(state->k * state->d + state->k + 1);
}

static void pass_init(Pass *pass, const KmeansState *state, bool with_sums, const Ops *ops)
{
    cluster_assign_init(&pass->assign, state->centroids, state->k, state->d, ops);
    pass->rows = memory_alloc_array((size_t)(ROWS * state->d), sizeof *pass->rows);
    pass->assignment = memory_alloc_array(ROWS, sizeof *pass->assignment);
    pass->distances = memory_alloc_array(ROWS, sizeof *pass->distances);
    pass->sums = memory_alloc_array(with_sums ? sums_length(state) : 0, sizeof *pass->sums);
}

static void pass_fini(Pass *pass)
{
    cluster_assign_fini(&pass->assign);
    memory_free(pass->rows);
    memory_free(pass->assignment);
    memory_free(pass->distances);
    memory_free(pass->sums);
}

/* --- life --- */

void kmeans_restore(KmeansState *state, int64_t k, int64_t d)
{
    *state = (KmeansState){.k = k,
                           .d = d,
                           .centroids = memory_alloc_array((size_t)(k * d), sizeof *state->centroids),
                           .weights = memory_alloc_array((size_t)k, sizeof *state->weights)};
}

void kmeans_fini(KmeansState *state)
{
    memory_free(state->centroids);
    memory_free(state->weights);
    *state = (KmeansState){0};
}

static IndexRowsForm form_of(const KmeansOptions *options)
{
    return options->spherical ? INDEX_ROWS_UNIT : INDEX_ROWS_RAW;
}

Status kmeans_start(KmeansState *state, const IndexRows *rows, const KmeansOptions *options, const Ops *ops,
                    Comm *comm, Error *error)
{
    *state = (KmeansState){0};
    Status status = STATUS_OK;
    if (options->k < 1 || options->k > rows->total || options->k > INT32_MAX)
        status = status_fail(error, STATUS_INPUT, "%s: %lld clusters of %lld rows", rows->name,
                             (long long)options->k, (long long)rows->total);
    TRY(comm_agree(comm, status, error));
    kmeans_restore(state, options->k, rows->d);
    status =
        kmeans_seed_centroids(state->centroids, rows, options, form_of(options), ops->threads, comm, error);
    if (status != STATUS_OK) kmeans_fini(state);
    return status;
}

/* --- a pass --- */

/* Adds n rows to their clusters' sums. Threads share the columns out, so that the order of the rows, and with
 * it the result, does not depend on their number. */
static void accumulate(Pass *pass, const KmeansState *state, int64_t n, int threads)
{
    int64_t d = state->d;
    double *counts = pass->sums + state->k * d, *inertia = counts + state->k;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < threads; part++) {
        int64_t from = d * part / threads, to = d * (part + 1) / threads;
        for (int64_t i = 0; i < n; i++) {
            double *sum = pass->sums + pass->assignment[i] * d;
            const float *row = pass->rows + i * d;
            for (int64_t j = from; j < to; j++)
                sum[j] += (double)row[j];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        counts[pass->assignment[i]] += 1.0;
        *inertia += (double)pass->distances[i];
    }
}

static void assign(Pass *pass, int64_t n)
{
    cluster_assign_block(&pass->assign, pass->assignment, pass->distances, pass->rows, n);
}

static Status pass_over_all(Pass *pass, const KmeansState *state, const IndexRows *rows, IndexRowsForm form,
                            const Ops *ops, Error *error)
{
    for (int64_t first = 0; first < rows->count; first += ROWS) {
        int64_t n = rows->count - first < ROWS ? rows->count - first : ROWS;
        TRY(index_rows_read(rows, first, n, form, pass->rows, error));
        assign(pass, n);
        accumulate(pass, state, n, ops->threads);
    }
    return STATUS_OK;
}

static Status pass_over_batch(Pass *pass, const KmeansState *state, const IndexRows *rows,
                              const KmeansOptions *options, const Ops *ops, Error *error)
{
    int64_t m = options->batch_rows < rows->total ? options->batch_rows : rows->total, begin, end;
    int64_t *ids = memory_alloc_array((size_t)m, sizeof *ids);
    index_rows_sample(ids, m, rows->total, options->seed, INDEX_DRAW_BATCH + (uint64_t)state->iteration);
    index_rows_own(rows, ids, m, &begin, &end);
    Status status = STATUS_OK;
    for (int64_t first = begin; first < end && status == STATUS_OK; first += ROWS) {
        int64_t n = end - first < ROWS ? end - first : ROWS;
        status = index_rows_pick(rows, ids + first, n, form_of(options), pass->rows, error);
        if (status != STATUS_OK) break;
        assign(pass, n);
        accumulate(pass, state, n, ops->threads);
    }
    memory_free(ids);
    return status;
}

/* --- new centroids --- */

/* The centroid in fp64 becomes state's, of unit length if spherical; one without direction stays as it was.
 */
static void set_centroid(KmeansState *state, int64_t c, const double *centroid, bool spherical)
{
    double squares = 0.0;
    for (int64_t j = 0; j < state->d; j++)
        squares += centroid[j] * centroid[j];
    if (spherical && squares == 0.0) return;
    double scale = spherical ? 1.0 / sqrt(squares) : 1.0;
    for (int64_t j = 0; j < state->d; j++)
        state->centroids[c * state->d + j] = (float)(centroid[j] * scale);
}

static void update(KmeansState *state, double *sums, const KmeansOptions *options)
{
    int64_t d = state->d;
    const double *counts = sums + state->k * d;
    bool batch = options->batch_rows > 0;
    for (int64_t c = 0; c < state->k; c++) {
        double before = batch ? state->weights[c] : 0.0, weight = before + counts[c], *sum = sums + c * d;
        state->weights[c] = weight;
        if (counts[c] == 0.0) continue;
        for (int64_t j = 0; j < d; j++)
            sum[j] = (sum[j] + before * (double)state->centroids[c * d + j]) / weight;
        set_centroid(state, c, sum, options->spherical);
    }
}

/* centroid of cluster `to` = that of `from`, its coordinates moved up and down in turn by a share. */
static void move_apart(KmeansState *state, int64_t to, int64_t from, double share, double *work,
                       bool spherical)
{
    for (int64_t j = 0; j < state->d; j++)
        work[j] = (double)state->centroids[from * state->d + j] * (1.0 + (j % 2 ? -share : share));
    set_centroid(state, to, work, spherical);
}

/* Cluster `empty` gets half of `full`. work: [d]. */
static void split(KmeansState *state, int64_t full, int64_t empty, double *work, bool spherical)
{
    move_apart(state, empty, full, SPLIT, work, spherical);
    move_apart(state, full, full, -SPLIT, work, spherical);
    state->weights[empty] = state->weights[full] / 2.0;
    state->weights[full] -= state->weights[empty];
}

static void fill_empty(KmeansState *state, double *work, bool spherical)
{
    state->split = 0;
    for (int64_t empty = 0; empty < state->k; empty++) {
        if (state->weights[empty] > 0.0) continue;
        int64_t full = 0;
        for (int64_t c = 1; c < state->k; c++)
            if (state->weights[c] > state->weights[full]) full = c;
        split(state, full, empty, work, spherical);
        state->split++;
    }
}

Status kmeans_iterate(KmeansState *state, const IndexRows *rows, const KmeansOptions *options, const Ops *ops,
                      Comm *comm, Error *error)
{
    CHECK(rows->d == state->d && options->k == state->k);
    Pass pass;
    pass_init(&pass, state, true, ops);
    Status status = options->batch_rows > 0 ? pass_over_batch(&pass, state, rows, options, ops, error)
                                            : pass_over_all(&pass, state, rows, form_of(options), ops, error);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) {
        comm_all_reduce(comm, pass.sums, (int64_t)sums_length(state), DTYPE_F64, COMM_SUM, NULL);
        state->inertia = pass.sums[sums_length(state) - 1];
        update(state, pass.sums, options);
        /* a mini-batch may miss a cluster that has rows */
        if (options->batch_rows > 0)
            state->split = 0;
        else
            fill_empty(state, pass.sums, options->spherical);
        state->iteration++;
    }
    pass_fini(&pass);
    return status;
}

Status kmeans_assign(const KmeansState *state, const IndexRows *rows, const KmeansOptions *options,
                     int32_t *assignment, float *distances, double *inertia, const Ops *ops, Comm *comm,
                     Error *error)
{
    CHECK(rows->d == state->d);
    Pass pass;
    pass_init(&pass, state, false, ops);
    Status status = STATUS_OK;
    *inertia = 0.0;
    for (int64_t first = 0; first < rows->count && status == STATUS_OK; first += ROWS) {
        int64_t n = rows->count - first < ROWS ? rows->count - first : ROWS;
        status = index_rows_read(rows, first, n, form_of(options), pass.rows, error);
        if (status != STATUS_OK) break;
        assign(&pass, n);
        memcpy(assignment + first, pass.assignment, (size_t)n * sizeof *assignment);
        if (distances) memcpy(distances + first, pass.distances, (size_t)n * sizeof *distances);
        for (int64_t i = 0; i < n; i++)
            *inertia += (double)pass.distances[i];
    }
    pass_fini(&pass);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) comm_all_reduce(comm, inertia, 1, DTYPE_F64, COMM_SUM, NULL);
    return status;
}

/* kmeans_seed.c - see kmeans_seed.h. */
#include "index/kmeans_seed.h"

#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_A_CENTROID = 32 }; /* rows that k-means++ chooses from, unless said otherwise */

/* The row that `draw`, uniform in [0, 1), falls on when each is as wide as its distance. */
static int64_t choose(const double *distances, int64_t m, double draw)
{
    double total = 0.0;
    for (int64_t i = 0; i < m; i++)
        total += distances[i];
    double target = draw * total;
    int64_t last = 0;
    for (int64_t i = 0; i < m; i++) {
        if (distances[i] == 0.0) continue;
        last = i;
        target -= distances[i];
        if (target < 0.0) break;
    }
    return last;
}

/* k-means++: each next centroid is a row, drawn by its squared distance to the nearest one so far. Where
 * fewer than k rows differ, the first row comes again: k-means splits clusters that stay empty. */
static void spread(float *centroids, const float *sample, int64_t m, int64_t d, const KmeansOptions *options,
                   int threads)
{
    double *distances = memory_alloc_array((size_t)m, sizeof *distances);
    for (int64_t i = 0; i < m; i++)
        distances[i] = 1.0; /* the first: all alike */
    for (int64_t c = 0; c < options->k; c++) {
        Rng rng = rng_at(options->seed, RNG_INDEX, INDEX_DRAW_SPREAD, (uint64_t)c);
        const float *chosen = sample + choose(distances, m, rng_uniform01(&rng)) * d;
        memcpy(centroids + c * d, chosen, (size_t)d * sizeof *centroids);
        double square = index_rows_dot(chosen, chosen, d);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < m; i++) {
            const float *row = sample + i * d;
            double distance = index_rows_dot(row, row, d) - 2.0 * index_rows_dot(row, chosen, d) + square;
            if (distance < 0.0 || row == chosen) distance = 0.0;
            if (c == 0 || distance < distances[i]) distances[i] = distance;
        }
    }
    memory_free(distances);
}

Status kmeans_seed_centroids(float *centroids, const IndexRows *rows, const KmeansOptions *options,
                             IndexRowsForm form, int threads, Comm *comm, Error *error)
{
    int64_t k = options->k, d = rows->d, m = k;
    bool plus_plus = options->init == KMEANS_INIT_PLUS_PLUS, root = comm_rank(comm) == 0;
    if (plus_plus) {
        m = options->init_rows > 0 ? options->init_rows : SAMPLE_A_CENTROID * k;
        m = m < k ? k : m > rows->total ? rows->total : m;
    }
    int64_t *ids = memory_alloc_array((size_t)m, sizeof *ids);
    index_rows_sample(ids, m, rows->total, options->seed, INDEX_DRAW_INIT);
    float *sample = plus_plus ? memory_alloc_array(root ? (size_t)(m * d) : 0, sizeof *sample) : centroids;
    Status status = index_rows_collect(rows, ids, m, form, 0, sample, comm, error);
    if (status == STATUS_OK && plus_plus && root) spread(centroids, sample, m, d, options, threads);
    if (status == STATUS_OK) comm_broadcast(comm, centroids, k * d, DTYPE_F32, 0, NULL);
    if (plus_plus) memory_free(sample);
    memory_free(ids);
    return status;
}

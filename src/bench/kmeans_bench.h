/* kmeans_bench.h - our k-means beside Faiss's, on the same rows, with as many clusters, iterations and seeds,
 * by turns in one process.
 *
 * Spherical, as a curation clusters. A time is that of first centroids and all iterations; the inertia of
 * both is what the final centroids make of the rows. Faiss's works on one process: on several ranks ours is
 * measured alone.
 */
#ifndef DINOBATCH_BENCH_KMEANS_BENCH_H
#define DINOBATCH_BENCH_KMEANS_BENCH_H

#include "bench/bench_timer.h"
#include "comm/comm.h"

enum { KMEANS_BENCHES = 4 };

typedef struct {
    Comm *comm;
    int threads;
    bool quick; /* small sizes, one seed */
} KmeansBenchParams;

typedef struct {
    int ranks, threads, seeds;
    int64_t rows, d, k, iterations;
    BenchTimes ours, faiss;            /* over seeds; faiss: count 0 where it was not run */
    double our_inertia, faiss_inertia; /* means over seeds */
    double worst_excess;               /* of our inertia over Faiss's, as a share of it, of any seed */
} KmeansBench;

/* Fills results and returns their number in *count: each size with one thread and with params->threads.
 * Memory of a rank, bytes: 8 d for each of its rows and what kmeans.h says, Faiss's as much again. The same
 * figures on all ranks. Collective over COMM. */
Status kmeans_bench_run(KmeansBench results[KMEANS_BENCHES], int *count, const KmeansBenchParams *params,
                        Error *error);

#endif

/* kmeans.h - k-means over ranks and streamed rows, one iteration at a time.
 *
 * Source: Lloyd's algorithm; mini-batches after Sculley, "Web-scale k-means clustering" (2010); empty
 * clusters as in Faiss's Clustering.cpp, but that it is always the largest cluster which is split: half of
 * its rows, in name, go to the empty one, and the two centroids are moved apart by 1/1024 of each coordinate,
 * up and down in turn; of equally large ones, the lower. Nearest centroids are found by matrix products of
 * our own blocks (cluster_assign.h); equal distances go to the lower centroid.
 *
 *     KmeansOptions options = {.k = 1000, .spherical = true, .seed = seed};
 *     TRY(kmeans_start(&state, &rows, &options, ops, comm, error));
 *     while (state.iteration < 20) TRY(kmeans_iterate(&state, &rows, &options, ops, comm, error));
 *     TRY(kmeans_assign(&state, &rows, &options, assignment, NULL, &inertia, ops, comm, error));
 *     kmeans_fini(&state);
 *
 * A KmeansState is all that there is to save: draws depend on (seed, iteration), so a run that goes on from
 * it does what the first would have. The same seed gives the same bits on the same ranks and threads, and on
 * others the same but for rounding of sums (fp64).
 *
 * Memory of a rank, bytes: k * (12 d + 24), 20480 d for blocks of rows and centroids, 32 kB for each thread;
 * nothing grows with the rows. At the start rank 0 holds the sample of k-means++, too: 4 d init_rows.
 */
#ifndef DINOBATCH_INDEX_KMEANS_H
#define DINOBATCH_INDEX_KMEANS_H

#include "index/index_rows.h"
#include "ops/ops.h"

typedef enum {
    KMEANS_INIT_ROWS,      /* k distinct rows, drawn by index_rows_sample */
    KMEANS_INIT_PLUS_PLUS, /* k-means++ (Arthur and Vassilvitskii 2007) on a sample, by rank 0: for small k,
                              its cost is k * init_rows * d */
} KmeansInit;

typedef struct {
    int64_t k;
    bool spherical;     /* rows are divided by their length, and so are centroids after each iteration */
    int64_t batch_rows; /* rows of all ranks that one iteration looks at; 0: all of them (Lloyd) */
    KmeansInit init;
    int64_t init_rows; /* sample of k-means++, at least k; 0: 32 k, at most all */
    uint64_t seed;
} KmeansOptions;

/* The same on every rank. All of it is written to a checkpoint, and read back into kmeans_restore. */
typedef struct {
    int64_t k, d;
    int64_t iteration; /* made so far */
    float *centroids;  /* [k, d] owned */
    double *weights;   /* [k] rows behind each: of the last full iteration, of all mini-batches; owned */
    double inertia;    /* of the last iteration, before its update: sum of squared distances, of its rows */
    int64_t split;     /* empty clusters that the last iteration filled */
} KmeansState;

/* First centroids. STATUS_INPUT, the same on all ranks: more clusters than rows, a row that is not finite (or
 * zero, if spherical). The state is released by kmeans_fini. The outcome is agreed. Collective over COMM. */
Status kmeans_start(KmeansState *state, const IndexRows *rows, const KmeansOptions *options, const Ops *ops,
                    Comm *comm, Error *error);

/* A state with room for k centroids of d numbers, all zero, to be filled in from a checkpoint. */
void kmeans_restore(KmeansState *state, int64_t k, int64_t d);

/* Fine on a zeroed struct. */
void kmeans_fini(KmeansState *state);

/* One iteration: assignment of all rows or of a mini-batch, new centroids, empty clusters. Each row is read
 * once. The outcome is agreed. Collective over COMM. */
Status kmeans_iterate(KmeansState *state, const IndexRows *rows, const KmeansOptions *options, const Ops *ops,
                      Comm *comm, Error *error);

/* assignment[rows->count] = the nearest centroid of each of this rank's rows; distances[rows->count] (or
 * NULL): its squared distance; *inertia: their sum over all ranks. The outcome is agreed. Collective over
 * COMM. */
Status kmeans_assign(const KmeansState *state, const IndexRows *rows, const KmeansOptions *options,
                     int32_t *assignment, float *distances, double *inertia, const Ops *ops, Comm *comm,
                     Error *error);

#endif

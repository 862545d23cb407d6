/* kmeans_seed.h - the first centroids of k-means. */
#ifndef DINOBATCH_INDEX_KMEANS_SEED_H
#define DINOBATCH_INDEX_KMEANS_SEED_H

#include "index/kmeans.h"

/* centroids[k, d], the same on all ranks. Rank 0 holds a sample meanwhile. The outcome is agreed. Collective
 * over COMM. */
Status kmeans_seed_centroids(float *centroids, const IndexRows *rows, const KmeansOptions *options,
                             IndexRowsForm form, int threads, Comm *comm, Error *error);

#endif

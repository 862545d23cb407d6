/* cluster_pool.h - k-means of a pool, and a balanced sample of its clusters.
 *
 * Source: DINOv2 paper, appendix A.4: the pool in 100,000 clusters, from which small query sets are answered
 * (retrieve.h). The levels above and the sample are what its authors did next (hierarchical_kmeans.h).
 *
 * Writes FOLDER/cluster.h5: /centroids, /population, /assignment of each row (-1: an earlier step dropped
 * it); with curation.cluster.levels /levels; with curation.cluster.sample /keep, 1 for the rows of the
 * sample. A run that was stopped goes on from the last iteration that was saved and comes to the same bits,
 * on the same ranks and threads; on others to the same but for rounding of sums (kmeans.h).
 *
 * Memory of a rank, bytes: as kmeans.h says, and 4 for each of its rows, 8 while the file is written and 24
 * while a sample is drawn.
 */
#ifndef DINOBATCH_CURATION_CLUSTER_POOL_H
#define DINOBATCH_CURATION_CLUSTER_POOL_H

#include "curation/curation_run.h"

typedef struct {
    int64_t rows; /* of the set */
    int64_t k, iterations;
    double inertia;            /* sum of squared distances to the nearest centroids */
    int64_t smallest, largest; /* rows of a cluster */
    int64_t sampled;           /* rows of the sample; 0: none was taken */
    char path[CURATION_RUN_PATH];
} PoolClusters;

/* `keep` names the file that the set of `pool` was made by, for the record; NULL: none. STATUS_REQUEUE when
 * asked to stop, after saving; STATUS_INPUT: more clusters than rows, levels that do not descend, more rows
 * to sample than there are, rows that are zero or not finite. The outcome is agreed. Collective over COMM. */
Status cluster_pool_run(PoolClusters *result, const FeatureSource *pool, const char *keep,
                        const CurationRun *run, Error *error);

#endif

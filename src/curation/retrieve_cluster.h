/* retrieve_cluster.h - pool rows of the clusters that a query set lies in.
 *
 * Source: DINOv2 paper, appendix A.4, "cluster-based", for sets too small for enough neighbours: 10,000
 * pictures of each cluster that holds more than 3 pictures of the query set, at most 1,000,000 in all. Which
 * ones the paper does not say: here they are drawn by a hash of (seed, name of the set, row), so that they do
 * not depend on ranks, and sets that share a cluster draw different rows of it.
 *
 * Memory of a rank, bytes: 4 for each of its pool rows, 24 while rows are drawn, 8 for each query of all
 * ranks, and the centroids.
 */
#ifndef DINOBATCH_CURATION_RETRIEVE_CLUSTER_H
#define DINOBATCH_CURATION_RETRIEVE_CLUSTER_H

#include "curation/curation_run.h"
#include "curation/retrieved_list.h"

/* `path`: the file of `curate cluster` on the same features. The list is released by retrieved_list_fini,
 * also after failure. STATUS_INPUT: a file of other features, a row of the set that was not clustered,
 * queries that are zero or not finite. The outcome is agreed. Collective over COMM. */
Status retrieve_cluster_run(RetrievedList *list, const char *path, const char *name,
                            const FeatureSource *pool, const FeatureSource *queries, const CurationRun *run,
                            Error *error);

#endif

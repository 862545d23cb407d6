/* balanced_sample.h - how many rows to take of each cluster, and which.
 *
 * Source: Vo et al. 2024 (hierarchical_kmeans.h), the "random" sampling of a cluster's rows.
 */
#ifndef DINOBATCH_INDEX_BALANCED_SAMPLE_H
#define DINOBATCH_INDEX_BALANCED_SAMPLE_H

#include "index/hierarchical_kmeans.h"

/* quota[n] = `share` dealt as evenly as room[n] allows: all get the same, but who has less room gets that.
 * What is left over goes to the lower numbers that have room. The sum is share, or that of room if less. */
void balanced_sample_deal(int64_t *quota, const int64_t *room, int64_t n, int64_t share);

/* quota[level[0].k]: how many rows to take of each lowest cluster for `target` in all: a cluster's share is
 * dealt to its children, level by level; the clusters of the top are children of one root. Not collective. */
void balanced_sample_quota(const HierarchicalKmeans *tree, int64_t target, int64_t *quota);

/* keep[rows->count] = 1 for this rank's rows of the sample: quota[clusters] of each cluster (all, if it has
 * no more), drawn by a hash of (seed, id), so that the sample does not depend on ranks. assignment
 * [rows->count]: the cluster of each of this rank's rows. Holds 24 bytes for each of this rank's rows, and
 * for each of the rows that ranks propose for its share of the clusters. Collective over COMM. */
void balanced_sample_draw(uint8_t *keep, const IndexRows *rows, const int32_t *assignment,
                          const int64_t *quota, int64_t clusters, uint64_t seed, Comm *comm);

#endif

/* hierarchical_kmeans.h - k-means of k-means centroids; balanced_sample.h draws from the tree.
 *
 * Source: Vo et al., "Automatic data curation for self-supervised learning: a clustering-based approach"
 * (2024): successive k-means, each on the centroids below, spread the upper centroids over the support of the
 * data instead of over its mass; taking the same number from each of them flattens the distribution.
 * DEVIATION: their resampling rounds (k-means again on the rows nearest to each centroid) are left out;
 * each level is one k-means.
 *
 *     int64_t sizes[] = {10000, 1000, 100};                         // rows -> 10000 -> 1000 -> 100
 *     HierarchicalKmeans tree;
 *     TRY(hierarchical_kmeans_run(&tree, &rows, sizes, 3, 20, &options, ops, comm, error));
 *     balanced_sample_quota(&tree, target, quota);
 *     balanced_sample_draw(keep, &rows, tree.assignment, quota, sizes[0], seed, comm);
 *     hierarchical_kmeans_fini(&tree);
 */
#ifndef DINOBATCH_INDEX_HIERARCHICAL_KMEANS_H
#define DINOBATCH_INDEX_HIERARCHICAL_KMEANS_H

#include "index/kmeans.h"

enum { HIERARCHICAL_KMEANS_LEVELS = 8 };

typedef struct {
    int levels;
    KmeansState level[HIERARCHICAL_KMEANS_LEVELS]; /* [0]: of the rows; owned */
    int32_t *parent[HIERARCHICAL_KMEANS_LEVELS]; /* [l][level[l].k]: cluster of level l + 1; the last: NULL */
    int32_t *assignment; /* [rows->count] cluster of level 0 of this rank's rows; owned */
    int64_t *population; /* [level[0].k] rows of all ranks in each; owned */
    double inertia;      /* sum of the rows' squared distances to their centroids */
} HierarchicalKmeans;

/* Descending sizes[levels]; `options` says the rest (its k is not read; init and batch_rows hold for level 0,
 * the levels above are small and take k-means++ and full batches). Errors as of kmeans_start, and
 * STATUS_INPUT if sizes do not descend. Released by hierarchical_kmeans_fini, also after failure. The outcome
 * is agreed. Collective over COMM. */
Status hierarchical_kmeans_run(HierarchicalKmeans *tree, const IndexRows *rows, const int64_t *sizes,
                               int levels, int64_t iterations, const KmeansOptions *options, const Ops *ops,
                               Comm *comm, Error *error);

/* The same above a lowest level that is there already (one that was iterated, saved and restored by the
 * caller): *lowest moves into the tree, also after failure. sizes[0] is its k. Collective over COMM. */
Status hierarchical_kmeans_grow(HierarchicalKmeans *tree, KmeansState *lowest, const IndexRows *rows,
                                const int64_t *sizes, int levels, int64_t iterations,
                                const KmeansOptions *options, const Ops *ops, Comm *comm, Error *error);
void hierarchical_kmeans_fini(HierarchicalKmeans *tree);

#endif

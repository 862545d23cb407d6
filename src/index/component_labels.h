/* component_labels.h - connected components over ranks: disjoint sets of which no rank holds more than its
 * share.
 *
 * Source: Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm" (1982), in the min-label form
 * of FastSV (Zhang, Azad, Hu 2020), for edges that come in batches. Rank r owns the labels of a run of ids
 * (index_range_first): label[v] <= v is v's parent, a root is its own. Edges may arrive on any rank. A batch
 * is worked in until nothing changes: ends are replaced by their roots, the larger root of each edge hooks
 * onto the smallest root that it meets, and the trees that grew are flattened by pointer jumping. Every step
 * is an exchange of requests between owners; edges are forgotten afterwards, so a graph of any size streams
 * through. As parents are smaller than their children, the root of a component is its smallest id: the
 * result does not depend on ranks, order or batches.
 *
 *     ComponentLabels labels;
 *     component_labels_init(&labels, n, comm);
 *     TRY(component_labels_unite(&labels, edges, n, comm, error));   // as often as edges come
 *     component_labels_finish(&labels, comm);                       // labels.label[i] is final
 *     component_labels_fini(&labels);
 *
 * Memory of a rank, bytes: 8 for each id that it owns; for each edge of a batch 16 for the edge, 16 for its
 * ends and 56 for each different one of them, and 24 for what other ranks ask of each.
 */
#ifndef DINOBATCH_INDEX_COMPONENT_LABELS_H
#define DINOBATCH_INDEX_COMPONENT_LABELS_H

#include "comm/comm.h"

/* Two rows and how alike they are. */
typedef struct {
    int64_t a, b;
    float similarity;
} IndexEdge;

typedef struct {
    int64_t total;  /* ids of all ranks */
    int64_t first;  /* this rank's first id */
    int64_t count;  /* ids of this rank */
    int64_t *label; /* [count] owned; after component_labels_finish the smallest id of each one's component */
} ComponentLabels;

/* `total` ids, each alone. Released by component_labels_fini. Not collective. */
void component_labels_init(ComponentLabels *labels, int64_t total, const Comm *comm);
void component_labels_fini(ComponentLabels *labels);

/* Unites the ends of this rank's edges[n] with those of all other ranks' edges; n may be 0. Similarities are
 * not read. STATUS_INPUT on all ranks, and nothing changes, if an end is not below total. Collective over
 * COMM. */
Status component_labels_unite(ComponentLabels *labels, const IndexEdge *edges, int64_t n, Comm *comm,
                              Error *error);

/* Every label becomes the smallest id of its component; more edges may follow. Works through the ids in
 * blocks. Collective over COMM. */
void component_labels_finish(ComponentLabels *labels, Comm *comm);

#endif

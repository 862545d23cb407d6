/* exact_scan.h - the exact k nearest of a block of queries: among all of this rank's rows, read in blocks, or
 * among any rows at hand (list_scan.h).
 *
 * A matrix product gives every similarity in fp32, rounded in an order that depends on the shapes of the
 * blocks: it may only propose. Of rows of unit length a product of any order is off by at most
 * e = d u / (1 - d u), u = 2^-24 (Higham, "Accuracy and stability of numerical algorithms", 3.1). A row whose
 * product is not within e of the worst that is kept cannot belong to the k nearest; of every other row the
 * similarity is computed by index_rows_dot, whose bits depend on the two rows alone, and that decides, with
 * the id between equals. So the list is a function of the rows, not of blocks, threads or ranks.
 *
 * Of thousands of equal rows each is computed twice; that is the price of being exact, and less than the
 * product's own.
 */
#ifndef DINOBATCH_INDEX_EXACT_SCAN_H
#define DINOBATCH_INDEX_EXACT_SCAN_H

#include "index/index_rows.h"
#include "index/neighbour_list.h"
#include "ops/ops.h"

enum { EXACT_SCAN_BLOCK = 1024 }; /* rows that are read at a time */

/* What is looked for. */
typedef struct {
    const float *queries; /* [n, d] of unit length */
    const int64_t *ids;   /* [n] row that is no neighbour of each query, -1: none; NULL: none */
    int64_t n, k;
    double above; /* only rows more similar than this; -INFINITY: all */
} ExactScan;

/* Offers list[k], a heap, those of rows[n, d] that may belong to it. products[n]: their products with query
 * q. Row j has the id ids[j], or first_id + j where ids is NULL. Called by any thread. */
void exact_scan_offer(const ExactScan *scan, int64_t q, const float *products, const float *rows, int64_t n,
                      int64_t d, const int64_t *ids, int64_t first_id, Neighbour *list);

/* lists[n, k] are filled, sorted. Work space: block [EXACT_SCAN_BLOCK, d]; allocates 256 kB for each thread.
 * Errors as of index_rows_read. Not collective. */
Status exact_scan_run(const ExactScan *scan, const IndexRows *rows, float *block, Neighbour *lists,
                      const Ops *ops, Error *error);

#endif

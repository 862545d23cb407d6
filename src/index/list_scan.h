/* list_scan.h - the exact k nearest of a block of queries among the rows of the inverted lists that each of
 * them looks at.
 *
 * Faiss goes from query to query and computes one product after the other, at the rate of memory; with
 * thousands of queries at hand it pays to go from list to list: all queries that look at a list are
 * multiplied with its rows at once, which runs at the rate of a matrix product. As in exact_scan.h products
 * only propose, so the outcome is a function of the rows and of the lists that are looked at.
 */
#ifndef DINOBATCH_INDEX_LIST_SCAN_H
#define DINOBATCH_INDEX_LIST_SCAN_H

#include "index/exact_scan.h"
#include "index/faiss_shim.h"

/* lists[n, k] are filled, sorted. `index` keeps rows of d columns as they are (faiss_shim_is_exact), in
 * lists. Allocates 16 bytes a query and list, 32 a list, and 4 (d + 512) * 256 for each thread. Not
 * collective. */
Status list_scan_run(const ExactScan *scan, const FaissIndex *index, int64_t d, int64_t nprobe,
                     Neighbour *lists, const Ops *ops, Error *error);

#endif

/* list_search.h - the k nearest of a block of queries in this rank's inverted lists: of rows as they are by
 * list_scan.h; of codes, and on a GPU, by Faiss, the query itself left out and similarities computed again
 * from the rows where that is asked for (ShardIndexOptions.refine).
 */
#ifndef DINOBATCH_INDEX_LIST_SEARCH_H
#define DINOBATCH_INDEX_LIST_SEARCH_H

#include "index/exact_scan.h"
#include "index/shard_index.h"

/* lists[scan->n, scan->k] are filled, sorted. `block` is work space, [EXACT_SCAN_BLOCK, d]. Allocates: rows
 * as list_scan.h says; codes 36 bytes a candidate. Errors as of index_rows_read. Not collective. */
Status list_search_run(const ExactScan *scan, const ShardIndex *index, float *block, Neighbour *lists,
                       const Ops *ops, Error *error);

#endif

/* retrieve_sample.h - the pool rows nearest to each query.
 *
 * Source: DINOv2 paper, appendix A.4, "sample-based": N = 4 nearest neighbours of each picture of the query
 * set (32 for ImageNet-1k), a trade-off between how many pictures come in and how many collide, that is, are
 * brought in by more than one query. Table 15 counts collisions: its rows are N times the queries.
 *
 * Memory of a rank, bytes, with N neighbours: 12 N for each of its queries beside index and search; then 140
 * N while collisions are found.
 */
#ifndef DINOBATCH_CURATION_RETRIEVE_SAMPLE_H
#define DINOBATCH_CURATION_RETRIEVE_SAMPLE_H

#include "curation/curation_run.h"
#include "curation/retrieved_list.h"

/* The N nearest of the set of `pool` to each query, or all if it has no more; `state_path` is where a stopped
 * run is saved, and *state what to remove when the result is there. Flat: the same on any ranks. The list is
 * released by retrieved_list_fini, also after failure. STATUS_REQUEUE when asked to stop, after saving; other
 * errors as of shard_search_run. The outcome is agreed. Collective over COMM. */
Status retrieve_sample_run(RetrievedList *list, int64_t neighbours, const FeatureSource *pool,
                           const FeatureSource *queries, const char *state_path, CurationState *state,
                           const CurationRun *run, Error *error);

#endif

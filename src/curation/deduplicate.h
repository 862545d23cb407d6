/* deduplicate.h - groups of duplicates in a pool, of each of which one row stays.
 *
 * Source: DINOv2 paper, section 3 and appendix A.3: the k = 64 nearest neighbours of each row, edges with a
 * cosine above 0.6, connected components, one representative of each. Which one the paper does not say: here
 * it is the one of the lowest row, which is a function of the files and their order alone. Edges are united
 * as they come and then forgotten.
 *
 * Where the features hold views of each picture, two pictures are as alike as a view of either is to the
 * whole other one at best: all views look for their nearest whole pictures, which alone are in the index, and
 * a picture's neighbours are the k that any of its views is most like. Rows, edges and groups are of
 * pictures.
 *
 * Writes FOLDER/dedup.h5: /group = lowest row of the row's component, /keep = 1 where that is the row itself.
 * Memory of a rank, bytes: 9 for each of its rows beside index, search and a batch of edges; afterwards,
 * without these, 40.
 */
#ifndef DINOBATCH_CURATION_DEDUPLICATE_H
#define DINOBATCH_CURATION_DEDUPLICATE_H

#include "curation/curation_run.h"

typedef struct {
    int64_t rows;
    int64_t neighbours; /* of a row that were looked at */
    int64_t edges;      /* above the threshold, from each end that has it among its neighbours */
    int64_t groups;     /* of more than one row */
    int64_t largest;    /* rows of the largest group */
    int64_t kept;
    char path[CURATION_RUN_PATH]; /* of the file */
} Deduplication;

/* The set of `pool` is all of its rows. STATUS_REQUEUE when asked to stop, after saving; other errors as of
 * shard_index_create, shard_search_run and curation_file_commit. The outcome is agreed. Collective over COMM.
 */
Status deduplicate_run(Deduplication *result, const FeatureSource *pool, const CurationRun *run,
                       Error *error);

#endif

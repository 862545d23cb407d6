/* retrieve.h - pictures of the pool that are like those of a curated data set.
 *
 * Source: DINOv2 paper, section 3 and appendix A.4: query sets of more than a million pictures bring in the
 * nearest neighbours of each of them (retrieve_sample.h), smaller ones a share of the clusters that they lie
 * in (retrieve_cluster.h).
 *
 * Writes FOLDER/retrieve_NAME.h5 (retrieval_file.h). With the index Flat, and for the same clusters, the file
 * is the same on any number of ranks.
 */
#ifndef DINOBATCH_CURATION_RETRIEVE_H
#define DINOBATCH_CURATION_RETRIEVE_H

#include "curation/curation_run.h"

/* Borrowed. */
typedef struct {
    const char *name;     /* of the query set; part of a file's name */
    const char *keep;     /* file that the set of the pool was made by, for the record; NULL: none */
    const char *clusters; /* file of `curate cluster`; NULL: none, then only by neighbours */
} RetrieveRequest;

typedef struct {
    int64_t queries;
    bool is_cluster;    /* how it was done */
    int64_t neighbours; /* of a query; 0: by clusters */
    int64_t clusters;   /* with enough queries */
    int64_t retrieved;  /* pictures before the cap, and before collisions are removed */
    int64_t collisions; /* of these */
    int64_t kept;       /* pictures in the file */
    char path[CURATION_RUN_PATH];
} Retrieval;

/* `queries` is whole files. STATUS_INPUT: features that cannot be compared, a name that cannot be a file's,
 * clusters that are needed and not given; other errors as of retrieve_sample_run and retrieve_cluster_run.
 * The outcome is agreed. Collective over COMM. */
Status retrieve_run(Retrieval *result, const RetrieveRequest *request, const FeatureSource *pool,
                    const FeatureSource *queries, const CurationRun *run, Error *error);

#endif

/* retrieval_file.h - retrieve_NAME.h5 read back: the pool rows that a query set brought in, and why each.
 *
 * A curation file whose rows are pictures brought in, in the order of the queries and then nearest first
 * (sample), or of the pool (cluster). A row that several queries brought in stands there for each of them,
 * unless curation.retrieve.collisions is `remove`; of these the one with the most similar query is the
 * picture's provenance (`first`).
 */
#ifndef DINOBATCH_CURATION_RETRIEVAL_FILE_H
#define DINOBATCH_CURATION_RETRIEVAL_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char *name;             /* of the query set; owned */
    char *inputs, *queries; /* features files of the pool and of the queries, one per line; owned */
    uint64_t digest;        /* of the pool's features */
    int64_t pool_rows;
    int64_t query_rows;     /* pictures of the query set */
    bool is_cluster;        /* else sample */
    int64_t retrieved;      /* pictures before the cap and before collisions are removed */
    int64_t collisions;     /* of these, repeats of others */
    int64_t n;              /* pictures in the file */
    int64_t *row;           /* [n] of the pool; owned */
    int64_t *query;         /* [n] row of the queries; -1: cluster; owned */
    int64_t *neighbour;     /* [n] place among the query's neighbours, from 0; -1: cluster; owned */
    float *similarity;      /* [n] to the query, or to the centroid; owned */
    uint8_t *first;         /* [n] 1: the picture's provenance; owned */
    int64_t *cluster;       /* [n] of is_cluster: whose centroid is nearest; else NULL; owned */
    int64_t *query_cluster; /* [query_rows] of is_cluster: each query's; else NULL; owned */
} RetrievalFile;

/* Reads all of it: 41 bytes a picture. STATUS_INPUT: not such a file, or rows that the pool does not have.
 * Released by retrieval_file_fini, also after failure. Not collective. */
Status retrieval_file_read(RetrievalFile *file, const char *path, Error *error);

/* Fine on a zeroed struct. */
void retrieval_file_fini(RetrievalFile *file);

/* The paths in "a.h5\nb.h5", which is cut into them: an array of *count, memory_free. */
const char **retrieval_file_split(char *inputs, int *count);

#endif

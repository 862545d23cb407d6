/* retrieved_list.h - the pictures that a query set brought in, as the ways of retrieving make them and
 * retrieve.c writes them.
 */
#ifndef DINOBATCH_CURATION_RETRIEVED_LIST_H
#define DINOBATCH_CURATION_RETRIEVED_LIST_H

#include <stdint.h>

/* This rank's pictures, after those of the lower ranks. The arrays mean what retrieval_file.h says; owned. */
typedef struct {
    int64_t count;
    int64_t *row, *query, *neighbour, *cluster;
    float *similarity;
    uint8_t *first;
    /* Of all ranks: */
    int64_t retrieved;      /* before the cap, and before collisions are removed */
    int64_t collisions;     /* of these */
    int64_t clusters;       /* that hold enough queries; 0: not by clusters */
    int64_t *query_cluster; /* [queries of all ranks], the same on every rank, or NULL; owned */
} RetrievedList;

/* Room for `capacity` pictures on this rank; count stays 0. Released by retrieved_list_fini. */
void retrieved_list_init(RetrievedList *list, int64_t capacity);

/* Fine on a zeroed struct. */
void retrieved_list_fini(RetrievedList *list);

#endif

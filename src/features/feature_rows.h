/* feature_rows.h - rows of features with labels, each rank holding a run of consecutive rows of one set. */
#ifndef DINOBATCH_FEATURES_FEATURE_ROWS_H
#define DINOBATCH_FEATURES_FEATURE_ROWS_H

#include "comm/comm.h"

typedef struct {
    int64_t count;       /* rows of this rank, may be 0 */
    int64_t first;       /* rows of the lower ranks */
    int64_t total;       /* rows of all ranks */
    int64_t d;           /* columns */
    float *values;       /* [count, d] owned; not normalised */
    int64_t *labels;     /* [count] class or -1; owned */
    int64_t *indices;    /* [count] in the data set, ascending, the same for views of a picture; owned */
    int64_t skipped;     /* pictures of all ranks that could not be read */
    double seconds;      /* of this rank, waiting included */
    double wait_seconds; /* for images */
} FeatureRows;

/* Room for `capacity` rows of d columns on this rank; counts are 0. */
void feature_rows_init(FeatureRows *rows, int64_t capacity, int64_t d);

/* Fine on a zeroed struct. */
void feature_rows_fini(FeatureRows *rows);

/* Sets first and total from the ranks' counts. Collective over COMM. */
void feature_rows_number(FeatureRows *rows, Comm *comm);

#endif

/* bench_descriptors.h - rows to search in and to cluster: drawn ones that lie as descriptors do, or some of a
 * features file.
 *
 * Drawn rows: clusters of uneven size around random centres, whose spread falls from column to column, so
 * that neighbourhoods have fewer dimensions than the space and lie across the borders of inverted lists. One
 * row in ten is a near copy of the row before, at a cosine between 0.64 and 1. Each row is a function of
 * (seed, its id) alone. What they are not: pictures; recall on them says how an index does, not how well
 * copies are found.
 */
#ifndef DINOBATCH_BENCH_BENCH_DESCRIPTORS_H
#define DINOBATCH_BENCH_BENCH_DESCRIPTORS_H

#include "index/index_rows.h"

typedef struct {
    int64_t rows, d; /* of a file: at most so many rows, evenly drawn; its own columns */
    int64_t clusters;
    uint64_t seed;
    const char *path; /* features file; NULL: drawn */
    int threads;
} BenchDescriptorsParams;

typedef struct {
    IndexRows rows;   /* this rank's share, by index_range_first */
    float *values;    /* [rows.count, rows.d] owned */
    char source[256]; /* what they are, for reports */
} BenchDescriptors;

/* STATUS_INPUT when the file cannot be read. Holds 4 d bytes for each of this rank's rows. Released by
 * bench_descriptors_fini, also after failure. The outcome is agreed. Collective over COMM. */
Status bench_descriptors_init(BenchDescriptors *descriptors, const BenchDescriptorsParams *params, Comm *comm,
                              Error *error);
void bench_descriptors_fini(BenchDescriptors *descriptors);

#endif

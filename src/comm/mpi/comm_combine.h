/* comm_combine.h - reduction of the ranks' pieces in rank order: the reproducible reference.
 *
 * MPI_Reduce and its kin may associate differently per algorithm, message size and rank; here the order is
 * always rank 0, 1, 2, ..., so that every rank and every run gets the same bits.
 */
#ifndef DINOBATCH_COMM_MPI_COMM_COMBINE_H
#define DINOBATCH_COMM_MPI_COMM_COMBINE_H

#include "comm/comm.h"

/* One operand per rank: `own` for rank `rank`, `others` + r * stride bytes for every other r. */
typedef struct {
    const void *own;
    const char *others;
    size_t stride;
    int rank, size;
} CombinePieces;

/* out[n] = pieces of rank 0 (+) rank 1 (+) ..., element-wise; `out` may be `own`. F32, F64, I64 in their own
 * precision; BF16 and F16 in fp32, rounded once. NaN wins over everything in COMM_MAX and COMM_MIN. */
void comm_combine(void *out, CombinePieces pieces, int64_t n, Dtype dtype, CommReduce reduce);

#endif

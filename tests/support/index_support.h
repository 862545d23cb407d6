/* index_support.h - rows for the tests of src/index: clusters with copies in them, each row a function of its
 * id, so that any rank makes its own.
 */
#ifndef DINOBATCH_TESTS_SUPPORT_INDEX_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_INDEX_SUPPORT_H

#include "index/index_rows.h"

typedef struct {
    int64_t d;
    int64_t clusters; /* centres of normal numbers of variance 1 */
    double spread;    /* of rows around their centre */
    int64_t copies;   /* rows with id % copies == 1 equal the row before, bit for bit; 0: none */
    uint64_t seed;
} IndexSupportData;

/* values[n, d] = the rows first .. first + n - 1. Not of unit length. */
void index_support_fill(const IndexSupportData *data, int64_t first, int64_t n, float *values);

/* The part of a set of `total` rows that this rank owns, by index_range_first; the values are owned by the
 * caller, who frees rows.context by memory_free. */
IndexRows index_support_rows(const IndexSupportData *data, const char *name, int64_t total, Comm *comm);

#endif

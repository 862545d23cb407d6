/* retrieval_ranks.h - where the positives of each query stand when a whole database is sorted by cosine.
 *
 * Nothing is sorted but the positives. First pass over the database: the similarity of every positive. Second
 * pass: for each other row, before which of the positives it comes. So the database is read in blocks, each
 * rank its own rows, and neither it nor a ranking of it is ever whole.
 *
 * The order is exact: similarities by index_rows_dot, of equal ones the lower row first. Matrix products in
 * fp32 decide only where their rounding cannot matter (as in index/exact_scan.h). So places are a function of
 * the rows, not of blocks, threads or ranks.
 *
 * The file knows nothing of settings (easy, hard, ...): a list of graded positives, each with the number of
 * negatives before it, is enough for all of them.
 */
#ifndef DINOBATCH_EVAL_RETRIEVAL_RANKS_H
#define DINOBATCH_EVAL_RETRIEVAL_RANKS_H

#include "index/index_rows.h"
#include "ops/ops.h"

typedef enum {
    RETRIEVAL_NEGATIVE,
    RETRIEVAL_EASY, /* a positive */
    RETRIEVAL_HARD, /* a positive */
    RETRIEVAL_JUNK, /* as if it were not in the database */
} RetrievalGrade;

/* A positive of a query. */
typedef struct {
    double similarity;
    int64_t row;       /* of the database */
    int64_t negatives; /* rows of grade RETRIEVAL_NEGATIVE that are nearer to the query */
    int64_t grade;     /* RETRIEVAL_EASY or RETRIEVAL_HARD */
} RetrievalHit;

enum { RETRIEVAL_QUERY_BLOCK = 128 };

/* What is wanted. All borrowed; database and queries have the same columns. */
typedef struct {
    const IndexRows *database, *queries;
    const int64_t *query_rows; /* [n] rows of `queries`; NULL: the first n */
    int64_t n;
    void *context; /* of the functions below */
    /* Before query number `first` and the count - 1 after it, at most RETRIEVAL_QUERY_BLOCK. NULL: nothing to
     * do. Collective over COMM. */
    void (*block)(void *context, int64_t first, int64_t count);
    /* grades[count] (RetrievalGrade) of this rank's database rows [first, first + count), counted from its
     * own first one, for query number `query`. Called by any thread, for queries of the block alone. */
    void (*grade)(const void *context, int64_t query, int64_t first, int64_t count, uint8_t *grades);
    /* Receives the positives of query number `query`, nearest first, on every rank. */
    void (*take)(void *context, int64_t query, const RetrievalHit *hits, int64_t count);
} RetrievalRanks;

/* What ops must be made for. */
OpsLimits retrieval_ranks_limits(int64_t d);

/* All queries, in order. Takes some 150 bytes for each positive of RETRIEVAL_QUERY_BLOCK queries.
 * STATUS_INPUT where a row is zero or not finite. The outcome is agreed. Collective over COMM. */
Status retrieval_ranks_run(const RetrievalRanks *ranks, const Ops *ops, Comm *comm, Error *error);

#endif

/* retrieval_truth.h - which pictures of a database each query should find: the ground truth of the Oxford and
 * Paris protocol.
 *
 * A JSON file, one object:
 *     {"queries": [{"query": "all_souls_1.jpg", "box": [136, 34, 648, 955],
 *                   "easy": ["a.jpg", "b.jpg"], "hard": ["c.jpg"], "junk": ["d.jpg"]}, ...]}
 * Names are the pictures' keys, in the set of queries and in the database. A list that is left out is empty.
 * "box" is what the official sets crop their queries by: crop the pictures before; it is not read.
 */
#ifndef DINOBATCH_EVAL_RETRIEVAL_TRUTH_H
#define DINOBATCH_EVAL_RETRIEVAL_TRUTH_H

#include "eval/retrieval_ranks.h"
#include "eval/retrieval_set.h"

/* A picture of the database that a query's lists name. */
typedef struct {
    int64_t query; /* number of the query */
    int64_t row;   /* of the database; set by retrieval_truth_resolve */
    int64_t grade; /* RetrievalGrade but RETRIEVAL_NEGATIVE */
} RetrievalEntry;

typedef struct {
    const char *path;        /* for messages; borrowed */
    int64_t count;           /* queries, >= 1 */
    int64_t *rows;           /* [count] of the set of queries; set by retrieval_truth_resolve; owned */
    int64_t *starts;         /* [count + 1] of each query's entries; owned */
    RetrievalEntry *entries; /* [starts[count]] after retrieval_truth_resolve each query's by row; owned */
    TextTable queries;       /* [count] keys; owned */
    TextTable keys;          /* [starts[count]] of the entries as they were read; owned */
} RetrievalTruth;

/* STATUS_INPUT with `FILE: ...`: no such file, larger than 1 GiB, not JSON, not of this form, a query that is
 * listed twice. retrieval_truth_fini, also after a failure. Not collective. */
Status retrieval_truth_load(RetrievalTruth *truth, const char *path, Error *error);

/* Sets the rows. STATUS_INPUT: a key that is not in its set, one that two rows of it have, a picture that a
 * query lists twice. The outcome is agreed. Collective over COMM. */
Status retrieval_truth_resolve(RetrievalTruth *truth, const RetrievalSet *database,
                               const RetrievalSet *queries, Comm *comm, Error *error);

/* grades[count] of database rows [first, first + count) for a query. */
void retrieval_truth_grade(const RetrievalTruth *truth, int64_t query, int64_t first, int64_t count,
                           uint8_t *grades);

/* Fine on a zeroed struct. */
void retrieval_truth_fini(RetrievalTruth *truth);

#endif

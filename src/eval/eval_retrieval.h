/* eval_retrieval.h - the retrieval evaluation: how early a database sorted by cosine brings what a query
 * should find.
 *
 * Two ways to say what it should find:
 * - labels: the rows of its class. One setting, "classes", by average_precision_mean.
 * - a ground truth (retrieval_truth.h), as Radenovic et al., "Revisiting Oxford and Paris" (CVPR 2018) have
 * it: "easy" (positives: easy; hard and junk left out), "medium" (easy and hard; junk left out), "hard"
 * (hard; easy and junk left out), by average_precision_trapezoid. What is left out stands nowhere in the
 * ranking. A query without positives in a setting does not count in its means. Where database and queries are
 * of the same data, a query's own picture, which its key tells, is left out too.
 *
 * Source of the paper's use: DINOv2, section 7.4. It computes no features and writes no files.
 */
#ifndef DINOBATCH_EVAL_EVAL_RETRIEVAL_H
#define DINOBATCH_EVAL_EVAL_RETRIEVAL_H

#include "eval/retrieval_truth.h"

enum { RETRIEVAL_SETTINGS = 3, RETRIEVAL_CUTS = 3 };

/* Where precision is taken: 1, 5, 10. */
extern const int64_t EVAL_RETRIEVAL_CUTS[RETRIEVAL_CUTS];

/* Means over the queries of one setting that have positives; NaN if none has. */
typedef struct {
    const char *setting; /* "classes", "easy", "medium", "hard" */
    double map;
    double precision[RETRIEVAL_CUTS]; /* average_precision_at */
    int64_t queries;                  /* that count */
    int64_t positives;                /* of all of them */
} RetrievalScore;

/* The same on all ranks. */
typedef struct {
    RetrievalScore scores[RETRIEVAL_SETTINGS];
    int count;
    int64_t database, queries; /* rows, queries asked */
    bool own_left_out;
    double seconds;
} EvalRetrievalResult;

/* `truth` NULL: by labels, which every row has then. same_data: leave out a query's own picture. `threads` as
 * in OpsOptions. STATUS_INPUT: columns differ, a row is zero or not finite, and as retrieval_truth_resolve
 * says. Collective over COMM. */
Status eval_retrieval_run(const RetrievalSet *database, const RetrievalSet *queries, RetrievalTruth *truth,
                          bool same_data, int threads, Comm *comm, EvalRetrievalResult *result, Error *error);

#endif

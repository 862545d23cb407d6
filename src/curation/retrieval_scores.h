/* retrieval_scores.h - what a query set brought in, beside what its pictures and those of the pool show.
 *
 * Of a retrieval by neighbours: class and set precision at 1, 4, 10 and 32 (curation_scores.h), as far as the
 * file has as many neighbours. Ambiguous pictures are passed over, so that the last place of the file may be
 * one that no answer is left for: ask for a few neighbours more than are scored. Of a retrieval by clusters,
 * or one whose collisions were removed, which no longer has each query's nearest: the share of its pictures
 * whose label is one of the query set's.
 */
#ifndef DINOBATCH_CURATION_RETRIEVAL_SCORES_H
#define DINOBATCH_CURATION_RETRIEVAL_SCORES_H

#include "curation/curation_scores.h"

enum { RETRIEVAL_SCORES_PLACES = 4 };

typedef struct {
    char *name;      /* of the query set; owned */
    int64_t queries; /* pictures of it */
    int count;       /* precisions; 0: not by neighbours */
    RetrievalScore at[RETRIEVAL_SCORES_PLACES];
    ScoreShare of_set; /* pictures with a label of the set, of those that are not ambiguous */
} RetrievalScores;

/* Scores the retrieval file `path` by TRUTH/labels.csv. A pool picture's line there is POOL_PREFIX + key; a
 * query's is its key behind the last folders of the data set that its features are of: "curated/A/" where
 * that is "folder:../curated/A". STATUS_INPUT: a file that is missing, features that are not those retrieved
 * from, a picture without a line. Released by retrieval_scores_fini, also after failure. Not collective. */
Status retrieval_scores_read(RetrievalScores *scores, const char *path, const char *truth,
                             const char *pool_prefix, Error *error);
void retrieval_scores_fini(RetrievalScores *scores);

#endif

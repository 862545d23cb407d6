/* curation_scores.h - what a curation found, beside what was planted.
 *
 * The sources of a benchmark's pool: what was made from the same picture. For a pool row x, P(x) are the
 * others of its predicted group, T(x) the others of its source.
 */
#ifndef DINOBATCH_CURATION_CURATION_SCORES_H
#define DINOBATCH_CURATION_CURATION_SCORES_H

#include "curation/curation_truth.h"

enum { CURATION_SCORES_LEVELS = 4, CURATION_SCORES_KINDS = 32, CURATION_SCORES_KIND_BYTES = 24 };

/* So many of so many. */
typedef struct {
    int64_t found, of;
} ScoreShare;

/* found / of; 1 where there is nothing to find. */
double curation_scores_share(ScoreShare share);

/* Copies that a kind of transform was part of ("jpeg", "crop"): how many are linked to their source. */
typedef struct {
    char kind[CURATION_SCORES_KIND_BYTES];
    ScoreShare linked;
} KindScore;

typedef struct {
    double precision; /* mean of |P & T| / |P| over rows with P not empty; 1 if there is none */
    double recall;    /* mean of |P & T| / |T| over rows with T not empty; 1 if there is none */
    double f1;        /* harmonic mean */
    ScoreShare linked[CURATION_SCORES_LEVELS]; /* copies of each level with |P & T| > 0 */
    int kinds;
    KindScore kind[CURATION_SCORES_KINDS]; /* by name */
} GroupScores;

/* Predicted groups: group[truth->count], rows with equal numbers belong together. */
void curation_scores_groups(GroupScores *scores, const CurationTruth *truth, const int64_t *group);

typedef struct {
    double redundancy_removed; /* 1 - rows too many of each source that stay / rows too many at the start */
    double sources_lost;       /* share of the sources with no row that stays */
} KeptScores;

/* keep[truth->count]: 1 for the rows that stay. */
void curation_scores_kept(KeptScores *scores, const CurationTruth *truth, const uint8_t *keep);

typedef struct {
    ScoreShare recall;                        /* leaks that were removed */
    ScoreShare precision;                     /* of the removed, leaks */
    ScoreShare wrongly_removed;               /* of those that are no leaks */
    ScoreShare level[CURATION_SCORES_LEVELS]; /* recall of each level */
} LeakScores;

/* removed[truth->count]: 1 for rows removed because they resemble an evaluation picture. */
void curation_scores_leaks(LeakScores *scores, const CurationTruth *truth, const uint8_t *removed);

typedef struct {
    int64_t k;
    double class_precision; /* share of the k answers with the label of the query; missing ones are wrong */
    double set_precision;   /* share whose label is one that some query of the set has */
} RetrievalScore;

/* Answers of `queries`: neighbours[queries->count, stride] pool rows, nearest first, -1 behind the last;
 * ambiguous pictures are passed over. One score for each k[scores]. */
void curation_scores_retrieval(RetrievalScore *out, const int64_t *k, int scores,
                               const CurationLabels *queries, const CurationLabels *pool,
                               const int64_t *neighbours, int64_t stride);

/* Of the pool rows row[n] that `queries` brought in, those whose label some query has; ambiguous ones are
 * left out. */
ScoreShare curation_scores_of_set(const CurationLabels *queries, const CurationLabels *pool,
                                  const int64_t *row, int64_t n);

#endif

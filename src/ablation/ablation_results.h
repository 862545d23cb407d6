/* ablation_results.h - the figures of an ablation table: one result file for each row and seed.
 *
 * FOLDER/row03_seed0.h5 (kind `result`, rows from 1) has the figures of the table's columns, the published
 * ones beside them, and the digest of the experiment (ablation_table_digest): a file of another digest is not
 * of this table.
 */
#ifndef DINOBATCH_ABLATION_ABLATION_RESULTS_H
#define DINOBATCH_ABLATION_ABLATION_RESULTS_H

#include "ablation/ablation_table.h"

/* What a report says of one row and column. */
typedef struct {
    int seeds;     /* measured */
    double mean;   /* NaN without one */
    double spread; /* standard deviation of a sample of seeds; NaN below two */
    double step;   /* mean less that of the row above or `beside`; NaN where either is missing */
} AblationCell;

typedef struct {
    char digest[ABLATION_DIGEST];
    int measured;        /* seeds of the table whose figures are there */
    int stale;           /* files of other experiments */
    char version[64];    /* of the program that measured last; "" */
    AblationCell *cells; /* [columns] owned */
} AblationRowResults;

typedef struct {
    AblationRowResults *rows; /* [rows] owned */
    int count;
} AblationResults;

/* The file of a row and seed; memory_free. */
char *ablation_results_path(const char *folder, int row, const char *seed);

typedef enum { ABLATION_MISSING, ABLATION_STALE, ABLATION_DONE } AblationState;

/* Whether the row's figures are there. STATUS_INPUT: a file that is not a result. Not collective. */
Status ablation_results_state(const AblationTable *table, int row, const char *seed, const char *folder,
                              AblationState *state, Error *error);

/* Takes the columns' figures from the result files of the evaluations, files[evaluation_count], and writes
 * the row's file. STATUS_INPUT: an evaluation has no such figure; the line names those that it has. Not
 * collective. */
Status ablation_results_write(const AblationTable *table, int row, const char *seed, const char *folder,
                              const char *const *files, const char *config, Error *error);

/* Reads what is there. Owned by the caller: ablation_results_fini, also after a failure. STATUS_INPUT: a file
 * that is not a result, or lacks a column. Not collective. */
Status ablation_results_load(AblationResults *results, const AblationTable *table, const char *folder,
                             Error *error);
void ablation_results_fini(AblationResults *results);

#endif

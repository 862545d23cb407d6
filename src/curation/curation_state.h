/* curation_state.h - what a step needs to go on after it was stopped or killed: OUTPUT/STEP.partial.h5.
 *
 * Arrays with a number for each row of the set, of which every rank has its run (index_range_first), tables
 * that all ranks have, and a few numbers of all ranks. The file holds whole arrays, so another number of
 * ranks may go on.
 *
 *     CurationState state = {.path = "out/dedup.partial.h5", .digest = ..., .arrays = {...}, ...};
 *     TRY(curation_state_restore(&state, &found, comm, log, error));
 *     for (...) { ...; TRY(curation_state_pause(&state, comm, log, error)); }
 *     ... the result is written ...
 *     curation_state_remove(&state, comm);
 */
#ifndef DINOBATCH_CURATION_CURATION_STATE_H
#define DINOBATCH_CURATION_CURATION_STATE_H

#include "base/log.h"
#include "curation/curation_file.h"

enum { CURATION_STATE_ARRAYS = 4, CURATION_STATE_TABLES = 2, CURATION_STATE_NUMBERS = 4 };

#define CURATION_OWN_ROW INT64_MIN

typedef struct {
    const char *object; /* of the schema: "/label" */
    H5Type type;
    void *mine; /* [count] borrowed */
    int64_t low,
        end; /* I64: what it holds is from low up to below end; CURATION_OWN_ROW: up to its own row */
} CurationArray;

typedef struct {
    const char *object;
    H5Type type;           /* F32 or F64 */
    void *values;          /* [rows, columns], the same on all ranks; borrowed */
    int64_t rows, columns; /* columns 0: [rows] */
} CurationTable;

typedef struct {
    const char *name;
    int64_t value; /* the same on all ranks; not below 0 */
} CurationNumber;

typedef struct {
    const char *path;  /* borrowed */
    CurationMeta meta; /* `digest` is of inputs and of all settings that the result depends on */
    int64_t total;     /* rows of the set */
    int64_t first;     /* this rank's first one */
    int64_t count;     /* of this rank */
    double save_minutes;
    double saved; /* clock_seconds of the last time; set by restore */
    CurationArray arrays[CURATION_STATE_ARRAYS];
    int array_count;
    CurationTable tables[CURATION_STATE_TABLES];
    int table_count;
    CurationNumber numbers[CURATION_STATE_NUMBERS];
    int number_count;
} CurationState;

/* Fills arrays, tables and numbers from the file if there is one and `resume` is set. A file of other inputs
 * or settings, or a damaged one, is left alone until the next save, and the log says so. *found: there was
 * one; if not, what they hold is undefined. The outcome is agreed. Collective over COMM. */
Status curation_state_restore(CurationState *state, bool resume, bool *found, Comm *comm, Log *log,
                              Error *error);

/* To be called between two blocks of work: saves when it is time to; STATUS_REQUEUE, after saving, when a
 * rank was asked to stop. The outcome is agreed. Collective over COMM. */
Status curation_state_pause(CurationState *state, Comm *comm, Log *log, Error *error);

/* The result is there: the file goes. Rank 0. Not collective. */
void curation_state_remove(const CurationState *state, const Comm *comm);

#endif

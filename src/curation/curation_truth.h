/* curation_truth.h - what is known of a planted curation benchmark: which pool pictures were made from the
 * same one, which were made from an evaluation picture, and what they show.
 *
 * A truth folder holds pool.csv (path, duplicate_group, transform, level), leaks.csv (pool_path, level) and
 * labels.csv (path, label, ambiguous). Paths are PREFIX + key, where a key names a row of a features file and
 * the prefix is the picture folder's name: "pool/", "curated/A/". Only scores read it, after a curation has
 * ended; no step of a curation does.
 */
#ifndef DINOBATCH_CURATION_CURATION_TRUTH_H
#define DINOBATCH_CURATION_CURATION_TRUTH_H

#include "curation/csv_table.h"

enum { CURATION_TRUTH_ORIGINAL = -1, CURATION_TRUTH_NO_LEAK = -2 };

typedef struct {
    int64_t count;   /* rows of the pool, in the order of the keys */
    int64_t sources; /* different pictures that they were made from */
    int64_t *source; /* [count] which; owned */
    int64_t *level;  /* [count] number of transforms, CURATION_TRUTH_ORIGINAL; owned */
    int64_t
        *leak_level; /* [count] the same towards the evaluation picture, or CURATION_TRUTH_NO_LEAK; owned */
    const char **transform; /* [count] "hflip+jpeg47"; borrowed from `pool`; owned array */
    CsvTable pool;
} CurationTruth;

/* What pictures show. */
typedef struct {
    int64_t count;
    const char **label; /* [count] borrowed from the table; owned array */
    int64_t *ambiguous; /* [count] 1: not counted as an answer; owned */
} CurationLabels;

/* The truth of the rows with keys[count]. STATUS_INPUT: a file or column that is missing, a key that is not
 * in pool.csv. Released by curation_truth_fini, also after a failure. Not collective. */
Status curation_truth_load(CurationTruth *truth, const char *folder, const char *prefix,
                           const char *const *keys, int64_t count, Error *error);
void curation_truth_fini(CurationTruth *truth);

enum { CURATION_TRUTH_PREFIX = 1024 };

/* prefix[CURATION_TRUTH_PREFIX]: what stands before `key` in the column `path`, where that is nothing or the
 * last folders of the data set spec `data`; of several the longest. STATUS_INPUT if no line is so. */
Status curation_truth_prefix(char *prefix, const CsvTable *table, const char *data, const char *key,
                             Error *error);

/* The labels of the rows with keys[count], from labels.csv, which stays open as long as they are used. The
 * errors of curation_truth_load. Released by curation_truth_labels_fini. Not collective. */
Status curation_truth_labels(CurationLabels *labels, const CsvTable *table, const char *prefix,
                             const char *const *keys, int64_t count, Error *error);
void curation_truth_labels_fini(CurationLabels *labels);

#endif

/* synthetic_features.h - descriptors that are drawn, with duplicates in known places: pools of any size to
 * measure curation on.
 *
 * Row i is a direction of `columns` numbers. Its object belongs to a cluster: mates of one cluster have a
 * cosine of 0.3 or so, others of 0, each +- 1 / sqrt(columns). A share of the rows are views of a group's
 * object instead of an object of their own; a view has a cosine to its object between 0.866 and 0.975, so two
 * views of one object between 0.75 and 0.95. Labels are group numbers, -1 for rows of their own. Everything
 * is a function of (seed, row): groups are drawn, so their sizes are those of a Poisson distribution.
 */
#ifndef DINOBATCH_FEATURES_SYNTHETIC_FEATURES_H
#define DINOBATCH_FEATURES_SYNTHETIC_FEATURES_H

#include "base/log.h"
#include "base/status.h"

#include <stdint.h>

typedef struct {
    int64_t rows, columns;
    int64_t clusters;
    double duplicates; /* share of the rows that are views of groups' objects */
    int64_t copies;    /* views of a group, on average */
    uint64_t seed;
} SyntheticFeatures;

/* "rows=100000,columns=512,clusters=1000,duplicates=0.3,copies=4,seed=0", any of them left out: these are the
 * defaults. STATUS_INPUT quotes what is wrong. */
Status synthetic_features_parse(SyntheticFeatures *features, const char *options, Error *error);

/* Groups that views are drawn from. */
int64_t synthetic_features_groups(const SyntheticFeatures *features);

/* Different objects among the rows: what should be left of them when duplicates are gone. */
int64_t synthetic_features_objects(const SyntheticFeatures *features);

/* The group of a row, or -1. */
int64_t synthetic_features_label(const SyntheticFeatures *features, int64_t row);

/* values[n, columns] = the rows first .. first + n - 1, of unit length. `centres` [clusters, columns] from
 * synthetic_features_centres. Any thread. */
void synthetic_features_draw(const SyntheticFeatures *features, const float *centres, int64_t first,
                             int64_t n, float *values);

/* The clusters' directions; memory_free. */
float *synthetic_features_centres(const SyntheticFeatures *features);

/* Writes the features file `path` in blocks, by this process alone; `threads` draw. `spec`, `version`: for
 * the file. */
Status synthetic_features_write(const SyntheticFeatures *features, const char *path, const char *spec,
                                const char *version, int threads, Log *log, Error *error);

#endif

/* curation_support.h - features files with planted duplicates, for tests of curation.
 *
 * Row i belongs to group label_of(i): a direction of its own, from which it is off by some noise. Rows of one
 * group have a cosine of 1 / (1 + noise^2) on average, of different groups about 0 +- 1 / sqrt(d).
 */
#ifndef DINOBATCH_TESTS_SUPPORT_CURATION_SUPPORT_H
#define DINOBATCH_TESTS_SUPPORT_CURATION_SUPPORT_H

#include "features/features_file.h"

typedef struct {
    int64_t first, n, d; /* rows first .. first + n - 1 of an endless set */
    int64_t groups;      /* of copies */
    int64_t copies;      /* of 8 rows in turn that many belong to one of the groups; the others are alone */
    double noise;
    uint64_t seed;
    const char *arch;  /* NULL: "sscd_resnet50" */
    const char *model; /* NULL: "m.h5" */
    int64_t nan_row;   /* row of the file that holds a NaN; -1: none */
    int64_t zero_row;  /* row of the file that is zero; -1: none */
    int64_t same_key;  /* row of the file that has the key of row 0; -1: none */
    bool upside_down;  /* said of the pictures */
} CurationSupportData;

/* Those rows with 3 of 8 in 40 groups, cosines about 0.86 within a group, and nothing wrong. */
CurationSupportData curation_support_data(int64_t first, int64_t n, int64_t d);

/* The group of row `row` of the endless set. */
int64_t curation_support_group(const CurationSupportData *data, int64_t row);

/* values[n, d] of the file, and the file itself with those, labels that are groups, keys "row NUMBER". */
void curation_support_fill(const CurationSupportData *data, float *values);
void curation_support_write(const CurationSupportData *data, const char *path);

/* A features file of n pictures with these values[n, views, d], keys "row FIRST" and so on. */
typedef struct {
    const float *values;
    int64_t first, n, views, d;
    const char *list; /* NULL: of one view each, and the file does not speak of views */
    bool upside_down;
    const char *model; /* NULL: "m.h5" */
} CurationSupportViews;
void curation_support_write_views(const CurationSupportViews *data, const char *path);

/* A features file of n directions in a plane, at these angles; 8 at most. */
void curation_support_write_angles(const double *degrees, int64_t n, const char *path);

#endif

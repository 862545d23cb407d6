/* whitening.h - rows of features moved to the mean of a sample and, on request, to unit covariance.
 *
 * Source: SSCD's README, "Descriptor post-processing": centring or whitening learned on pictures like those
 * that will be searched, then unit length. Its evaluation takes PCA whitening; rows are compared by inner
 * products alone, which are the same for every root of the inverse covariance, so that where no dimension is
 * dropped Cholesky's root does, without eigenvectors. With fewer dimensions a row is its coordinates along
 * the leading eigenvectors, each divided by the root of its variance (the ridge included).
 *
 *     WhiteningOptions options = {.kind = WHITENING_FULL, .ridge = WHITENING_RIDGE};
 *     TRY(whitening_learn(&whitening, &options, "train.h5", &expected, d, comm, error));
 *     whitening_apply(&whitening, out, rows, n);
 *     whitening_fini(&whitening);
 */
#ifndef DINOBATCH_FEATURES_WHITENING_H
#define DINOBATCH_FEATURES_WHITENING_H

#include "comm/comm.h"
#include "features/features_file.h"

typedef enum { WHITENING_NONE, WHITENING_CENTER, WHITENING_FULL } WhiteningKind;

/* Rows of the file, views of pictures among them, that are looked at, in blocks evenly spread over it. */
enum { WHITENING_ROWS = 1 << 16 };

/* The ridge that only keeps directions without variance from being blown up to noise. */
#define WHITENING_RIDGE 1e-6

typedef struct {
    WhiteningKind kind;
    double ridge; /* so much of the mean variance is added to every variance: the more, the less the small
                     ones count */
    int64_t dims; /* of WHITENING_FULL: leading directions that are kept; 0: all, by Cholesky's root */
} WhiteningOptions;

typedef struct {
    WhiteningOptions options;
    int64_t d;
    double *mean; /* [d] owned */
    double *root; /* [d, d] lower triangle L of covariance = L L^T; NULL for WHITENING_CENTER
                     and with dims; owned */
    double *axes; /* [dims, d] eigenvectors over the roots of their variances; NULL without dims; owned */
} Whitening;

enum { WHITENING_SUFFIX = 64 };

/* "", "_centered", "_whitened", with dims "_whitened256", and with another ridge than WHITENING_RIDGE
 * "_whitened_ridge0.1" or "_whitened256_ridge0.1": what a file's layer ends in. */
void whitening_suffix(const WhiteningOptions *options, char out[WHITENING_SUFFIX]);

/* Learns from a features file; `expected` says arch, layer, input_size and d columns that it must have.
 * STATUS_INPUT: another model's file or one of pictures upside down, rows that are not finite, not more rows
 * than columns (with dims: than dims, which are at most the columns) for WHITENING_FULL, rows that are all
 * alike. The outcome is agreed and the result the same on all ranks. Owned
 * by the caller: whitening_fini, also after a failure. Collective over COMM. */
Status whitening_learn(Whitening *whitening, const WhiteningOptions *options, const char *path,
                       const FeaturesMeta *expected, int64_t d, Comm *comm, Error *error);

/* Columns of a whitened row: dims or d. */
int64_t whitening_columns(const Whitening *whitening);

/* out[n, columns] = L^-1 (row - mean), axes (row - mean), or row - mean, of rows[n, d], to unit length; a row
 * that is the mean becomes 0. `out` may be `rows` if there are as many columns. */
void whitening_apply(const Whitening *whitening, float *out, const float *rows, int64_t n);

/* Fine on a zeroed struct. */
void whitening_fini(Whitening *whitening);

#endif

/* whitening.h - rows of features moved to the mean of a sample and, on request, to unit covariance.
 *
 * Source: SSCD's README, "Descriptor post-processing": centring or whitening learned on pictures like those
 * that will be searched, then unit length. Its evaluation takes PCA whitening; rows are compared by inner
 * products alone, which are the same for every root of the inverse covariance, so that Cholesky's root does,
 * without eigenvectors. No dimension is dropped.
 *
 *     TRY(whitening_learn(&whitening, WHITENING_FULL, "train.h5", &expected, comm, error));
 *     whitening_apply(&whitening, rows, n);
 *     whitening_fini(&whitening);
 */
#ifndef DINOBATCH_FEATURES_WHITENING_H
#define DINOBATCH_FEATURES_WHITENING_H

#include "comm/comm.h"
#include "features/features_file.h"

typedef enum { WHITENING_NONE, WHITENING_CENTER, WHITENING_FULL } WhiteningKind;

/* Rows of the file that are looked at, in blocks evenly spread over it, and how much of the mean variance is
 * added to every variance, so that directions without any are not blown up to noise. */
enum { WHITENING_ROWS = 1 << 16 };
#define WHITENING_RIDGE 1e-6

typedef struct {
    WhiteningKind kind;
    int64_t d;
    double *mean; /* [d] owned */
    double *root; /* [d, d] lower triangle L of covariance = L L^T; NULL for WHITENING_CENTER; owned */
} Whitening;

/* "", "_centered", "_whitened": what a file's layer ends in. */
const char *whitening_suffix(WhiteningKind kind);

/* Learns from a features file; `expected` says arch, layer, input_size and d columns that it must have.
 * STATUS_INPUT: another model's file, rows that are not finite, not more rows than columns for
 * WHITENING_FULL, rows that are all alike. The outcome is agreed and the result the same on all ranks. Owned
 * by the caller: whitening_fini, also after a failure. Collective over COMM. */
Status whitening_learn(Whitening *whitening, WhiteningKind kind, const char *path,
                       const FeaturesMeta *expected, int64_t d, Comm *comm, Error *error);

/* rows[n, d] in place: L^-1 (row - mean), or row - mean, to unit length; a row that is the mean becomes 0. */
void whitening_apply(const Whitening *whitening, float *rows, int64_t n);

/* Fine on a zeroed struct. */
void whitening_fini(Whitening *whitening);

#endif

/* principal_components.h - the leading principal components of a set of rows.
 *
 * The covariance matrix in fp64 and subspace iteration with Rayleigh-Ritz rotation: a picture needs three
 * axes of some hundreds, so a full eigen-decomposition is not worth a library. Axes are of unit length, by
 * falling variance, the sign such that the largest entry is positive.
 */
#ifndef DINOBATCH_REPORT_PRINCIPAL_COMPONENTS_H
#define DINOBATCH_REPORT_PRINCIPAL_COMPONENTS_H

#include <stdint.h>

enum { PRINCIPAL_COMPONENTS_MAX = 8 };

typedef struct {
    int64_t d;
    int count;
    double *mean;                              /* [d] owned */
    double *axes;                              /* [count, d] owned */
    double variance[PRINCIPAL_COMPONENTS_MAX]; /* along each axis, divided by n */
} PrincipalComponents;

/* The first `count` components of x[n, d]; of the rows with chosen[i] only, unless chosen is NULL. Axes
 * beyond the rank of the data are any that are orthogonal to the others, with variance 0. 1 <= count <= d, at
 * least one row. Released by principal_components_fini. */
void principal_components_fit(PrincipalComponents *pca, const float *x, const uint8_t *chosen, int64_t n,
                              int64_t d, int count);
void principal_components_fini(PrincipalComponents *pca);

/* out[n, count]: coordinates of x[n, d] along the axes, from the mean. */
void principal_components_project(const PrincipalComponents *pca, const float *x, int64_t n, float *out);

#endif

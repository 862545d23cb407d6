/* dense_algebra.h - what whitening and logistic regression need of fp64 matrices: products over rows, leading
 * eigenvectors, and rows times a matrix. OpenBLAS, which Faiss brings along.
 *
 * Matrices lie row by row. It is not for what a device computes: that is ops.h.
 */
#ifndef DINOBATCH_FEATURES_DENSE_ALGEBRA_H
#define DINOBATCH_FEATURES_DENSE_ALGEBRA_H

#include <stdbool.h>
#include <stdint.h>

/* sums[d, d], its lower triangle alone, += rows[n, d]^T rows. */
void dense_algebra_add_products(double *sums, const double *rows, int64_t n, int64_t d);

/* The `count` largest eigenvalues of a symmetric matrix[d, d], whose lower triangle is given and which is
 * overwritten: values[count] falling, vectors[count, d] of unit length, the sign such that the entry of
 * largest magnitude (the first of these) is positive. One thread, so that the result does not depend on how
 * many there are. False: no convergence, which finite numbers do not cause. 1 <= count <= d. */
bool dense_algebra_leading(double *matrix, int64_t d, int64_t count, double *values, double *vectors);

/* out[n, count] = rows[n, d] matrix[count, d]^T. From inside a parallel region, too. */
void dense_algebra_project(double *out, const double *rows, int64_t n, const double *matrix, int64_t count,
                           int64_t d);

/* out[count, d] += weights[n, count]^T rows[n, d]. */
void dense_algebra_add_weighted(double *out, const double *weights, const double *rows, int64_t n,
                                int64_t count, int64_t d);

#endif

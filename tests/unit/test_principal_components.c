/* test_principal_components.c - components of data whose components are known. */
#include "report/principal_components.h"

#include "base/memory.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 400, D = 23, KNOWN = 5 };

/* KNOWN orthonormal directions [KNOWN, D]. */
static void directions(double *axes, uint64_t seed)
{
    Rng rng = rng_at(seed, RNG_TEST, 0, 0);
    for (int i = 0; i < KNOWN; i++) {
        double *mine = axes + i * D, length = 0.0;
        for (int k = 0; k < D; k++)
            mine[k] = rng_normal(&rng);
        for (int j = 0; j < i; j++) {
            double along = 0.0;
            for (int k = 0; k < D; k++)
                along += mine[k] * axes[j * D + k];
            for (int k = 0; k < D; k++)
                mine[k] -= along * axes[j * D + k];
        }
        for (int k = 0; k < D; k++)
            length += mine[k] * mine[k];
        for (int k = 0; k < D; k++)
            mine[k] /= sqrt(length);
    }
}

/* Coordinates whose covariance over N rows is exactly diagonal: cosines of different frequency. */
static double coordinate(int axis, int64_t row)
{
    double amplitude[KNOWN] = {9.0, 7.0, 4.0, 3.9, 1.0};
    return amplitude[axis] * cos(2.0 * M_PI * (axis + 1) * ((double)row + 0.5) / N);
}

static void fill(float *x, const double *axes)
{
    for (int64_t i = 0; i < N; i++)
        for (int k = 0; k < D; k++) {
            double sum = 3.0 + k; /* the mean */
            for (int a = 0; a < KNOWN; a++)
                sum += coordinate(a, i) * axes[a * D + k];
            x[i * D + k] = (float)sum;
        }
}

Test(principal_components, finds_known_axes_and_variances)
{
    double axes[KNOWN * D];
    float *x = malloc(N * D * sizeof *x), *projected = malloc(N * 4 * sizeof *projected);
    directions(axes, 11);
    fill(x, axes);
    PrincipalComponents pca;
    principal_components_fit(&pca, x, NULL, N, D, 4);
    double want[4] = {40.5, 24.5, 8.0, 7.605}; /* amplitude^2 / 2 */
    for (int c = 0; c < 4; c++) {
        double along = 0.0;
        for (int k = 0; k < D; k++)
            along += pca.axes[c * D + k] * axes[c * D + k];
        cr_expect_float_eq(pca.variance[c], want[c], 1e-4 * want[c], "variance %d is %g", c, pca.variance[c]);
        cr_expect_gt(fabs(along), 1.0 - 1e-6, "axis %d: cosine %g", c, along);
    }
    for (int k = 0; k < D; k++)
        cr_expect_float_eq(pca.mean[k], 3.0 + k, 1e-4);
    principal_components_project(&pca, x, N, projected);
    double variance = 0.0;
    for (int64_t i = 0; i < N; i++)
        variance += (double)(projected[i * 4 + 2] * projected[i * 4 + 2]) / N;
    cr_expect_float_eq(variance, 8.0, 1e-3);
    principal_components_fini(&pca);
    free(x);
    free(projected);
}

Test(principal_components, only_chosen_rows_count)
{
    double axes[KNOWN * D];
    float *x = malloc(2 * N * D * sizeof *x);
    uint8_t chosen[2 * N];
    directions(axes, 12);
    fill(x, axes);
    Rng rng = rng_at(13, RNG_TEST, 0, 0);
    for (int64_t i = N * D; i < 2 * N * D; i++)
        x[i] = (float)(1000.0 * rng_normal(&rng));
    for (int i = 0; i < 2 * N; i++)
        chosen[i] = i < N;
    PrincipalComponents some, alone;
    principal_components_fit(&some, x, chosen, 2 * N, D, 3);
    principal_components_fit(&alone, x, NULL, N, D, 3);
    cr_expect_eq(memcmp(some.axes, alone.axes, 3 * D * sizeof(double)), 0);
    principal_components_fini(&some);
    principal_components_fini(&alone);
    free(x);
}

Test(principal_components, data_without_variance_are_no_trouble)
{
    float x[6 * 4];
    for (int i = 0; i < 24; i++)
        x[i] = (float)(i % 4);
    PrincipalComponents pca;
    principal_components_fit(&pca, x, NULL, 6, 4, 3);
    for (int c = 0; c < 3; c++) {
        cr_expect_float_eq(pca.variance[c], 0.0, 1e-12);
        for (int k = 0; k < 4; k++)
            cr_expect(isfinite(pca.axes[c * 4 + k]));
    }
    principal_components_fini(&pca);
}

/* principal_components.c - see principal_components.h. */
#include "report/principal_components.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* More vectors than are wanted: the wanted ones converge with the gap to the first one left out. */
enum {
    GUARD_VECTORS = 6,
    BLOCK_MAX = PRINCIPAL_COMPONENTS_MAX + GUARD_VECTORS,
    ITERATIONS = 500,
    SWEEPS = 30
};

static const double CONVERGED = 1e-9; /* of the largest eigenvalue */

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* --- covariance --- */

static void mean_of_rows(double *mean, const float *x, const uint8_t *chosen, int64_t n, int64_t d)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (chosen && !chosen[i]) continue;
        count++;
        for (int64_t j = 0; j < d; j++)
            mean[j] += (double)x[i * d + j];
    }
    CHECK(count > 0);
    for (int64_t j = 0; j < d; j++)
        mean[j] /= (double)count;
}

/* c[d, d], rows of it in parallel: each is one pass over the data in the same order. */
static void covariance(double *c, const float *x, const uint8_t *chosen, const double *mean, int64_t n,
                       int64_t d)
{
    int64_t count = 0;
    double *centred = memory_alloc_array((size_t)n, (size_t)d * sizeof *centred);
    for (int64_t i = 0; i < n; i++) {
        if (chosen && !chosen[i]) continue;
        for (int64_t j = 0; j < d; j++)
            centred[count * d + j] = (double)x[i * d + j] - mean[j];
        count++;
    }
#pragma omp parallel for schedule(static)
    for (int64_t a = 0; a < d; a++) {
        double *row = c + a * d;
        memset(row, 0, (size_t)d * sizeof *row);
        for (int64_t i = 0; i < count; i++) {
            double scale = centred[i * d + a] / (double)count;
            const double *other = centred + i * d;
#pragma omp simd
            for (int64_t b = 0; b < d; b++)
                row[b] += scale * other[b];
        }
    }
    memory_free(centred);
}

/* --- eigenvectors --- */

/* Makes v[count, d] orthonormal (Gram-Schmidt, twice); a vector that vanishes is replaced by a fresh random
 * one. */
static void orthonormalize(double *v, int count, int64_t d, Rng *rng)
{
    for (int i = 0; i < count; i++) {
        double *mine = v + i * d;
        double before = sqrt(dot(mine, mine, d));
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j < i; j++) {
                double along = dot(mine, v + j * d, d);
                for (int64_t k = 0; k < d; k++)
                    mine[k] -= along * v[j * d + k];
            }
        double length = sqrt(dot(mine, mine, d));
        if (!(length > 1e-10 * before)) {
            for (int64_t k = 0; k < d; k++)
                mine[k] = rng_normal(rng);
            i--;
            continue;
        }
        for (int64_t k = 0; k < d; k++)
            mine[k] /= length;
    }
}

/* Eigenvalues (in `values`, falling) and eigenvectors (rows of q) of the symmetric t[b, b], which is
 * destroyed: cyclic Jacobi rotations. */
static void jacobi(double t[BLOCK_MAX][BLOCK_MAX], int b, double *values, double q[BLOCK_MAX][BLOCK_MAX])
{
    for (int i = 0; i < b; i++)
        for (int j = 0; j < b; j++)
            q[i][j] = i == j;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        for (int p = 0; p < b; p++) {
            for (int r = p + 1; r < b; r++) {
                if (t[p][r] == 0.0) continue;
                double angle = 0.5 * atan2(2.0 * t[p][r], t[p][p] - t[r][r]);
                double c = cos(angle), s = sin(angle);
                for (int k = 0; k < b; k++) {
                    double tp = t[k][p], tr = t[k][r];
                    t[k][p] = c * tp + s * tr;
                    t[k][r] = c * tr - s * tp;
                }
                for (int k = 0; k < b; k++) {
                    double tp = t[p][k], tr = t[r][k], qp = q[p][k], qr = q[r][k];
                    t[p][k] = c * tp + s * tr;
                    t[r][k] = c * tr - s * tp;
                    q[p][k] = c * qp + s * qr;
                    q[r][k] = c * qr - s * qp;
                }
            }
        }
    }
    for (int i = 0; i < b; i++) {
        int largest = i;
        for (int j = i + 1; j < b; j++)
            if (t[j][j] > t[largest][largest]) largest = j;
        for (int k = 0; k < b; k++) {
            double swap = q[i][k];
            q[i][k] = q[largest][k];
            q[largest][k] = swap;
        }
        values[i] = t[largest][largest];
        t[largest][largest] = t[i][i];
    }
}

typedef struct {
    const double *c; /* [d, d] */
    int64_t d;
    int block;
    double *v, *product; /* [block, d] */
    double values[BLOCK_MAX];
} Subspace;

static void multiply(Subspace *s)
{
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s->d; row++)
        for (int i = 0; i < s->block; i++)
            s->product[i * s->d + row] = dot(s->c + row * s->d, s->v + i * s->d, s->d);
}

/* Rotates v, and product with it, to the eigenvectors of c within the subspace. */
static void rotate(Subspace *s)
{
    double t[BLOCK_MAX][BLOCK_MAX], q[BLOCK_MAX][BLOCK_MAX], old[2][BLOCK_MAX];
    for (int i = 0; i < s->block; i++)
        for (int j = 0; j < s->block; j++)
            t[i][j] = dot(s->v + i * s->d, s->product + j * s->d, s->d);
    for (int i = 0; i < s->block; i++)
        for (int j = 0; j < i; j++)
            t[i][j] = t[j][i];
    jacobi(t, s->block, s->values, q);
    for (int64_t k = 0; k < s->d; k++) {
        for (int j = 0; j < s->block; j++) {
            old[0][j] = s->v[j * s->d + k];
            old[1][j] = s->product[j * s->d + k];
        }
        for (int i = 0; i < s->block; i++) {
            s->v[i * s->d + k] = dot(q[i], old[0], s->block);
            s->product[i * s->d + k] = dot(q[i], old[1], s->block);
        }
    }
}

static int has_converged(const Subspace *s, int count)
{
    for (int i = 0; i < count; i++) {
        double residual = 0.0;
        for (int64_t k = 0; k < s->d; k++) {
            double r = s->product[i * s->d + k] - s->values[i] * s->v[i * s->d + k];
            residual += r * r;
        }
        if (sqrt(residual) > CONVERGED * s->values[0]) return 0;
    }
    return 1;
}

static void leading_eigenvectors(Subspace *s, int count)
{
    Rng rng = rng_at(0, RNG_EVALUATION, 0, rng_hash_name("principal_components"));
    for (int64_t i = 0; i < s->block * s->d; i++)
        s->v[i] = rng_normal(&rng);
    orthonormalize(s->v, s->block, s->d, &rng);
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
        multiply(s);
        rotate(s);
        if (has_converged(s, count)) break;
        memcpy(s->v, s->product, (size_t)(s->block * s->d) * sizeof *s->v);
        orthonormalize(s->v, s->block, s->d, &rng);
    }
}

static void fix_sign(double *axis, int64_t d)
{
    int64_t largest = 0;
    for (int64_t k = 1; k < d; k++)
        if (fabs(axis[k]) > fabs(axis[largest])) largest = k;
    if (axis[largest] < 0.0)
        for (int64_t k = 0; k < d; k++)
            axis[k] = -axis[k];
}

void principal_components_fit(PrincipalComponents *pca, const float *x, const uint8_t *chosen, int64_t n,
                              int64_t d, int count)
{
    CHECK(count >= 1 && count <= PRINCIPAL_COMPONENTS_MAX && count <= d);
    *pca = (PrincipalComponents){.d = d,
                                 .count = count,
                                 .mean = memory_alloc_array((size_t)d, sizeof(double)),
                                 .axes = memory_alloc_array((size_t)count, (size_t)d * sizeof(double))};
    double *c = memory_alloc_array((size_t)d, (size_t)d * sizeof *c);
    mean_of_rows(pca->mean, x, chosen, n, d);
    covariance(c, x, chosen, pca->mean, n, d);

    int block = count + GUARD_VECTORS < d ? count + GUARD_VECTORS : (int)d;
    Subspace s = {.c = c, .d = d, .block = block};
    s.v = memory_alloc_array((size_t)block, (size_t)d * sizeof *s.v);
    s.product = memory_alloc_array((size_t)block, (size_t)d * sizeof *s.product);
    leading_eigenvectors(&s, count);
    for (int i = 0; i < count; i++) {
        memcpy(pca->axes + i * d, s.v + i * d, (size_t)d * sizeof *s.v);
        fix_sign(pca->axes + i * d, d);
        pca->variance[i] = s.values[i] > 0.0 ? s.values[i] : 0.0;
    }
    memory_free(s.v);
    memory_free(s.product);
    memory_free(c);
}

void principal_components_fini(PrincipalComponents *pca)
{
    memory_free(pca->mean);
    memory_free(pca->axes);
    *pca = (PrincipalComponents){0};
}

void principal_components_project(const PrincipalComponents *pca, const float *x, int64_t n, float *out)
{
    int64_t d = pca->d;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        for (int c = 0; c < pca->count; c++) {
            double sum = 0.0;
            for (int64_t k = 0; k < d; k++)
                sum += ((double)x[i * d + k] - pca->mean[k]) * pca->axes[c * d + k];
            out[i * pca->count + c] = (float)sum;
        }
    }
}

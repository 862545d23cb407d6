/* dense_algebra.c - see dense_algebra.h. The library counts by columns: a matrix of rows is its transpose,
 * and a lower triangle its upper one. */
#include "features/dense_algebra.h"

#include "base/check.h"
#include "base/memory.h"

#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>

/* Debian's OpenBLAS comes without lapacke.h. Behind the arguments: the lengths of the letters. */
void dsyrk_(const char *uplo, const char *trans, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *beta, double *c, const int *ldc, size_t, size_t);
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
            const double *alpha, const double *a, const int *lda, const double *b, const int *ldb,
            const double *beta, double *c, const int *ldc, size_t, size_t);
void dsyevr_(const char *jobz, const char *range, const char *uplo, const int *n, double *a, const int *lda,
             const double *vl, const double *vu, const int *il, const int *iu, const double *abstol, int *m,
             double *w, double *z, const int *ldz, int *isuppz, double *work, const int *lwork, int *iwork,
             const int *liwork, int *info, size_t, size_t, size_t);

static int size_of(int64_t n)
{
    CHECK(n >= 0 && n <= INT_MAX);
    return (int)n;
}

void dense_algebra_add_products(double *sums, const double *rows, int64_t n, int64_t d)
{
    const double one = 1.0;
    int columns = size_of(d), count = size_of(n);
    dsyrk_("U", "N", &columns, &count, &one, rows, &columns, &one, sums, &columns, 1, 1);
}

/* dsyevr's eigenvalues [first, last], from 1, rising. With lwork and liwork -1 it tells how much it needs. */
static int solve(double *matrix, int d, int first, int last, double *values, double *vectors, int *support,
                 double *work, int lwork, int *iwork, int liwork)
{
    const double unused = 0.0, tolerance = 0.0;
    int found = 0, info = 0;
    dsyevr_("V", "I", "U", &d, matrix, &d, &unused, &unused, &first, &last, &tolerance, &found, values,
            vectors, &d, support, work, &lwork, iwork, &liwork, &info, 1, 1, 1);
    return info != 0 ? info : found == last - first + 1 ? 0 : -1;
}

/* *to = a unit vector in the sign that is meant. */
static void put_vector(double *to, const double *from, int64_t d)
{
    int64_t largest = 0;
    for (int64_t j = 1; j < d; j++)
        if (fabs(from[j]) > fabs(from[largest])) largest = j;
    double sign = from[largest] < 0.0 ? -1.0 : 1.0;
    for (int64_t j = 0; j < d; j++)
        to[j] = sign * from[j];
}

bool dense_algebra_leading(double *matrix, int64_t d, int64_t count, double *values, double *vectors)
{
    CHECK(count >= 1 && count <= d);
    int n = size_of(d), first = size_of(d - count + 1), threads = omp_get_max_threads();
    double *rising = memory_alloc_array((size_t)d, sizeof *rising), work_size = 0.0;
    double *found = memory_alloc_array((size_t)(count * d), sizeof *found);
    int *support = memory_alloc_array(2 * (size_t)d, sizeof *support), iwork_size = 0;
    omp_set_num_threads(1); /* two are slower where others compute, too: it waits for itself all the time */
    solve(matrix, n, first, n, rising, found, support, &work_size, -1, &iwork_size, -1);
    int lwork = size_of((int64_t)work_size);
    double *work = memory_alloc_array((size_t)lwork, sizeof *work);
    int *iwork = memory_alloc_array((size_t)iwork_size, sizeof *iwork);
    bool done = solve(matrix, n, first, n, rising, found, support, work, lwork, iwork, iwork_size) == 0;
    omp_set_num_threads(threads);
    for (int64_t k = 0; k < count && done; k++) {
        values[k] = rising[count - 1 - k];
        put_vector(vectors + k * d, found + (count - 1 - k) * d, d);
    }
    memory_free(rising);
    memory_free(found);
    memory_free(support);
    memory_free(work);
    memory_free(iwork);
    return done;
}

void dense_algebra_project(double *out, const double *rows, int64_t n, const double *matrix, int64_t count,
                           int64_t d)
{
    const double one = 1.0, none = 0.0;
    int m = size_of(count), columns = size_of(n), inner = size_of(d);
    dgemm_("T", "N", &m, &columns, &inner, &one, matrix, &inner, rows, &inner, &none, out, &m, 1, 1);
}

void dense_algebra_add_weighted(double *out, const double *weights, const double *rows, int64_t n,
                                int64_t count, int64_t d)
{
    const double one = 1.0;
    int m = size_of(d), columns = size_of(count), inner = size_of(n);
    dgemm_("N", "T", &m, &columns, &inner, &one, rows, &m, weights, &columns, &one, out, &m, 1, 1);
}

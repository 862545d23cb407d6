/* whitening.c - see whitening.h. Everything in fp64: covariances of unit rows are small differences. */
#include "features/whitening.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { BLOCK_ROWS = 1024 };

const char *whitening_suffix(WhiteningKind kind)
{
    static const char *const suffixes[] = {
        [WHITENING_NONE] = "", [WHITENING_CENTER] = "_centered", [WHITENING_FULL] = "_whitened"};
    return suffixes[kind];
}

/* --- learning, on rank 0 --- */

static Status check_file(const FeaturesFile *file, const char *path, const FeaturesMeta *expected, int64_t d,
                         Error *error)
{
    const FeaturesMeta *meta = &file->meta;
    if (strcmp(meta->arch, expected->arch) != 0 || strcmp(meta->layer, expected->layer) != 0 ||
        meta->input_size != expected->input_size || file->d != d)
        return status_fail(error, STATUS_INPUT,
                           "%s: is %s %s at %lld pixels, %lld columns; expected %s %s at %lld, %lld", path,
                           meta->arch, meta->layer, (long long)meta->input_size, (long long)file->d,
                           expected->arch, expected->layer, (long long)expected->input_size, (long long)d);
    if (file->n == 0) return status_fail(error, STATUS_INPUT, "%s: has no rows", path);
    return STATUS_OK;
}

/* Sums over rows, of their differences from the first row. */
typedef struct {
    int64_t n, d;
    double *origin;   /* [d] */
    double *sum;      /* [d] */
    double *products; /* [d, d] lower triangle, or NULL */
} Sums;

static void add_block(Sums *sums, const double *rows, int64_t n)
{
    int64_t d = sums->d;
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < d; j++)
            sums->sum[j] += rows[r * d + j];
    sums->n += n;
    if (!sums->products) return;
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t i = 0; i < d; i++) {
        double *restrict out = sums->products + i * d;
        for (int64_t r = 0; r < n; r++) {
            const double *restrict row = rows + r * d;
            double factor = row[i];
#pragma omp simd
            for (int64_t j = 0; j <= i; j++)
                out[j] += factor * row[j];
        }
    }
}

/* Blocks of the file, evenly spread where there are too many. */
static Status add_rows(Sums *sums, const FeaturesFile *file, const char *path, float *block, double *shifted,
                       Error *error)
{
    int64_t blocks = (file->n + BLOCK_ROWS - 1) / BLOCK_ROWS, most = WHITENING_ROWS / BLOCK_ROWS;
    int64_t taken = blocks < most ? blocks : most, d = sums->d;
    for (int64_t k = 0; k < taken; k++) {
        int64_t first = blocks * k / taken * BLOCK_ROWS;
        int64_t n = file->n - first < BLOCK_ROWS ? file->n - first : BLOCK_ROWS;
        TRY(features_file_read(file, first, n, block, NULL, error));
        for (int64_t j = 0; k == 0 && j < d; j++)
            sums->origin[j] = (double)block[j];
        for (int64_t i = 0; i < n * d; i++) {
            if (!isfinite(block[i]))
                return status_fail(error, STATUS_INPUT, "%s: row %lld is not finite", path,
                                   (long long)(first + i / d));
            shifted[i] = (double)block[i] - sums->origin[i % d];
        }
        add_block(sums, shifted, n);
    }
    return STATUS_OK;
}

/* root = L of a = L L^T, in place of a's lower triangle. False: not positive. */
static bool cholesky(double *a, int64_t d)
{
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = a[i * d + j];
            for (int64_t k = 0; k < j; k++)
                sum -= a[i * d + k] * a[j * d + k];
            if (i == j && !(sum > 0.0)) return false;
            a[i * d + j] = i == j ? sqrt(sum) : sum / a[j * d + j];
        }
    return true;
}

/* The root of the covariance from the sums. */
static Status finish_root(Whitening *w, const Sums *sums, const char *path, Error *error)
{
    int64_t d = w->d;
    double n = (double)sums->n, trace = 0.0;
    if (sums->n <= d)
        return status_fail(error, STATUS_INPUT, "%s: whitening of %lld columns needs more rows than %lld",
                           path, (long long)d, (long long)sums->n);
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j <= i; j++)
            w->root[i * d + j] = sums->products[i * d + j] / n - sums->sum[i] / n * (sums->sum[j] / n);
    for (int64_t i = 0; i < d; i++)
        trace += w->root[i * d + i];
    for (int64_t i = 0; i < d; i++)
        w->root[i * d + i] += WHITENING_RIDGE * trace / (double)d;
    if (!(trace > 0.0) || !cholesky(w->root, d))
        return status_fail(error, STATUS_INPUT, "%s: its rows are all alike", path);
    return STATUS_OK;
}

static Status learn_here(Whitening *w, const char *path, const FeaturesMeta *expected, Error *error)
{
    FeaturesFile file;
    TRY(features_file_open(&file, path, error));
    size_t d = (size_t)w->d;
    Sums sums = {.d = w->d,
                 .origin = memory_alloc_array(d, sizeof(double)),
                 .sum = memory_alloc_array(d, sizeof(double)),
                 .products = w->root ? memory_alloc_array(d * d, sizeof(double)) : NULL};
    float *block = memory_alloc_array(BLOCK_ROWS * d, sizeof *block);
    double *shifted = memory_alloc_array(BLOCK_ROWS * d, sizeof *shifted);
    Status status = check_file(&file, path, expected, w->d, error);
    if (status == STATUS_OK) status = add_rows(&sums, &file, path, block, shifted, error);
    if (status == STATUS_OK && w->root) status = finish_root(w, &sums, path, error);
    for (size_t j = 0; j < d && status == STATUS_OK; j++)
        w->mean[j] = sums.origin[j] + sums.sum[j] / (double)sums.n;
    memory_free(sums.origin);
    memory_free(sums.sum);
    memory_free(sums.products);
    memory_free(block);
    memory_free(shifted);
    features_file_close(&file);
    return status;
}

Status whitening_learn(Whitening *w, WhiteningKind kind, const char *path, const FeaturesMeta *expected,
                       int64_t d, Comm *comm, Error *error)
{
    *w = (Whitening){.kind = kind, .d = d};
    w->mean = memory_alloc_array((size_t)d, sizeof *w->mean);
    if (kind == WHITENING_FULL) w->root = memory_alloc_array((size_t)(d * d), sizeof *w->root);
    Status status = comm_rank(comm) == 0 ? learn_here(w, path, expected, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, w->mean, d, DTYPE_F64, 0, NULL);
    if (w->root) comm_broadcast(comm, w->root, d * d, DTYPE_F64, 0, NULL);
    return STATUS_OK;
}

/* --- applying --- */

static void apply_row(const Whitening *w, float *row, double *x)
{
    int64_t d = w->d;
    double squares = 0.0;
    for (int64_t i = 0; i < d; i++) {
        double value = (double)row[i] - w->mean[i];
        if (w->root) {
            const double *line = w->root + i * d;
#pragma omp simd reduction(- : value)
            for (int64_t j = 0; j < i; j++)
                value -= line[j] * x[j];
            value /= line[i];
        }
        x[i] = value;
        squares += value * value;
    }
    double scale = squares > 0.0 ? 1.0 / sqrt(squares) : 0.0;
    for (int64_t i = 0; i < d; i++)
        row[i] = (float)(x[i] * scale);
}

void whitening_apply(const Whitening *w, float *rows, int64_t n)
{
#pragma omp parallel
    {
        double *x = memory_alloc_array((size_t)w->d, sizeof *x);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < n; r++)
            apply_row(w, rows + r * w->d, x);
        memory_free(x);
    }
}

void whitening_fini(Whitening *w)
{
    memory_free(w->mean);
    memory_free(w->root);
    *w = (Whitening){0};
}

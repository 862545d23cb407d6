/* whitening.c - see whitening.h. Everything in fp64: covariances of unit rows are small differences. */
#include "features/whitening.h"

#include "base/memory.h"
#include "features/dense_algebra.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_ROWS = 1024, APPLY_ROWS = 32 };

void whitening_suffix(const WhiteningOptions *options, char out[WHITENING_SUFFIX])
{
    static const char *const suffixes[] = {
        [WHITENING_NONE] = "", [WHITENING_CENTER] = "_centered", [WHITENING_FULL] = "_whitened"};
    int length = snprintf(out, WHITENING_SUFFIX, "%s", suffixes[options->kind]);
    if (options->kind != WHITENING_FULL) return;
    if (options->dims)
        length +=
            snprintf(out + length, (size_t)(WHITENING_SUFFIX - length), "%lld", (long long)options->dims);
    if (options->ridge != WHITENING_RIDGE)
        snprintf(out + length, (size_t)(WHITENING_SUFFIX - length), "_ridge%g", options->ridge);
}

int64_t whitening_columns(const Whitening *w)
{
    return w->options.dims ? w->options.dims : w->d;
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
    const char *size = meta->size ? meta->size : "", *wanted = expected->size ? expected->size : "";
    if (strcmp(size, wanted) != 0)
        return status_fail(error, STATUS_INPUT, "%s: is of --size \"%s\", expected \"%s\"", path, size,
                           wanted);
    if (meta->upside_down) return status_fail(error, STATUS_INPUT, "%s: is of pictures upside down", path);
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
    if (sums->products) dense_algebra_add_products(sums->products, rows, n, d);
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

/* The covariance in place of the products; returns its trace. */
static double finish_covariance(Sums *sums)
{
    int64_t d = sums->d;
    double n = (double)sums->n, trace = 0.0;
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j <= i; j++)
            sums->products[i * d + j] = sums->products[i * d + j] / n - sums->sum[i] / n * (sums->sum[j] / n);
    for (int64_t i = 0; i < d; i++)
        trace += sums->products[i * d + i];
    return trace;
}

static bool make_root(Whitening *w, const double *covariance, double ridge)
{
    int64_t d = w->d;
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j <= i; j++)
            w->root[i * d + j] = covariance[i * d + j] + (i == j ? ridge : 0.0);
    return cholesky(w->root, d);
}

/* Overwrites the covariance. */
static bool make_axes(Whitening *w, double *covariance, double ridge)
{
    int64_t d = w->d, dims = w->options.dims;
    double *variance = memory_alloc_array((size_t)dims, sizeof *variance);
    bool done = dense_algebra_leading(covariance, d, dims, variance, w->axes);
    for (int64_t k = 0; k < dims && done; k++) {
        double scale = 1.0 / sqrt((variance[k] > 0.0 ? variance[k] : 0.0) + ridge);
        for (int64_t j = 0; j < d; j++)
            w->axes[k * d + j] *= scale;
    }
    memory_free(variance);
    return done;
}

/* The root of the covariance, or its axes, from the sums. */
static Status finish_whitening(Whitening *w, Sums *sums, const char *path, Error *error)
{
    int64_t needed = whitening_columns(w);
    if (sums->n <= needed)
        return status_fail(error, STATUS_INPUT, "%s: whitening to %lld columns needs more rows than %lld",
                           path, (long long)needed, (long long)sums->n);
    double trace = finish_covariance(sums), ridge = w->options.ridge * trace / (double)w->d;
    if (!(trace > 0.0) ||
        !(w->axes ? make_axes(w, sums->products, ridge) : make_root(w, sums->products, ridge)))
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
                 .products = w->root || w->axes ? memory_alloc_array(d * d, sizeof(double)) : NULL};
    float *block = memory_alloc_array(BLOCK_ROWS * d, sizeof *block);
    double *shifted = memory_alloc_array(BLOCK_ROWS * d, sizeof *shifted);
    Status status = check_file(&file, path, expected, w->d, error);
    if (status == STATUS_OK) status = add_rows(&sums, &file, path, block, shifted, error);
    if (status == STATUS_OK && sums.products) status = finish_whitening(w, &sums, path, error);
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

Status whitening_learn(Whitening *w, const WhiteningOptions *options, const char *path,
                       const FeaturesMeta *expected, int64_t d, Comm *comm, Error *error)
{
    *w = (Whitening){.options = *options, .d = d};
    w->mean = memory_alloc_array((size_t)d, sizeof *w->mean);
    int64_t dims = options->dims;
    if (dims > d)
        return status_fail(error, STATUS_INPUT, "%s: rows of %lld columns cannot be whitened to %lld", path,
                           (long long)d, (long long)dims);
    if (options->kind == WHITENING_FULL && dims)
        w->axes = memory_alloc_array((size_t)(dims * d), sizeof *w->axes);
    else if (options->kind == WHITENING_FULL)
        w->root = memory_alloc_array((size_t)(d * d), sizeof *w->root);
    Status status = comm_rank(comm) == 0 ? learn_here(w, path, expected, error) : STATUS_OK;
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, w->mean, d, DTYPE_F64, 0, NULL);
    if (w->root) comm_broadcast(comm, w->root, d * d, DTYPE_F64, 0, NULL);
    if (w->axes) comm_broadcast(comm, w->axes, dims * d, DTYPE_F64, 0, NULL);
    return STATUS_OK;
}

/* --- applying --- */

/* out = x to unit length. */
static void put_unit(float *out, const double *x, int64_t count)
{
    double squares = 0.0;
    for (int64_t i = 0; i < count; i++)
        squares += x[i] * x[i];
    double scale = squares > 0.0 ? 1.0 / sqrt(squares) : 0.0;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(x[i] * scale);
}

static void apply_row(const Whitening *w, float *out, const float *row, double *x)
{
    int64_t d = w->d;
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
    }
    put_unit(out, x, d);
}

/* x[n, d] and y[n, columns] are work space. */
static void apply_axes(const Whitening *w, float *out, const float *rows, int64_t n, double *x, double *y)
{
    int64_t d = w->d, columns = whitening_columns(w);
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < d; j++)
            x[r * d + j] = (double)rows[r * d + j] - w->mean[j];
    dense_algebra_project(y, x, n, w->axes, columns, d);
    for (int64_t r = 0; r < n; r++)
        put_unit(out + r * columns, y + r * columns, columns);
}

void whitening_apply(const Whitening *w, float *out, const float *rows, int64_t n)
{
    int64_t d = w->d, columns = whitening_columns(w);
#pragma omp parallel
    {
        double *x = memory_alloc_array((size_t)(APPLY_ROWS * d), sizeof *x);
        double *y = memory_alloc_array((size_t)(APPLY_ROWS * columns), sizeof *y);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < n; first += APPLY_ROWS) {
            int64_t count = n - first < APPLY_ROWS ? n - first : APPLY_ROWS;
            if (w->axes) apply_axes(w, out + first * columns, rows + first * d, count, x, y);
            for (int64_t r = first; r < first + count && !w->axes; r++)
                apply_row(w, out + r * d, rows + r * d, x);
        }
        memory_free(x);
        memory_free(y);
    }
}

void whitening_fini(Whitening *w)
{
    memory_free(w->mean);
    memory_free(w->root);
    memory_free(w->axes);
    *w = (Whitening){0};
}

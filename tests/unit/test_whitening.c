/* test_whitening.c - inner products behind whitening are those of the inverse covariance; wrong files. */
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "base/rng.h"
#include "features/whitening.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { D = 6, N = 3000 };

static const FeaturesMeta META = {.model = "m",
                                  .arch = "sscd_resnet50",
                                  .layer = "embedding",
                                  .data = "d",
                                  .config = "",
                                  .version = "0",
                                  .input_size = 320};

/* Correlated rows around a mean far from 0. */
static void draw_rows(float *rows, int64_t n)
{
    Rng rng = rng_at(3, RNG_TEST, 71, 0);
    for (int64_t i = 0; i < n; i++) {
        double common = rng_normal(&rng);
        for (int j = 0; j < D; j++)
            rows[i * D + j] = (float)(5.0 * j + 0.02 * (j + 1) * rng_normal(&rng) + 0.03 * common);
    }
}

static void write_file(const char *path, const FeaturesMeta *meta, const float *rows, int64_t n)
{
    FeaturesFile file;
    int64_t *labels = memory_alloc_array((size_t)n, sizeof *labels);
    const char **keys = memory_alloc_array((size_t)n, sizeof *keys);
    for (int64_t i = 0; i < n; i++)
        keys[i] = "k";
    cr_assert_eq(features_file_create(&file, path, n, D, 0, 1, meta, NULL), STATUS_OK);
    cr_assert_eq(features_file_write(&file, 0, n, rows, labels, keys, NULL), STATUS_OK);
    cr_assert_eq(features_file_commit(&file, NULL), STATUS_OK);
    memory_free(labels);
    memory_free(keys);
}

/* Solves a x = b (a [D, D] symmetric, positive) by elimination. */
static void solve(double a[D][D], const double *b, double *x)
{
    double m[D][D + 1];
    for (int i = 0; i < D; i++) {
        memcpy(m[i], a[i], sizeof a[i]);
        m[i][D] = b[i];
    }
    for (int k = 0; k < D; k++)
        for (int i = k + 1; i < D; i++)
            for (int j = D; j >= k; j--)
                m[i][j] -= m[i][k] / m[k][k] * m[k][j];
    for (int i = D - 1; i >= 0; i--) {
        x[i] = m[i][D];
        for (int j = i + 1; j < D; j++)
            x[i] -= m[i][j] * x[j];
        x[i] /= m[i][i];
    }
}

/* Cosines of rows a and b under the inverse covariance, from the definition. */
static double expected_cosine(const float *rows, const float *a, const float *b, double ridge)
{
    double mean[D] = {0}, covariance[D][D] = {0}, trace = 0.0, from[D], to[D], ia[D], ib[D];
    for (int64_t i = 0; i < N * D; i++)
        mean[i % D] += (double)rows[i] / N;
    for (int64_t i = 0; i < N; i++)
        for (int j = 0; j < D; j++)
            for (int k = 0; k < D; k++)
                covariance[j][k] +=
                    ((double)rows[i * D + j] - mean[j]) * ((double)rows[i * D + k] - mean[k]) / N;
    for (int j = 0; j < D; j++)
        trace += covariance[j][j];
    for (int j = 0; j < D; j++) {
        covariance[j][j] += ridge * trace / D;
        from[j] = (double)a[j] - mean[j];
        to[j] = (double)b[j] - mean[j];
    }
    solve(covariance, from, ia);
    solve(covariance, to, ib);
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (int j = 0; j < D; j++) {
        ab += to[j] * ia[j];
        aa += from[j] * ia[j];
        bb += to[j] * ib[j];
    }
    return ab / sqrt(aa * bb);
}

static double dot(const float *a, const float *b)
{
    double sum = 0.0;
    for (int j = 0; j < D; j++)
        sum += (double)a[j] * (double)b[j];
    return sum;
}

typedef struct {
    TempFolder folder;
    Comm *comm;
    float *rows; /* [N, D] */
    TempPath path;
} Setting;

static Setting begin(void)
{
    Setting s = {.folder = temp_folder_create(), .comm = comm_self_create()};
    s.rows = memory_alloc_array((size_t)N * D, sizeof *s.rows);
    draw_rows(s.rows, N);
    s.path = temp_folder_in(&s.folder, "train.h5");
    return s;
}

static void end(Setting *s)
{
    memory_free(s->rows);
    comm_destroy(s->comm);
    temp_folder_destroy(&s->folder);
}

Test(whitening, inner_products_are_those_of_the_inverse_covariance)
{
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, N);
    static const double ridges[] = {WHITENING_RIDGE, 0.5};
    for (int r = 0; r < 2; r++) {
        Whitening w;
        Error error = {0};
        WhiteningOptions full = {.kind = WHITENING_FULL, .ridge = ridges[r]};
        cr_assert_eq(whitening_learn(&w, &full, s.path.text, &META, D, s.comm, &error), STATUS_OK, "%s",
                     error.text);
        float white[8 * D];
        memcpy(white, s.rows, sizeof white);
        whitening_apply(&w, white, white, 8);
        for (int i = 0; i < 8; i++) {
            double expected = expected_cosine(s.rows, s.rows, s.rows + i * D, ridges[r]);
            cr_assert_float_eq(dot(white + i * D, white + i * D), 1.0, 1e-6);
            cr_assert_float_eq(dot(white, white + i * D), expected, 1e-5);
        }
        whitening_fini(&w);
    }
    end(&s);
}

/* --- fewer dimensions --- */

static Whitening learn(Setting *s, int64_t dims, double ridge)
{
    Whitening w;
    Error error = {0};
    WhiteningOptions options = {WHITENING_FULL, ridge, dims};
    cr_assert_eq(whitening_learn(&w, &options, s->path.text, &META, D, s->comm, &error), STATUS_OK, "%s",
                 error.text);
    return w;
}

Test(whitening, all_directions_give_the_inner_products_of_cholesky)
{
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, N);
    static const double ridges[] = {WHITENING_RIDGE, 0.03};
    for (int r = 0; r < 2; r++) {
        Whitening all = learn(&s, D, ridges[r]), root = learn(&s, 0, ridges[r]);
        float a[70 * D], b[70 * D]; /* more rows than are taken at a time */
        whitening_apply(&all, a, s.rows, 70);
        whitening_apply(&root, b, s.rows, 70);
        for (int i = 0; i < 70; i++)
            cr_assert_float_eq(dot(a, a + i * D), dot(b, b + i * D), 1e-5);
        whitening_fini(&all);
        whitening_fini(&root);
    }
    end(&s);
}

/* Coordinates before unit length have no correlation, variances v / (v + ridge), and the v are the largest
 * eigenvalues: they sum up to as much variance as any of so many directions hold. */
Test(whitening, leading_directions_have_variance_one)
{
    enum { K = 3 };
    static const double RIDGE = 0.05;
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, N);
    Whitening w = learn(&s, K, RIDGE), all = learn(&s, D, RIDGE);
    cr_assert_eq(whitening_columns(&w), K);
    double mean[D] = {0}, covariance[D][D] = {0}, trace = 0.0, variance[D];
    for (int64_t i = 0; i < N * D; i++)
        mean[i % D] += (double)s.rows[i] / N;
    for (int64_t i = 0; i < N; i++)
        for (int j = 0; j < D; j++)
            for (int k = 0; k < D; k++)
                covariance[j][k] +=
                    ((double)s.rows[i * D + j] - mean[j]) * ((double)s.rows[i * D + k] - mean[k]) / N;
    for (int j = 0; j < D; j++)
        trace += covariance[j][j];
    double ridge = RIDGE * trace / D, sum = 0.0;
    for (int a = 0; a < D; a++) { /* axes are eigenvectors over sqrt(v + ridge) */
        const double *axis = all.axes + a * D;
        double length = 0.0, largest = 0.0;
        for (int j = 0; j < D; j++) {
            length += axis[j] * axis[j];
            if (fabs(axis[j]) > fabs(largest)) largest = axis[j];
        }
        variance[a] = 1.0 / length - ridge;
        sum += variance[a];
        cr_expect(a == 0 || variance[a] <= variance[a - 1]);
        cr_expect(largest > 0.0, "the sign is fixed");
        for (int j = 0; j < D; j++) {
            double product = 0.0;
            for (int k = 0; k < D; k++)
                product += covariance[j][k] * axis[k];
            cr_assert_float_eq(product, variance[a] * axis[j], 1e-9 * sqrt(length));
        }
    }
    cr_expect_float_eq(sum, trace, 1e-9 * trace);
    for (int a = 0; a < K; a++)
        for (int b = 0; b < K; b++) {
            double moment = 0.0;
            for (int j = 0; j < D; j++)
                for (int k = 0; k < D; k++)
                    moment += w.axes[a * D + j] * covariance[j][k] * w.axes[b * D + k];
            cr_assert_float_eq(moment, a == b ? variance[a] / (variance[a] + ridge) : 0.0, 1e-9);
        }
    float row[K];
    double x[K], length = 0.0;
    whitening_apply(&w, row, s.rows + 7 * D, 1);
    for (int a = 0; a < K; a++) {
        x[a] = 0.0;
        for (int j = 0; j < D; j++)
            x[a] += w.axes[a * D + j] * ((double)s.rows[7 * D + j] - mean[j]);
        length += x[a] * x[a];
    }
    for (int a = 0; a < K; a++)
        cr_assert_float_eq(row[a], x[a] / sqrt(length), 1e-5);
    whitening_fini(&w);
    whitening_fini(&all);
    end(&s);
}

/* Rows that span no more than three directions: those are what there is to learn. */
Test(whitening, fewer_rows_than_columns_do_for_fewer_dimensions)
{
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, 4);
    Whitening w = learn(&s, 3, 0.1);
    float white[4 * 3];
    whitening_apply(&w, white, s.rows, 4);
    for (int i = 0; i < 4; i++) {
        double length = 0.0;
        for (int j = 0; j < 3; j++)
            length += (double)white[i * 3 + j] * (double)white[i * 3 + j];
        cr_expect_float_eq(length, 1.0, 1e-6);
    }
    whitening_fini(&w);
    static const int64_t wrong[] = {4, D + 1};
    static const char *const parts[] = {"to 4 columns needs more rows than 4",
                                        "rows of 6 columns cannot be whitened to 7"};
    for (int i = 0; i < 2; i++) {
        Error error = {0};
        WhiteningOptions options = {WHITENING_FULL, 0.1, wrong[i]};
        cr_expect_eq(whitening_learn(&w, &options, s.path.text, &META, D, s.comm, &error), STATUS_INPUT);
        cr_expect_not_null(strstr(error.text, parts[i]), "%s", error.text);
        cr_expect_not_null(strstr(error.text, "train.h5"), "%s", error.text);
        whitening_fini(&w);
    }
    end(&s);
}

Test(whitening, the_suffix_tells_kind_and_ridge)
{
    char text[WHITENING_SUFFIX];
    whitening_suffix(&(WhiteningOptions){WHITENING_CENTER, 0.5, 0}, text);
    cr_expect_str_eq(text, "_centered");
    whitening_suffix(&(WhiteningOptions){WHITENING_FULL, WHITENING_RIDGE, 0}, text);
    cr_expect_str_eq(text, "_whitened");
    whitening_suffix(&(WhiteningOptions){WHITENING_FULL, 0.1, 0}, text);
    cr_expect_str_eq(text, "_whitened_ridge0.1");
    whitening_suffix(&(WhiteningOptions){WHITENING_FULL, WHITENING_RIDGE, 512}, text);
    cr_expect_str_eq(text, "_whitened512");
    whitening_suffix(&(WhiteningOptions){WHITENING_FULL, 0.03, 256}, text);
    cr_expect_str_eq(text, "_whitened256_ridge0.03");
}

Test(whitening, centring_takes_the_mean_off)
{
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, N);
    Whitening w;
    cr_assert_eq(whitening_learn(&w, &(WhiteningOptions){WHITENING_CENTER, WHITENING_RIDGE, 0}, s.path.text,
                                 &META, D, s.comm, NULL),
                 STATUS_OK);
    double mean[D] = {0}, length = 0.0;
    for (int64_t i = 0; i < N * D; i++)
        mean[i % D] += (double)s.rows[i] / N;
    for (int j = 0; j < D; j++)
        length += ((double)s.rows[j] - mean[j]) * ((double)s.rows[j] - mean[j]);
    float row[D];
    memcpy(row, s.rows, sizeof row);
    whitening_apply(&w, row, row, 1);
    for (int j = 0; j < D; j++)
        cr_assert_float_eq(row[j], ((double)s.rows[j] - mean[j]) / sqrt(length), 1e-5);
    for (int j = 0; j < D; j++) {
        w.mean[j] = j + 0.5;
        row[j] = (float)j + 0.5f;
    }
    whitening_apply(&w, row, row, 1);
    for (int j = 0; j < D; j++)
        cr_assert_eq(row[j], 0.0f, "the mean itself becomes 0, not NaN");
    whitening_fini(&w);
    end(&s);
}

static void expect_refused(Setting *s, const FeaturesMeta *meta, int64_t n, WhiteningKind kind,
                           const char *part)
{
    write_file(s->path.text, meta, s->rows, n);
    Whitening w;
    Error error = {0};
    cr_expect_eq(whitening_learn(&w, &(WhiteningOptions){kind, WHITENING_RIDGE, 0}, s->path.text, &META, D,
                                 s->comm, &error),
                 STATUS_INPUT, "%s", part);
    cr_expect_not_null(strstr(error.text, part), "\"%s\" is not in \"%s\"", part, error.text);
    cr_expect_not_null(strstr(error.text, "train.h5"), "%s", error.text);
    whitening_fini(&w);
}

Test(whitening, wrong_files_are_refused)
{
    Setting s = begin();
    FeaturesMeta other = META;
    other.layer = "embedding_whitened";
    expect_refused(&s, &other, N, WHITENING_CENTER, "is sscd_resnet50 embedding_whitened");
    other = META;
    other.input_size = 288;
    expect_refused(&s, &other, N, WHITENING_CENTER, "at 288 pixels");
    other = META;
    other.upside_down = true;
    expect_refused(&s, &other, N, WHITENING_FULL, "upside down");
    expect_refused(&s, &META, D, WHITENING_FULL, "needs more rows than 6");
    s.rows[D * 4 + 2] = NAN;
    expect_refused(&s, &META, N, WHITENING_FULL, "row 4 is not finite");
    for (int64_t i = 0; i < N * D; i++)
        s.rows[i] = 0.25f;
    expect_refused(&s, &META, N, WHITENING_FULL, "all alike");
    Whitening w;
    cr_expect_eq(whitening_learn(&w, &(WhiteningOptions){WHITENING_FULL, WHITENING_RIDGE, 0}, "/nowhere/x.h5",
                                 &META, D, s.comm, NULL),
                 STATUS_INPUT);
    whitening_fini(&w);
    end(&s);
}

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
static double expected_cosine(const float *rows, const float *a, const float *b)
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
        covariance[j][j] += WHITENING_RIDGE * trace / D;
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
    Whitening w;
    Error error = {0};
    cr_assert_eq(whitening_learn(&w, WHITENING_FULL, s.path.text, &META, D, s.comm, &error), STATUS_OK, "%s",
                 error.text);
    float white[8 * D];
    memcpy(white, s.rows, sizeof white);
    whitening_apply(&w, white, 8);
    for (int i = 0; i < 8; i++) {
        cr_assert_float_eq(dot(white + i * D, white + i * D), 1.0, 1e-6);
        cr_assert_float_eq(dot(white, white + i * D), expected_cosine(s.rows, s.rows, s.rows + i * D), 1e-5);
    }
    whitening_fini(&w);
    end(&s);
}

Test(whitening, centring_takes_the_mean_off)
{
    Setting s = begin();
    write_file(s.path.text, &META, s.rows, N);
    Whitening w;
    cr_assert_eq(whitening_learn(&w, WHITENING_CENTER, s.path.text, &META, D, s.comm, NULL), STATUS_OK);
    double mean[D] = {0}, length = 0.0;
    for (int64_t i = 0; i < N * D; i++)
        mean[i % D] += (double)s.rows[i] / N;
    for (int j = 0; j < D; j++)
        length += ((double)s.rows[j] - mean[j]) * ((double)s.rows[j] - mean[j]);
    float row[D];
    memcpy(row, s.rows, sizeof row);
    whitening_apply(&w, row, 1);
    for (int j = 0; j < D; j++)
        cr_assert_float_eq(row[j], ((double)s.rows[j] - mean[j]) / sqrt(length), 1e-5);
    for (int j = 0; j < D; j++) {
        w.mean[j] = j + 0.5;
        row[j] = (float)j + 0.5f;
    }
    whitening_apply(&w, row, 1);
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
    cr_expect_eq(whitening_learn(&w, kind, s->path.text, &META, D, s->comm, &error), STATUS_INPUT, "%s",
                 part);
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
    expect_refused(&s, &META, D, WHITENING_FULL, "needs more rows than 6");
    s.rows[D * 4 + 2] = NAN;
    expect_refused(&s, &META, N, WHITENING_FULL, "row 4 is not finite");
    for (int64_t i = 0; i < N * D; i++)
        s.rows[i] = 0.25f;
    expect_refused(&s, &META, N, WHITENING_FULL, "all alike");
    Whitening w;
    cr_expect_eq(whitening_learn(&w, WHITENING_FULL, "/nowhere/x.h5", &META, D, s.comm, NULL), STATUS_INPUT);
    whitening_fini(&w);
    end(&s);
}

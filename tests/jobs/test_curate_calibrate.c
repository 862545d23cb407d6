/* test_curate_calibrate.c - thresholds from probes by the real program, beside ones worked out here from all
 * pairs, and what uses them.
 */
#include "../support/curate_steps.h"
#include "../support/curation_support.h"

#include "base/memory.h"
#include "curation/curation_file.h"
#include "features/features_file.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POOL = 400, PROBES = 100, REFERENCES = 50, D = 24, K = 16 };

static TempFolder temp;

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_calibrate, .init = set_up, .fini = tear_down, .timeout = 120);

static TempPath write(const char *name, int64_t first, int64_t n, float *values, const char *model)
{
    CurationSupportData data = curation_support_data(first, n, D);
    data.model = model;
    data.upside_down = strcmp(name, "probes.h5") == 0 || strcmp(name, "odd.h5") == 0;
    TempPath path = temp_folder_in(&temp, "%s", name);
    curation_support_write(&data, path.text);
    if (values) curation_support_fill(&data, values);
    return path;
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int j = 0; j < D; j++) {
        ab += (double)a[j] * (double)b[j];
        aa += (double)a[j] * (double)a[j];
        bb += (double)b[j] * (double)b[j];
    }
    return ab / sqrt(aa * bb);
}

static int descending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a > b ? -1 : a < b;
}

/* What calibrate should find from the definition: probes[PROBES] against rows[n]; the background is the mean
 * of places K / 2 to K - 1. */
static void expected(const float *probes, const float *rows, int64_t n, bool normalised, double share,
                     double *threshold, double *background_most)
{
    double *all = memory_alloc_array(PROBES * K, sizeof *all),
           *near = memory_alloc_array((size_t)n, sizeof *near);
    double backgrounds[PROBES];
    for (int64_t p = 0; p < PROBES; p++) {
        for (int64_t i = 0; i < n; i++)
            near[i] = cosine(probes + p * D, rows + i * D);
        qsort(near, (size_t)n, sizeof *near, descending);
        backgrounds[p] = 0;
        for (int i = K / 2; i < K; i++)
            backgrounds[p] += near[i] / (K - K / 2);
        for (int i = 0; i < K; i++)
            all[p * K + i] = near[i] - (normalised ? backgrounds[p] : 0);
    }
    qsort(all, PROBES * K, sizeof *all, descending);
    qsort(backgrounds, PROBES, sizeof *backgrounds, descending);
    *threshold = all[(int)(share * PROBES)];
    *background_most = backgrounds[PROBES / 100];
    memory_free(near);
    memory_free(all);
}

static double number(const ProcessResult *result, const char *name)
{
    const char *line = strrchr(result->out, '{');
    cJSON *tree = line ? cJSON_Parse(line) : NULL;
    const cJSON *item = cJSON_GetObjectItem(tree, name);
    cr_assert(item, "%s: %s %s", name, result->out, result->err);
    double value = item->valuedouble;
    cJSON_Delete(tree);
    return value;
}

Test(curate_calibrate, thresholds_leave_so_many_neighbours_to_a_probe)
{
    static float pool_rows[POOL * D], probe_rows[PROBES * D], reference_rows[REFERENCES * D];
    TempPath pool = write("pool.h5", 0, POOL, pool_rows, NULL);
    TempPath probes = write("probes.h5", 100000, PROBES, probe_rows, NULL);
    TempPath references = write("references.h5", 200000, REFERENCES, reference_rows, NULL);
    for (int normalised = 0; normalised < 2; normalised++)
        for (int ranks = 1; ranks <= 3; ranks++) {
            double threshold, most, reference_threshold, reference_most;
            expected(probe_rows, pool_rows, POOL, normalised, 0.05, &threshold, &most);
            expected(probe_rows, reference_rows, REFERENCES, normalised, 0.03, &reference_threshold,
                     &reference_most);
            ProcessResult result = curate_steps_run(
                &temp, ranks, "calibrate", "out",
                WORDS("--features", pool.text, "--probes", probes.text, "--reference", references.text,
                      "--json", "curation.neighbours=16", "curation.calibrate.false_links=0.05",
                      "curation.calibrate.false_references=0.03",
                      normalised ? "curation.score_normalization=true"
                                 : "curation.score_normalization=false"));
            cr_assert_eq(result.exit_status, 0, "%s", result.err);
            cr_expect_float_eq(number(&result, "dedup_threshold"), threshold, 1e-6);
            cr_expect_float_eq(number(&result, "dedup_background_most"), most, 1e-6);
            cr_expect_float_eq(number(&result, "exclude_threshold"), reference_threshold, 1e-6);
            cr_expect_float_eq(number(&result, "exclude_background_most"), reference_most, 1e-6);
            process_result_fini(&result);
        }
}

/* A probe that is like its own upright picture is asked only for what is more like it. */
Test(curate_calibrate, rows_behind_a_probes_own_picture_do_not_count)
{
    const double pool_angles[] = {0, 30, 100}, probe_angles[] = {20, 100};
    const char *const keys[] = {"p1", "p2"}; /* of the pool's rows 1 and 2 */
    TempPath pool = curate_steps_write_angles(&temp, "pool.h5", pool_angles, 3, NULL);
    TempPath probes = curate_steps_write_probes(&temp, "probes.h5", probe_angles, 2, keys);
    ProcessResult result =
        curate_steps_run(&temp, 0, "calibrate", "out",
                         WORDS("--features", pool.text, "--probes", probes.text, "--json",
                               "curation.neighbours=3", "curation.calibrate.false_links=0"));
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    /* 20 degrees: its own picture at 10 is nearest; 100: its own at 0. Nothing is left. */
    cr_expect_float_eq(number(&result, "dedup_threshold"), -1, 1e-9);
    process_result_fini(&result);
}

static double attribute(const char *path, const char *name)
{
    CurationInput input;
    Error error = {0};
    double value = NAN;
    cr_assert_eq(curation_file_open(&input, path, "/keep", &error), STATUS_OK, "%s", error.text);
    cr_assert_eq(curation_file_read_double(&input, name, &value, &error), STATUS_OK, "%s", error.text);
    curation_file_close(&input);
    return value;
}

Test(curate_calibrate, dedup_and_exclude_take_its_thresholds)
{
    TempPath pool = write("pool.h5", 0, POOL, NULL, NULL),
             probes = write("probes.h5", 100000, PROBES, NULL, NULL);
    TempPath references = write("references.h5", 200000, REFERENCES, NULL, NULL);
    const char *normalised = "curation.score_normalization=true";
    ProcessResult result = curate_steps_run(&temp, 2, "calibrate", "out",
                                            WORDS("--features", pool.text, "--probes", probes.text,
                                                  "--reference", references.text, "--json", normalised));
    double threshold = number(&result, "dedup_threshold"), other = number(&result, "exclude_threshold");
    process_result_fini(&result);
    TempPath file = temp_folder_in(&temp, "out/calibrate.h5");
    curate_steps_run_well(&temp, 2, "dedup", "out",
                          WORDS("--features", pool.text, "--calibration", file.text, normalised));
    curate_steps_run_well(&temp, 2, "exclude", "out",
                          WORDS("--features", pool.text, "--reference", references.text, "--calibration",
                                file.text, normalised));
    cr_expect_eq(attribute(temp_folder_in(&temp, "out/dedup.h5").text, "threshold"), threshold);
    cr_expect_eq(attribute(temp_folder_in(&temp, "out/exclude.h5").text, "threshold"), other);
    result = process_run_dinobatch(0, WORDS("validate", file.text), CURATE_STEPS_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);

    curate_steps_expect_refused(&temp, "dedup", WORDS("--features", pool.text, "--calibration", file.text),
                                "curation.score_normalization=true");
    curate_steps_expect_refused(&temp, "dedup",
                                WORDS("--features", references.text, "--calibration", file.text, normalised),
                                "is of other features than");
    TempPath odd = write("odd.h5", 100000, PROBES, NULL, "other.h5");
    curate_steps_expect_refused(&temp, "calibrate", WORDS("--features", pool.text, "--probes", odd.text),
                                "odd.h5");
}

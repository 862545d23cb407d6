/* test_extract.c - extract by the real program with a copy-detection network: ranks, shapes, whitening, and
 * what it refuses. */
#include "../support/process.h"
#include "../support/sscd_weights.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "ckpt/descriptor_file.h"
#include "features/features_file.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DIMS = 8, LIMIT_SECONDS = 120 };

#define DATA  "synthetic:classes=3,size=40,count=11,seed=2"
#define QUICK "train.num_workers=1", "compute.threads=1", "evaluation.batch_size=4", "compute.device=cpu"

typedef struct {
    TempFolder folder;
    TempPath weights, model; /* the file, and "sscd:" in front */
} Setting;

static Setting begin(void)
{
    Setting s = {.folder = temp_folder_create()};
    DescriptorMeta meta = {.config = {.arch = RESNET_18, .dims = DIMS, .gem_p = 3.0, .bn_eps = 1e-5},
                           .mean = {0.485, 0.456, 0.406},
                           .std = {0.229, 0.224, 0.225},
                           .source = "a formula"};
    ParamTable table;
    Resnet resnet;
    param_table_init(&table);
    resnet_build(&resnet, &meta.config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    sscd_weights_fill(&table, 1, flat);
    s.weights = temp_folder_in(&s.folder, "sscd.h5");
    snprintf(s.model.text, sizeof s.model.text, "sscd:%.300s", s.weights.text);
    Comm *comm = comm_self_create();
    cr_assert_eq(descriptor_file_save(s.weights.text, &meta, &table, flat, comm, NULL), STATUS_OK);
    comm_destroy(comm);
    memory_free(flat);
    param_table_fini(&table);
    return s;
}

static void end(Setting *s)
{
    temp_folder_destroy(&s->folder);
}

static void run_well(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "exit %d\n%s", result.exit_status, result.err);
    process_result_fini(&result);
}

static void expect_refused(const char *const *words, const char *part)
{
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_not_null(strstr(result.err, part), "\"%s\" is not in:\n%s", part, result.err);
    process_result_fini(&result);
}

/* All rows of a features file; memory_free. */
static float *read_rows(const char *path, int64_t n, const char *layer, int64_t input_size)
{
    FeaturesFile file;
    Error error = {0};
    cr_assert_eq(features_file_open(&file, path, &error), STATUS_OK, "%s", error.text);
    cr_assert(file.n == n && file.d == DIMS && file.meta.input_size == input_size);
    cr_assert_str_eq(file.meta.arch, "sscd_resnet18");
    cr_assert_str_eq(file.meta.layer, layer);
    float *rows = memory_alloc_array((size_t)(n * DIMS), sizeof *rows);
    cr_assert_eq(features_file_read(&file, 0, n, rows, NULL, NULL), STATUS_OK);
    features_file_close(&file);
    return rows;
}

static double worst(const float *a, const float *b, int64_t count)
{
    double most = 0.0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

Test(extract, a_copy_detector_on_any_ranks, .timeout = 300)
{
    Setting s = begin();
    TempPath one = temp_folder_in(&s.folder, "one.h5"), three = temp_folder_in(&s.folder, "three.h5");
    TempPath whole = temp_folder_in(&s.folder, "whole.h5"), white = temp_folder_in(&s.folder, "white.h5");
    const char *model = s.model.text;
    run_well(0, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", one.text, QUICK));
    run_well(3, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", three.text, QUICK));
    run_well(0, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", whole.text, "--resize",
                      "shorter", QUICK));
    run_well(2, WORDS("extract", "--model", model, "--data", DATA, "--output-dir", white.text, "--whiten",
                      one.text, QUICK));
    run_well(0, WORDS("validate", white.text));
    run_well(0, WORDS("validate", s.weights.text));
    float *alone = read_rows(one.text, 11, "embedding", 320);
    float *together = read_rows(three.text, 11, "embedding", 320);
    float *other = read_rows(whole.text, 11, "embedding", 288);
    float *whitened = read_rows(white.text, 11, "embedding_whitened", 320);
    cr_expect_leq(worst(alone, together, 11 * DIMS), 1e-5);
    cr_expect(worst(alone, other, 11 * DIMS) > 1e-3, "another size of the same pictures");
    for (int i = 0; i < 11; i++) {
        double length = 0.0, white_length = 0.0;
        for (int j = 0; j < DIMS; j++) {
            length += (double)alone[i * DIMS + j] * (double)alone[i * DIMS + j];
            white_length += (double)whitened[i * DIMS + j] * (double)whitened[i * DIMS + j];
        }
        cr_expect_float_eq(length, 1.0, 1e-5);
        cr_expect_float_eq(white_length, 1.0, 1e-5);
    }
    memory_free(alone);
    memory_free(together);
    memory_free(other);
    memory_free(whitened);
    /* learned at another size */
    expect_refused(WORDS("extract", "--model", model, "--data", DATA, "--output-dir", white.text, "--center",
                         whole.text, QUICK),
                   "at 288 pixels");
    end(&s);
}

Test(extract, a_copy_detector_refuses_what_it_cannot_do, .timeout = 120)
{
    Setting s = begin();
    TempPath out = temp_folder_in(&s.folder, "out.h5");
#define EXTRACT(...) WORDS("extract", "--data", DATA, "--output-dir", out.text, QUICK, __VA_ARGS__)
    const char *model = s.model.text;
    expect_refused(EXTRACT("--model", "sscd:/nowhere/x.h5"), "/nowhere/x.h5");
    expect_refused(EXTRACT("--model", s.weights.text), "sscd.h5"); /* no checkpoint */
    expect_refused(EXTRACT("--model", model, "--resize", "round"), "expected square or shorter");
    expect_refused(EXTRACT("--model", model, "--layer", "mean_patch"), "for checkpoints");
    expect_refused(EXTRACT("--model", model, "--center", "a.h5", "--whiten", "b.h5"), "choose one");
    expect_refused(EXTRACT("--model", model, "--whiten", "/nowhere/b.h5"), "/nowhere/b.h5");
    expect_refused(EXTRACT("--model", "run", "--resize", "square"), "--resize is for");
    end(&s);
}

/* test_curate_run.c - a whole curation by the real program, from pictures to a data set: once, again, and
 * after a kill.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "curation/curation_file.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT_SECONDS = 120 };

static const char PLAN[] =
    "name: small\n"
    "pool: ['folder:pool;limit=30', 'folder:pool;offset=30']\n"
    "evaluation_sets: [{name: val, data: 'folder:pool;limit=4'}]\n"
    "query_sets:\n"
    "  - {name: near, data: 'folder:queries', mode: sample, settings: [curation.retrieve.neighbours=2]}\n"
    "  - {name: alike, data: 'folder:queries', mode: cluster, settings: [curation.retrieve.min_queries=1]}\n"
    "  - {name: whole, data: 'folder:queries', as_is: true}\n"
    "copy_detection:\n"
    "  words: [--layer, grid:2:2]\n"
    "  whiten: true\n"
    "  whiten_dims: 8\n"
    "  whiten_ridge: 0.01\n"
    "  views: mirror\n"
    "  probes: 12\n"
    "  pretrain:\n"
    "    train: {batch_size_per_gpu: 8, OFFICIAL_EPOCH_LENGTH: 4, num_workers: 0}\n"
    "    student: {arch: vit_custom, embed_dim: 32, depth: 2, num_heads: 2, patch_size: 8}\n"
    "    dino: {head_n_prototypes: 32, head_hidden_dim: 32, head_bottleneck_dim: 16}\n"
    "    ibot: {loss_weight: 0.0, head_n_prototypes: 32, head_hidden_dim: 32, head_bottleneck_dim: 16}\n"
    "    crops: {global_crops_size: 32, local_crops_size: 16, local_crops_number: 0,\n"
    "            global_crops_scale: [0.4, 1.0]}\n"
    "    optim: {epochs: 2, warmup_epochs: 1}\n"
    "    evaluation: {eval_period_iterations: 0, crop_size: 32, resize_size: 32}\n"
    "settings: [curation.cluster.k=4, curation.score_normalization=true, curation.neighbours=16]\n";

static TempFolder temp;

static void draw(const char *folder, const char *spec)
{
    TempPath path = temp_folder_in(&temp, "%s", folder);
    ProcessResult result =
        process_run_dinobatch(0, WORDS("synth", "--data", spec, "--output-dir", path.text), LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
    draw("pool", "synthetic:classes=3,size=32,count=48,seed=1,duplicates=0.2");
    draw("queries", "synthetic:classes=3,size=32,count=12,seed=2");
    temp_folder_write(&temp, "plan.yaml", PLAN);
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_run, .init = set_up, .fini = tear_down, .timeout = 300);

static ProcessResult run(const char *folder, const char *word)
{
    TempPath plan = temp_folder_in(&temp, "plan.yaml"), out = temp_folder_in(&temp, "%s", folder);
    return process_run_dinobatch(
        2, WORDS("curate", "run", plan.text, "--output-dir", out.text, "compute.threads=1", word),
        LIMIT_SECONDS);
}

static int number_of(const ProcessResult *result, const char *name)
{
    const char *line = strrchr(result->out, '{');
    cJSON *tree = line ? cJSON_Parse(line) : NULL;
    const cJSON *item = cJSON_GetObjectItem(tree, name);
    int number = item ? item->valueint : -1;
    cJSON_Delete(tree);
    return number;
}

static int lines_of(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += *text == '\n';
    return count;
}

/* Both folders hold the same groups, the same decisions, the same data set. */
static void expect_same_results(const char *a, const char *b)
{
    static const struct {
        const char *file, *object;
        H5Type type;
        size_t bytes;
    } cases[] = {{"dedup.h5", "/group", H5_TYPE_I64, 8},
                 {"exclude.h5", "/keep", H5_TYPE_U8, 1},
                 {"cluster.h5", "/assignment", H5_TYPE_I64, 8},
                 {"retrieve_near.h5", "/row", H5_TYPE_I64, 8},
                 {"retrieve_alike.h5", "/row", H5_TYPE_I64, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t rows[2][64], n[2];
        for (int f = 0; f < 2; f++) {
            TempPath path = temp_folder_in(&temp, "%s/%s", f ? b : a, cases[i].file);
            CurationInput input;
            Error error = {0};
            cr_assert_eq(curation_file_open(&input, path.text, cases[i].object, &error), STATUS_OK, "%s",
                         error.text);
            n[f] = input.n;
            cr_assert(n[f] > 0 && n[f] <= 64);
            Status status =
                curation_file_read(&input, cases[i].object, cases[i].type, 0, n[f], rows[f], &error);
            cr_assert_eq(status, STATUS_OK, "%s", error.text);
            curation_file_close(&input);
        }
        cr_assert_eq(n[0], n[1], "%s", cases[i].file);
        cr_expect_eq(memcmp(rows[0], rows[1], (size_t)n[0] * cases[i].bytes), 0, "%s", cases[i].file);
    }
    char part[2][64];
    snprintf(part[0], sizeof part[0], "%s/composition.csv", a);
    snprintf(part[1], sizeof part[1], "%s/composition.csv", b);
    char *x = temp_folder_read(&temp, part[0]), *y = temp_folder_read(&temp, part[1]);
    cr_expect(strlen(x) > 0);
    cr_expect_str_eq(x, y);
    temp_folder_free_text(x);
    temp_folder_free_text(y);
}

Test(curate_run, all_of_it_then_nothing_and_only_what_a_changed_key_touches)
{
    ProcessResult list = run("out", "--list");
    cr_assert_eq(list.exit_status, 0, "%s", list.err);
    int steps = lines_of(list.out);
    process_result_fini(&list);

    ProcessResult result = run("out", "--json");
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect_eq(number_of(&result, "steps"), steps);
    cr_expect_eq(number_of(&result, "done_before"), 0);
    process_result_fini(&result);
    char *done = temp_folder_read(&temp, "out/steps.txt");
    cr_expect_eq(lines_of(done), steps);
    temp_folder_free_text(done);
    char *table = temp_folder_read(&temp, "out/composition.md");
    cr_expect(strstr(table, "near") && strstr(table, "alike") && strstr(table, "whole"), "%s", table);
    temp_folder_free_text(table);

    result = run("out", "--json");
    cr_expect_eq(number_of(&result, "done_before"), steps, "%s", result.err);
    process_result_fini(&result);

    TempPath plan = temp_folder_in(&temp, "plan.yaml"), out = temp_folder_in(&temp, "out");
    result = process_run_dinobatch(2,
                                   WORDS("curate", "run", plan.text, "--output-dir", out.text, "--json",
                                         "compute.threads=1", "curation.neighbours=20"),
                                   LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect_eq(number_of(&result, "done_before"), 8, "training and seven sets of descriptors stay");
    process_result_fini(&result);
    result = run("out", "--json");
    cr_expect_eq(number_of(&result, "done_before"), 8, "what another key wrote does not count as done");
    process_result_fini(&result);
}

Test(curate_run, after_a_kill_it_goes_on_to_the_same_result)
{
    ProcessResult whole = run("whole", NULL);
    cr_assert_eq(whole.exit_status, 0, "%s", whole.err);
    process_result_fini(&whole);

    TempPath plan = temp_folder_in(&temp, "plan.yaml"), out = temp_folder_in(&temp, "killed");
    static const char *const moments[] = {"step 1 of", "step 4 of", "step 8 of"};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        Process process = process_start_dinobatch(
            2, WORDS("curate", "run", plan.text, "--output-dir", out.text, "compute.threads=1"));
        cr_assert(process_wait_for_error_text(&process, moments[i], LIMIT_SECONDS), "%s", moments[i]);
        pid_t rank = process_of_rank(&process, 1, LIMIT_SECONDS);
        cr_expect(rank > 0 && kill(rank, SIGKILL) == 0);
        ProcessResult killed = process_finish(&process, LIMIT_SECONDS);
        cr_expect_neq(killed.exit_status, 0);
        process_result_fini(&killed);
    }
    ProcessResult again = run("killed", NULL);
    cr_assert_eq(again.exit_status, 0, "%s", again.err);
    process_result_fini(&again);
    expect_same_results("whole", "killed");
}

Test(curate_run, what_is_wrong_is_named)
{
    ProcessResult result = process_run_dinobatch(0, WORDS("curate", "run"), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "needs CURATION.yaml"), "%s", result.err);
    process_result_fini(&result);

    temp_folder_write(&temp, "plan.yaml", "name: a\npool: folder:nowhere\ncopy_detection: {model: m.h5}\n");
    result = run("out", "--json");
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "m.h5"), "%s", result.err);
    process_result_fini(&result);

    temp_folder_write(&temp, "plan.yaml", "name: a\npool: folder:pool\ncopy_detecton: {model: m.h5}\n");
    result = run("out", "--json");
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "plan.yaml:3: unknown key copy_detecton; did you mean copy_detection"), "%s",
              result.err);
    process_result_fini(&result);
}

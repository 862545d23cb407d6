/* test_bench.c - the figures of `dinobatch bench` are there, are consistent, and count what they say. */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "base/rng.h"
#include "features/features_file.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 100, WORDS_MAX = 24 };

/* A small tiny: the machine may be busy, and no time is asserted. */
static const char *const SMALL[] = {"bench",
                                    "--what",
                                    "step",
                                    "--preset",
                                    "tiny",
                                    "--dtype",
                                    "fp32",
                                    "--seconds",
                                    "0.05",
                                    "--json",
                                    "compute.threads=1",
                                    "train.batch_size_per_gpu=6",
                                    "dino.head_n_prototypes=512",
                                    "ibot.head_n_prototypes=768",
                                    "dino.head_hidden_dim=64",
                                    "ibot.head_hidden_dim=96",
                                    NULL};

static ProcessResult run(const char *const *more)
{
    const char *words[WORDS_MAX] = {NULL};
    int count = 0;
    for (const char *const *word = SMALL; *word; word++)
        words[count++] = *word;
    for (const char *const *word = more; *word; word++)
        words[count++] = *word;
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    return result;
}

/* The last line of standard output. */
static const char *last_line(char *text)
{
    size_t length = strlen(text);
    cr_assert(length > 0 && text[length - 1] == '\n');
    text[length - 1] = '\0';
    const char *line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

static double number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    cr_assert(cJSON_IsNumber(item), "no number %s", name);
    return item->valuedouble;
}

static void expect_positive(const cJSON *object, const char *name)
{
    double value = number(object, name);
    cr_expect(isfinite(value) && value > 0, "%s: %g", name, value);
}

static double sum_seconds(const cJSON *array)
{
    double sum = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array) sum += number(item, "seconds");
    return sum;
}

static void check_step(const cJSON *step)
{
    static const char *const POSITIVE[] = {"images_per_s",          "flops",      "flops_per_s",
                                           "share_of_product_rate", "total_loss", "parameters",
                                           "masked_patches"};
    for (size_t i = 0; i < sizeof POSITIVE / sizeof *POSITIVE; i++)
        expect_positive(step, POSITIVE[i]);
    const cJSON *seconds = cJSON_GetObjectItem(step, "seconds"),
                *memory = cJSON_GetObjectItem(step, "memory_bytes");
    double median = number(seconds, "median"), mean = number(seconds, "mean");
    cr_expect(number(seconds, "min") > 0 && number(seconds, "min") <= median &&
              median <= number(seconds, "max"));
    cr_expect_float_eq(number(step, "images_per_s") * median / number(step, "images"), 1.0, 1e-9);
    expect_positive(memory, "weights");
    expect_positive(memory, "step");
    cr_expect_geq(number(memory, "weights"), 5 * 4 * number(step, "parameters"));

    /* The formula, and the operands of every call that was made. */
    cr_expect_float_eq(number(step, "counted_flops") / number(step, "flops"), 1.0, 1e-9);
    /* Both breakdowns add up to the whole. */
    cr_expect_float_eq(sum_seconds(cJSON_GetObjectItem(step, "parts")) / mean, 1.0, 1e-6);
    double operations = sum_seconds(cJSON_GetObjectItem(step, "operations"));
    cr_expect_float_eq((operations + number(step, "other_seconds")) / mean, 1.0, 1e-6);
    cr_expect_gt(operations, 0);
}

static cJSON *parse(const char *line)
{
    cJSON *tree = cJSON_Parse(line);
    cr_assert(tree, "no JSON: %.200s", line);
    const cJSON *limits = cJSON_GetObjectItem(tree, "limits");
    expect_positive(limits, "fp32_flops_per_s");
    expect_positive(limits, "copy_bytes_per_s");
    cr_assert_eq(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "steps")), 1);
    return tree;
}

Test(bench, step_prints_json_and_writes_it, .timeout = 120)
{
    TempFolder temp = temp_folder_create();
    char *folder = temp_folder_path(&temp, "new/report"),
         *path = temp_folder_path(&temp, "new/report/bench.json");
    ProcessResult result = run((const char *[]){"--output-dir", folder, NULL});
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect(strstr(result.out, "step tiny, fp32, 6 images"), "%s", result.out);
    cr_expect(strstr(result.out, "linear_forward"));
    const char *line = last_line(result.out);
    cJSON *tree = parse(line);
    check_step(cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "steps"), 0));

    cJSON *program = cJSON_GetObjectItem(tree, "program"), *machine = cJSON_GetObjectItem(tree, "machine");
    cr_expect(cJSON_IsString(cJSON_GetObjectItem(program, "git")));
    cr_expect(cJSON_IsString(cJSON_GetObjectItem(machine, "processor")));
    cr_expect_eq(number(machine, "threads"), 1);
    cJSON_Delete(tree);

    FILE *file = fopen(path, "r");
    cr_assert(file, "%s was not written", path);
    char begin[64] = "";
    cr_expect(fgets(begin, sizeof begin, file));
    cr_expect_eq(strncmp(begin, line, sizeof begin - 1), 0);
    fclose(file);
    temp_folder_free_text(folder);
    temp_folder_free_text(path);
    temp_folder_destroy(&temp);
    process_result_fini(&result);
}

/* Another model, so that the formula is met where the first one is silent: SwiGLU, registers, rising drop
 * rates, one head for both losses, centering, two groups. */
Test(bench, formula_counts_what_another_model_does, .timeout = 120)
{
    ProcessResult result = run((const char *[]){
        "student.ffn_layer=swiglufused", "student.num_register_tokens=3", "student.drop_path_uniform=false",
        "ibot.separate_head=false", "train.centering=centering", "train.global_batch_size=12", NULL});
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cJSON *tree = parse(last_line(result.out));
    const cJSON *step = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "steps"), 0);
    check_step(step);
    cr_expect_eq(number(step, "images"), 12);
    cJSON_Delete(tree);
    process_result_fini(&result);
}

Test(bench, refuses_what_it_does_not_know, .timeout = 120)
{
    static const struct {
        const char *words[4], *said; /* after "bench" */
    } refusals[] = {{{"bench", "--what", "everything"},
                     "--what everything: expected limits|ops|step|augment|sharding|checkpoint|index|all"},
                    {{"bench", "--preset", "vit"}, "--preset vit: expected"},
                    {{"bench", "--dtype", "fp16"}, "--dtype fp16: expected"},
                    {{"bench", "--seconds", "0"}, "--seconds 0: expected"},
                    {{"bench", "--seconds", "1s"}, "--seconds 1s: expected"},
                    {{"bench", "--rows", "0"}, "--rows 0: expected"},
                    {{"bench", "--strategy", "ddp"}, "--strategy ddp: expected no_shard|"},
                    {{"bench", "--what", "checkpoint"}, "--output-dir says to which disk"}};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        ProcessResult result = process_run_dinobatch(0, refusals[i].words, LIMIT_SECONDS);
        cr_expect_eq(result.exit_status, 2, "%s", result.err);
        cr_expect(strstr(result.err, refusals[i].said), "%s", result.err);
        cr_expect_str_empty(result.out);
        process_result_fini(&result);
    }
    ProcessResult result = process_run_dinobatch(
        0, (const char *[]){"bench", "--what", "augment", "--data", "folder:/nonexistent", NULL},
        LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "%s", result.err);
    cr_expect(strstr(result.err, "/nonexistent"), "%s", result.err);
    process_result_fini(&result);
}

/* Measurements whose names begin with `mode`. */
static int count_measurements(const cJSON *tree, const char *mode)
{
    int count = 0;
    const cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(tree, "measurements"))
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(row, "name"));
        if (strncmp(name, mode, strlen(mode)) != 0) continue;
        expect_positive(row, "per_s");
        count++;
    }
    return count;
}

Test(bench, both_modes_of_decoding_are_reported, .timeout = 120)
{
    static const char *const words[] = {"bench", "--what", "augment", "--seconds", "0.01", "--json", NULL};
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cJSON *tree = cJSON_Parse(last_line(result.out));
    cr_assert(tree);
    cr_expect_eq(count_measurements(tree, "exact decode"), 2);
    cr_expect_eq(count_measurements(tree, "scaled decode"), 2);
    cJSON_Delete(tree);
    process_result_fini(&result);
}

/* What ranks do together, with the sizes of SMALL; the JSON. */
static cJSON *run_ranks(const char *what, const char *const *more)
{
    const char *words[WORDS_MAX] = {"bench", "--what", what, "--quick"};
    int count = 4;
    for (const char *const *word = SMALL + 3; *word; word++)
        words[count++] = *word;
    for (const char *const *word = more; *word; word++)
        words[count++] = *word;
    ProcessResult result = process_run_dinobatch(2, words, LIMIT_SECONDS);
    cr_assert(!result.timed_out, "%s", result.err);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cJSON *tree = cJSON_Parse(last_line(result.out));
    cr_assert(tree);
    process_result_fini(&result);
    return tree;
}

static void expect_near(double value, double wanted, double share, const char *what)
{
    cr_expect(fabs(value - wanted) <= share * wanted, "%s: %g, expected %g", what, value, wanted);
}

/* `parts`: of the weights. Returns the bytes that a rank holds of them. */
static double check_strategy(const cJSON *row, const char *strategy, int parts, double parameters)
{
    cr_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(row, "strategy")), strategy);
    const cJSON *memory = cJSON_GetObjectItem(row, "memory_bytes");
    double sharded = number(memory, "sharded"), copies = number(memory, "copies"),
           rooms = number(memory, "gradient_rooms");
    cr_expect_eq(number(row, "parts"), parts);
    cr_expect_float_eq(number(memory, "sharded_theory"), 20 * parameters / parts, 1);
    expect_near(sharded, 20 * parameters / parts, 0.05, strategy);
    expect_near(copies, number(memory, "copies_theory"), 0.05, strategy);
    expect_near(rooms, number(memory, "gradient_rooms_theory"), 0.05, strategy);
    cr_expect_geq(number(memory, "all"),
                  sharded + copies + rooms + number(memory, "activations") + number(memory, "scratch"));
    expect_positive(memory, "activations");
    expect_positive(row, "ratio_to_no_shard");
    expect_positive(row, "sent_bytes");
    const cJSON *beside = cJSON_GetObjectItem(row, "beside"), *apart = cJSON_GetObjectItem(row, "apart");
    expect_positive(cJSON_GetObjectItem(beside, "seconds"), "median");
    expect_positive(beside, "sum_wait_seconds");
    cr_expect_eq(cJSON_IsNull(apart), parts == 1);
    if (parts == 1) {
        cr_expect_eq(copies, 0);
        cr_expect_eq(number(row, "received_bytes"), 0);
        return sharded;
    }
    /* the other rank's half of both networks; of the backbone again where it is not kept */
    double half = 2 * 4 * parameters / 2, received = number(row, "received_bytes");
    cr_expect(received > 0.98 * half && received < 2 * half, "%s: %g of %g", strategy, received, half);
    expect_near(number(row, "sent_bytes"), 4 * parameters / 2, 0.05, strategy);
    expect_positive(apart, "gather_wait_seconds");
    cr_expect_leq(number(row, "hidden_share"), 1);
    return sharded;
}

Test(bench, strategies_are_measured_on_several_ranks, .timeout = 120)
{
    static const char *const names[] = {"NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "HYBRID_SHARD",
                                        "NO_SHARD"};
    cJSON *tree = run_ranks("sharding", WORDS("compute.ranks_per_node=1"));
    const cJSON *sharding = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "sharding"), 0),
                *rows = cJSON_GetObjectItem(sharding, "strategies");
    cr_assert_eq(cJSON_GetArraySize(rows), 5);
    cr_expect_eq(number(sharding, "ranks"), 2);
    cr_expect_eq(number(sharding, "images"), 12);
    double sharded[5], activations[5];
    for (int i = 0; i < 5; i++) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        sharded[i] = check_strategy(row, names[i], i == 1 || i == 2 ? 2 : 1, number(sharding, "parameters"));
        activations[i] = number(cJSON_GetObjectItem(row, "memory_bytes"), "activations");
        cr_expect_eq(cJSON_IsTrue(cJSON_GetObjectItem(row, "recompute")), i == 4);
    }
    expect_near(sharded[2], sharded[0] / 2, 0.05, "one half");
    cr_expect_lt(activations[4], activations[0]);
    cJSON_Delete(tree);
}

Test(bench, checkpoints_are_measured_on_several_ranks, .timeout = 120)
{
    static const char *const times[] = {"step_alone_seconds", "step_between_seconds", "step_beside_seconds",
                                        "save_seconds",       "copy_seconds",         "write_beside_seconds"};
    TempFolder temp = temp_folder_create();
    cJSON *tree = run_ranks("checkpoint", WORDS("--output-dir", temp.path));
    const cJSON *checkpoint = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "checkpoints"), 0);
    cr_expect_eq(number(checkpoint, "ranks"), 2);
    expect_positive(checkpoint, "bytes");
    expect_positive(checkpoint, "tensors");
    expect_positive(checkpoint, "share_of_plain");
    expect_positive(cJSON_GetObjectItem(checkpoint, "plain_seconds"), "median");
    expect_positive(cJSON_GetObjectItem(checkpoint, "save_seconds"), "median");
    expect_positive(cJSON_GetObjectItem(checkpoint, "load_seconds"), "median");
    const cJSON *training = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "trainings"), 0);
    expect_near(number(training, "bytes"), number(checkpoint, "bytes"), 0.05, "bytes");
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        expect_positive(cJSON_GetObjectItem(training, times[i]), "median");
    cr_expect(isfinite(number(training, "cost_beside_seconds")));
    cJSON_Delete(tree);
    char *report = temp_folder_read(&temp, "bench.json");
    cr_expect(strstr(report, "share_of_plain"));
    temp_folder_free_text(report);
    TempPath rest = temp_folder_in(&temp, "bench_checkpoint");
    cr_expect_eq(access(rest.text, F_OK), -1, "%s is still there", rest.text);
    temp_folder_destroy(&temp);
}

/* --- searching and clustering --- */

/* One kind of index, whose points' nprobe doubles until it meets the lists. */
static void check_kind(const cJSON *kind, double refine, bool exact)
{
    const cJSON *points = cJSON_GetObjectItem(kind, "points"), *point;
    double before = 0, nprobe = 0.5;
    cr_expect_eq(number(kind, "refine"), refine);
    expect_positive(kind, "train_seconds");
    expect_positive(kind, "fill_seconds");
    expect_positive(kind, "fixed_bytes");
    cJSON_ArrayForEach(point, points)
    {
        double recall = number(point, "recall");
        cr_expect_eq(number(point, "nprobe"), 2 * nprobe);
        nprobe = number(point, "nprobe");
        cr_expect(recall > 0 && recall <= 1 && number(point, "edge_recall") <= 1);
        if (exact) cr_expect_geq(recall, before);
        if (exact || refine > 0) cr_expect_eq(number(point, "edge_precision"), 1);
        expect_positive(point, "queries_per_s");
        expect_positive(point, "processor_seconds");
        expect_positive(cJSON_GetObjectItem(point, "seconds"), "median");
        before = recall;
    }
    cr_expect_eq(nprobe, number(kind, "lists"));
    cr_expect_gt(before, number(cJSON_GetArrayItem(points, 0), "recall"));
    if (!exact) return;
    cr_expect_eq(before, 1);
    cr_expect_eq(number(cJSON_GetArrayItem(points, cJSON_GetArraySize(points) - 1), "edge_recall"), 1);
}

static double last_recall(const cJSON *kind)
{
    const cJSON *points = cJSON_GetObjectItem(kind, "points");
    return number(cJSON_GetArrayItem(points, cJSON_GetArraySize(points) - 1), "recall");
}

static void check_index(const cJSON *index, double rows, double columns)
{
    cr_expect_eq(number(index, "rows"), rows);
    cr_expect_eq(number(index, "columns"), columns);
    cr_expect_eq(number(index, "neighbours"), 64);
    expect_positive(index, "edges");
    expect_positive(index, "flat_queries_per_s");
    expect_positive(index, "flat_processor_seconds");
    const cJSON *kinds = cJSON_GetObjectItem(index, "kinds");
    cr_assert_eq(cJSON_GetArraySize(kinds), 3);
    const cJSON *lists = cJSON_GetArrayItem(kinds, 0), *codes = cJSON_GetArrayItem(kinds, 1),
                *refined = cJSON_GetArrayItem(kinds, 2);
    check_kind(lists, 0, true);
    check_kind(codes, 0, false);
    check_kind(refined, 4, false);
    cr_expect_float_eq(number(lists, "bytes_a_row"), 4 * columns + 8, 1e-6);
    cr_expect_float_eq(number(codes, "bytes_a_row"), columns / 8 + 8, 1e-6);
    cr_expect_gt(last_recall(refined), last_recall(codes));
    const cJSON *rate;
    cJSON_ArrayForEach(rate, cJSON_GetObjectItem(index, "rates")) expect_positive(rate, "rows_per_s");
    cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(index, "rates")), 7);
}

/* Normal numbers, every second row the one before with a little noise. */
static void write_features(const char *path, int rows, int columns)
{
    FeaturesFile file;
    Error error = {0};
    FeaturesMeta meta = {.model = "m", .arch = "a", .layer = "l", .data = "d", .config = "", .version = "v"};
    Rng rng = rng_at(3, RNG_TEST, 0, 0);
    float row[64] = {0};
    cr_assert_eq(features_file_create(&file, path, rows, columns, 0, 8, &meta, &error), STATUS_OK, "%s",
                 error.text);
    for (int i = 0; i < rows; i++) {
        char key[9];
        const char *keys = key;
        int64_t label = -1;
        snprintf(key, sizeof key, "%08d", i);
        for (int j = 0; j < columns; j++)
            row[j] = (float)((i % 2 ? row[j] : 0.0) + (i % 2 ? 0.2 : 1.0) * rng_normal(&rng));
        cr_assert_eq(features_file_write(&file, i, 1, row, &label, &keys, &error), STATUS_OK);
    }
    cr_assert_eq(features_file_commit(&file, &error), STATUS_OK);
}

Test(bench, index_is_measured_and_drawn, .timeout = 120)
{
    TempFolder temp = temp_folder_create();
    TempPath features = temp_folder_in(&temp, "features.h5"), picture = temp_folder_in(&temp, "index.png");
    write_features(features.text, 800, 24);
    ProcessResult result = process_run_dinobatch(
        0,
        WORDS("bench", "--what", "index", "--quick", "--seconds", "0.001", "--rows", "700", "--features",
              features.text, "--output-dir", temp.path, "--json", "compute.threads=1"),
        LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    cr_expect(strstr(result.out, "rates: columns 24"), "%s", result.out);
    cJSON *tree = cJSON_Parse(last_line(result.out));
    cr_assert(tree);
    check_index(cJSON_GetObjectItem(tree, "index"), 700, 24);
    const cJSON *kmeans = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "kmeans"), 0);
    expect_near(number(kmeans, "inertia"), number(kmeans, "faiss_inertia"), 0.05, "inertia");
    expect_positive(cJSON_GetObjectItem(kmeans, "seconds"), "median");
    expect_positive(kmeans, "speed_beside_faiss");
    cr_expect_eq(access(picture.text, R_OK), 0);
    cJSON_Delete(tree);
    process_result_fini(&result);
    temp_folder_destroy(&temp);
}

Test(bench, index_is_measured_on_several_ranks, .timeout = 120)
{
    cJSON *tree = run_ranks("index", WORDS("compute.threads=1"));
    check_index(cJSON_GetObjectItem(tree, "index"), 3000, 32);
    cr_expect_eq(number(cJSON_GetObjectItem(tree, "index"), "ranks"), 2);
    const cJSON *kmeans = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "kmeans"), 0);
    expect_positive(kmeans, "inertia");
    cr_expect(cJSON_IsNull(cJSON_GetObjectItem(kmeans, "faiss_seconds")));
    cJSON_Delete(tree);
}

Test(bench, operations_are_not_measured_on_several_ranks, .timeout = 120)
{
    ProcessResult result = process_run_dinobatch(2, WORDS("bench", "--what", "ops"), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "%s", result.err);
    cr_expect(strstr(result.err, "--what ops measures one process"), "%s", result.err);
    process_result_fini(&result);
}

/* test_plan_job.c - `plan` beside a real training on 1, 2, 4 and 8 ranks: what its log says that was
 * allocated, and what the kernel says that the process has grown by.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT_SECONDS = 100 };

/* Large enough that what libraries keep for themselves (some 20 MiB of a rank) does not decide. */
static const char CONFIG[] =
    "student: {arch: vit_custom, embed_dim: 384, depth: 6, num_heads: 6, patch_size: 14}\n"
    "crops: {global_crops_size: 42, local_crops_size: 28, local_crops_number: 1}\n"
    "dino: {head_n_prototypes: 32768}\n"
    "train: {batch_size_per_gpu: 2, num_workers: 1, centering: sinkhorn_knopp,\n"
    "        dataset_path: 'synthetic:classes=4,size=64,count=200,seed=0'}\n"
    "compute: {threads: 1, device: cpu}\n";

static const char CLUSTER[] =
    "name: a host\n"
    "device: cpu\n"
    "nodes: 1\n"
    "ranks_per_node: 8\n"
    "rank: {processor: core, memory_gib: 4, reserved_gib: 0, parallel: 1, fp32_tflops: 0.1,\n"
    "       bf16_tflops: 0, fp16_tflops: 0, product_share: 0.8, attention_share: 0.3,\n"
    "       memory_gb_s: 10, memory_share: 0.8, step_share: 0.8, operation_us: 5,\n"
    "       host_gb_s: 10}\n"
    "network: {within_gb_s: 3, within_us: 2, between_gb_s: 3, between_us: 8, share: 0.8}\n"
    "disk: {write_gb_s: 0.5}\n"
    "host: {cores_per_node: 8, images_per_core_s: 240}\n";

static TempFolder temp;

static void set_up(void)
{
    process_end_ranks_at_once();
    temp = temp_folder_create();
    temp_folder_write(&temp, "config.yaml", CONFIG);
    temp_folder_write(&temp, "cluster.yaml", CLUSTER);
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(plan_job, .init = set_up, .fini = tear_down, .timeout = 300);

/* The last line of `plan --json`; cJSON_Delete. */
static cJSON *plan(int ranks, const char *override)
{
    char count[16];
    TempPath config = temp_folder_in(&temp, "config.yaml"), cluster = temp_folder_in(&temp, "cluster.yaml");
    snprintf(count, sizeof count, "%d", ranks);
    ProcessResult result = process_run_dinobatch(0,
                                                 WORDS("plan", "--config-file", config.text, "--cluster",
                                                       cluster.text, "--ranks", count, "--json", override),
                                                 LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    char *line = strrchr(result.out, '{');
    while (line > result.out && line[-1] != '\n')
        line--;
    cJSON *tree = cJSON_Parse(line);
    cr_assert_not_null(tree, "%s", result.out);
    process_result_fini(&result);
    return tree;
}

static double mib(const cJSON *tree, const char *item)
{
    const cJSON *memory = cJSON_GetObjectItem(tree, "memory_bytes");
    const cJSON *number = cJSON_GetObjectItem(memory, item);
    cr_assert(cJSON_IsNumber(number), "%s", item);
    return number->valuedouble / 1048576.0;
}

/* The number behind `name` in the log. */
static double logged(const char *log, const char *name)
{
    double value = -1;
    const char *at = strstr(log, name);
    cr_assert_not_null(at, "no \"%s\" in: %s", name, log);
    cr_assert_eq(sscanf(at + strlen(name), " %lf", &value), 1, "%s", at);
    return value;
}

/* Within `share`, or what a log's last digit hides. */
static void compare(int ranks, const char *what, double planned, double real, double share)
{
    cr_expect(fabs(planned - real) <= fmax(share * real, 0.06), "%d ranks, %s: planned %.2f MiB, real %.2f",
              ranks, what, planned, real);
}

/* Standard error of a training that is ended after its first step. */
static ProcessResult first_step(int ranks, const char *override)
{
    TempPath config = temp_folder_in(&temp, "config.yaml"), run = temp_folder_in(&temp, "run%d", ranks);
    Process process = process_start_dinobatch(
        ranks, WORDS("pretrain", "--config-file", config.text, "--output-dir", run.text, override));
    cr_expect(process_wait_for_error_text(&process, "since the networks were made", LIMIT_SECONDS));
    process_signal(&process, SIGTERM);
    return process_finish(&process, LIMIT_SECONDS);
}

static void compare_with_training(int ranks, const char *override)
{
    cJSON *tree = plan(ranks, override);
    ProcessResult result = first_step(ranks, override);
    const char *log = result.err;
    compare(ranks, "weights", mib(tree, "student") + mib(tree, "teacher"),
            logged(log, "weights of student and teacher"), 0.05);
    compare(ranks, "gradients", mib(tree, "gradients"), logged(log, ", gradients"), 0.05);
    compare(ranks, "moments", mib(tree, "moments"), logged(log, "AdamW moments"), 0.05);
    compare(ranks, "copies", mib(tree, "copies"), logged(log, "copies for computing"), 0.05);
    compare(ranks, "gradient rooms", mib(tree, "gradient_rooms"), logged(log, "gradients under way"), 0.05);
    compare(ranks, "step", mib(tree, "step"), logged(log, "MiB: step"), 0.05);
    compare(ranks, "scratch", mib(tree, "scratch"), logged(log, "scratch of operations"), 0.05);
    compare(ranks, "batches", mib(tree, "batches"), logged(log, "batches"), 0.05);
    compare(ranks, "growth of resident memory", mib(tree, "total"), logged(log, "of which"), 0.10);
    process_result_fini(&result);
    cJSON_Delete(tree);
}

Test(plan_job, memory_is_that_of_a_training_on_1_rank)
{
    compare_with_training(1, "train.seed=1");
}

Test(plan_job, memory_is_that_of_a_training_on_2_ranks)
{
    compare_with_training(2, "train.micro_batch_size=1");
}

Test(plan_job, memory_is_that_of_a_training_on_4_ranks)
{
    compare_with_training(4, "train.checkpoint_activations=block");
}

Test(plan_job, memory_is_that_of_a_training_on_8_ranks)
{
    compare_with_training(8, "train.seed=1");
}

Test(plan_job, says_what_is_missing_and_what_does_not_fit)
{
    TempPath config = temp_folder_in(&temp, "config.yaml"), cluster = temp_folder_in(&temp, "cluster.yaml");
    const struct {
        const char *const *words;
        int status;
        const char *said;
    } cases[] = {
        {WORDS("plan", "--config-file", config.text), 2, "--cluster FILE is missing"},
        {WORDS("plan", "--config-file", config.text, "--cluster", "nowhere.yaml"), 2,
         "nowhere.yaml: No such"},
        {WORDS("plan", "--config-file", config.text, "--cluster", cluster.text, "--ranks", "9"), 2,
         "--ranks 9: expected 1 to 8"},
        {WORDS("plan", "--config-file", config.text, "--cluster", cluster.text, "train.global_batch_size=4"),
         2, "8 ranks, but a global batch of 4"},
        {WORDS("plan", "--config-file", config.text, "--cluster", cluster.text, "--ranks", "1",
               "train.batch_size_per_gpu=4096"),
         0, "do not fit into the 4.0 GiB of a rank"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ProcessResult result = process_run_dinobatch(0, cases[i].words, LIMIT_SECONDS);
        cr_expect_eq(result.exit_status, cases[i].status, "exit %d: %s", result.exit_status, result.err);
        cr_expect(strstr(result.err, cases[i].said), "no \"%s\" in: %s", cases[i].said, result.err);
        bool advised = strstr(result.out, "would fit with") != NULL;
        cr_expect_eq(advised, cases[i].status == 0, "%s", result.out);
        process_result_fini(&result);
    }
}

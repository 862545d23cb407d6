/* test_cuda_runs.c - `dinobatch pretrain` on a GPU, beside the same run on the CPU: loader, loop, files and
 * ranks as users have them. What one step gives is test_cuda_training.c's business.
 *
 * $DINOBATCH is the program. Ranks share the machine's GPU, or all of them where there are several.
 */
#include "../support/train_support.h"
#include "../support/twin_support.h"

#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_SECONDS = 100, WORDS_MAX = 32 };

/* Small, and in fp32. */
static const char *const COMMON[] = {"train.batch_size_per_gpu=2",
                                     "train.global_batch_size=4",
                                     "crops.local_crops_number=1",
                                     "compute_precision.student.backbone.mixed_precision.param_dtype=fp32",
                                     "compute_precision.student.dino_head.mixed_precision.param_dtype=fp32",
                                     "compute_precision.student.ibot_head.mixed_precision.param_dtype=fp32",
                                     "compute_precision.teacher.backbone.mixed_precision.param_dtype=fp32",
                                     "compute_precision.teacher.dino_head.mixed_precision.param_dtype=fp32",
                                     "compute_precision.teacher.ibot_head.mixed_precision.param_dtype=fp32",
                                     "train.centering=centering",
                                     "checkpoint.period=1",
                                     NULL};

static TempFolder temp;

static void set_up(void)
{
    setenv("EMULATOR_GPU", "the only one", 0); /* for an emulated program */
    temp = train_support_folder();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(cuda_runs, .init = set_up, .fini = tear_down, .timeout = 240);

static const char *const FULL_SHARD[] = {"compute_precision.student.backbone.sharding_strategy=FULL_SHARD",
                                         "compute_precision.student.dino_head.sharding_strategy=FULL_SHARD",
                                         "compute_precision.student.ibot_head.sharding_strategy=FULL_SHARD",
                                         "compute_precision.teacher.backbone.sharding_strategy=FULL_SHARD",
                                         "compute_precision.teacher.dino_head.sharding_strategy=FULL_SHARD",
                                         "compute_precision.teacher.ibot_head.sharding_strategy=FULL_SHARD",
                                         NULL};

/* Trains in the folder `run` until `steps` are done in this call, with more words (or NULL). */
static void train_with(int ranks, const char *run, const char *device, const char *steps,
                       const char *const *more)
{
    const char *words[WORDS_MAX] = {device, steps};
    int count = 2;
    for (int i = 0; COMMON[i]; i++)
        words[count++] = COMMON[i];
    for (int i = 0; more && more[i]; i++)
        words[count++] = more[i];
    Process process = train_support_pretrain(&temp, ranks, run, words);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 75, "%s: exit %d: %s", run, result.exit_status, result.err);
    process_result_fini(&result);
}

static void train(int ranks, const char *run, const char *device, const char *steps)
{
    train_with(ranks, run, device, steps, NULL);
}

static const char CPU[] = "compute.device=cpu", CUDA[] = "compute.device=cuda";
static const char ONE[] = "train.stop_after_iterations=1", TWO[] = "train.stop_after_iterations=2",
                  THREE[] = "train.stop_after_iterations=3", FIVE[] = "train.stop_after_iterations=5";

static void expect_equal_within_rounding(const char *run_a, const char *run_b)
{
    TempPath a = temp_folder_in(&temp, "%s", run_a), b = temp_folder_in(&temp, "%s", run_b),
             start = train_support_checkpoint(&temp, "start", 0),
             last_a = train_support_checkpoint(&temp, run_a, 4),
             last_b = train_support_checkpoint(&temp, run_b, 4);
    double losses = train_support_losses_differ(a.text, b.text, 5);
    TrainDifference d = train_support_checkpoints_differ(last_a.text, last_b.text, start.text);
    fprintf(stderr, "cuda_runs: %s and %s: losses differ by %.2g, %s by %.2g of its update\n", run_a, run_b,
            losses, d.tensor, d.worst);
    cr_expect(losses >= 0 && losses < 1e-5, "%s and %s: losses differ by %g", run_a, run_b, losses);
    cr_expect(d.tensors > 100 && d.worst < 1e-3, "%s and %s: %s differs by %g of its update", run_a, run_b,
              d.tensor, d.worst);
}

static void expect_same_bits(const char *run_a, const char *run_b)
{
    TrainDifference d = train_support_runs_differ(&temp, run_a, run_b, 4);
    cr_expect(d.tensors > 100 && d.differing_bits == 0, "%s and %s: %lld of %lld tensors differ", run_a,
              run_b, (long long)d.differing_bits, (long long)d.tensors);
}

/* One rank, two ranks that share a GPU, two with parts of the weights, and a run in two pieces, of which a
 * CPU did neither. */
Test(cuda_runs, ranks_and_resuming_change_nothing)
{
    TWIN_REQUIRE();
    train(0, "start", CPU,
          ONE); /* learning rate 0 in the first step: what it saves are the initial weights */
    train(0, "cpu", CPU, FIVE);
    train(0, "one", CUDA, FIVE);
    train(2, "two", CUDA, FIVE);
    unsetenv("EMULATOR_GPU"); /* a GPU for each rank, where several can be had: NCCL between them */
    train_with(2, "sharded", CUDA, FIVE, FULL_SHARD);
    train(0, "pieces", CUDA, TWO);
    train(0, "pieces", CUDA, THREE);
    expect_equal_within_rounding("cpu", "one");
    expect_equal_within_rounding("one", "two");
    expect_equal_within_rounding("one", "sharded");
    expect_same_bits("one", "pieces");
    char *log = temp_folder_read(&temp, "two/log.txt");
    cr_expect(strstr(log, "2 ranks"), "%s", log);
    temp_folder_free_text(log);
}

/* --- bench ------------------------------------------------------------------------------------------------
 */

static double number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    cr_assert(cJSON_IsNumber(item), "no number %s", name);
    return item->valuedouble;
}

/* Of all measurements; how many there are. */
static int count_measurements(const cJSON *tree)
{
    int count = 0;
    const cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(tree, "measurements"))
    {
        double rate = number(row, "per_s");
        cr_expect(isfinite(rate) && rate > 0, "%s", cJSON_GetStringValue(cJSON_GetObjectItem(row, "name")));
        count++;
    }
    return count;
}

/* Work that is counted on the way, and by formula; times of a step taken apart. */
static void check_step(const cJSON *step)
{
    cr_expect_float_eq(number(step, "counted_flops") / number(step, "parts_flops"), 1.0, 1e-9);
    cr_expect_gt(number(cJSON_GetObjectItem(step, "memory_bytes"), "peak_device"), 0);
    cr_expect_gt(number(step, "images_per_s"), 0);
    double sum = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, cJSON_GetObjectItem(step, "parts"))
    {
        double seconds = number(part, "seconds");
        bool other = strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(part, "name")), "other") == 0;
        cr_expect(other || seconds > 0, "%s", cJSON_GetStringValue(cJSON_GetObjectItem(part, "name")));
        sum += seconds;
    }
    cr_expect_float_eq(sum / number(step, "parts_seconds"), 1.0, 1e-6);
}

Test(cuda_runs, bench_measures_the_gpu)
{
    TWIN_REQUIRE();
    ProcessResult result = process_run_dinobatch(
        0,
        WORDS("bench", "--device", "cuda", "--quick", "--preset", "tiny", "--seconds", "0.001", "--json",
              "compute.threads=1", "student.arch=vit_custom", "student.depth=2", "student.embed_dim=64",
              "student.num_heads=2", "crops.local_crops_number=2", "train.batch_size_per_gpu=2",
              "dino.head_n_prototypes=64", "ibot.head_n_prototypes=48", "dino.head_hidden_dim=32",
              "ibot.head_hidden_dim=48", "dino.head_bottleneck_dim=32", "ibot.head_bottleneck_dim=32"),
        LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    const char *line = strstr(result.out, "\n{");
    cJSON *tree = line ? cJSON_Parse(line + 1) : NULL;
    cr_assert(tree, "no JSON: %s", result.out);
    static const char *const LIMITS[] = {"fp32_flops_per_s", "bf16_flops_per_s", "fp16_flops_per_s",
                                         "copy_bytes_per_s"};
    for (int i = 0; i < 4; i++)
        cr_expect_gt(number(cJSON_GetObjectItem(tree, "limits"), LIMITS[i]), 0, "%s", LIMITS[i]);
    cr_expect_geq(count_measurements(tree), 20);
    const cJSON *steps = cJSON_GetObjectItem(tree, "steps");
    cr_assert_eq(cJSON_GetArraySize(steps), 1);
    check_step(cJSON_GetArrayItem(steps, 0));
    cJSON_Delete(tree);
    process_result_fini(&result);
}

/* test_train.c - the same global batch gives the same training: on any number of ranks, in micro-batches of
 * any size, in one go or resumed, within the meaning of "equal" of the design. Real runs of the real loop.
 *
 * What "rounding" allows: losses 1e-5 relative for 5 steps and 1e-4 for 20, weights after 10 steps 1e-3 of
 * their update. The runs here come to about 1e-7 and 1e-5, so the limits below are tighter.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60, WORDS_MAX = 24 };

static const double LOSSES_5 = 1e-6, LOSSES_20 = 1e-5, TENSORS = 1e-3;

static TempFolder temp;

static void set_up(void)
{
    temp = train_support_folder();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(train, .init = set_up, .fini = tear_down, .timeout = 120);

/* Trains in the folder `run` and expects that exit status; standard error must hold `text` unless NULL. */
static void train(int ranks, const char *run, const char *const *common, const char *const *words, int status,
                  const char *text)
{
    TempPath output = temp_folder_in(&temp, "%s", run), config = temp_folder_in(&temp, "tiny.yaml");
    const char *all[WORDS_MAX + 1] = {output.text, config.text};
    int count = 2;
    for (; common && *common; common++)
        all[count++] = *common;
    for (; words && *words; words++)
        all[count++] = *words;
    cr_assert(count <= WORDS_MAX);
    ProcessResult result = process_run_case(ranks, "train", all, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, status, "%s on %d ranks: exit %d: %s", run, ranks, result.exit_status,
                 result.err);
    if (text) cr_assert(strstr(result.err, text), "%s: no \"%s\" in: %s", run, text, result.err);
    process_result_fini(&result);
}

/* Two runs, after 10 and after 20 steps; the folder "start" has the initial weights. */
static void expect_equal_within_rounding(const char *run_a, const char *run_b)
{
    TempPath a = temp_folder_in(&temp, "%s", run_a), b = temp_folder_in(&temp, "%s", run_b),
             start = train_support_checkpoint(&temp, "start", 0);
    double five = train_support_losses_differ(a.text, b.text, 5),
           twenty = train_support_losses_differ(a.text, b.text, 20);
    cr_expect(five >= 0 && five < LOSSES_5, "%s and %s: losses differ by %g in 5 steps", run_a, run_b, five);
    cr_expect(twenty >= 0 && twenty < LOSSES_20, "%s and %s: losses differ by %g in 20 steps", run_a, run_b,
              twenty);
    for (long iteration = 9; iteration <= 19; iteration += 10) {
        TempPath file_a = train_support_checkpoint(&temp, run_a, iteration),
                 file_b = train_support_checkpoint(&temp, run_b, iteration);
        TrainDifference d = train_support_checkpoints_differ(file_a.text, file_b.text, start.text);
        cr_expect(d.tensors > 100 && d.worst < TENSORS, "%s and %s: %s differs by %g of its update", run_a,
                  run_b, d.tensor, d.worst);
    }
}

static void expect_same_bits(const char *run_a, const char *run_b)
{
    TrainDifference d = train_support_runs_differ(&temp, run_a, run_b, 19);
    cr_expect(d.tensors > 100 && d.differing_bits == 0, "%s and %s: %lld of %lld tensors differ", run_a,
              run_b, (long long)d.differing_bits, (long long)d.tensors);
}

/* Learning rate 0 in the first step of the warm-up: what it saves are the initial weights. */
static void save_start(const char *const *common)
{
    train(1, "start", common, WORDS("train.stop_after_iterations=1"), 75, "stopped after iteration 1 of 20");
}

/* Rank count and micro-batch size of a run. */
typedef struct {
    int ranks;
    const char *micro;
} Dealing;

static void expect_independent_of(const char *const *common, const Dealing *dealings, size_t count)
{
    save_start(common);
    train(1, "one", common, NULL, 0, NULL);
    train(1, "again", common, NULL, 0, NULL);
    expect_same_bits("one", "again");
    for (size_t i = 0; i < count; i++) {
        char run[32], micro[64];
        snprintf(run, sizeof run, "n%d-m%s", dealings[i].ranks, dealings[i].micro);
        snprintf(micro, sizeof micro, "train.micro_batch_size=%s", dealings[i].micro);
        train(dealings[i].ranks, run, common, WORDS(micro), 0, NULL);
        expect_equal_within_rounding("one", run);
    }
}

/* 12 groups of 4: three ranks deal them evenly, five do not; micro-batches of 3 and 7 cut groups. */
Test(train, ranks_and_micro_batches_change_nothing)
{
    static const Dealing dealings[] = {{2, "0"}, {3, "0"}, {4, "0"}, {5, "0"},
                                       {1, "4"}, {2, "3"}, {3, "7"}, {4, "4"}};
    expect_independent_of(NULL, dealings, sizeof dealings / sizeof *dealings);
}

Test(train, shared_head_centering_and_global_koleo_are_as_independent)
{
    static const Dealing dealings[] = {{2, "0"}, {5, "0"}, {1, "7"}, {3, "4"}};
    expect_independent_of(
        WORDS("ibot.separate_head=false", "train.centering=centering", "dino.koleo_scope=global"), dealings,
        sizeof dealings / sizeof *dealings);
}

Test(train, the_same_ranks_give_the_same_bits_and_so_does_resuming)
{
    static const char centering[] = "train.centering=centering";
    save_start(WORDS(centering));
    train(2, "whole", WORDS(centering), NULL, 0, NULL);
    train(2, "again", WORDS(centering), WORDS("train.num_workers=2"), 0, NULL);
    expect_same_bits("whole", "again");

    train(2, "beside", WORDS(centering), WORDS("checkpoint.async=true", "checkpoint.period=5"), 0,
          "s, beside training");
    for (long iteration = 9; iteration <= 19; iteration += 10) {
        TrainDifference d = train_support_runs_differ(&temp, "whole", "beside", iteration);
        cr_expect(d.tensors > 100 && d.differing_bits == 0, "written beside training: %lld tensors differ",
                  (long long)d.differing_bits);
    }

    train(2, "halves", WORDS(centering), WORDS("train.stop_after_iterations=10"), 75,
          "stopped after iteration 10 of 20");
    TempPath halves = temp_folder_in(&temp, "halves"), moved = temp_folder_in(&temp, "moved");
    ProcessResult copy = process_run(WORDS("cp", "-r", halves.text, moved.text), LIMIT_SECONDS);
    cr_assert_eq(copy.exit_status, 0, "%s", copy.err);
    process_result_fini(&copy);
    train(2, "halves", WORDS(centering), WORDS("train.checkpoint_activations=block"), 0,
          "resuming after iteration 9");
    expect_same_bits("whole", "halves");
    TempPath whole = temp_folder_in(&temp, "whole");
    cr_expect_eq(train_support_losses_differ(whole.text, halves.text, 20), 0.0);

    train(3, "moved", WORDS(centering), WORDS("train.micro_batch_size=6", "train.num_workers=1"), 0, NULL);
    expect_equal_within_rounding("whole", "moved");
}

/* --- sharded weights --- */

#define SHARDED(strategy)                                                  \
    "compute_precision.student.backbone.sharding_strategy=" strategy,      \
        "compute_precision.student.dino_head.sharding_strategy=" strategy, \
        "compute_precision.student.ibot_head.sharding_strategy=" strategy, \
        "compute_precision.teacher.backbone.sharding_strategy=" strategy,  \
        "compute_precision.teacher.dino_head.sharding_strategy=" strategy, \
        "compute_precision.teacher.ibot_head.sharding_strategy=" strategy

enum { STRATEGY_WORDS = 6 };

static const char *const STRATEGIES[][STRATEGY_WORDS + 1] = {
    {SHARDED("NO_SHARD")}, {SHARDED("SHARD_GRAD_OP")}, {SHARDED("FULL_SHARD")}, {SHARDED("HYBRID_SHARD")}};
enum { NO_SHARD, SHARD_GRAD_OP, FULL_SHARD, HYBRID_SHARD, STRATEGY_COUNT };

static const char TEN[] = "train.stop_after_iterations=10";

/* Ten steps of the start "start" in two runs. */
static void expect_equal_ten(const char *run_a, const char *run_b)
{
    TempPath a = temp_folder_in(&temp, "%s", run_a), b = temp_folder_in(&temp, "%s", run_b),
             start = train_support_checkpoint(&temp, "start", 0),
             file_a = train_support_checkpoint(&temp, run_a, 9),
             file_b = train_support_checkpoint(&temp, run_b, 9);
    double ten = train_support_losses_differ(a.text, b.text, 10);
    cr_expect(ten >= 0 && ten < LOSSES_5, "%s and %s: losses differ by %g in 10 steps", run_a, run_b, ten);
    TrainDifference d = train_support_checkpoints_differ(file_a.text, file_b.text, start.text);
    cr_expect(d.tensors > 100 && d.worst < TENSORS, "%s and %s: %s differs by %g of its update", run_a, run_b,
              d.tensor, d.worst);
}

/* 8 ranks are two nodes of 4, 4 are two of 2; 2 and 3 are one. */
Test(train, strategies_change_nothing)
{
    static const int counts[] = {1, 2, 3, 4, 8};
    static const char *const nodes[] = {"1", "2", "3", "2", "4"};
    save_start(NULL);
    train(1, "plain", STRATEGIES[NO_SHARD], WORDS(TEN), 75, NULL);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int s = counts[i] == 1 ? SHARD_GRAD_OP : NO_SHARD; s < STRATEGY_COUNT; s++) {
            char run[32], per_node[48];
            snprintf(run, sizeof run, "n%d-s%d", counts[i], s);
            snprintf(per_node, sizeof per_node, "compute.ranks_per_node=%s", nodes[i]);
            train(counts[i], run, STRATEGIES[s], WORDS(TEN, per_node), 75, NULL);
            expect_equal_ten("plain", run);
        }
    }
}

/* What a strategy has to do with: micro-batches, chunks of blocks, a shared head, recomputation, and a module
 * that is cut beside one that is not. */
Test(train, strategies_go_with_everything_else)
{
    static const char *const variants[][4] = {
        {"train.micro_batch_size=5", "train.checkpoint_activations=block"},
        {"student.block_chunks=2"},
        {"ibot.separate_head=false", "train.centering=centering", "dino.koleo_scope=global"}};
    static const char *const mixed[] = {"compute_precision.student.dino_head.sharding_strategy=NO_SHARD",
                                        "compute_precision.teacher.ibot_head.sharding_strategy=NO_SHARD",
                                        "compute_precision.teacher.backbone.sharding_strategy=FULL_SHARD",
                                        TEN, NULL};
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        TempPath start = temp_folder_in(&temp, "start");
        ProcessResult removed = process_run(WORDS("rm", "-rf", start.text), LIMIT_SECONDS);
        process_result_fini(&removed);
        save_start(variants[i]);
        char plain[16], sharded[16];
        snprintf(plain, sizeof plain, "plain-%zu", i);
        snprintf(sharded, sizeof sharded, "mixed-%zu", i);
        train(1, plain, variants[i], WORDS(TEN), 75, NULL);
        train(3, sharded, variants[i], mixed, 75, NULL);
        expect_equal_ten(plain, sharded);
    }
}

Test(train, sharded_runs_repeat_and_resume_on_any_ranks_and_strategy)
{
    static const struct {
        int ranks, strategy;
    } goes_on[] = {{1, NO_SHARD}, {2, FULL_SHARD}, {3, SHARD_GRAD_OP}, {8, HYBRID_SHARD}};
    save_start(NULL);
    train(1, "plain", STRATEGIES[NO_SHARD], WORDS(TEN), 75, NULL);
    train(4, "half", STRATEGIES[FULL_SHARD], WORDS("train.stop_after_iterations=5"), 75, NULL);
    TempPath half = temp_folder_in(&temp, "half");
    for (size_t i = 0; i < sizeof goes_on / sizeof *goes_on; i++) {
        char run[32];
        snprintf(run, sizeof run, "on-%d", goes_on[i].ranks);
        TempPath to = temp_folder_in(&temp, "%s", run);
        ProcessResult copy = process_run(WORDS("cp", "-r", half.text, to.text), LIMIT_SECONDS);
        cr_assert_eq(copy.exit_status, 0, "%s", copy.err);
        process_result_fini(&copy);
        train(goes_on[i].ranks, run, STRATEGIES[goes_on[i].strategy],
              WORDS("train.stop_after_iterations=5", "compute.ranks_per_node=4"), 75,
              "resuming after iteration 4");
        expect_equal_ten("plain", run);
    }
    train(4, "whole", STRATEGIES[FULL_SHARD], WORDS(TEN), 75, NULL);
    train(4, "half", STRATEGIES[FULL_SHARD], WORDS("train.stop_after_iterations=5"), 75, NULL);
    TrainDifference d = train_support_runs_differ(&temp, "whole", "half", 9);
    cr_expect(d.tensors > 100 && d.differing_bits == 0, "%lld of %lld tensors differ",
              (long long)d.differing_bits, (long long)d.tensors);
}

Test(train, nodes_of_different_size_are_refused)
{
    train(3, "run", STRATEGIES[HYBRID_SHARD], WORDS("compute.ranks_per_node=2"), 2,
          "compute.ranks_per_node: 2 does not divide 3 ranks");
}

/* --- bf16 against fp32 --- */

#define ALL_IN(type)                                                             \
    "compute_precision.student.backbone.mixed_precision.param_dtype=" type,      \
        "compute_precision.student.dino_head.mixed_precision.param_dtype=" type, \
        "compute_precision.student.ibot_head.mixed_precision.param_dtype=" type, \
        "compute_precision.teacher.backbone.mixed_precision.param_dtype=" type,  \
        "compute_precision.teacher.dino_head.mixed_precision.param_dtype=" type, \
        "compute_precision.teacher.ibot_head.mixed_precision.param_dtype=" type

#define REDUCED_IN(type)                                                          \
    "compute_precision.student.backbone.mixed_precision.reduce_dtype=" type,      \
        "compute_precision.student.dino_head.mixed_precision.reduce_dtype=" type, \
        "compute_precision.student.ibot_head.mixed_precision.reduce_dtype=" type

/* Each loss of each of the 20 steps. The largest of the shares goes to the output, so that a slow drift
 * towards the limit is seen. */
static double expect_losses_within(const char *run_a, const char *run_b, double limit)
{
    static const double KOLEO_FLOOR = 0.1; /* it starts near 0.2 and passes through zero */
    TempPath a = temp_folder_in(&temp, "%s", run_a), b = temp_folder_in(&temp, "%s", run_b);
    double worst = 0;
    for (int k = 0; k < TRAIN_SUPPORT_LOSSES; k++) {
        const char *key = TRAIN_SUPPORT_LOSS_KEYS[k];
        double floor = strcmp(key, "koleo_loss") == 0 ? KOLEO_FLOOR : 0.0;
        double apart = train_support_loss_differs(a.text, b.text, key, 20, floor);
        cr_expect(apart >= 0 && apart < limit, "%s and %s: %s differs by %g", run_a, run_b, key, apart);
        cr_log_info("%s and %s: %s differs by %g", run_a, run_b, key, apart);
        if (apart > worst) worst = apart;
    }
    return worst;
}

Test(train, bf16_stays_within_two_percent_of_fp32)
{
    static const double LIMIT = 0.02, ROUNDING = 1e-5;
    train(1, "fp32-1", WORDS(ALL_IN("fp32")), NULL, 0, "student backbone fp32");
    train(1, "bf16-1", WORDS(ALL_IN("bf16")), NULL, 0, "student backbone");
    char *log = temp_folder_read(&temp, "bf16-1/log.txt");
    bool multiplied = strstr(log, "student backbone bf16, dino_head bf16, ibot_head bf16") != NULL;
    temp_folder_free_text(log);
    cr_assert(multiplied || !getenv("CI"), "this processor does not multiply bf16");
    if (!multiplied) cr_skip_test("this processor does not multiply bf16");
    train(2, "fp32-2", WORDS(ALL_IN("fp32")), NULL, 0, NULL);
    train(2, "bf16-2", WORDS(ALL_IN("bf16")), NULL, 0, NULL);
    static const char *const pairs[][2] = {
        {"fp32-1", "bf16-1"}, {"fp32-2", "bf16-2"}, {"fp32-1", "bf16-2"}, {"bf16-1", "bf16-2"}};
    for (int i = 0; i < 3; i++) {
        double worst = expect_losses_within(pairs[i][0], pairs[i][1], LIMIT);
        cr_expect(worst > ROUNDING, "%s was computed in fp32", pairs[i][1]);
    }
    expect_losses_within(pairs[3][0], pairs[3][1], LIMIT);

    /* gathered in bf16, and gradients summed in it */
    train(2, "bf16-sharded", WORDS(ALL_IN("bf16"), REDUCED_IN("bf16")), STRATEGIES[FULL_SHARD], 0, NULL);
    train(2, "bf16-copies", WORDS(ALL_IN("bf16"), REDUCED_IN("bf16")), STRATEGIES[NO_SHARD], 0, NULL);
    expect_losses_within("fp32-1", "bf16-sharded", LIMIT);
    expect_losses_within("bf16-copies", "bf16-sharded", ROUNDING);
    cr_expect(expect_losses_within("bf16-2", "bf16-sharded", LIMIT) > 0, "sums were made in fp32");
}

/* The batch of the run stays, whatever number of ranks goes on with it. */
Test(train, resuming_keeps_the_global_batch)
{
    static const char all_ranks[] = "train.global_batch_size=0";
    train(3, "run", WORDS(all_ranks), WORDS("train.stop_after_iterations=2"), 75, NULL);
    train(2, "run", WORDS(all_ranks), WORDS("train.stop_after_iterations=2"), 75, "iterations of 12 images");
    train(4, "run", WORDS(all_ranks), NULL, 2, "4 ranks, but a global batch of 12 in groups of 4");
}

Test(train, a_nan_ends_the_run_and_says_where)
{
    static const char *const roles[] = {"student", "teacher"};
    TempPath config = temp_folder_in(&temp, "tiny.yaml");
    for (int i = 0; i < 2; i++) {
        char expected[240];
        TempPath run = temp_folder_in(&temp, "%s", roles[i]);
        train(1, roles[i], NULL, WORDS("train.stop_after_iterations=3"), 75, NULL);
        ProcessResult poison =
            process_run_case(1, "train_poison", WORDS(run.text, config.text, roles[i]), LIMIT_SECONDS);
        cr_assert_eq(poison.exit_status, 0, "%s", poison.err);
        char name[100];
        const char *said = strstr(poison.err, "poisoned ");
        cr_assert(said && sscanf(said, "poisoned %99s", name) == 1);
        snprintf(expected, sizeof expected,
                 "error: iteration 3: dino_global_crops_loss is not finite; first bad tensor: %s weight "
                 "backbone.%s",
                 roles[i], name);
        train(2, roles[i], NULL, NULL, 1, expected);
        /* two of them may be skipped, but not three in a row */
        train(1, roles[i], WORDS("train.skip_bad_steps=2", "--allow-config-change"), NULL, 1,
              "iteration 5: dino_global_crops_loss is not finite");
        cr_expect_eq(access(train_support_checkpoint(&temp, roles[i], 2).text, F_OK), 0);
        cr_expect_neq(access(train_support_checkpoint(&temp, roles[i], 3).text, F_OK), 0);
        process_result_fini(&poison);
    }
}

/* train.saveckp_freq in epochs of 10 steps: those after steps 10 and 20 stay, of the others the newest. */
Test(train, checkpoints_of_chosen_epochs_stay_for_ever)
{
    train(1, "run", NULL, WORDS("checkpoint.period=5", "checkpoint.keep=1", "train.saveckp_freq=1"), 0, NULL);
    for (long iteration = 4; iteration <= 19; iteration += 5) {
        TempPath path = train_support_checkpoint(&temp, "run", iteration);
        cr_expect_eq(access(path.text, F_OK) == 0, iteration == 9 || iteration == 19, "%s", path.text);
    }
}

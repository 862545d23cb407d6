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

enum { LIMIT_SECONDS = 60, PATH_BYTES = 300, WORDS_MAX = 16 };

static const double LOSSES_5 = 1e-6, LOSSES_20 = 1e-5, TENSORS = 1e-3;

static TempFolder temp;

static void set_up(void)
{
    temp = temp_folder_create();
    temp_folder_write(&temp, "tiny.yaml", TRAIN_SUPPORT_CONFIG);
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1); /* no rank here needs a second to clean up */
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(train, .init = set_up, .fini = tear_down, .timeout = 120);

typedef struct {
    char path[PATH_BYTES];
} Path;

static Path in_folder(const char *run, const char *relative)
{
    Path path;
    snprintf(path.path, sizeof path.path, "%s/%s%s%s", temp.path, run, *relative ? "/" : "", relative);
    return path;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Trains in the folder `run` and expects that exit status; standard error must hold `text` unless NULL. */
static void train(int ranks, const char *run, const char *const *common, const char *const *words, int status,
                  const char *text)
{
    Path output = in_folder(run, ""), config = in_folder("tiny.yaml", "");
    const char *all[WORDS_MAX + 1] = {output.path, config.path};
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
    Path a = in_folder(run_a, ""), b = in_folder(run_b, ""),
         start = in_folder("start", "checkpoints/model_0000000.h5");
    double five = train_support_losses_differ(a.path, b.path, 5),
           twenty = train_support_losses_differ(a.path, b.path, 20);
    cr_expect(five >= 0 && five < LOSSES_5, "%s and %s: losses differ by %g in 5 steps", run_a, run_b, five);
    cr_expect(twenty >= 0 && twenty < LOSSES_20, "%s and %s: losses differ by %g in 20 steps", run_a, run_b,
              twenty);
    static const char *const files[] = {"checkpoints/model_0000009.h5", "checkpoints/model_0000019.h5"};
    for (int i = 0; i < 2; i++) {
        Path file_a = in_folder(run_a, files[i]), file_b = in_folder(run_b, files[i]);
        TrainDifference d = train_support_checkpoints_differ(file_a.path, file_b.path, start.path);
        cr_expect(d.tensors > 100 && d.worst < TENSORS, "%s and %s: %s differs by %g of its update", run_a,
                  run_b, d.tensor, d.worst);
    }
}

static void expect_same_bits(const char *run_a, const char *run_b, const char *file)
{
    Path a = in_folder(run_a, file), b = in_folder(run_b, file);
    TrainDifference d = train_support_checkpoints_differ(a.path, b.path, NULL);
    cr_expect(d.tensors > 100 && d.differing_bits == 0, "%s and %s: %lld of %lld tensors of %s differ", run_a,
              run_b, (long long)d.differing_bits, (long long)d.tensors, file);
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
    expect_same_bits("one", "again", "checkpoints/model_0000019.h5");
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
    static const char last[] = "checkpoints/model_0000019.h5";
    static const char centering[] = "train.centering=centering";
    save_start(WORDS(centering));
    train(2, "whole", WORDS(centering), NULL, 0, NULL);
    train(2, "again", WORDS(centering), WORDS("train.num_workers=2"), 0, NULL);
    expect_same_bits("whole", "again", last);

    train(2, "halves", WORDS(centering), WORDS("train.stop_after_iterations=10"), 75,
          "stopped after iteration 10 of 20");
    Path halves = in_folder("halves", ""), moved = in_folder("moved", "");
    ProcessResult copy = process_run(WORDS("cp", "-r", halves.path, moved.path), LIMIT_SECONDS);
    cr_assert_eq(copy.exit_status, 0, "%s", copy.err);
    process_result_fini(&copy);
    train(2, "halves", WORDS(centering), NULL, 0, "resuming after iteration 9");
    expect_same_bits("whole", "halves", last);
    Path whole = in_folder("whole", "");
    cr_expect_eq(train_support_losses_differ(whole.path, halves.path, 20), 0.0);

    train(3, "moved", WORDS(centering), WORDS("train.micro_batch_size=6", "train.num_workers=1"), 0, NULL);
    expect_equal_within_rounding("whole", "moved");
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
    Path config = in_folder("tiny.yaml", "");
    for (int i = 0; i < 2; i++) {
        char expected[240];
        Path run = in_folder(roles[i], "");
        train(1, roles[i], NULL, WORDS("train.stop_after_iterations=3"), 75, NULL);
        ProcessResult poison =
            process_run_case(1, "train_poison", WORDS(run.path, config.path, roles[i]), LIMIT_SECONDS);
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
        Path good = in_folder(roles[i], "checkpoints/model_0000002.h5"),
             newer = in_folder(roles[i], "checkpoints/model_0000003.h5");
        cr_expect_eq(access(good.path, F_OK), 0);
        cr_expect_neq(access(newer.path, F_OK), 0);
        process_result_fini(&poison);
    }
}

/* train.saveckp_freq in epochs of 10 steps: those after steps 10 and 20 stay, of the others the newest. */
Test(train, checkpoints_of_chosen_epochs_stay_for_ever)
{
    static const char *const files[] = {"0000004", "0000009", "0000014", "0000019"};
    static const bool stays[] = {false, true, false, true};
    train(1, "run", NULL, WORDS("checkpoint.period=5", "checkpoint.keep=1", "train.saveckp_freq=1"), 0, NULL);
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "checkpoints/model_%s.h5", files[i]);
        Path path = in_folder("run", name);
        cr_expect_eq(access(path.path, F_OK) == 0, stays[i], "%s", name);
    }
}

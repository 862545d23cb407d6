/* test_pretrain.c - `pretrain` by the real program: what it may start from. */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60 };

static TempFolder temp;

static void set_up(void)
{
    temp = train_support_folder();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(pretrain, .init = set_up, .fini = tear_down, .timeout = 120);

/* On two ranks in the folder `run`; standard error must hold both texts. */
static void pretrain(const char *run, const char *const *words, int status, const char *text,
                     const char *second_text)
{
    Process process = train_support_pretrain(&temp, 2, run, words);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, status, "%s: exit %d: %s", text, result.exit_status, result.err);
    cr_expect(strstr(result.err, text), "no \"%s\" in: %s", text, result.err);
    cr_expect(strstr(result.err, second_text), "no \"%s\" in: %s", second_text, result.err);
    process_result_fini(&result);
}

/* --- evaluation beside sharded weights --- */

/* The second rank has no picture of the one set and fewer batches of the other, but parts of all weights. */
Test(pretrain, evaluation_gathers_weights_on_ranks_that_have_nothing_to_evaluate)
{
    static const char *const strategies[] = {"FULL_SHARD", "SHARD_GRAD_OP"};
    for (int i = 0; i < 2; i++) {
        char word[96];
        snprintf(word, sizeof word, "compute_precision.teacher.backbone.sharding_strategy=%s", strategies[i]);
        pretrain(strategies[i],
                 WORDS(word, "evaluation.eval_period_iterations=2",
                       "evaluation.train_dataset_path=synthetic:classes=3,size=40,count=33,seed=5",
                       "evaluation.val_dataset_path=synthetic:classes=3,size=40,count=1,seed=6",
                       "evaluation.batch_size=8", "evaluation.knn_k=[3]", "evaluation.crop_size=32",
                       "train.stop_after_iterations=3"),
                 75, "iteration 1: k-NN ", "stopped after iteration 3");
    }
}

/* --- student.pretrained_weights --- */

static const char ONE_STEP[] = "train.stop_after_iterations=1";

/* KEY=FOLDER/relative */
static TempPath file_word(const char *key, const char *relative)
{
    TempPath word, file = temp_folder_in(&temp, "%s", relative);
    int length = snprintf(word.text, sizeof word.text, "%s=%.280s", key, file.text);
    cr_assert(length > 0 && length < (int)sizeof word.text);
    return word;
}

Test(pretrain, pretrained_weights_that_do_not_fit_are_refused_before_anything_is_made)
{
    static const char model[] = "first/checkpoints/model_0000000.h5";
    static const struct {
        const char *file, *change, *said;
    } cases[] = {
        {model, "student.depth=2", "another architecture: /teacher/backbone/blocks/2/"},
        {model, "student.depth=4", "another architecture: /teacher/backbone/blocks/3/"},
        {model, "student.embed_dim=48", "/teacher/backbone/cls_token is [1, 1, 32] there, [1, 1, 48] here"},
        {model, "crops.global_crops_size=40",
         "/teacher/backbone/pos_embed is [1, 17, 32] there, [1, 26, 32] here"},
        {model, "student.num_register_tokens=2", "/teacher/backbone/register_tokens is not there"},
        {"missing.h5", ONE_STEP, "No such file"},
        {"tiny.yaml", ONE_STEP, "not a whole HDF5 file"},
        {"model.safetensors", ONE_STEP, "expected an HDF5 checkpoint of this program"},
    };
    pretrain("first", WORDS(ONE_STEP), 75, "starting from initial weights", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        TempPath word = file_word("student.pretrained_weights", cases[i].file),
                 second = temp_folder_in(&temp, "second");
        char named[400];
        snprintf(named, sizeof named, "error: student.pretrained_weights: %s/%s: ", temp.path, cases[i].file);
        pretrain("second", WORDS(word.text, cases[i].change), 2, named, cases[i].said);
        cr_expect_neq(access(second.text, F_OK), 0, "the folder was made for %s", cases[i].said);
    }
}

Test(pretrain, pretrained_weights_start_a_run_and_leave_a_resumed_one_alone)
{
    TempPath word = file_word("student.pretrained_weights", "first/checkpoints/model_0000009.h5");
    pretrain("first", WORDS("train.stop_after_iterations=10"), 75, "starting from initial weights", "");
    pretrain("second", WORDS(word.text, "train.seed=3", ONE_STEP), 75, "starting with the backbone of ",
             "heads from initial weights, seed 3");
    /* Learning rate 0 in the first step of the warm-up: the student that it saves is the one it began with.
     */
    TempPath first = train_support_checkpoint(&temp, "first", 9),
             second = train_support_checkpoint(&temp, "second", 0);
    TrainDifference d =
        train_support_groups_differ(first.text, "/teacher/backbone", second.text, "/student/backbone");
    cr_expect(d.tensors > 40 && d.differing_bits == 0, "%lld of %lld tensors differ",
              (long long)d.differing_bits, (long long)d.tensors);
    pretrain("second", WORDS(word.text, "train.seed=3", ONE_STEP), 75, "resuming after iteration 0",
             "which has precedence over student.pretrained_weights");
    pretrain("second", WORDS(word.text, "train.seed=3", ONE_STEP, "--no-resume"), 75,
             "starting with the backbone of ", "earlier checkpoints are now in");
}

/* --- train.resume_from --- */

Test(pretrain, a_named_checkpoint_is_continued_by_a_run_without_its_own)
{
    TempPath word = file_word("train.resume_from", "whole/checkpoints/model_0000009.h5");
    pretrain("whole", NULL, 0, "starting from initial weights", "");
    pretrain("branch", WORDS(word.text), 0, "resuming after iteration 9 from",
             "/whole/checkpoints/model_0000009.h5");
    TrainDifference d = train_support_runs_differ(&temp, "whole", "branch", 19);
    cr_expect(d.tensors > 100 && d.differing_bits == 0, "%lld of %lld tensors differ",
              (long long)d.differing_bits, (long long)d.tensors);
    pretrain("branch", WORDS(word.text), 0, "resuming after iteration 19 from",
             "which has precedence over train.resume_from");
    /* back to an earlier one of its own */
    pretrain("whole", WORDS(word.text, "--no-resume", ONE_STEP), 75, "resuming after iteration 9 from",
             "earlier checkpoints are now in");
    pretrain("whole", WORDS(ONE_STEP), 75, "resuming after iteration 10 from", "");
}

Test(pretrain, a_named_checkpoint_that_cannot_be_continued_is_refused)
{
    TempPath missing = file_word("train.resume_from", "nowhere.h5"),
             damaged = file_word("train.resume_from", "first/checkpoints/model_0000000.h5"),
             file = train_support_checkpoint(&temp, "first", 0);
    pretrain("first", WORDS(ONE_STEP), 75, "starting from initial weights", "");
    pretrain("second", WORDS(missing.text), 2, "error: train.resume_from: ", "nowhere.h5: No such file");
    pretrain("second", WORDS(damaged.text, "train.seed=3"), 2,
             "error: train.resume_from: ", "train.seed (0, now 3)");
    train_support_flip_bit(file.text, 0.5);
    pretrain("second", WORDS(damaged.text), 2, "error: train.resume_from: ", "damaged: crc32 is");
    cr_expect_neq(access(temp_folder_in(&temp, "second").text, F_OK), 0);
}

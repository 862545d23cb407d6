/* test_distill.c - `distill` by the real program: what it saves, goes on from and refuses, on any ranks. */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60 };

static TempFolder temp;
static TempPath teacher; /* distillation.checkpoint_path=FOLDER/teacher */

/* Wider than the student, heads too, and with registers. */
#define TEACHER_WORDS                                                               \
    "student.embed_dim=64", "student.num_heads=4", "student.num_register_tokens=2", \
        "dino.head_bottleneck_dim=20", "ibot.head_bottleneck_dim=12"

static void run_job(const char *job, int ranks, const char *run, const char *const *words, int status,
                    const char *text)
{
    Process process = train_support_start(&temp, job, ranks, run, words);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, status, "%s: exit %d: %s", text, result.exit_status, result.err);
    cr_expect(strstr(result.err, text), "no \"%s\" in: %s", text, result.err);
    process_result_fini(&result);
}

/* A teacher of one step. */
static void set_up(void)
{
    temp = train_support_folder();
    snprintf(teacher.text, sizeof teacher.text, "distillation.checkpoint_path=%.200s/teacher", temp.path);
    run_job("pretrain", 1, "teacher", WORDS(TEACHER_WORDS, "train.stop_after_iterations=1"), 75,
            "stopped after iteration 1");
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(distill, .init = set_up, .fini = tear_down, .timeout = 120);

static void distill(int ranks, const char *run, const char *const *words, int status, const char *text)
{
    run_job("distill", ranks, run, words, status, text);
}

static ProcessResult command(const char *const *words)
{
    Process process = process_start_dinobatch(0, words);
    return process_finish(&process, LIMIT_SECONDS);
}

/* Stopped, and continued from a teacher that has moved: the same bits. On three ranks with all weights cut:
 * the same but for rounding. */
Test(distill, resumes_to_the_bit_and_does_not_depend_on_ranks)
{
    TempPath moved = temp_folder_in(&temp, "moved"), old = temp_folder_in(&temp, "teacher");
    TempPath whole = temp_folder_in(&temp, "whole"), cut = temp_folder_in(&temp, "cut");
    distill(1, "whole", WORDS(teacher.text), 0, "student.drop_path_rate: 0.3 becomes 0");
    distill(3, "cut",
            WORDS(teacher.text, "compute_precision.student.backbone.sharding_strategy=FULL_SHARD",
                  "compute_precision.teacher.backbone.sharding_strategy=FULL_SHARD",
                  "compute_precision.student.dino_head.sharding_strategy=FULL_SHARD",
                  "train.stop_after_iterations=10"),
            75, "weights of the frozen teacher");
    double losses = train_support_losses_differ(whole.text, cut.text, 10);
    cr_expect(losses >= 0 && losses < 1e-4, "losses differ by %g", losses);

    distill(1, "parts", WORDS(teacher.text, "train.stop_after_iterations=7"), 75, "stopped");
    cr_assert_eq(rename(old.text, moved.text), 0);
    char word[320];
    snprintf(word, sizeof word, "distillation.checkpoint_path=%.280s", moved.text);
    distill(1, "parts", WORDS(word), 0, "resuming after iteration 6");
    TempPath a = train_support_checkpoint(&temp, "whole", 19),
             b = train_support_checkpoint(&temp, "parts", 19);
    TrainDifference d = train_support_groups_differ(a.text, "/model_ema", b.text, "/model_ema");
    cr_expect(d.tensors > 50 && d.differing_bits == 0, "%lld of %lld tensors differ",
              (long long)d.differing_bits, (long long)d.tensors);
}

/* The file names its teacher and does not hold it; what reads checkpoints takes the moving average. */
Test(distill, the_checkpoint_is_the_students)
{
    distill(1, "run",
            WORDS(teacher.text, "train.stop_after_iterations=2", "evaluation.eval_period_iterations=2",
                  "evaluation.train_dataset_path=synthetic:classes=3,size=40,count=24,seed=5",
                  "evaluation.val_dataset_path=synthetic:classes=3,size=40,count=9,seed=6",
                  "evaluation.knn_k=[3]", "evaluation.crop_size=32"),
            75, "iteration 1: k-NN ");
    TempPath model = train_support_checkpoint(&temp, "run", 1), run = temp_folder_in(&temp, "run"),
             rows = temp_folder_in(&temp, "rows.h5");
    const char *const validate[] = {"validate", model.text, NULL};
    ProcessResult result = command(validate);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
    const char *const extract[] = {"extract",
                                   "--model",
                                   run.text,
                                   "--data",
                                   "synthetic:classes=3,size=40,count=6,seed=5",
                                   "--output-dir",
                                   rows.text,
                                   "evaluation.crop_size=32",
                                   "evaluation.resize_size=32",
                                   NULL};
    result = command(extract);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
    /* its weights serve as those of a pretraining's teacher */
    char word[320];
    snprintf(word, sizeof word, "student.pretrained_weights=%.280s", model.text);
    run_job("pretrain", 1, "next", WORDS(word, "train.stop_after_iterations=1"), 75,
            "starting with the backbone of ");
    TempPath next = train_support_checkpoint(&temp, "next", 0);
    TrainDifference d =
        train_support_groups_differ(model.text, "/model_ema/backbone", next.text, "/student/backbone");
    cr_expect(d.tensors > 40 && d.differing_bits == 0, "%lld of %lld differ", (long long)d.differing_bits,
              (long long)d.tensors);
}

static void convert(int status, const char *text, const char *const *words)
{
    ProcessResult result = command(words);
    cr_assert_eq(result.exit_status, status, "exit %d: %s", result.exit_status, result.err);
    cr_expect(strstr(result.out, text) || strstr(result.err, text), "no \"%s\" in: %s%s", text, result.out,
              result.err);
    process_result_fini(&result);
}

/* Out with its heads and in again, it is the same teacher: a run goes on with it, which asks for its digest.
 */
Test(distill, a_teacher_comes_through_safetensors)
{
    TempPath old = temp_folder_in(&temp, "teacher"), file = temp_folder_in(&temp, "t.safetensors"),
             back = temp_folder_in(&temp, "t.h5"), again = temp_folder_in(&temp, "again.safetensors"),
             bare = temp_folder_in(&temp, "bare.h5");
    convert(0, ", a DINO head of ", WORDS("convert", old.text, file.text, "--ssl-heads", "keep"));
    convert(0, ", an iBOT head of ", WORDS("convert", file.text, back.text, "--heads", "4"));
    convert(0, "", WORDS("convert", back.text, again.text, "--ssl-heads", "keep"));
    ProcessResult same = process_run(WORDS("cmp", file.text, again.text), 10);
    cr_expect_eq(same.exit_status, 0, "%s%s", same.out, same.err);
    process_result_fini(&same);
    char word[320];
    snprintf(word, sizeof word, "distillation.checkpoint_path=%.280s", back.text);
    distill(1, "run", WORDS(teacher.text, "train.stop_after_iterations=1"), 75, "stopped");
    distill(2, "run", WORDS(word, "train.stop_after_iterations=1"), 75, "resuming after iteration 0");

    convert(0, " tensors of heads are left out: dino_head.last_layer.weight_g, ",
            WORDS("convert", file.text, bare.text, "--heads", "4", "--ssl-heads", "drop"));
    convert(2, "2 of another shape (ibot_head.last_layer.weight_g [",
            WORDS("convert", file.text, bare.text, "--heads", "4", "ibot.head_n_prototypes=5"));
    convert(2, "/teacher/dino_head/", WORDS("convert", bare.text, again.text, "--ssl-heads", "keep"));
    convert(2, "--ssl-heads keep: timm has no names for them",
            WORDS("convert", back.text, again.text, "--ssl-heads", "keep", "--names", "timm"));
    convert(2, "--ssl-heads no: expected keep or drop",
            WORDS("convert", file.text, bare.text, "--ssl-heads", "no"));
}

Test(distill, blocks_in_chunks_come_out_whole)
{
    TempPath run = temp_folder_in(&temp, "chunked"), file = temp_folder_in(&temp, "c.safetensors");
    run_job("pretrain", 1, "chunked", WORDS("student.block_chunks=2", "train.stop_after_iterations=1"), 75,
            "stopped");
    convert(0, "3 blocks of ", WORDS("convert", run.text, file.text, "--which", "student"));
    convert(0, "3 blocks of ",
            WORDS("convert", run.text, file.text, "--ssl-heads", "keep", "--image-size", "64"));
}

Test(distill, unsuitable_teachers_are_refused)
{
    static const struct {
        const char *change, *said;
    } cases[] = {
        {"student.patch_size=4", "student.patch_size: 4, but the teacher "},
        {"dino.head_n_prototypes=100", "dino.head_n_prototypes: 100, but the teacher "},
        {"ibot.head_n_prototypes=10", "ibot.head_n_prototypes: 10, but the teacher "},
        {"distillation.checkpoint_path=/nowhere/at/all.h5",
         "distillation.checkpoint_path: /nowhere/at/all.h5"},
        {"distillation.checkpoint_path=", "distill needs distillation.checkpoint_path=FILE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        distill(2, "refused", WORDS(teacher.text, cases[i].change), 2, cases[i].said);
        TempPath folder = temp_folder_in(&temp, "refused");
        cr_expect_neq(access(folder.text, F_OK), 0, "a folder was made for %s", cases[i].said);
    }
    run_job("pretrain", 1, "refused", WORDS(teacher.text), 2, "use the distill job");
    /* another teacher in the middle */
    distill(1, "run", WORDS(teacher.text, "train.stop_after_iterations=1"), 75, "stopped");
    run_job("pretrain", 1, "teacher", WORDS(TEACHER_WORDS, "train.stop_after_iterations=3"), 75, "stopped");
    distill(1, "run", WORDS(teacher.text), 2, "a run with another frozen teacher: digest ");
    distill(1, "run", WORDS(teacher.text, "--allow-config-change", "train.stop_after_iterations=1"), 75,
            "resuming after iteration 0");
}

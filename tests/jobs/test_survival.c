/* test_survival.c - what a training run of the real program survives: full disks, damaged files, other
 * configurations; and what it says when it does not go on. What happens to it at random moments, requests to
 * stop and killed processes, is tests/torture.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"

#include "base/clock.h"
#include "base/rng.h"
#include "h5/h5_check.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60, FILE_LIMIT = 256 << 10 };

static TempFolder temp;

static void set_up(void)
{
    temp = train_support_folder();
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(survival, .init = set_up, .fini = tear_down, .timeout = 240);

/* --- running --- */

static Process start(int ranks, const char *run, const char *const *words)
{
    return train_support_pretrain(&temp, ranks, run, words);
}

static int count_text(const char *text, const char *wanted)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, wanted)); at += strlen(wanted))
        count++;
    return count;
}

/* Waits for the end: that status, `text` (unless NULL) on standard error, and one error line exactly where
 * the status is 1 or 2. */
static void expect_end(Process *process, int status, const char *text)
{
    ProcessResult result = process_finish(process, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, status, "exit %d: %s", result.exit_status, result.err);
    cr_expect(!text || strstr(result.err, text), "no \"%s\" in: %s", text, result.err);
    int errors = status == 1 || status == 2;
    cr_expect_eq(count_text(result.err, "error: "), errors, "%s", result.err);
    process_result_fini(&result);
}

static void pretrain(int ranks, const char *run, const char *const *words, int status, const char *text)
{
    Process process = start(ranks, run, words);
    expect_end(&process, status, text);
}

/* The iteration that last_checkpoint names; -1 when it is missing. */
static long last_iteration(const char *run)
{
    char relative[64];
    snprintf(relative, sizeof relative, "%s/checkpoints/last_checkpoint", run);
    char *text = temp_folder_read(&temp, relative);
    long iteration = -1;
    if (sscanf(text, "model_%ld.h5", &iteration) != 1) iteration = -1;
    temp_folder_free_text(text);
    return iteration;
}

static bool has_temporary_file(const char *run)
{
    TempPath folder = temp_folder_in(&temp, "%s/checkpoints", run);
    DIR *all = opendir(folder.text);
    bool found = false;
    for (struct dirent *entry; all && (entry = readdir(all));)
        found = found || strstr(entry->d_name, ".h5.tmp");
    if (all) closedir(all);
    return found;
}

/* --- a full disk --- */

Test(survival, full_disk_ends_the_run_and_spares_the_checkpoint_before)
{
    const char *const words[] = {"optim.epochs=1000", "checkpoint.period=5", NULL};
    for (int rank = 0; rank < 2; rank++) {
        char run[16];
        snprintf(run, sizeof run, "run%d", rank);
        Process process = start(2, run, words);
        cr_assert(process_wait_for_error_text(&process, "saved ", 30));
        struct rlimit limit = {.rlim_cur = FILE_LIMIT, .rlim_max = FILE_LIMIT};
        pid_t target = process_of_rank(&process, rank, 5);
        cr_assert(target > 0 && prlimit(target, RLIMIT_FSIZE, &limit, NULL) == 0);
        expect_end(&process, 1, ".h5.tmp: cannot write");
        cr_expect(!has_temporary_file(run));
        Error error = {0};
        long saved = last_iteration(run);
        TempPath last = train_support_checkpoint(&temp, run, saved);
        cr_assert(saved >= 4);
        cr_expect_eq(h5_check_file(last.text, "checkpoint", H5_CHECK_CHECKSUMS, NULL, &error), STATUS_OK,
                     "%s", error.text);
        char expected[64];
        snprintf(expected, sizeof expected, "resuming after iteration %ld", saved);
        if (rank == 0) pretrain(2, run, WORDS(words[0], "train.stop_after_iterations=1"), 75, expected);
    }
}

/* Ends a run whose disk is full again after a while; `lifted`: it has room for the last save. */
static void go_on_with_full_disk(const char *run, int rank, bool lifted)
{
    Process process = start(2, run,
                            WORDS("optim.epochs=5", "checkpoint.period=5",
                                  "evaluation.eval_period_iterations=35", "checkpoint.on_error=continue"));
    cr_assert(process_wait_for_error_text(&process, "saved ", 30));
    struct rlimit old, limit;
    pid_t target = process_of_rank(&process, rank, 5);
    cr_assert(target > 0 && prlimit(target, RLIMIT_FSIZE, NULL, &old) == 0);
    limit = old;
    limit.rlim_cur = 4096; /* rank 0 cannot write metrics either */
    cr_assert_eq(prlimit(target, RLIMIT_FSIZE, &limit, NULL), 0);
    cr_assert(process_wait_for_error_text(&process, ".tmp: cannot write", 30));
    if (lifted) cr_assert_eq(prlimit(target, RLIMIT_FSIZE, &old, NULL), 0);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, lifted ? 0 : 1, "exit %d: %s", result.exit_status, result.err);
    int failures = count_text(result.err, "error: no checkpoint of iteration "),
        lost = count_text(result.err, "error: metrics from iteration ");
    cr_expect(failures >= 1 && lost == (rank == 0), "%s", result.err);
    cr_expect_eq(count_text(result.err, "File too large"), failures + lost + !lifted, "%s", result.err);
    cr_expect_eq(count_text(result.err, "error: "), failures + lost + !lifted, "%s", result.err);
    process_result_fini(&result);
}

Test(survival, full_disk_is_outlived_where_the_configuration_says_so)
{
    Error error = {0};
    for (int rank = 0; rank < 2; rank++) {
        char run[16];
        snprintf(run, sizeof run, "run%d", rank);
        bool lifted = rank == 0;
        go_on_with_full_disk(run, rank, lifted);
        long saved = last_iteration(run);
        cr_expect(lifted ? saved == 49 : saved >= 4 && saved < 49, "%ld", saved);
        TempPath last = train_support_checkpoint(&temp, run, saved);
        cr_expect_eq(h5_check_file(last.text, "checkpoint", H5_CHECK_CHECKSUMS, NULL, &error), STATUS_OK,
                     "%s", error.text);
        cr_expect(!has_temporary_file(run));
        TempPath folder = temp_folder_in(&temp, "%s", run);
        cr_expect_eq(train_support_losses_differ(folder.text, folder.text, 5), 0.0,
                     "the metrics are readable");
        char relative[64];
        snprintf(relative, sizeof relative, "%s/training_metrics.json", run);
        char *metrics = temp_folder_read(&temp, relative);
        cr_expect(!lifted || strstr(metrics, "\"iteration\": 49"), "metrics go on with the checkpoints");
        temp_folder_free_text(metrics);
    }
}

/* --- evaluations --- */

#define EVALUATED                                                                             \
    "evaluation.eval_period_iterations=2", "evaluation.knn_k=[3]", "evaluation.crop_size=32", \
        "evaluation.resize_size=32",                                                          \
        "evaluation.train_dataset_path=synthetic:classes=4,size=32,count=40,seed=1",          \
        "evaluation.val_dataset_path=synthetic:classes=4,size=32,count=20,seed=2"

Test(survival, an_evaluation_that_a_run_was_ended_in_is_made_up_for)
{
    pretrain(0, "run", WORDS(EVALUATED, "train.stop_after_iterations=2"), 75, "iteration 1: k-NN");
    TempPath complete = temp_folder_in(&temp, "run/eval/training_1/teacher_checkpoint.h5");
    cr_assert_eq(unlink(complete.text), 0);
    pretrain(2, "run", WORDS(EVALUATED, "train.stop_after_iterations=1"), 75, "iteration 1: k-NN");
    cr_expect_eq(access(complete.text, F_OK), 0);
}

/* A folder stands in the place of a result. */
Test(survival, an_evaluation_that_cannot_be_written_is_as_a_checkpoint)
{
    for (int tolerant = 0; tolerant < 2; tolerant++) {
        char run[16], word[32];
        snprintf(run, sizeof run, "run%d", tolerant);
        snprintf(word, sizeof word, "checkpoint.on_error=%s", tolerant ? "continue" : "stop");
        TempPath obstacle = temp_folder_in(&temp, "%s/eval/training_1/knn.json/x", run);
        ProcessResult made = process_run(WORDS("mkdir", "-p", obstacle.text), LIMIT_SECONDS);
        process_result_fini(&made);
        Process process = start(2, run, WORDS(EVALUATED, word, "train.stop_after_iterations=3"));
        ProcessResult result = process_finish(&process, LIMIT_SECONDS);
        cr_expect_eq(result.exit_status, tolerant ? 75 : 1, "%s", result.err);
        cr_expect(strstr(result.err, "knn.json: cannot replace"), "%s", result.err);
        cr_expect_eq(count_text(result.err, "error: no evaluation of iteration 1, training goes on"),
                     tolerant, "%s", result.err);
        process_result_fini(&result);
    }
}

/* --- what a run does not go on with --- */

/* Names, sizes and times of everything in a run folder, to see that nothing was touched. Owned. */
static ProcessResult list_files(const char *run)
{
    TempPath folder = temp_folder_in(&temp, "%s", run);
    ProcessResult list = process_run(WORDS("find", folder.text, "-printf", "%P %s %T@\n"), LIMIT_SECONDS);
    cr_assert(list.exit_status == 0 && strstr(list.out, "config.yaml"), "%s", list.err);
    return list;
}

static void expect_untouched(const char *run, ProcessResult *before)
{
    ProcessResult after = list_files(run);
    cr_expect_str_eq(before->out, after.out);
    process_result_fini(before);
    process_result_fini(&after);
}

/* Two steps, a checkpoint after each. */
static const char *const TWO_STEPS[] = {"checkpoint.period=1", "train.stop_after_iterations=2", NULL};

static void with_two_steps(const char *word, const char *option, int status, const char *text)
{
    pretrain(0, "run", WORDS(TWO_STEPS[0], TWO_STEPS[1], word, option), status, text);
}

Test(survival, other_configurations_are_refused_unless_allowed)
{
    pretrain(0, "run", TWO_STEPS, 75, "starting from initial weights");
    ProcessResult before = list_files("run");
    with_two_steps("optim.weight_decay=0.1", NULL, 2, "optim.weight_decay (0.04, now 0.1)");
    with_two_steps("student.depth=2", NULL, 2, "student.depth (3, now 2)");
    with_two_steps("student.depth=2", "--allow-config-change", 2,
                   "another architecture: /student/backbone/blocks/2/");
    with_two_steps(
        "dino.head_n_prototypes=48", "--allow-config-change", 2,
        "another architecture: /student/dino_head/last_layer/weight_g is [64, 1] there, [48, 1] here");
    expect_untouched("run", &before);
    with_two_steps("optim.weight_decay=0.1", "--allow-config-change", 75, "resuming after iteration 1");
    char *log = temp_folder_read(&temp, "run/log.txt");
    cr_expect(strstr(log, "resuming after iteration 1") && strstr(log, "400 images, 10 classes"),
              "log.txt has what was said before it was open: %s", log);
    temp_folder_free_text(log);
    with_two_steps("optim.weight_decay=0.1", NULL, 75, "resuming after iteration 3");
    with_two_steps("train.micro_batch_size=5", "optim.weight_decay=0.1", 75, "resuming after iteration 5");
}

Test(survival, no_resume_sets_earlier_checkpoints_aside)
{
    pretrain(0, "run", TWO_STEPS, 75, NULL);
    with_two_steps("optim.weight_decay=0.1", "--no-resume", 75, "earlier checkpoints are now in");
    with_two_steps("--no-resume", NULL, 75, "starting from initial weights");
    static const char *const files[] = {
        "checkpoints/model_0000001.h5", "checkpoints.earlier-1/model_0000001.h5",
        "checkpoints.earlier-2/model_0000001.h5", "checkpoints.earlier-2/last_checkpoint"};
    for (int i = 0; i < 4; i++) {
        TempPath path = temp_folder_in(&temp, "run/%s", files[i]);
        cr_expect_eq(access(path.text, F_OK), 0, "%s", path.text);
    }
}

Test(survival, damaged_checkpoints_are_passed_over_or_named)
{
    pretrain(0, "run", TWO_STEPS, 75, NULL);
    TempPath newest = train_support_checkpoint(&temp, "run", 1),
             older = train_support_checkpoint(&temp, "run", 0);
    struct stat facts;
    cr_assert_eq(stat(newest.text, &facts), 0);
    cr_assert_eq(truncate(newest.text, facts.st_size / 2), 0);
    with_two_steps(NULL, NULL, 75, "resuming after iteration 0");

    /* one bit in the middle of the tensors: the structure is whole, the bytes are not */
    TempPath last = train_support_checkpoint(&temp, "run", last_iteration("run"));
    train_support_flip_bit(last.text, 0.5);
    pretrain(2, "run", TWO_STEPS, 75, "damaged: crc32 is");
    with_two_steps(NULL, NULL, 75, "resuming after iteration 3");

    /* nothing is left: refused, and untouched */
    cr_assert_eq(truncate(older.text, 100), 0);
    cr_assert_eq(truncate(newest.text, 0), 0);
    for (int i = 2; i <= 5; i++) {
        TempPath path = train_support_checkpoint(&temp, "run", i);
        if (access(path.text, F_OK) == 0) cr_assert_eq(truncate(path.text, 5000), 0);
    }
    ProcessResult before = list_files("run");
    pretrain(2, "run", TWO_STEPS, 2, "no whole checkpoint up to");
    expect_untouched("run", &before);
}

Test(survival, more_ranks_than_groups_are_refused)
{
    pretrain(3, "run", WORDS("train.global_batch_size=8"), 2,
             "3 ranks, but a global batch of 8 in groups of 4 gives only 2 groups");
}

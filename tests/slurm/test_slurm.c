/* test_slurm.c - the scripts of slurm/ under a real Slurm: every script once, requests to stop, requeues,
 * cancellations.
 *
 * tests/support/slurm.sh runs this program beside a Slurm of one virtual node with more processors than there
 * are; the tests run at the same time, because what they mostly do is wait for it.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"
#include "../support/train_support.h"
#include "base/clock.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Patience with a machine that is busy, for one thing to happen. */
enum { LIMIT_SECONDS = 120, LOG_MAX = 1 << 16 };

static TempFolder temp;

static void set_up(void)
{
    if (!getenv("SLURM_CONF")) cr_skip_test("skipped: no Slurm; tests/support/slurm.sh brings one");
    temp = train_support_folder();
}

static void tear_down(void)
{
    if (temp.path[0]) temp_folder_destroy(&temp);
}

TestSuite(slurm, .init = set_up, .fini = tear_down, .timeout = 600);

/* --- commands --- */

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

/* What a command that has to end well prints. */
typedef struct {
    char text[LOG_MAX];
} Output;

static Output run(const char *const *words)
{
    Output output;
    ProcessResult result = process_run(words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s: exit %d: %s%s", words[0], result.exit_status, result.out,
                 result.err);
    snprintf(output.text, sizeof output.text, "%s", result.out);
    process_result_fini(&result);
    return output;
}

/* A job: "17", or a member of an array: "17_1". */
typedef struct {
    char id[32];
} Job;

/* sbatch on one node with `ranks` tasks that writes FOLDER/LOG; `words` are further options, the script and
 * its words. */
static Job submit(int ranks, const char *log, const char *const *words)
{
    char tasks[40], output[400];
    const char *all[PROCESS_ARGUMENTS_MAX] = {
        "sbatch", "--parsable", "--nodes=1", "--gpus-per-node=0", "--cpus-per-task=1", tasks, output};
    snprintf(tasks, sizeof tasks, "--ntasks-per-node=%d", ranks);
    snprintf(output, sizeof output, "--output=%s", temp_folder_in(&temp, "%s", log).text);
    for (int count = 7; *words; words++)
        all[count++] = *words;
    Output number = run(all);
    Job job;
    snprintf(job.id, sizeof job.id, "%.*s", (int)strcspn(number.text, ";\n"), number.text);
    return job;
}

/* "COMPLETED", ... */
static void read_state(const Job *job, char state[32])
{
    Output facts = run(WORDS("scontrol", "-o", "show", "job", job->id));
    const char *found = strstr(facts.text, "JobState=");
    state[0] = '\0';
    if (found) sscanf(found, "JobState=%31[A-Z_]", state);
}

static bool is_final(const char *state)
{
    static const char *const all[] = {"COMPLETED", "FAILED",        "CANCELLED", "TIMEOUT",
                                      "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(state, all[i]) == 0) return true;
    return false;
}

/* The job ends so. */
static void expect_end(const Job *job, const char *wanted, const char *log)
{
    char state[32];
    double end = clock_seconds() + LIMIT_SECONDS;
    for (read_state(job, state); !is_final(state) && clock_seconds() < end; read_state(job, state))
        pause_briefly();
    char *text = temp_folder_read(&temp, log);
    cr_assert_str_eq(state, wanted, "job %s, %s: %s, not %s: %s", job->id, log, state, wanted, text);
    temp_folder_free_text(text);
}

/* A file below the folder comes to hold `text` while the job runs. */
static void wait_for_text(const Job *job, const char *file, const char *text)
{
    char state[32] = "";
    double end = clock_seconds() + LIMIT_SECONDS;
    for (bool last = false;; pause_briefly()) {
        char *so_far = temp_folder_read(&temp, file);
        bool found = strstr(so_far, text) != NULL;
        cr_assert(found || !last, "job %s, %s: no \"%s\" in %s: %s", job->id, state, text, file, so_far);
        temp_folder_free_text(so_far);
        if (found) return;
        read_state(job, state);
        last = is_final(state) || clock_seconds() > end;
    }
}

static void expect_text(const char *file, const char *text)
{
    char *whole = temp_folder_read(&temp, file);
    cr_expect(strstr(whole, text), "no \"%s\" in %s: %s", text, file, whole);
    temp_folder_free_text(whole);
}

static void expect_same_file(const char *a, const char *b)
{
    char *x = temp_folder_read(&temp, a), *y = temp_folder_read(&temp, b);
    cr_expect(*x && strcmp(x, y) == 0, "%s: %s\n%s: %s", a, x, b, y);
    temp_folder_free_text(x);
    temp_folder_free_text(y);
}

/* What processes of a job have in their environment: its number, which another Slurm of this machine may have
 * given, too, and the configuration of this one. */
typedef struct {
    char job[64], cluster[512];
} Marks;

static Marks marks_of(const char *number)
{
    Marks marks;
    snprintf(marks.job, sizeof marks.job, "SLURM_JOB_ID=%s", number);
    snprintf(marks.cluster, sizeof marks.cluster, "SLURM_CONF=%s", getenv("SLURM_CONF"));
    return marks;
}

/* No process of the job is left. */
static void expect_nothing_runs(const Job *job)
{
    Marks marks = marks_of(job->id);
    const char *const all[] = {marks.job, marks.cluster, NULL};
    double end = clock_seconds() + LIMIT_SECONDS;
    while (process_count_marked(all) > 0 && clock_seconds() < end)
        pause_briefly();
    int left = process_count_marked(all);
    cr_expect_eq(left, 0, "%d processes of job %s", left, job->id);
}

/* --- trainings --- */

/* Training that takes a second or more behind its first checkpoint, and what it is afterwards. */
#define LONG_ENOUGH "optim.epochs=6"
enum { LAST_ITERATION = 59 };

#define SYNTHETIC(COUNT, SEED) "synthetic:classes=3,size=40,count=" #COUNT ",seed=" #SEED

/* Words of the jobs that train: tiny.yaml into FOLDER/RUN. */
#define TRAINING(RUN)                                                         \
    "--config-file", temp_folder_in(&temp, "tiny.yaml").text, "--output-dir", \
        temp_folder_in(&temp, "%s", RUN).text

/* Slurm looks at time limits every 30 s and gives notice up to 30 s too early: of a minute with this notice
 * between second 10 and 40. The training stands still until then. */
Test(slurm, a_training_whose_time_ends_saves_is_requeued_and_ends_as_if_undisturbed)
{
    Job job = submit(
        2, "job.txt",
        WORDS("--time=1", "--signal=B:USR1@20", "slurm/pretrain.sbatch", TRAINING("parts"), LONG_ENOUGH));
    wait_for_text(&job, "job.txt", "model_0000009.h5");
    run(WORDS("scancel", "--signal=STOP", job.id));
    Job whole = submit(2, "whole.txt", WORDS("slurm/pretrain.sbatch", TRAINING("whole"), LONG_ENOUGH));
    wait_for_text(&job, "job.txt", "asked to stop");
    run(WORDS("scancel", "--signal=CONT", job.id));
    wait_for_text(&job, "job.txt", "start 2: dinobatch pretrain");
    expect_end(&job, "COMPLETED", "job.txt");
    expect_end(&whole, "COMPLETED", "whole.txt");
    expect_text("job.txt", "status 75");
    expect_text("job.txt", "resuming after iteration ");
    double losses = train_support_losses_differ(temp_folder_in(&temp, "whole").text,
                                                temp_folder_in(&temp, "parts").text, LAST_ITERATION + 1);
    cr_expect(losses == 0, "losses differ by %g", losses);
    TrainDifference d = train_support_runs_differ(&temp, "whole", "parts", LAST_ITERATION);
    cr_expect(d.tensors > 50 && d.differing_bits == 0, "%lld of %lld tensors differ",
              (long long)d.differing_bits, (long long)d.tensors);
}

Test(slurm, a_cancelled_training_leaves_nothing_running_and_goes_on_when_submitted_again)
{
    Job job = submit(1, "first.txt", WORDS("slurm/pretrain.sbatch", TRAINING("run"), LONG_ENOUGH));
    wait_for_text(&job, "first.txt", "model_0000009.h5");
    run(WORDS("scancel", job.id));
    expect_end(&job, "CANCELLED", "first.txt");
    expect_nothing_runs(&job);
    TempPath last = train_support_checkpoint(&temp, "run", LAST_ITERATION);
    cr_assert_neq(access(last.text, F_OK), 0, "it was at its end before");
    job = submit(1, "second.txt", WORDS("slurm/pretrain.sbatch", TRAINING("run"), LONG_ENOUGH));
    expect_end(&job, "COMPLETED", "second.txt");
    expect_text("second.txt", "resuming after iteration ");
    cr_expect_eq(access(last.text, F_OK), 0);
}

/* The same by mpirun where that is how ranks are started. */
Test(slurm, what_depends_on_a_training_follows_it)
{
    char after[64], teacher[400], high[400];
    Job training = submit(2, "pretrain.txt", WORDS("slurm/pretrain.sbatch", TRAINING("run")));
    snprintf(after, sizeof after, "--dependency=afterok:%s", training.id);
    snprintf(teacher, sizeof teacher, "distillation.checkpoint_path=%s", temp_folder_in(&temp, "run").text);
    snprintf(high, sizeof high, "--export=ALL,HIGHRES_CONFIG=%s", temp_folder_in(&temp, "tiny.yaml").text);
    TempPath run_folder = temp_folder_in(&temp, "run");
    Job knn = submit(2, "evaluate.txt",
                     WORDS(after, "slurm/evaluate.sbatch", "knn", "--model", run_folder.text, "--train-data",
                           SYNTHETIC(30, 5), "--val-data", SYNTHETIC(12, 6), "--output-dir",
                           temp_folder_in(&temp, "knn.json").text, "evaluation.knn_k=[3]",
                           "evaluation.crop_size=32"));
    Job distilled = submit(2, "distill.txt",
                           WORDS(after, "--export=ALL,DINOBATCH_LAUNCH=mpirun", "slurm/distill.sbatch",
                                 TRAINING("student"), teacher));
    Job finish = submit(1, "highres.txt",
                        WORDS(after, high, "slurm/highres.sbatch", run_folder.text, "--output-dir",
                              temp_folder_in(&temp, "high").text, "crops.global_crops_size=48"));
    expect_end(&training, "COMPLETED", "pretrain.txt");
    expect_end(&knn, "COMPLETED", "evaluate.txt");
    expect_text("evaluate.txt", "teacher, iteration 19");
    expect_end(&distilled, "COMPLETED", "distill.txt");
    expect_text("student/log.txt", "on 2 ranks");
    cr_expect_eq(access(train_support_checkpoint(&temp, "student", 19).text, F_OK), 0);
    expect_end(&finish, "COMPLETED", "highres.txt");
    expect_text("highres.txt", "starting with ");
    cr_expect_eq(access(train_support_checkpoint(&temp, "high", 19).text, F_OK), 0);
}

/* --- tables --- */

#define TABLE_HEAD                                                                                        \
    "name: t\n"                                                                                           \
    "title: A table\n"                                                                                    \
    "base: [tiny.yaml]\n"                                                                                 \
    "evaluations:\n"                                                                                      \
    "  - {name: knn, words: [evaluate, knn, --train-data, '" SYNTHETIC(                                   \
        30, 5) "', --val-data,\n"                                                                         \
               "     '" SYNTHETIC(12,                                                                     \
                                  6) "'], settings: ['evaluation.knn_k=[3]', evaluation.crop_size=32]}\n" \
                                     "columns:\n"                                                         \
                                     "  - {name: k-NN, of: knn, figure: knn_top1_k3, unit: '%'}\n"

/* The arrays of a table's rows, stage by stage, and the report behind them. */
typedef struct {
    Job rows[2], report;
} Table;

/* `sbatch ablate.sbatch t.yaml FOLDER`, when it has submitted all of it. */
static Table submit_table(const char *folder)
{
    char log[64];
    Table table = {0};
    snprintf(log, sizeof log, "%s.txt", folder);
    setenv("ABLATE_SBATCH_ROWS", "--ntasks-per-node=1 --gpus-per-node=0 --cpus-per-task=1 --time=10", 1);
    Job job = submit(1, log,
                     WORDS("slurm/ablate.sbatch", temp_folder_in(&temp, "t.yaml").text,
                           temp_folder_in(&temp, "%s", folder).text));
    expect_end(&job, "COMPLETED", log);
    char *text = temp_folder_read(&temp, log), *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        int stage = 0;
        Job of;
        if (sscanf(line, "stage %d, members %*s job %31[0-9]", &stage, of.id) == 2 && stage < 2)
            table.rows[stage] = of;
        else if (sscanf(line, "report: job %31[0-9]", of.id) == 1)
            table.report = of;
    }
    cr_assert(table.rows[0].id[0] && table.report.id[0], "%s", text);
    temp_folder_free_text(text);
    return table;
}

static Job member_of(const Job *array, int member)
{
    Job job;
    snprintf(job.id, sizeof job.id, "%.20s_%d", array->id, member);
    return job;
}

static void expect_report(const Table *table, const char *folder)
{
    char log[96];
    snprintf(log, sizeof log, "%s/slurm/report-%s.log", folder, table->report.id);
    expect_end(&table->report, "COMPLETED", log);
}

Test(slurm, a_row_that_fails_leaves_the_others_alone_and_is_named_in_the_report)
{
    temp_folder_write(&temp, "t.yaml",
                      TABLE_HEAD
                      "seeds: [0]\n"
                      "rows:\n"
                      "  - {name: plain, published: [50]}\n"
                      "  - {name: broken, settings: ['train.dataset_path=folder:/nowhere/at/all']}\n"
                      "  - {name: distilled, job: distill, after: plain, settings: "
                      "['distillation.checkpoint_path={after}']}\n");
    Table table = submit_table("out");
    cr_assert(table.rows[1].id[0], "the row behind another is no array of its own");
    expect_report(&table, "out");
    char log[96];
    Job plain = member_of(&table.rows[0], 1), broken = member_of(&table.rows[0], 2),
        distilled = member_of(&table.rows[1], 3);
    snprintf(log, sizeof log, "out/slurm/row-%s.log", plain.id);
    expect_end(&plain, "COMPLETED", log);
    snprintf(log, sizeof log, "out/slurm/row-%s.log", broken.id);
    expect_end(&broken, "FAILED", log);
    expect_text(log, "/nowhere/at/all");
    snprintf(log, sizeof log, "out/slurm/row-%s.log", distilled.id);
    expect_end(&distilled, "COMPLETED", log);
    expect_text("out/t.md", "- row 2, broken: 1 of 1 seeds\n");
    expect_text("out/t.csv", "distilled");
    cr_expect_eq(access(temp_folder_in(&temp, "out/t.png").text, F_OK), 0);
}

/* Kills the program of a job, not its script. */
static void kill_program(const Job *job, const char *log)
{
    Output facts = run(WORDS("scontrol", "-o", "show", "job", job->id));
    char number[32];
    cr_assert_eq(sscanf(facts.text, "JobId=%31[0-9]", number), 1, "%s", facts.text);
    Marks marks = marks_of(number);
    const char *const all[] = {marks.job, marks.cluster, NULL};
    cr_assert_gt(process_signal_marked(all, "dinobatch", SIGKILL), 0, "%s", log);
}

/* Of three seeds one is asked to stop, one goes back into the queue by the scheduler's hand, one is killed
 * and sent back. */
Test(slurm, rows_that_are_stopped_and_killed_and_requeued_make_the_same_table)
{
    enum { MEMBERS = 3 };
    Job members[MEMBERS];
    char logs[MEMBERS][64];
    temp_folder_write(&temp, "t.yaml",
                      TABLE_HEAD "seeds: [0, 1, 2]\n"
                                 "settings: [optim.epochs=10]\n"
                                 "rows:\n"
                                 "  - {name: plain, published: [50]}\n");
    Table parts = submit_table("parts");
    for (int m = 0; m < MEMBERS; m++) {
        members[m] = member_of(&parts.rows[0], m + 1);
        snprintf(logs[m], sizeof logs[m], "parts/slurm/row-%.31s.log", members[m].id);
    }
    wait_for_text(&members[0], logs[0], "model_0000009.h5");
    run(WORDS("scancel", "--batch", "--signal=USR1", members[0].id));
    wait_for_text(&members[1], logs[1], "model_0000009.h5");
    run(WORDS("scontrol", "requeue", members[1].id));
    wait_for_text(&members[2], logs[2], "model_0000009.h5");
    kill_program(&members[2], logs[2]);
    expect_end(&members[2], "FAILED", logs[2]);
    run(WORDS("scontrol", "requeue", members[2].id));

    Table whole = submit_table("whole");
    expect_report(&whole, "whole");
    expect_report(&parts, "parts");
    for (int m = 0; m < MEMBERS; m++) {
        expect_end(&members[m], "COMPLETED", logs[m]);
        expect_text(logs[m], "resuming after iteration ");
    }
    expect_text(logs[0], "status 75");
    expect_same_file("parts/t.md", "whole/t.md");
    expect_same_file("parts/t.csv", "whole/t.csv");
}

/* --- curation --- */

static const char PLAN[] = "name: small\n"
                           "pool: ['folder:pool;limit=30', 'folder:pool;offset=30']\n"
                           "evaluation_sets: [{name: val, data: 'folder:pool;limit=4'}]\n"
                           "query_sets:\n"
                           "  - {name: near, data: 'folder:queries', mode: sample, settings: "
                           "[curation.retrieve.neighbours=2]}\n"
                           "copy_detection:\n"
                           "  model: raw-pixels\n"
                           "  settings: [evaluation.crop_size=32, evaluation.resize_size=32]\n"
                           "settings: [curation.dedup.threshold=0.9999, curation.exclude.threshold=0.9999]\n";

static void draw(const char *folder, const char *spec)
{
    ProcessResult result = process_run_dinobatch(
        0, WORDS("synth", "--data", spec, "--output-dir", temp_folder_in(&temp, "%s", folder).text),
        LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

Test(slurm, a_curation_is_a_chain_of_jobs)
{
    draw("pool", "synthetic:classes=3,size=32,count=48,seed=1,duplicates=0.2");
    draw("queries", "synthetic:classes=3,size=32,count=12,seed=2");
    temp_folder_write(&temp, "plan.yaml", PLAN);
    TempPath plan = temp_folder_in(&temp, "plan.yaml"), out = temp_folder_in(&temp, "out");
    const char *const words[] = {"bash", "slurm/curate.sh", plan.text, out.text, "compute.threads=1", NULL};
    Output chain = run(words);
    const char *colon = strrchr(chain.text, ':');
    Job last;
    cr_assert(colon && sscanf(colon, ": job %31[0-9]", last.id) == 1, "%s", chain.text);
    expect_end(&last, "COMPLETED", "out/steps.txt");
    expect_text("out/composition.csv", "near");
    Output again = run(words);
    cr_expect(strstr(again.text, "every step is done"), "%s", again.text);
}

/* --- the cluster of these tests --- */

Test(slurm, nothing_is_left_of_a_slurm_whose_script_was_killed)
{
    TempPath told = temp_folder_in(&temp, "conf");
    Process process = process_start(
        WORDS("bash", "tests/support/slurm.sh", "sh", "-c",
              "sbatch --output=/dev/null --wrap 'sleep 1000' && echo SLURM_CONF=$SLURM_CONF > $0 && "
              "srun sh -c 'echo ready >&2; sleep 1000'",
              told.text));
    cr_assert(process_wait_for_error_text(&process, "ready", LIMIT_SECONDS));
    process_signal(&process, SIGKILL);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    process_result_fini(&result);
    char *text = temp_folder_read(&temp, "conf"), *mark = strsep(&text, "\n");
    double end = clock_seconds() + LIMIT_SECONDS;
    const char *conf = strchr(mark, '=') + 1;
    while ((process_count_marked(WORDS(mark)) > 0 || access(conf, F_OK) == 0) && clock_seconds() < end)
        pause_briefly();
    int left = process_count_marked(WORDS(mark));
    cr_expect_eq(left, 0, "%d processes", left);
    cr_expect_neq(access(conf, F_OK), 0, "%s is still there", conf);
    temp_folder_free_text(mark);
}

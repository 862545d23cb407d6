/* test_curate_slurm.c - the Slurm scripts of a curation beside programs that only tell how they were called.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 30 };

static TempFolder temp;

static void write_program(const char *name, const char *text)
{
    temp_folder_write(&temp, name, text);
    cr_assert_eq(chmod(temp_folder_in(&temp, "%s", name).text, 0755), 0);
}

static void set_up(void)
{
    char text[256];
    temp = temp_folder_create();
    cr_assert_eq(mkdir(temp_folder_in(&temp, "bin").text, 0777), 0);
    setenv("HERE", temp.path, 1);
    snprintf(text, sizeof text, "%s/bin:%s", temp.path, getenv("PATH"));
    setenv("PATH", text, 1);
    setenv("DINOBATCH", temp_folder_in(&temp, "bin/dinobatch").text, 1);
    /* job numbers from 101 */
    write_program("bin/sbatch", "#!/bin/sh\necho \"$*\" >> \"$HERE/sbatch.txt\"\n"
                                "expr 100 + \"$(wc -l < \"$HERE/sbatch.txt\")\"\n");
    write_program("bin/scontrol", "#!/bin/sh\necho \"$*\" >> \"$HERE/scontrol.txt\"\nkill -TERM $PPID\n");
    write_program("bin/dinobatch",
                  "#!/bin/sh\necho \"$*\" >> \"$HERE/listed.txt\"\ncat \"$HERE/list.txt\"\n");
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(curate_slurm, .init = set_up, .fini = tear_down, .timeout = 60);

/* --- submission --- */

static const char *const STEPS[] = {
    "dinobatch pretrain --config-file 'a b.yaml' --output-dir out/net",
    "dinobatch extract --model out/net --data folder:pool --output-dir out/f/plain.h5",
    "dinobatch extract --model out/net --data folder:pool --output-dir out/f/pool.h5 --whiten out/f/plain.h5",
    "dinobatch extract --model out/net --data 'folder:e v' --output-dir out/f/val.h5 --whiten out/f/plain.h5",
    "dinobatch curate dedup --features out/f/pool.h5 --output-dir out",
    "dinobatch curate retrieve --features out/f/pool.h5 --output-dir out --name a",
    "dinobatch curate retrieve --features out/f/pool.h5 --output-dir out --name b",
    "dinobatch curate assemble --part out/retrieve_a.h5 --output-dir out",
};

/* Lines of the file for the steps whose bit is set. */
static void write_steps(const char *name, unsigned steps)
{
    char text[2000] = "";
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++) {
        size_t used = strlen(text);
        if (steps >> i & 1) snprintf(text + used, sizeof text - used, "%s\n", STEPS[i]);
    }
    temp_folder_write(&temp, name, text);
}

/* What curate.sh tells sbatch: *calls[7], "" behind the last. */
static void submit(char calls[7][900])
{
    unlink(temp_folder_in(&temp, "sbatch.txt").text);
    TempPath out = temp_folder_in(&temp, "out");
    ProcessResult result =
        process_run(WORDS("env", "CURATE_SBATCH=--account=me", "CURATE_SBATCH_EXTRACT=--ntasks=8 --mem=0",
                          "CURATE_ARRAY_AT_A_TIME=2", "bash", "slurm/curate.sh", "plan.yaml", out.text,
                          "curation.seed=3"),
                    LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s%s", result.out, result.err);
    process_result_fini(&result);
    memset(calls, 0, 7 * sizeof *calls);
    char *text = temp_folder_read(&temp, "sbatch.txt"), *rest = text;
    for (int i = 0; i < 7 && rest && *rest; i++)
        snprintf(calls[i], sizeof calls[i], "%s", strsep(&rest, "\n"));
    temp_folder_free_text(text);
}

static void expect_call(const char *call, const char *kind, const char *dependency, const char *array,
                        const char *number)
{
    char name[64], behind[64], steps[64];
    snprintf(name, sizeof name, "--job-name=curate-%s ", kind);
    snprintf(behind, sizeof behind, "--dependency=afterok:%s --kill-on-invalid-dep=yes", dependency);
    snprintf(steps, sizeof steps, ".txt %s ", number);
    cr_expect(strstr(call, name), "%s is not in: %s", name, call);
    cr_expect_eq(strstr(call, behind) != NULL, dependency[0] != '\0', "%s", call);
    cr_expect(strstr(call, array), "%s is not in: %s", array, call);
    cr_expect_eq(strstr(call, "--array") != NULL, array[0] != '\0', "%s", call);
    cr_expect(strstr(call, steps), "%s is not in: %s", steps, call);
    cr_expect(strstr(call, "--account=me ") && strstr(call, "curate_step.sbatch "), "%s", call);
    bool extracts = strcmp(kind, "extract") == 0;
    cr_expect_eq(strstr(call, "--signal=B:USR1@180") == NULL, extracts, "%s", call);
    cr_expect_eq(strstr(call, "--ntasks=8 --mem=0 ") != NULL, extracts, "%s", call);
}

Test(curate_slurm, steps_are_a_chain_and_those_that_need_not_wait_are_arrays)
{
    char calls[7][900];
    write_steps("list.txt", ~0U);
    submit(calls);
    expect_call(calls[0], "pretrain", "", "", "1");
    expect_call(calls[1], "extract", "101", "", "2");
    expect_call(calls[2], "extract", "102", "--array=3,4%2 ", "3");
    expect_call(calls[3], "dedup", "103", "", "5");
    expect_call(calls[4], "retrieve", "104", "--array=6,7%2 ", "6");
    expect_call(calls[5], "assemble", "105", "", "8");
    cr_expect_str_eq(calls[6], "");
    char *listed = temp_folder_read(&temp, "listed.txt"), wanted[400];
    snprintf(wanted, sizeof wanted, "curate run plan.yaml --output-dir %s/out curation.seed=3 --list\n",
             temp.path);
    cr_expect_str_eq(listed, wanted);
    temp_folder_free_text(listed);
}

Test(curate_slurm, what_is_done_is_not_submitted_again)
{
    char calls[7][900];
    write_steps("list.txt", ~0U);
    submit(calls);
    write_steps("out/steps.txt", 1U << 0 | 1U << 1 | 1U << 3 | 1U << 4); /* not 3, so not 5 either */
    submit(calls);
    expect_call(calls[0], "extract", "", "", "3");
    expect_call(calls[1], "dedup", "101", "", "5");
    expect_call(calls[2], "retrieve", "102", "--array=6,7%2 ", "6");
    expect_call(calls[3], "assemble", "103", "", "8");
    cr_expect_str_eq(calls[4], "");
    write_steps("out/steps.txt", ~0U);
    submit(calls);
    cr_expect_str_eq(calls[0], "");
}

Test(curate_slurm, a_curation_that_cannot_be_read_submits_nothing)
{
    write_program("bin/dinobatch", "#!/bin/sh\necho 'plan.yaml:3: unknown key pol' >&2\nexit 2\n");
    ProcessResult result = process_run(
        WORDS("bash", "slurm/curate.sh", "plan.yaml", temp_folder_in(&temp, "out").text), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "unknown key pol"), "%s", result.err);
    cr_expect_neq(access(temp_folder_in(&temp, "sbatch.txt").text, F_OK), 0);
    process_result_fini(&result);
    result = process_run(WORDS("bash", "slurm/curate.sh", "plan.yaml"), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2);
    cr_expect(strstr(result.err, "slurm/curate.sh CURATION.yaml DIR"), "%s", result.err);
    process_result_fini(&result);
}

/* --- a step --- */

/* `bash curate_step.sbatch list.txt 1 steps.txt` as job 7, or job 9 of an array of which it is `index`. */
static Process start_step(const char *index)
{
    char launch[200], task[40];
    TempPath list = temp_folder_in(&temp, "list.txt"), done = temp_folder_in(&temp, "steps.txt");
    snprintf(launch, sizeof launch, "DINOBATCH_LAUNCH=sh %s/launch.sh", temp.path);
    snprintf(task, sizeof task, "SLURM_ARRAY_TASK_ID=%s", index ? index : "");
    return process_start(WORDS("env", index ? task : "SLURM_JOB_NAME=x",
                               index ? "SLURM_ARRAY_JOB_ID=9" : "SLURM_JOB_NAME=x", "SLURM_JOB_ID=7", launch,
                               "bash", "slurm/curate_step.sbatch", list.text, "1", done.text));
}

static void expect_step(const char *index, int status, const char *args, const char *done)
{
    Process process = start_step(index);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, status, "%d: %s%s", result.exit_status, result.out, result.err);
    process_result_fini(&result);
    char *text = temp_folder_read(&temp, "args.txt");
    cr_expect_str_eq(text, args);
    temp_folder_free_text(text);
    text = temp_folder_read(&temp, "steps.txt");
    cr_expect_str_eq(text, done);
    temp_folder_free_text(text);
}

Test(curate_slurm, a_step_runs_its_line_and_notes_it_when_done)
{
    char first[256], second[400];
    temp_folder_write(&temp, "launch.sh",
                      "shift\nprintf '<%s>' \"$@\" > \"$HERE/args.txt\"\nexit \"$(cat \"$HERE/status\")\"\n");
    write_steps("list.txt", 1U << 0 | 1U << 3);
    temp_folder_write(&temp, "status", "3");
    expect_step(NULL, 3, "<pretrain><--config-file><a b.yaml><--output-dir><out/net>", "");
    temp_folder_write(&temp, "status", "0");
    snprintf(first, sizeof first, "%s\n", STEPS[0]);
    expect_step(NULL, 0, "<pretrain><--config-file><a b.yaml><--output-dir><out/net>", first);
    expect_step(NULL, 0, "<pretrain><--config-file><a b.yaml><--output-dir><out/net>", first);
    snprintf(second, sizeof second, "%s\n%s\n", STEPS[0], STEPS[3]);
    expect_step("2", 0,
                "<extract><--model><out/net><--data><folder:e "
                "v><--output-dir><out/f/val.h5><--whiten><out/f/plain.h5>",
                second);
    temp_folder_write(&temp, "status", "75"); /* the one who requeues it ends the script */
    expect_step(NULL, 128 + SIGTERM, "<pretrain><--config-file><a b.yaml><--output-dir><out/net>", second);
    char *text = temp_folder_read(&temp, "scontrol.txt");
    cr_expect_str_eq(text, "requeue 7\n");
    temp_folder_free_text(text);
}

Test(curate_slurm, a_request_to_stop_goes_to_the_step_and_the_job_back_into_the_queue)
{
    temp_folder_write(&temp, "launch.sh",
                      "trap 'sleep 0.2; exit 75' USR1\necho ready >&2\nwhile :; do sleep 0.05; done\n");
    write_steps("list.txt", ~0U);
    Process process = start_step("5");
    cr_assert(process_wait_for_error_text(&process, "ready", LIMIT_SECONDS));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 128 + SIGTERM, "%d: %s%s", result.exit_status, result.out, result.err);
    cr_expect(strstr(result.out, "status 75"), "%s", result.out);
    process_result_fini(&result);
    char *text = temp_folder_read(&temp, "scontrol.txt");
    cr_expect_str_eq(text, "requeue 9_5\n");
    temp_folder_free_text(text);
    text = temp_folder_read(&temp, "steps.txt");
    cr_expect_str_eq(text, "");
    temp_folder_free_text(text);
}

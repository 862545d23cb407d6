/* test_run.c - how jobs stop and end under mpirun: statuses, signals, run folder. */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LIMIT_SECONDS = 50 };

static void expect_end(const ProcessResult *result, int status, const char *text)
{
    cr_assert(!result->timed_out, "%s", result->err);
    cr_expect_eq(result->exit_status, status, "exit %d\n%s", result->exit_status, result->err);
    cr_expect(strstr(result->err, text), "'%s' not in:\n%s", text, result->err);
}

/* mpirun forwards the signal to every rank. */
Test(run, usr1_to_mpirun_stops_all_ranks_with_75, .timeout = 60)
{
    Process process = process_start_case(3, "run_stop", NULL);
    cr_assert(process_wait_for_error_text(&process, "ready", 30));
    process_signal(&process, SIGUSR1);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    expect_end(&result, 75, "stopped on request");
    process_result_fini(&result);
}

Test(run, usr1_to_one_rank_stops_all_ranks_with_75, .timeout = 60)
{
    ProcessResult result = process_run_case(3, "run_stop", (const char *[]){"2", NULL}, LIMIT_SECONDS);
    expect_end(&result, 75, "stopped on request");
    process_result_fini(&result);
}

static Process start_alone(const char *name)
{
    const char *program = getenv("MPI_CASE_BIN");
    const char *argv[] = {program ? program : "build/tests/mpi_case", name, NULL};
    Process process = process_start(argv);
    cr_assert(process_wait_for_error_text(&process, "ready", 30));
    return process;
}

Test(run, term_stops_a_single_process_with_75, .timeout = 60)
{
    Process process = start_alone("run_stop");
    process_signal(&process, SIGTERM);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    expect_end(&result, 75, "stopped on request");
    process_result_fini(&result);
}

/* A repeat at once is the same request; a later one means it. */
Test(run, second_request_leaves_at_once, .timeout = 60)
{
    Process process = start_alone("run_deaf");
    process_signal(&process, SIGUSR1);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    process_signal(&process, SIGUSR1);
    nanosleep(&(struct timespec){.tv_sec = 3, .tv_nsec = 500000000}, NULL);
    cr_expect_eq(kill(process.pid, 0), 0, "the repeat ended it");
    process_signal(&process, SIGTERM);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    expect_end(&result, 1, "error: asked to stop a second time: leaving at once, without saving");
    cr_expect_lt(result.seconds, 10);
    process_result_fini(&result);
}

/* Stopped before or after MPI has started there: the others wait either way. */
Test(run, a_rank_that_does_not_come_ends_the_job, .timeout = 60)
{
    setenv("DINOBATCH_TIMEOUT", "2", 1);
    Process process = process_start_case(3, "run_deaf", NULL);
    pid_t late = process_of_rank(&process, 2, 20);
    cr_assert(late > 0 && kill(late, SIGSTOP) == 0);
    ProcessResult result = process_finish(&process, LIMIT_SECONDS);
    expect_end(&result, 1, "the time-out");
    cr_expect_lt(result.seconds, 15);
    process_result_fini(&result);
}

Test(run, agreed_status_reaches_the_launcher_and_no_rank_is_lost, .timeout = 60)
{
    const char *codes[] = {"0", "1", "2", "75"};
    const int statuses[] = {0, 1, 2, 75};
    for (int i = 0; i < 4; i++) {
        ProcessResult result =
            process_run_case(3, "run_exit", (const char *[]){codes[i], "1", NULL}, LIMIT_SECONDS);
        expect_end(&result, statuses[i], "");
        for (int r = 0; r < 3; r++) {
            char line[64];
            snprintf(line, sizeof line, "rank %d came through", r);
            cr_expect(strstr(result.out, line), "status %d: %s is missing in: %s", statuses[i], line,
                      result.out);
        }
        process_result_fini(&result);
    }
}

Test(run, one_rank_alone_can_end_the_job, .timeout = 60)
{
    ProcessResult result = process_run_case(3, "run_fail", NULL, LIMIT_SECONDS);
    expect_end(&result, 2, "rank 2: error: shard 7 is unreadable");
    process_result_fini(&result);
}

Test(run, folder_is_made_and_told, .timeout = 60)
{
    TempFolder temp = temp_folder_create();
    char *output = temp_folder_path(&temp, "deep/er/output/");
    for (int again = 0; again < 2; again++) { /* a second job continues in the same folder */
        ProcessResult result =
            process_run_case(2, "run_folder", (const char *[]){output, NULL}, LIMIT_SECONDS);
        expect_end(&result, 0, "a line for log.txt");
        process_result_fini(&result);
    }
    char *config = temp_folder_read(&temp, "deep/er/output/config.yaml");
    char *manifest = temp_folder_read(&temp, "deep/er/output/manifest.json");
    char *log = temp_folder_read(&temp, "deep/er/output/log.txt");
    cr_expect_str_eq(config, "train:\n  seed: 3\n");
    const char *line = strstr(log, "a line for log.txt");
    cr_expect(line && strstr(line + 1, "a line for log.txt"), "log.txt is appended to: %s", log);
    cr_expect(strstr(manifest, "\"exit_status\":\t0"), "%s", manifest);
    cr_expect(strstr(manifest, "\"ranks\":\t2"), "%s", manifest);
    temp_folder_free_text(config);
    temp_folder_free_text(manifest);
    temp_folder_free_text(log);
    temp_folder_free_text(output);
    temp_folder_destroy(&temp);
}

Test(run, folder_that_is_a_file_is_unusable_input_on_all_ranks, .timeout = 60)
{
    TempFolder temp = temp_folder_create();
    temp_folder_write(&temp, "occupied", "a file");
    char *output = temp_folder_path(&temp, "occupied/output");
    ProcessResult result = process_run_case(2, "run_folder", (const char *[]){output, NULL}, LIMIT_SECONDS);
    expect_end(&result, 2, "error: ");
    cr_expect(strstr(result.err, "occupied: is a file, not a folder"), "%s", result.err);
    cr_expect(strstr(result.err, "also on rank 1: rank 0: "), "%s", result.err);
    process_result_fini(&result);
    temp_folder_free_text(output);
    temp_folder_destroy(&temp);
}

/* test_comm.c - collectives under mpirun on 1 to 5 ranks: results, agreement, and how a broken job ends. */
#include "../support/process.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_SECONDS = 50, RANKS_MAX = 5 };

static void expect_success(int ranks, const char *name)
{
    ProcessResult result = process_run_case(ranks, name, NULL, LIMIT_SECONDS);
    cr_assert(!result.timed_out && result.exit_status == 0, "%s on %d ranks: exit %d\n%s", name, ranks,
              result.exit_status, result.err);
    process_result_fini(&result);
}

typedef struct {
    int ranks;
    char name[32];
} Success;

static const char *const SUCCESSES[] = {"comm_exact", "comm_pieces", "comm_bits",       "comm_agree",
                                        "comm_split", "comm_start",  "comm_start_most", "comm_16_bits"};
enum { SUCCESS_COUNT = sizeof SUCCESSES / sizeof *SUCCESSES };

ParameterizedTestParameters(comm, works_on_ranks)
{
    static Success parameters[SUCCESS_COUNT * RANKS_MAX];
    for (int i = 0; i < SUCCESS_COUNT * RANKS_MAX; i++) {
        parameters[i].ranks = i % RANKS_MAX + 1;
        strcpy(parameters[i].name, SUCCESSES[i / RANKS_MAX]);
    }
    return cr_make_param_array(Success, parameters, SUCCESS_COUNT * RANKS_MAX);
}

ParameterizedTest(Success *parameter, comm, works_on_ranks, .timeout = 60)
{
    expect_success(parameter->ranks, parameter->name);
}

Test(comm, allocates_nothing_after_reserve, .timeout = 60)
{
    expect_success(3, "comm_allocates_nothing");
}

Test(comm, works_without_launcher, .timeout = 60)
{
    const char *program = getenv("MPI_CASE_BIN");
    const char *argv[] = {program ? program : "build/tests/mpi_case", "comm_exact", NULL};
    ProcessResult result = process_run(argv, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s", result.err);
    process_result_fini(&result);
}

/* The job must end with this status and say this, within seconds. */
static void expect_end(int ranks, const char *name, const char *argument, int status, const char *text)
{
    const char *arguments[] = {argument, NULL};
    ProcessResult result = process_run_case(ranks, name, arguments, LIMIT_SECONDS);
    cr_assert(!result.timed_out);
    cr_expect_eq(result.exit_status, status, "%s: exit %d\n%s", name, result.exit_status, result.err);
    cr_expect(strstr(result.err, text), "%s: '%s' not in:\n%s", name, text, result.err);
    cr_expect_lt(result.seconds, 15);
    process_result_fini(&result);
}

Test(comm, cross_check_names_the_ranks, .timeout = 60)
{
    expect_end(3, "comm_mismatch", NULL, 1, "ranks disagree: rank");
}

Test(comm, killed_rank_ends_the_job, .timeout = 60)
{
    expect_end(3, "comm_killed", NULL, 137, "signal 9");
}

Test(comm, watchdog_ends_a_job_that_hangs, .timeout = 60)
{
    expect_end(2, "comm_timeout", NULL, 1, "s in barrier, which is over the time-out");
}

Test(comm, a_start_that_nobody_answers_ends_the_job, .timeout = 60)
{
    expect_end(2, "comm_start_timeout", NULL, 1, "s in the wait for all_gather, which is over the time-out");
}

Test(comm, cross_check_tells_waits_apart, .timeout = 60)
{
    expect_end(3, "comm_start_mismatch", NULL, 1, "calls the wait for all_gather with count");
}

Test(comm, abort_hands_its_code_on, .timeout = 60)
{
    expect_end(3, "comm_abort", "7", 7, "");
}

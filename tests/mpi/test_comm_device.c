/* test_comm_device.c - collectives on GPU memory, on emulated GPUs: an own one for each rank, connected by a
 * stand-in for NCCL, or one that they share. The suite comm_gpu runs the same on the GPUs of this machine.
 */
#include "../support/process.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 50 };

static void use_emulator(void)
{
    process_end_ranks_at_once();
    const char *program = getenv("MPI_CASE_EMULATED_BIN");
    if (!program) program = "build/tests/mpi_case_emulated";
    if (access(program, X_OK) != 0) {
        cr_assert(!getenv("CI"), "%s is not built", program);
        cr_skip_test("skipped: %s is not built", program);
    }
    setenv("MPI_CASE_BIN", program, 1);
}

TestSuite(comm_device, .init = use_emulator, .timeout = 60);

static void expect_success(int ranks, const char *name, const char *const *arguments)
{
    ProcessResult result = process_run_case(ranks, name, arguments, LIMIT_SECONDS);
    cr_assert(!result.timed_out && result.exit_status == 0, "%s on %d ranks: exit %d\n%s%s", name, ranks,
              result.exit_status, result.out, result.err);
    cr_expect(!strstr(result.out, "skipped"), "%s: %s", name, result.out);
    process_result_fini(&result);
}

static void expect_end(int ranks, const char *name, const char *const *arguments, const char *text)
{
    ProcessResult result = process_run_case(ranks, name, arguments, LIMIT_SECONDS);
    cr_assert(!result.timed_out);
    cr_expect_eq(result.exit_status, 1, "%s: exit %d\n%s", name, result.exit_status, result.err);
    cr_expect(strstr(result.err, text), "%s: '%s' not in:\n%s", name, text, result.err);
    cr_expect_lt(result.seconds, 10);
    process_result_fini(&result);
}

/* --- what comes out --- */

Test(comm_device, nccl_gives_what_the_host_gives)
{
    expect_success(2, "device_exact", WORDS("nccl 2.28.9"));
    expect_success(3, "device_exact", WORDS("nccl 2.28.9"));
}

Test(comm_device, ranks_may_share_a_gpu)
{
    setenv("EMULATOR_GPU", "the one", 1);
    expect_success(2, "device_exact", WORDS("staged: ranks share a GPU"));
    expect_success(3, "device_bits", WORDS("staged: ranks share a GPU"));
}

Test(comm_device, one_rank_needs_no_transport)
{
    expect_success(1, "device_exact", WORDS("none: one rank"));
}

Test(comm_device, nothing_is_lost_without_the_library)
{
    setenv("EMULATED_NCCL_MISSING", "1", 1);
    expect_success(2, "device_chain", WORDS("staged: libnccl.so.2 cannot be loaded"));
}

Test(comm_device, collectives_stand_in_the_order_of_work)
{
    expect_success(3, "device_chain", WORDS("nccl"));
}

Test(comm_device, collectives_are_started_and_waited_for)
{
    expect_success(1, "device_started", WORDS("none: one rank"));
    expect_success(2, "device_started", WORDS("nccl"));
    expect_success(3, "device_started", WORDS("nccl"));
    setenv("EMULATOR_GPU", "the one", 1);
    expect_success(3, "device_started", WORDS("staged: ranks share a GPU"));
}

Test(comm_device, sums_are_the_same_bits_everywhere)
{
    expect_success(3, "device_bits", WORDS("nccl"));
}

Test(comm_device, devices_come_and_go)
{
    expect_success(3, "device_life", WORDS("nccl"));
}

Test(comm_device, a_rank_may_compute_on_its_cpu)
{
    expect_success(2, "device_mixed", NULL);
}

/* --- how a broken job ends --- */

Test(comm_device, time_counts_for_each_collective)
{
    expect_success(2, "device_watched", WORDS("nccl", "600", "150"));
}

Test(comm_device, a_collective_that_hangs_ends_the_job)
{
    setenv("EMULATED_NCCL", "hang:1:3", 1);
    expect_end(2, "device_watched", WORDS("nccl", "600"), "s in all_reduce, which is over the time-out");
}

Test(comm_device, a_start_that_hangs_ends_the_job)
{
    setenv("EMULATED_NCCL", "hang:1:0", 1);
    expect_end(2, "device_started_hangs", WORDS("nccl"), "s in reduce_scatter, which is over the time-out");
}

Test(comm_device, a_collective_that_breaks_ends_the_job)
{
    setenv("EMULATED_NCCL", "error:1:2", 1);
    expect_end(2, "device_watched", WORDS("nccl", "0"), "rank 1: NCCL broke in all_reduce: remote process");
}

Test(comm_device, nccl_that_does_not_start_ends_the_job)
{
    setenv("EMULATED_NCCL", "start:1:0", 1);
    expect_end(2, "device_watched", WORDS("nccl"), "rank 1: the start by NCCL failed: system error");
}

/* --- real ones --- */

/* `make test-cuda` names the program that uses them. */
static void use_gpus(void)
{
    const char *program = getenv("MPI_CASE_CUDA_BIN");
    if (!program) cr_skip_test("skipped: no CUDA device is asked for\n");
    setenv("MPI_CASE_BIN", program, 1);
}

TestSuite(comm_gpu, .init = use_gpus, .timeout = 120);

static void run_on_gpus(int ranks, const char *name)
{
    ProcessResult result = process_run_case(ranks, name, NULL, 100);
    cr_assert(!result.timed_out && result.exit_status == 0, "%s on %d ranks: exit %d\n%s%s", name, ranks,
              result.exit_status, result.out, result.err);
    bool skipped = strstr(result.out, "skipped");
    process_result_fini(&result);
    if (!skipped) return;
    printf("skipped: no CUDA device (1 test of several ranks)\n");
    cr_skip_test("no CUDA device\n");
}

Test(comm_gpu, collectives_of_two_ranks)
{
    run_on_gpus(2, "device_exact");
    run_on_gpus(2, "device_chain");
    run_on_gpus(2, "device_started");
    run_on_gpus(2, "device_bits");
}

Test(comm_gpu, devices_of_three_ranks_come_and_go)
{
    run_on_gpus(3, "device_life");
}

/* test_doctor.c - doctor's checks of a site: what is fine here is called so, and for each check a site where
 * it is not, beside programs that only tell what srun and ompi_info would.
 */
#include "../support/process.h"
#include "../support/temp_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LIMIT_SECONDS = 50 };

#define PMIX_ONLY \
    "MPI plugin types are...\n\tnone\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n"
#define NO_PMIX "srun: MPI types are...\nsrun: none\nsrun: pmi2\n"
#define OMPI_4  "ompi:version:full:4.1.4\nmca:plm:slurm:version\nmca:ras:slurm:version\n"

static TempFolder temp;

static void set_up(void)
{
    char text[4096];
    temp = temp_folder_create();
    cr_assert_eq(mkdir(temp_folder_in(&temp, "bin").text, 0777), 0);
    snprintf(text, sizeof text, "%s/bin:%s", temp.path, getenv("PATH"));
    setenv("PATH", text, 1);
    unsetenv("DINOBATCH_LAUNCH");
    unsetenv("CUDA_VISIBLE_DEVICES");
}

static void tear_down(void)
{
    temp_folder_destroy(&temp);
}

TestSuite(doctor, .init = set_up, .fini = tear_down, .timeout = 100);

/* A program in PATH's first folder. */
static void stand_in(const char *name, const char *says, const char *then)
{
    char text[1024];
    TempPath path = temp_folder_in(&temp, "bin/%s", name);
    snprintf(text, sizeof text, "#!/bin/sh\ncat <<'E'\n%sE\n%s\n", says, then);
    temp_folder_write(&temp, path.text + strlen(temp.path) + 1, text);
    cr_assert_eq(chmod(path.text, 0755), 0);
}

/* The check has that verdict, and says that. */
static void expect_check(const ProcessResult *result, const char *name, const char *verdict, const char *said)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %-22s %-8s ", name, verdict);
    const char *line = strstr(result->out, wanted), *text = line ? strstr(line, said) : NULL;
    cr_expect(line && text && text < line + strcspn(line, "\n"), "no '%s' of %s in:\n%s%s", said, wanted,
              result->out, result->err);
}

static ProcessResult examine(int ranks, int exit_status, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, exit_status, "exit %d\n%s%s", result.exit_status, result.out,
                 result.err);
    return result;
}

/* A folder that is not there yet is not there afterwards, one that is stays empty. */
static void expect_nothing_left(void)
{
    ProcessResult left =
        process_run(WORDS("find", temp.path, "-mindepth", "1", "-not", "-path", "*/bin*"), 10);
    cr_expect_str_empty(left.out);
    process_result_fini(&left);
}

Test(doctor, one_rank_says_what_it_cannot_check)
{
    TempPath folder = temp_folder_in(&temp, "a/b");
    ProcessResult result =
        examine(0, 0, WORDS("doctor", "--output-dir", folder.text, "--starts", "3", "--json"));
    expect_check(&result, "open mpi", "ok", "Open MPI v");
    expect_check(&result, "one-rank jobs", "ok", "3 started at once");
    expect_check(&result, "output folder", "ok", "GiB free");
    expect_check(&result, "seen by all", "skipped", "one rank");
    expect_check(&result, "written by all", "ok", "1 rank,");
    expect_check(&result, "rename", "skipped", "one rank");
    expect_check(&result, "hdf5 parallel", "ok", "by 1 rank ");
    const char *json = strstr(result.out, "\n{");
    cr_expect(json && strstr(json, "\"one-rank jobs\":{\"verdict\":\"ok\","), "%s", result.out);
    expect_nothing_left();
    process_result_fini(&result);
    result = examine(0, 2, WORDS("doctor", "--starts", "1000"));
    cr_expect(strstr(result.err, "--starts 1000: expected a number from 0 to 256"), "%s", result.err);
    process_result_fini(&result);
}

Test(doctor, two_ranks_see_each_other)
{
    TempPath folder = temp_folder_in(&temp, "a");
    stand_in("srun", PMIX_ONLY, "");
    ProcessResult result = examine(2, 0, WORDS("doctor", "--output-dir", folder.text, "--starts", "1"));
    expect_check(&result, "srun plugins", "ok", "none pmix pmix_v4");
    expect_check(&result, "slurm/launch.sh", "ok", "starts jobs by srun --mpi=pmix ");
    expect_check(&result, "one-rank jobs", "ok", "1 started at once"); /* which is no rank of this job */
    expect_check(&result, "seen by all", "ok", "2 ranks on 1 node");
    expect_check(&result, "written by all", "ok", "2 ranks");
    expect_check(&result, "rename", "ok", "by 1 other rank");
    expect_check(&result, "hdf5 parallel", "ok", "by 2 ranks");
    expect_nothing_left();
    process_result_fini(&result);
}

Test(doctor, launchers_that_do_not_fit)
{
    stand_in("srun", NO_PMIX, "");
    ProcessResult result = examine(0, 0, WORDS("doctor", "--starts", "0"));
    expect_check(&result, "srun plugins", "warning", "offers none pmi2 and this Open MPI was built for pmix");
    expect_check(&result, "slurm/launch.sh", "ok", "starts jobs by mpirun");
    expect_check(&result, "one-rank jobs", "skipped", "--starts 0");
    process_result_fini(&result);

    stand_in("srun", PMIX_ONLY, "");
    stand_in("ompi_info", OMPI_4, "");
    result = examine(0, 1, WORDS("doctor", "--starts", "0"));
    expect_check(&result, "srun plugins", "warning", "built for none of them");
    expect_check(&result, "slurm/launch.sh", "failed",
                 "this Open MPI was not built for pmix; set DINOBATCH_LAUNCH");
    cr_expect(strstr(result.err, "checks failed: slurm/launch.sh"), "%s", result.err);
    process_result_fini(&result);

    stand_in("ompi_info", "ompi:version:full:3.0.1\n", "");
    setenv("DINOBATCH_LAUNCH", "/nonexistent/mpirun -n 1", 1);
    result = examine(0, 1, WORDS("doctor", "--starts", "0"));
    expect_check(&result, "open mpi", "warning", "of 3.0.1");
    expect_check(&result, "slurm/launch.sh", "failed", "/nonexistent/mpirun is not found");
    process_result_fini(&result);
}

Test(doctor, a_launcher_that_hangs_is_given_up)
{
    stand_in("srun", "", "sleep 1000");
    ProcessResult result = examine(0, 1, WORDS("doctor", "--starts", "0", "--limit", "1"));
    expect_check(&result, "srun plugins", "warning", "not done after 1 s");
    expect_check(&result, "slurm/launch.sh", "failed", "not done after 2 s");
    cr_expect_lt(result.seconds, 20);
    process_result_fini(&result);
}

Test(doctor, one_rank_jobs_that_do_not_come_up)
{
    setenv("OMPI_MCA_ess_singleton_server", "file:/nonexistent", 1); /* ranks of an mpirun do not care */
    ProcessResult result = examine(1, 1, WORDS("doctor", "--starts", "2", "--limit", "5"));
    expect_check(&result, "one-rank jobs", "failed", "2 of 2 started at once do not come up");
    process_result_fini(&result);
}

Test(doctor, gpus_that_the_program_cannot_use)
{
    setenv("CUDA_VISIBLE_DEVICES", "99", 1);
    ProcessResult result = examine(2, 0, WORDS("doctor", "--starts", "0"));
    expect_check(&result, "ranks and GPUs", "warning", "rank 0 can use none");
    process_result_fini(&result);
}

Test(doctor, a_folder_that_cannot_be_written)
{
    temp_folder_write(&temp, "file", "no folder");
    TempPath folder = temp_folder_in(&temp, "file/x");
    for (int ranks = 1; ranks <= 2; ranks++) {
        ProcessResult result =
            examine(ranks, 1, WORDS("doctor", "--starts", "0", "--output-dir", folder.text));
        expect_check(&result, "output folder", "failed", "is a file, not a folder");
        cr_expect_null(strstr(result.out, "hdf5 parallel"), "%s", result.out);
        process_result_fini(&result);
    }
}

/* Two ranks, each with a folder of its own under the same name. */
Test(doctor, a_folder_that_is_not_shared)
{
    const char *program = getenv("DINOBATCH");
    char path[4096];
    cr_assert(program && realpath(program, path));
    TempPath one = temp_folder_in(&temp, "one"), two = temp_folder_in(&temp, "two");
    cr_assert(mkdir(one.text, 0777) == 0 && mkdir(two.text, 0777) == 0);
    ProcessResult result =
        process_run(WORDS("mpirun", "-n", "1", "-wdir", one.text, path, "doctor", "--output-dir", "out",
                          "--starts", "0", "--limit", "2", ":", "-n", "1", "-wdir", two.text, path, "doctor",
                          "--output-dir", "out", "--starts", "0", "--limit", "2"),
                    LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 1, "exit %d\n%s", result.exit_status, result.err);
    expect_check(&result, "output folder", "ok", "out: 1 MiB written");
    expect_check(&result, "seen by all", "failed", "rank 1: does not see a file of rank 0 within 1.0 s");
    cr_expect_null(strstr(result.out, "hdf5 parallel"), "%s", result.out);
    process_result_fini(&result);
}

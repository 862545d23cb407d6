/* main.c - `dinobatch JOB ...`: finds the job, prepares what every job needs, hands its exit status on.
 *
 * What needs no communication (help, a wrong command line, --print-config) happens before MPI starts, so that
 * it works on a login node too; under a launcher only rank 0 speaks then.
 */
#include "base/memory.h"
#include "job.h"
#include "run/run_config.h"
#include "run/version.h"

#include <stdio.h>
#include <string.h>

static void print_jobs(FILE *out)
{
    fprintf(out, "dinobatch %s: DINOv2 training as MPI batch jobs\n\n", version_number());
    fprintf(out, "usage: dinobatch JOB [OPTION]... [key=value]...     alone, or under mpirun or srun\n");
    fprintf(out, "       dinobatch JOB --help | --help | --version\n\njobs:\n");
    for (const Job *job = JOB_TABLE; job->name; job++)
        fprintf(out, "  %-12s %s\n", job->name, job->help);
    fprintf(out, "\nexit status: 0 done; 1 failed; 2 usage, configuration or input; 75 stopped on request, "
                 "run again\n");
    fprintf(
        out,
        "environment: DINOBATCH_TIMEOUT, seconds that one collective may take (default 1800, 0: no limit)\n");
}

static void print_job_help(const Job *job)
{
    char *usage = options_help(job->name, &job->wanted);
    char *keys = config_help();
    printf("%s: %s\n\n%s\nconfiguration keys:\n%s", job->name, job->help, usage, keys);
    memory_free(usage);
    memory_free(keys);
}

static Status print_config(const Options *options, bool speaks, Error *error)
{
    Config config;
    TRY(run_config_load(&config, options, error));
    char *text = config_dump(&config);
    if (speaks) fputs(text, stdout);
    memory_free(text);
    config_fini(&config);
    return STATUS_OK;
}

/* The part with MPI: everything from here on is collective. Returns the process's exit status. */
static int run_job(const Job *job, const Options *options, int argc, char **argv)
{
    Error error = {0};
    Run run;
    Status status = run_start(&run, argc, argv, job->stops, &error);
    if (status != STATUS_OK) {
        fprintf(stderr, "error: %s\n", error.text);
        return (int)status;
    }
    Config config;
    status = run_config_load_all(&config, options, run.comm, &run.log, &error);
    if (status == STATUS_OK) {
        JobContext context = {.run = &run,
                              .comm = run.comm,
                              .log = &run.log,
                              .options = options,
                              .config = &config,
                              .json = options->json};
        status = job->run(&context, &error);
        comm_detach_device(run.comm);
        device_close(context.device);
        config_fini(&config);
    }
    return run_finish(&run, status, &error);
}

/* Usage errors are the same on all ranks, so each leaves by itself and rank 0 says why. */
static int refuse(const Error *error, bool speaks)
{
    if (speaks) fprintf(stderr, "error: %s\n", error->text);
    return STATUS_INPUT;
}

int main(int argc, char **argv)
{
    Error error = {0};
    bool speaks = launcher_detect().rank == 0;
    if (argc < 2) {
        if (speaks) print_jobs(stderr);
        return STATUS_INPUT;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        if (speaks) print_jobs(stdout);
        return STATUS_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        if (speaks) printf("dinobatch %s (%s), %s\n", version_number(), version_git(), version_build());
        return STATUS_OK;
    }
    const Job *job = job_table_find(argv[1], &error);
    if (!job) return refuse(&error, speaks);

    /* getopt permutes; the manifest shows the command line as it was given. */
    char **words = memory_alloc_array((size_t)argc + 1, sizeof *words);
    memcpy(words, argv, (size_t)argc * sizeof *words);
    Options options;
    Status status = options_parse(&options, &job->wanted, argc, words, &error);
    int exit_status;
    if (status == STATUS_OK && options.help) {
        if (speaks) print_job_help(job);
        exit_status = STATUS_OK;
    } else if (status == STATUS_OK && options.print_config) {
        status = print_config(&options, speaks, &error);
        exit_status = status == STATUS_OK ? STATUS_OK : refuse(&error, speaks);
    } else {
        exit_status = status == STATUS_OK ? run_job(job, &options, argc, argv) : refuse(&error, speaks);
    }
    options_fini(&options);
    memory_free(words);
    return exit_status;
}

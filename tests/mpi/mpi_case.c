/* mpi_case.c - runs one case on all ranks; see mpi_case.h. */
#include "mpi_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MPI_CASE_ENTRY(name) {#name, case_##name},
static const struct {
    const char *name;
    MpiCaseFunction function;
} CASES[] = {MPI_CASES(MPI_CASE_ENTRY)};

bool mpi_case_expect(MpiCase *c, bool condition, const char *file, int line, const char *text)
{
    if (condition) return true;
    c->failures++;
    fprintf(stderr, "rank %d of %d: %s:%d: %s does not hold\n", c->rank, c->size, file, line, text);
    return false;
}

int64_t mpi_case_number(const MpiCase *c, int index, int64_t fallback)
{
    return index < c->argc ? strtoll(c->argv[index], NULL, 10) : fallback;
}

static MpiCaseFunction find(const char *name)
{
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        if (strcmp(CASES[i].name, name) == 0) return CASES[i].function;
    return NULL;
}

int main(int argc, char **argv)
{
    MpiCaseFunction function = argc > 1 ? find(argv[1]) : NULL;
    if (!function) {
        fprintf(stderr, "mpi_case: no such case: %s\n", argc > 1 ? argv[1] : "(none)");
        return STATUS_INPUT;
    }
    Error error = {0};
    Run run;
    if (run_start(&run, argc, argv, true, &error) != STATUS_OK) {
        fprintf(stderr, "mpi_case: %s\n", error.text);
        return STATUS_FAILED;
    }
    MpiCase c = {.run = &run,
                 .comm = run.comm,
                 .rank = comm_rank(run.comm),
                 .size = comm_size(run.comm),
                 .argc = argc - 2,
                 .argv = argv + 2};
    Status status = function(&c);
    if (c.failures) status = status_fail(&c.error, STATUS_FAILED, "%d expectations failed", c.failures);
    return run_finish(&run, status, &c.error);
}

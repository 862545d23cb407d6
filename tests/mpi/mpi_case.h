/* mpi_case.h - the cases of the program that tests start under mpirun: `mpi_case NAME [ARGUMENT]...`.
 *
 * A case is a function in tests/mpi/case_<x>.c, one line in MPI_CASES below, and a Criterion test in
 * tests/mpi/test_<x>.c that runs it by process_run_case() and asserts exit status and output. Inside a case
 * EXPECT checks; a failed one prints a line and counts, and the program's exit status is 1 on rank 0 if any
 * rank failed any.
 */
#ifndef DINOBATCH_TESTS_MPI_MPI_CASE_H
#define DINOBATCH_TESTS_MPI_MPI_CASE_H

#include "run/run.h"

typedef struct {
    Run *run;
    Comm *comm; /* of run */
    int rank, size;
    int argc; /* of the case's own arguments */
    char **argv;
    int failures; /* on this rank */
    Error error;  /* what goes with a status that is not STATUS_OK */
} MpiCase;

/* The case's verdict as a status; STATUS_OK unless it plays a job that ends otherwise. */
typedef Status (*MpiCaseFunction)(MpiCase *c);

/* Notes a failure with place and text; evaluates to the condition. */
#define EXPECT(c, condition) mpi_case_expect((c), (condition), __FILE__, __LINE__, #condition)
bool mpi_case_expect(MpiCase *c, bool condition, const char *file, int line, const char *text);

/* argv[index] of the case as a number, or `fallback` when it was not given. */
int64_t mpi_case_number(const MpiCase *c, int index, int64_t fallback);

/* The cases: NAME on the command line, case_NAME() in a tests/mpi/case_<x>.c. Append yours. */
/* clang-format off */
#define MPI_CASES(X) \
    X(comm_exact) \
    X(comm_bits) \
    X(comm_pieces) \
    X(comm_agree) \
    X(comm_split) \
    X(comm_allocates_nothing) \
    X(comm_mismatch) \
    X(comm_killed) \
    X(comm_timeout) \
    X(comm_abort) \
    X(comm_start) \
    X(comm_start_most) \
    X(comm_16_bits) \
    X(comm_start_timeout) \
    X(comm_start_mismatch) \
    X(device_exact) \
    X(device_chain) \
    X(device_bits) \
    X(device_started) \
    X(device_started_hangs) \
    X(device_life) \
    X(device_mixed) \
    X(device_watched) \
    X(features) \
    X(knn_shards) \
    X(index_exchange) \
    X(index_search) \
    X(index_bad_row) \
    X(index_components) \
    X(index_kmeans) \
    X(run_stop) \
    X(run_deaf) \
    X(run_exit) \
    X(run_folder) \
    X(run_fail) \
    X(checkpoint_save) \
    X(checkpoint_load) \
    X(checkpoint_latest) \
    X(checkpoint_backbone) \
    X(checkpoint_storm) \
    X(checkpoint_full) \
    X(checkpoint_bandwidth) \
    X(linear_peer) \
    X(train) \
    X(train_poison)
/* clang-format on */

#define MPI_CASE_DECLARE(name) Status case_##name(MpiCase *c);
MPI_CASES(MPI_CASE_DECLARE)
#undef MPI_CASE_DECLARE

#endif

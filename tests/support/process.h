/* process.h - run a program from a test: with a time limit, its output captured, its exit status told. */
#ifndef DINOBATCH_TESTS_SUPPORT_PROCESS_H
#define DINOBATCH_TESTS_SUPPORT_PROCESS_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* A program under way. */
typedef struct {
    pid_t pid;
    FILE *out_file, *err_file; /* what it has written so far; owned */
    double started;
} Process;

/* How it ended. */
typedef struct {
    int exit_status; /* 0..255; 128 + signal when a signal ended it */
    bool timed_out;  /* killed by us */
    double seconds;
    char *out, *err; /* everything it wrote; owned */
} ProcessResult;

enum { PROCESS_ARGUMENTS_MAX = 64 };

/* A NULL-terminated list of words, as the functions here take it. */
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* From now on mpirun kills the ranks of a failed job without waiting a second for them to clean up: ours have
 * nothing to clean up. */
void process_end_ranks_at_once(void);

/* Starts argv[0] (looked up in PATH) with standard input empty. It gets SIGTERM when the test dies. A program
 * that cannot be started ends with status 127. */
Process process_start(const char *const *argv);

/* Starts `mpirun -n ranks MPI_CASE_BIN NAME [arguments]`, a NULL-terminated list or NULL; see mpi_case.h. */
Process process_start_case(int ranks, const char *name, const char *const *arguments);

/* The same for `$DINOBATCH arguments...`; ranks 0: without mpirun. */
Process process_start_dinobatch(int ranks, const char *const *arguments);

/* The process of that rank, a child of mpirun; -1 when there is none within `limit` seconds. */
pid_t process_of_rank(const Process *process, int rank, double limit);

/* How many live processes have all of "NAME=VALUE", a NULL-terminated list, in the environment that they were
 * started with. */
int process_count_marked(const char *const *marks);

/* Sends a signal to those of them that run a program of that name; how many they are. */
int process_signal_marked(const char *const *marks, const char *program, int signal_number);

/* Whether it has ended; process_finish is still due. */
bool process_has_ended(const Process *process);

/* Waits until standard error holds `text`; false when it ended or `limit` seconds passed before. */
bool process_wait_for_error_text(Process *process, const char *text, double limit);

void process_signal(const Process *process, int signal_number);

/* Waits for the end, `limit` seconds at most, then kills it. Releases `process`. */
ProcessResult process_finish(Process *process, double limit);

/* Start and finish in one. */
ProcessResult process_run(const char *const *argv, double limit);
ProcessResult process_run_case(int ranks, const char *name, const char *const *arguments, double limit);

/* The same for `$DINOBATCH arguments...`, on `ranks` ranks under mpirun, or without it when ranks is 0. */
ProcessResult process_run_dinobatch(int ranks, const char *const *arguments, double limit);

void process_result_fini(ProcessResult *result);

#endif

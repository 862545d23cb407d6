/* run.h - the life of a job: MPI, communicator, log, signals, run folder, manifest, exit status.
 *
 *     Run run;
 *     TRY(run_start(&run, argc, argv, &error));
 *     status = ...;                          // agreed over ranks
 *     return run_finish(&run, status, &error);
 *
 * A job ends in one of two ways. Agreed: every rank comes to run_finish with the same status. Alone: one rank
 * cannot go on while the others are elsewhere; it calls run_fail, and everybody ends.
 */
#ifndef DINOBATCH_RUN_RUN_H
#define DINOBATCH_RUN_RUN_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"
#include "run/launcher.h"
#include "run/manifest.h"
#include "run/run_folder.h"

typedef struct {
    int argc;
    char **argv; /* borrowed */
    Comm *comm;  /* all ranks; owned */
    Log log;
    Launcher launcher;
    const char *thread_level; /* of MPI: "multiple", "serialized", "funneled"; static */
    double timeout;           /* of a collective; 0: none */
    char *early_text;         /* what the log said before the folder was open; owned; rank 0 */
    FILE *early_log;          /* writes to early_text; owned; NULL once the folder is open */
    char *hosts;              /* [ranks * RUN_HOST_BYTES] of every rank; owned */
    bool has_folder;
    RunFolder folder; /* when has_folder */
    Manifest manifest;
} Run;

enum { RUN_HOST_BYTES = 64 };

/* Installs the signal handlers (`stops`: the job looks at run_stop_requested), starts MPI (a process without
 * launcher is a world of one), makes communicator and log. The collectives' time-out is DINOBATCH_TIMEOUT
 * seconds (environment; 0 = none), 1800 by default. STATUS_FAILED when MPI does not start, STATUS_INPUT for
 * an unusable DINOBATCH_TIMEOUT. Main thread, once in a process. Collective over all ranks. */
Status run_start(Run *run, int argc, char **argv, bool stops, Error *error);

/* Opens the run folder, writes config.yaml (`config_yaml`: the resolved configuration) and manifest.json,
 * lets the log speak into log.txt, where all that it said before goes first: a job opens its folder when
 * nothing can refuse the start any more, and a refused one leaves no trace there. `device` is the manifest's
 * word for where this job computes. STATUS_INPUT for an unusable folder. Collective over COMM. */
Status run_open_folder(Run *run, const char *path, const char *config_yaml, const char *device, Error *error);

/* A manifest alone, as file `name` in a folder that exists: for jobs whose output is no run folder.
 * run_finish or run_leave completes it. Collective over COMM. */
Status run_start_manifest(Run *run, const char *folder, const char *name, const char *device, Error *error);

/* A job inside of a job: the same ranks and signals, a folder and a manifest of its own, which run_leave
 * closes with `status`; the outer run must outlive it, and is not to be finished before. argv is borrowed.
 * Not collective. */
Run run_inside(const Run *outer, int argc, char **argv);
void run_leave(Run *run, Status status);

/* Whether this rank was asked to stop (SIGUSR1, SIGTERM). Local: ranks may learn at different steps, so the
 * caller agrees before he acts. Not collective. */
bool run_stop_requested(const Run *run);

/* Ends the job in agreement: says a failure's message once, completes the manifest, closes the folder, waits
 * for all ranks, finalizes MPI, and returns the process's exit status: `status` on rank 0, 0 on the others,
 * because Open MPI kills the slower ranks on the first non-zero exit. If the ranks come with different
 * statuses the lowest failing rank's counts. Collective over COMM. */
int run_finish(Run *run, Status status, Error *error);

/* Ends the job because of this rank alone: one line, then abort everywhere with `status`. Not collective. */
_Noreturn void run_fail(Run *run, Status status, const Error *error);

#endif

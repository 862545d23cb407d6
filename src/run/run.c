/* run.c - start and end of a job. */
#include "run/run.h"

#include "base/memory.h"
#include "comm/mpi/comm_mpi.h"
#include "run/signals.h"

#include <limits.h>
#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TIMEOUT_SECONDS = 1800, EARLY_TEXT_BYTES = 64 << 10 };

static Status read_timeout(double *seconds, Error *error)
{
    *seconds = DEFAULT_TIMEOUT_SECONDS;
    const char *text = getenv("DINOBATCH_TIMEOUT");
    if (!text || !*text) return STATUS_OK;
    char *end;
    *seconds = strtod(text, &end);
    if (*end == '\0' && *seconds >= 0 && isfinite(*seconds)) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "DINOBATCH_TIMEOUT: expected seconds, 0 or more, got '%s'", text);
}

static const char *level_name(int level)
{
    switch (level) {
    case MPI_THREAD_MULTIPLE:
        return "multiple";
    case MPI_THREAD_SERIALIZED:
        return "serialized";
    case MPI_THREAD_FUNNELED:
        return "funneled";
    default:
        return "single";
    }
}

static void gather_hosts(Run *run)
{
    char mine[RUN_HOST_BYTES] = {0};
    memcpy(mine, run->log.host, strnlen(run->log.host, sizeof mine - 1));
    run->hosts = memory_alloc_array((size_t)comm_size(run->comm), RUN_HOST_BYTES);
    comm_all_gather(run->comm, run->hosts, mine, RUN_HOST_BYTES, DTYPE_U8, NULL);
}

/* What is said before there is a log.txt; what does not fit is on stderr alone. */
static void keep_early_log(Run *run)
{
    if (run->log.rank != 0) return;
    run->early_text = memory_alloc(EARLY_TEXT_BYTES + 1); /* zeroed: a text however full it gets */
    run->early_log = fmemopen(run->early_text, EARLY_TEXT_BYTES, "w");
    run->log.file = run->early_log;
}

/* Moves it to `file` (NULL: nowhere) and ends it. */
static void end_early_log(Run *run, FILE *file)
{
    if (run->early_log) {
        if (run->log.file == run->early_log) run->log.file = NULL;
        fclose(run->early_log);
        run->early_log = NULL;
        if (file) fputs(run->early_text, file);
    }
    memory_free(run->early_text);
    run->early_text = NULL;
}

Status run_start(Run *run, int argc, char **argv, bool stops, Error *error)
{
    double timeout;
    *run = (Run){.argc = argc, .argv = argv, .launcher = launcher_detect()};
    TRY(read_timeout(&timeout, error));
    /* Before MPI_Init, which takes long enough for a signal to come in between and to kill a process without
     * handler. */
    signals_install(stops, run->launcher.rank);
    int level = MPI_THREAD_SINGLE;
    signals_limit(timeout);
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS)
        return status_fail(error, STATUS_FAILED, "MPI does not start");
    signals_limit(0);
    run->timeout = timeout;
    run->thread_level = level_name(level);
    run->comm = comm_mpi_create(MPI_COMM_WORLD);
    run->log = log_create(comm_rank(run->comm));
    keep_early_log(run);
    comm_set_timeout(run->comm, timeout);
    gather_hosts(run);
    /* Loader threads never call MPI; only the main thread and, to abort, the watchdog do. */
    if (level < MPI_THREAD_MULTIPLE)
        log_warning(&run->log,
                    "MPI gives thread level %s instead of multiple; the watchdog may not end a job in order",
                    run->thread_level);
    return STATUS_OK;
}

Status run_open_folder(Run *run, const char *path, const char *config_yaml, const char *device, Error *error)
{
    TRY(run_folder_open(&run->folder, run->comm, &run->log, path, error));
    run->has_folder = true;
    end_early_log(run, run->folder.text);
    TRY(run_folder_write(&run->folder, "config.yaml", config_yaml, error));
    return run_start_manifest(run, run->folder.path, "manifest.json", device, error);
}

Status run_start_manifest(Run *run, const char *folder, const char *name, const char *device, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(run->comm) == 0) {
        ManifestFacts facts = {.argc = run->argc,
                               .argv = run->argv,
                               .launcher = run->launcher.name,
                               .device = device,
                               .hosts = run->hosts,
                               .host_bytes = RUN_HOST_BYTES,
                               .ranks = comm_size(run->comm),
                               .threads = omp_get_max_threads(),
                               .thread_level = run->thread_level};
        char manifest[PATH_MAX];
        snprintf(manifest, sizeof manifest, "%s/%s", folder, name);
        status = manifest_start(&run->manifest, manifest, &facts, error);
    }
    return comm_agree(run->comm, status, error);
}

bool run_stop_requested(const Run *run)
{
    (void)run;
    return signals_stop_requested();
}

/* A manifest that cannot be completed must not turn a good job into a failed one. */
static void complete_manifest(Run *run, Status status)
{
    Error error = {0};
    if (!run->manifest.path) return;
    if (manifest_finish(&run->manifest, (int)status, &error) != STATUS_OK)
        log_warning(&run->log, "the manifest lacks its end: %s", error.text);
    manifest_fini(&run->manifest);
}

Run run_inside(const Run *outer, int argc, char **argv)
{
    Run run = *outer;
    run.argc = argc;
    run.argv = argv;
    run.has_folder = false;
    run.folder = (RunFolder){0};
    run.manifest = (Manifest){0};
    run.early_text = NULL; /* the outer one's */
    run.early_log = NULL;
    return run;
}

void run_leave(Run *run, Status status)
{
    complete_manifest(run, status);
    if (run->has_folder) run_folder_close(&run->folder);
    fflush(NULL);
}

int run_finish(Run *run, Status status, Error *error)
{
    Error none = {0};
    if (!error) error = &none;
    status = comm_agree(run->comm, status, error);
    int rank = comm_rank(run->comm);
    if (status == STATUS_REQUEUE)
        log_info(&run->log, "%s", error->text[0] ? error->text : "stopped on request; run me again to go on");
    else if (status != STATUS_OK && rank == 0)
        log_error(&run->log, "%s", error->text[0] ? error->text : "failed without a message");
    complete_manifest(run, status);
    end_early_log(run, NULL);
    if (run->has_folder) run_folder_close(&run->folder);
    fflush(NULL);
    comm_barrier(run->comm);
    comm_destroy(run->comm);
    memory_free(run->hosts);
    signals_limit(run->timeout);
    MPI_Finalize();
    signals_limit(0);
    *run = (Run){0};
    return rank == 0 ? (int)status : 0;
}

void run_fail(Run *run, Status status, const Error *error)
{
    log_error(&run->log, "%s", error->text);
    comm_abort(run->comm, (int)status);
}

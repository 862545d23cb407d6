/* process.c - fork, exec and wait with a limit. Output goes to unnamed files: no pipe can fill up. */
#include "process.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILL_GRACE_SECONDS = 5, OUTPUT_MAX = 16 << 20 };

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* What mpirun needs on a small machine, in a container, as root; a setting of the caller's wins. */
static void set_mpirun_environment(void)
{
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 0);
    setenv("OMP_NUM_THREADS", "1", 0);
}

void process_end_ranks_at_once(void)
{
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 1);
}

static _Noreturn void become(const char *const *argv, int out, int err)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    set_mpirun_environment();
    char *copy[PROCESS_ARGUMENTS_MAX + 1] = {0};
    for (int i = 0; argv[i]; i++)
        copy[i] = strdup(argv[i]); /* execvp wants them writable */
    execvp(copy[0], copy);
    perror(copy[0]);
    _exit(127);
}

Process process_start(const char *const *argv)
{
    int count = 0;
    while (argv[count])
        count++;
    CHECK(count > 0 && count <= PROCESS_ARGUMENTS_MAX);
    Process process = {.out_file = tmpfile(), .err_file = tmpfile(), .started = clock_seconds()};
    CHECK(process.out_file && process.err_file);
    fflush(NULL);
    process.pid = fork();
    CHECK(process.pid >= 0);
    if (process.pid == 0) become(argv, fileno(process.out_file), fileno(process.err_file));
    return process;
}

static char *read_all(FILE *file)
{
    struct stat facts;
    CHECK(fstat(fileno(file), &facts) == 0);
    size_t size = facts.st_size < OUTPUT_MAX ? (size_t)facts.st_size : OUTPUT_MAX;
    char *text = memory_alloc(size + 1);
    ssize_t got = pread(fileno(file), text, size, 0);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

bool process_has_ended(const Process *process)
{
    siginfo_t info = {0};
    waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid != 0;
}

bool process_wait_for_error_text(Process *process, const char *text, double limit)
{
    double end = clock_seconds() + limit;
    for (;;) {
        char *so_far = read_all(process->err_file);
        bool found = strstr(so_far, text) != NULL;
        memory_free(so_far);
        if (found || process_has_ended(process) || clock_seconds() > end) return found;
        pause_briefly();
    }
}

void process_signal(const Process *process, int signal_number)
{
    kill(process->pid, signal_number);
}

/* True when it ended before `end`. */
static bool wait_until(pid_t pid, double end, int *status)
{
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        CHECK(got >= 0);
        if (got == pid) return true;
        if (clock_seconds() > end) return false;
        pause_briefly();
    }
}

ProcessResult process_finish(Process *process, double limit)
{
    int status = 0;
    ProcessResult result = {0};
    if (!wait_until(process->pid, process->started + limit, &status)) {
        result.timed_out = true;
        kill(process->pid, SIGTERM);
        if (!wait_until(process->pid, clock_seconds() + KILL_GRACE_SECONDS, &status)) {
            kill(process->pid, SIGKILL);
            waitpid(process->pid, &status, 0);
        }
    }
    result.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.seconds = clock_seconds() - process->started;
    result.out = read_all(process->out_file);
    result.err = read_all(process->err_file);
    fclose(process->out_file);
    fclose(process->err_file);
    *process = (Process){0};
    return result;
}

ProcessResult process_run(const char *const *argv, double limit)
{
    Process process = process_start(argv);
    return process_finish(&process, limit);
}

/* mpirun -n ranks PROGRAM first (unless NULL) arguments... */
static Process start_ranks(int ranks, const char *program, const char *first, const char *const *arguments)
{
    char number[16];
    snprintf(number, sizeof number, "%d", ranks);
    const char *argv[PROCESS_ARGUMENTS_MAX + 1] = {0};
    int count = 0;
    if (ranks > 0) {
        const char *launch[] = {"mpirun", "--timeout", "60", "-n", number};
        for (size_t i = 0; i < sizeof launch / sizeof *launch; i++)
            argv[count++] = launch[i];
    }
    argv[count++] = program;
    if (first) argv[count++] = first;
    for (; arguments && *arguments; arguments++) {
        CHECK(count < PROCESS_ARGUMENTS_MAX);
        argv[count++] = *arguments;
    }
    return process_start(argv);
}

static const char *program_from(const char *variable, const char *fallback)
{
    const char *program = getenv(variable);
    return program && *program ? program : fallback;
}

Process process_start_case(int ranks, const char *name, const char *const *arguments)
{
    return start_ranks(ranks, program_from("MPI_CASE_BIN", "build/tests/mpi_case"), name, arguments);
}

ProcessResult process_run_case(int ranks, const char *name, const char *const *arguments, double limit)
{
    Process process = process_start_case(ranks, name, arguments);
    return process_finish(&process, limit);
}

Process process_start_dinobatch(int ranks, const char *const *arguments)
{
    return start_ranks(ranks, program_from("DINOBATCH", "build/dinobatch"), NULL, arguments);
}

/* A whole file of /proc, NUL bytes turned into line ends; false when it is gone. */
static bool read_proc(const char *pid, const char *name, char *text, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t length = 0;
    for (ssize_t got; length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0;)
        length += (size_t)got;
    close(fd);
    for (size_t i = 0; i < length; i++)
        if (text[i] == '\0') text[i] = '\n';
    text[length] = '\0';
    return length > 0;
}

static bool is_rank(const char *pid, pid_t parent, int rank)
{
    static char text[1 << 17];
    int found_parent;
    if (!read_proc(pid, "stat", text, sizeof text)) return false;
    const char *after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name, ") %*c %d", &found_parent) != 1 || found_parent != parent)
        return false;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\nOMPI_COMM_WORLD_RANK=%d\n", rank);
    return read_proc(pid, "environ", text, sizeof text) && strstr(text, wanted);
}

pid_t process_of_rank(const Process *process, int rank, double limit)
{
    for (double end = clock_seconds() + limit; clock_seconds() < end; pause_briefly()) {
        DIR *all = opendir("/proc");
        CHECK(all);
        pid_t found = -1;
        for (struct dirent *entry; found < 0 && (entry = readdir(all));)
            if (isdigit((unsigned char)entry->d_name[0]) && is_rank(entry->d_name, process->pid, rank))
                found = (pid_t)strtol(entry->d_name, NULL, 10);
        closedir(all);
        if (found > 0) return found;
    }
    return -1;
}

/* Whether every one of `marks` is a line of `text`. */
static bool has_lines(const char *text, const char *const *marks)
{
    for (; *marks; marks++) {
        size_t length = strlen(*marks);
        const char *at = strstr(text, *marks);
        while (at && ((at > text && at[-1] != '\n') || at[length] != '\n'))
            at = strstr(at + 1, *marks);
        if (!at) return false;
    }
    return true;
}

/* Signal 0 reaches nobody; program NULL: any. */
static int signal_marked(const char *const *marks, const char *program, int signal_number)
{
    static char text[1 << 17];
    char name[64] = "";
    int count = 0;
    if (program) snprintf(name, sizeof name, "%s\n", program);
    DIR *all = opendir("/proc");
    CHECK(all);
    for (struct dirent *entry; (entry = readdir(all));) { /* what has ended has no environment */
        const char *pid = entry->d_name;
        if (!isdigit((unsigned char)pid[0]) || !read_proc(pid, "environ", text, sizeof text) ||
            !has_lines(text, marks))
            continue;
        if (program && (!read_proc(pid, "comm", text, sizeof text) || strcmp(text, name) != 0)) continue;
        count++;
        kill((pid_t)strtol(pid, NULL, 10), signal_number);
    }
    closedir(all);
    return count;
}

int process_count_marked(const char *const *marks)
{
    return signal_marked(marks, NULL, 0);
}

int process_signal_marked(const char *const *marks, const char *program, int signal_number)
{
    return signal_marked(marks, program, signal_number);
}

ProcessResult process_run_dinobatch(int ranks, const char *const *arguments, double limit)
{
    Process process = process_start_dinobatch(ranks, arguments);
    return process_finish(&process, limit);
}

void process_result_fini(ProcessResult *result)
{
    memory_free(result->out);
    memory_free(result->err);
    *result = (ProcessResult){0};
}

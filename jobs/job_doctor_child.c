/* job_doctor_child.c - see job_doctor_child.h. */
#include "job_doctor_child.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* Signals as any program has them; gone with its parent. */
static void confine(void)
{
    for (int signal_number = 1; signal_number < 32; signal_number++)
        signal(signal_number, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void speak_into(int output)
{
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDIN_FILENO);
    dup2(output < 0 ? nothing : output, STDOUT_FILENO);
    dup2(output < 0 ? nothing : output, STDERR_FILENO);
}

/* Whether it is over, with its status; what has just been killed may need a moment. */
static bool collect(pid_t pid, int *status, double seconds)
{
    for (double end = clock_seconds() + seconds;; pause_briefly()) {
        if (waitpid(pid, status, WNOHANG) == pid) return true;
        if (clock_seconds() >= end) return false;
    }
}

/* --- a function --- */

Status doctor_child_call(DoctorWork work, const void *argument, void *result, size_t bytes, double seconds,
                         Error *error)
{
    int ends[2], status = 0;
    CHECK(bytes <= DOCTOR_CHILD_RESULT_MAX);
    memset(result, 0, bytes);
    if (pipe2(ends, O_CLOEXEC) != 0) return status_fail(error, STATUS_FAILED, "no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        confine();
        signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of a write */
        speak_into(-1);           /* a launcher waits for the end of its ranks' outputs */
        work(argument, result);
        _exit(write(ends[1], result, bytes) == (ssize_t)bytes ? 0 : 1); /* up to PIPE_BUF: all or nothing */
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return status_fail(error, STATUS_FAILED, "no child process: %s", strerror(errno));
    }
    struct pollfd wait = {.fd = ends[0], .events = POLLIN};
    int ready;
    do
        ready = poll(&wait, 1, (int)(seconds * 1000));
    while (ready < 0 && errno == EINTR);
    bool done = ready > 0 && read(ends[0], result, bytes) == (ssize_t)bytes;
    close(ends[0]);
    if (!done) kill(pid, SIGKILL);
    collect(pid, &status, done ? seconds : 0.5);
    if (done) return STATUS_OK;
    if (ready > 0) return status_fail(error, STATUS_FAILED, "the child process that tried it broke");
    return status_fail(error, STATUS_FAILED, "not done after %.0f s", seconds);
}

/* --- programs --- */

static bool begins_with(const char *text, const char *part)
{
    return strncmp(text, part, strlen(part)) == 0;
}

/* What mpirun and srun tell a rank; settings of the user's stay. */
static bool is_of_a_rank(const char *variable)
{
    static const char *const parts[] = {"OMPI_COMM_WORLD_",
                                        "OMPI_MCA_orte_",
                                        "OMPI_MCA_ess=",
                                        "OMPI_MCA_ess_base_",
                                        "OMPI_MCA_pmix=",
                                        "OMPI_UNIVERSE_SIZE=",
                                        "OMPI_NUM_APP_CTX=",
                                        "OMPI_FIRST_RANKS=",
                                        "OMPI_APP_CTX_",
                                        "OMPI_COMMAND=",
                                        "OMPI_ARGV=",
                                        "OMPI_FILE_LOCATION=",
                                        "OMPI_MCA_initial_wdir=",
                                        "OMPI_MCA_shmem_RUN",
                                        "OMPI_MCA_mpi_oversub",
                                        "PMI_",
                                        "PMI2_",
                                        "SLURM_STEP",
                                        "SLURM_PROCID=",
                                        "SLURM_LOCALID=",
                                        "SLURM_GTIDS=",
                                        "SLURM_PMIX"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (begins_with(variable, parts[i])) return true;
    return begins_with(variable, "PMIX_") && !begins_with(variable, "PMIX_MCA_");
}

static void forget_the_job(void)
{
    for (char **variable = environ; *variable;) {
        char name[128];
        size_t length = strcspn(*variable, "=");
        if (!is_of_a_rank(*variable) || length >= sizeof name) {
            variable++;
            continue;
        }
        memcpy(name, *variable, length);
        name[length] = '\0';
        unsetenv(name); /* the next one moves here */
    }
}

static _Noreturn void become(const char *const *argv, bool alone, int output)
{
    enum { WORDS_MAX = 16 };
    char *words[WORDS_MAX + 1] = {0};
    confine();
    setpgid(0, 0);
    if (alone) forget_the_job();
    speak_into(output);
    int count = 0;
    do
        words[count] = memory_strdup(argv[count]); /* execvp wants them writable */
    while (++count < WORDS_MAX && argv[count]);
    execvp(words[0], words);
    _exit(127);
}

void doctor_child_start(DoctorProgram *program, const char *const *argv, bool alone)
{
    int ends[2];
    memset(program, 0, sizeof *program);
    *program = (DoctorProgram){.pid = -1, .pipe = -1, .started = clock_seconds(), .exit_status = 127};
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    program->pid = fork();
    if (program->pid == 0) become(argv, alone, ends[1]);
    close(ends[1]);
    program->pipe = ends[0];
    fcntl(program->pipe, F_SETFL, O_NONBLOCK);
}

/* Takes what has come; what does not fit is dropped. */
static void drain(DoctorProgram *program)
{
    char rest[4096];
    for (;;) {
        size_t room = sizeof program->text - 1 - program->used;
        ssize_t got =
            room ? read(program->pipe, program->text + program->used, room) : read(program->pipe, rest, 4096);
        if (got <= 0) return;
        if (room) program->used += (size_t)got;
    }
}

static void look(DoctorProgram *program)
{
    int status;
    if (program->pid < 0) return;
    drain(program);
    if (waitpid(program->pid, &status, WNOHANG) != program->pid) return;
    drain(program);
    program->pid = -1;
    program->seconds = clock_seconds() - program->started;
    program->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void give_up(DoctorProgram *program)
{
    int status;
    kill(-program->pid, SIGKILL);
    collect(program->pid, &status, 0.5);
    program->timed_out = true;
    program->seconds = clock_seconds() - program->started;
    program->exit_status = 128 + SIGKILL;
    program->pid = -1;
}

void doctor_child_finish(DoctorProgram *programs, int count, double seconds)
{
    int under_way = count;
    for (double end = clock_seconds() + seconds; under_way > 0 && clock_seconds() < end; pause_briefly()) {
        under_way = 0;
        for (int i = 0; i < count; i++) {
            look(&programs[i]);
            under_way += programs[i].pid >= 0;
        }
    }
    for (int i = 0; i < count; i++) {
        if (programs[i].pid >= 0) give_up(&programs[i]);
        if (programs[i].pipe >= 0) close(programs[i].pipe);
        programs[i].pipe = -1;
    }
}

void doctor_child_run(DoctorProgram *program, const char *const *argv, double seconds)
{
    doctor_child_start(program, argv, false);
    doctor_child_finish(program, 1, seconds);
}

/* job_doctor_launch.c - how jobs are started here: what srun, mpirun and slurm/launch.sh make of each other,
 * and many small jobs at once.
 *
 * Nothing is submitted, and nothing runs on other nodes than this job's.
 */
#include "base/memory.h"
#include "job_doctor_checks.h"
#include "job_doctor_child.h"
#include "run/libraries.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS_BYTES = 256 };

/* What is known of the launchers. */
typedef struct {
    bool has_info;    /* ompi_info spoke */
    char version[32]; /* of it */
    bool pmix, pmi2;  /* srun --mpi=... that it can be started by */
    bool slurm;       /* mpirun knows Slurm */
    bool has_srun, srun_lists;
    char plugins[WORDS_BYTES]; /* that srun offers, separated and ended by blanks */
} Launchers;

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += length)
        if ((at == words || at[-1] == ' ') && at[length] == ' ') return true;
    return false;
}

/* The last line with something in it, for a message; borrowed, `text` is cut. */
static const char *last_line(char *text)
{
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    const char *line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

static void explain(DoctorProgram *program, char *reason, size_t size)
{
    if (program->timed_out)
        snprintf(reason, size, "not done after %.0f s", program->seconds);
    else
        snprintf(reason, size, "exit %d: %.300s", program->exit_status, last_line(program->text));
}

/* --- Open MPI --- */

static const char *linked_mpi(Library libraries[LIBRARIES_MAX])
{
    int count = libraries_list(libraries);
    for (int i = 0; i < count; i++)
        if (strcmp(libraries[i].name, "mpi") == 0) return libraries[i].version;
    return "";
}

static void read_info(Launchers *known, const char *text)
{
    const char *version = strstr(text, "ompi:version:full:");
    known->has_info = version != NULL;
    if (!version) return;
    sscanf(version, "ompi:version:full:%31[^\n]", known->version);
    /* From 5 on PMIx is all there is, and mpirun is PRRTE's, with Slurm support wherever Slurm is. */
    bool modern = strtol(known->version, NULL, 10) >= 5;
    known->pmix = modern || strstr(text, "mca:pmix:ext") || strstr(text, "mca:pmix:pmix");
    known->pmi2 = !modern && strstr(text, "mca:pmix:s2:");
    known->slurm = modern || (strstr(text, "mca:plm:slurm:") && strstr(text, "mca:ras:slurm:"));
}

static void check_open_mpi(DoctorChecks *checks, Launchers *known, DoctorProgram *program)
{
    static const char name[] = "open mpi";
    Library libraries[LIBRARIES_MAX];
    const char *linked = linked_mpi(libraries);
    if (strncmp(linked, "Open MPI", 8) != 0) {
        doctor_checks_add(checks, name, DOCTOR_SKIPPED, "the program is linked with %s", linked);
        return;
    }
    char reason[400];
    doctor_child_run(program, (const char *[]){"ompi_info", "--parsable", NULL}, checks->limit);
    read_info(known, program->text);
    explain(program, reason, sizeof reason);
    const char *number = linked + strcspn(linked, "0123456789");
    if (!known->has_info)
        doctor_checks_add(checks, name, DOCTOR_WARNING,
                          "ompi_info: %s; put the bin folder of %s into PATH, its mpirun belongs to it",
                          program->exit_status == 127 ? "not found" : reason, linked);
    else if (strcmp(known->version, number) != 0)
        doctor_checks_add(checks, name, DOCTOR_WARNING,
                          "%s is linked, but ompi_info in PATH is of %s; load the one that was built with",
                          linked, known->version);
    else
        doctor_checks_add(checks, name, DOCTOR_OK, "%s: %s, %s", linked,
                          known->pmix   ? "started by srun --mpi=pmix"
                          : known->pmi2 ? "started by srun --mpi=pmi2"
                                        : "not started by srun",
                          known->slurm ? "mpirun knows Slurm" : "mpirun does not know Slurm");
}

/* --- srun --- */

/* "MPI plugin types are...\n\tnone\n\tpmix\nspecific pmix plugin versions available: pmix_v4" and older
 * forms: every word that names a plugin. */
static void read_plugins(Launchers *known, const char *text)
{
    static const char *const kinds[] = {"none", "pmi", "cray", "openmpi"};
    size_t used = 0;
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, " \t\n,:");
        bool plugin = false;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            plugin = plugin || (length > 0 && strncmp(at, kinds[i], strlen(kinds[i])) == 0);
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)(length < 60 ? length : 60), at);
        if (plugin && !has_word(known->plugins, word) && used + strlen(word) + 1 < sizeof known->plugins)
            used += (size_t)snprintf(known->plugins + used, sizeof known->plugins - used, "%s ", word);
        at += length + (at[length] != '\0');
    }
}

static void check_srun(DoctorChecks *checks, Launchers *known, DoctorProgram *program)
{
    static const char name[] = "srun plugins";
    char reason[400];
    doctor_child_run(program, (const char *[]){"srun", "--mpi=list", NULL}, checks->limit);
    known->has_srun = program->exit_status != 127;
    known->srun_lists = program->exit_status == 0;
    if (known->srun_lists) read_plugins(known, program->text);
    explain(program, reason, sizeof reason);
    bool fits =
        (known->pmix && strstr(known->plugins, "pmix")) || (known->pmi2 && has_word(known->plugins, "pmi2"));
    if (!known->has_srun)
        doctor_checks_add(checks, name, DOCTOR_SKIPPED, "no srun in PATH");
    else if (!known->srun_lists)
        doctor_checks_add(checks, name, DOCTOR_WARNING,
                          "srun --mpi=list: %s; is this a machine of a cluster? jobs are started by mpirun",
                          reason);
    else if (known->has_info && !fits)
        doctor_checks_add(
            checks, name, DOCTOR_WARNING,
            "srun offers %sand this Open MPI was built for %s; start jobs by mpirun, or install Slurm's "
            "PMIx plugin",
            known->plugins,
            known->pmix   ? "pmix"
            : known->pmi2 ? "pmi2"
                          : "none of them");
    else
        doctor_checks_add(checks, name, DOCTOR_OK, "srun offers %s", known->plugins);
}

/* --- slurm/launch.sh --- */

/* Where the scripts look for it. */
static bool find_scripts(char folder[PATH_MAX])
{
    const char *named = getenv("DINOBATCH_SLURM"), *submitted = getenv("SLURM_SUBMIT_DIR");
    char script[PATH_MAX + 16];
    snprintf(folder, PATH_MAX, "%s%s", named ? named : submitted ? submitted : ".", named ? "" : "/slurm");
    snprintf(script, sizeof script, "%s/launch.sh", folder);
    return access(script, R_OK) == 0;
}

/* What the scripts would start with, by running the part of them that decides it. */
static bool ask_scripts(const char *folder, double limit, DoctorProgram *program, char launcher[WORDS_BYTES])
{
    static const char script[] = "export DINOBATCH_SLURM=\"$1\"; . \"$1/launch.sh\" && "
                                 "echo \"launcher=${launcher[*]}\"";
    doctor_child_run(program, (const char *[]){"bash", "-c", script, "bash", folder, NULL}, 2 * limit);
    const char *told = strstr(program->text, "launcher=");
    return told && sscanf(told, "launcher=%255[^\n]", launcher) == 1;
}

/* `reason`: what keeps `launcher` from starting this program; and how bad that is. */
static DoctorVerdict judge(const Launchers *known, const char *launcher, char *reason, size_t size,
                           DoctorProgram *program, double limit)
{
    char words[WORDS_BYTES + 2], plugin[64] = "";
    snprintf(words, sizeof words, "%s ", launcher);
    const char *asked = strstr(words, "--mpi=");
    if (asked) sscanf(asked, "--mpi=%62[^ ]", plugin);
    if (strncmp(words, "srun ", 5) == 0) {
        char offered[66];
        snprintf(offered, sizeof offered, "%s ", plugin);
        if (!known->srun_lists)
            snprintf(reason, size, "srun does not work here");
        else if (plugin[0] && !strstr(known->plugins, offered))
            snprintf(reason, size, "srun has no plugin %s", plugin);
        else if (known->has_info && ((strncmp(plugin, "pmix", 4) == 0 && !known->pmix) ||
                                     (strcmp(plugin, "pmi2") == 0 && !known->pmi2)))
            snprintf(reason, size, "this Open MPI was not built for %s", plugin);
        else
            return DOCTOR_OK;
        return DOCTOR_FAILED;
    }
    char *path = memory_strdup(words);
    path[strcspn(path, " ")] = '\0';
    doctor_child_run(program, (const char *[]){path, "--version", NULL}, limit);
    bool found = program->exit_status != 127;
    if (!found) snprintf(reason, size, "%.200s is not found", path);
    memory_free(path);
    if (!found) return DOCTOR_FAILED;
    if (strncmp(words, "mpirun ", 7) != 0 || !known->srun_lists || !known->has_info || known->slurm)
        return DOCTOR_OK;
    snprintf(reason, size, "this mpirun does not know Slurm, and reaches other nodes by ssh alone");
    return DOCTOR_WARNING;
}

static void check_scripts(DoctorChecks *checks, const Launchers *known, DoctorProgram *program)
{
    static const char name[] = "slurm/launch.sh";
    char folder[PATH_MAX], launcher[WORDS_BYTES] = "", reason[320] = "";
    if (!find_scripts(folder)) {
        doctor_checks_add(checks, name, DOCTOR_SKIPPED,
                          "no %.300s/launch.sh; run in the repository's folder, or set DINOBATCH_SLURM",
                          folder);
        return;
    }
    if (!ask_scripts(folder, checks->limit, program, launcher)) {
        explain(program, reason, sizeof reason);
        doctor_checks_add(checks, name, DOCTOR_FAILED, "does not say what it starts with: %s", reason);
        return;
    }
    DoctorVerdict verdict = judge(known, launcher, reason, sizeof reason, program, checks->limit);
    if (verdict == DOCTOR_OK)
        doctor_checks_add(checks, name, DOCTOR_OK, "starts jobs by %s", launcher);
    else
        doctor_checks_add(checks, name, verdict,
                          "starts jobs by %s, but %s; set DINOBATCH_LAUNCH in %.200s/site.env", launcher,
                          reason, folder);
}

void doctor_launch_check(DoctorChecks *checks)
{
    if (!checks->speaks) return;
    Launchers known = {0};
    DoctorProgram *program = memory_alloc(sizeof *program);
    check_open_mpi(checks, &known, program);
    check_srun(checks, &known, program);
    check_scripts(checks, &known, program);
    memory_free(program);
}

/* --- many small jobs --- */

void doctor_starts_check(DoctorChecks *checks, int64_t starts)
{
    static const char name[] = "one-rank jobs";
    char path[PATH_MAX] = "", reason[400] = "";
    int failed = 0;
    double slowest = 0;
    if (!checks->speaks) return;
    if (starts == 0 || readlink("/proc/self/exe", path, sizeof path - 1) < 0) {
        doctor_checks_add(checks, name, DOCTOR_SKIPPED, "%s", starts ? "no /proc" : "--starts 0");
        return;
    }
    DoctorProgram *programs = memory_alloc_array((size_t)starts, sizeof *programs);
    for (int64_t i = 0; i < starts; i++)
        doctor_child_start(&programs[i], (const char *[]){path, "doctor", "--facts", NULL}, true);
    doctor_child_finish(programs, (int)starts, checks->limit);
    for (int64_t i = 0; i < starts; i++) {
        if (programs[i].seconds > slowest) slowest = programs[i].seconds;
        if (programs[i].exit_status == 0) continue;
        if (failed++ == 0) explain(&programs[i], reason, sizeof reason);
    }
    memory_free(programs);
    if (failed)
        doctor_checks_add(
            checks, name, DOCTOR_FAILED,
            "%d of %lld started at once do not come up (%s); try OMPI_MCA_ess_singleton_isolated=1, "
            "or start each by mpirun -n 1",
            failed, (long long)starts, reason);
    else
        doctor_checks_add(checks, name, DOCTOR_OK, "%lld started at once, the slowest over after %.2f s",
                          (long long)starts, slowest);
}

/* job_doctor.c - what this build and this machine can do, and whether jobs will run on this site, as a table
 * and as JSON.
 *
 *   dinobatch doctor [--output-dir DIR] [--starts N] [--limit SECONDS] [--facts]
 *
 * It looks, tries and reports; it leaves nothing behind and measures nothing (that is `bench`).
 */
#include "base/memory.h"
#include "data/data_spec.h"
#include "device/device_facts.h"
#include "job_doctor_checks.h"
#include "run/libraries.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    FACTS_MAX = 64,
    FACT_BYTES = 256,
    STARTS_DEFAULT = 8,
    STARTS_MAX = 256,
    LIMIT_DEFAULT = 30,
    LIMIT_MAX = 3600
};

const OptionSpec job_doctor_options[] = {
    {"starts", "N",
     "one-rank jobs to start at once, as job arrays do (default: a core each, 8 at most; 0: none)", false},
    {"limit", "SECONDS", "of each check that may hang (default: 30)", false},
    {"facts", NULL, "what is there only, no checks", false},
    {0},
};

typedef struct {
    const char *group; /* static */
    char name[64];
    char value[FACT_BYTES];
} Fact;

typedef struct {
    Fact facts[FACTS_MAX];
    int count;
} Facts;

__attribute__((format(printf, 4, 5))) static void add(Facts *facts, const char *group, const char *name,
                                                      const char *format, ...)
{
    if (facts->count == FACTS_MAX) return;
    Fact *fact = &facts->facts[facts->count++];
    fact->group = group;
    snprintf(fact->name, sizeof fact->name, "%s", name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fact->value, sizeof fact->value, format, arguments);
    va_end(arguments);
}

static void add_build(Facts *facts)
{
    add(facts, "build", "version", "%s (%s)", version_number(), version_git());
    add(facts, "build", "compiler", "%s", version_build());
}

static void add_devices(Facts *facts)
{
    DeviceFact known[DEVICE_FACTS_MAX];
    int count = device_facts(known);
    for (int i = 0; i < count; i++)
        add(facts, "cuda", known[i].name, "%s", known[i].value);
}

static void add_libraries(Facts *facts)
{
    Library libraries[LIBRARIES_MAX];
    int count = libraries_list(libraries);
    for (int i = 0; i < count; i++)
        add(facts, "libraries", libraries[i].name, "%s", libraries[i].version);
}

/* "node1 x 4, node2 x 4": hosts in rank order with their ranks, cut where the table ends. */
static void describe_hosts(const Run *run, char text[FACT_BYTES])
{
    int ranks = comm_size(run->comm), first = 0;
    size_t used = 0;
    text[0] = '\0';
    for (int r = 1; r <= ranks && used < FACT_BYTES - 1; r++) {
        const char *host = run->hosts + (size_t)first * RUN_HOST_BYTES;
        if (r < ranks && strcmp(host, run->hosts + (size_t)r * RUN_HOST_BYTES) == 0) continue;
        int length =
            snprintf(text + used, FACT_BYTES - used, "%s%s x %d", first ? ", " : "", host, r - first);
        used += (size_t)length;
        first = r;
    }
}

static void add_ranks(Facts *facts, const Run *run)
{
    char hosts[FACT_BYTES];
    describe_hosts(run, hosts);
    add(facts, "ranks", "launcher", "%s", run->launcher.name);
    add(facts, "ranks", "ranks", "%d", comm_size(run->comm));
    add(facts, "ranks", "hosts", "%s", hosts);
    add(facts, "ranks", "communicator", "%s", comm_backend_name(run->comm));
    add(facts, "ranks", "mpi threads", "%s", run->thread_level);
    add(facts, "ranks", "openmp threads", "%d per rank", omp_get_max_threads());
}

/* The text after ": " of the first line of /proc/cpuinfo that begins with `key`. */
static void read_cpuinfo(const char *key, char *value, size_t size)
{
    char line[512];
    snprintf(value, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        const char *colon = strstr(line, ": ");
        if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
        snprintf(value, size, "%s", colon + 2);
        value[strcspn(value, "\n")] = '\0';
        break;
    }
    fclose(file);
}

static void add_machine(Facts *facts)
{
    char model[128], features[FACT_BYTES] = "";
    const struct {
        const char *name;
        int has;
    } known[] = {
#ifdef __x86_64__
        {"avx2", __builtin_cpu_supports("avx2")},
        {"fma", __builtin_cpu_supports("fma")},
        {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512bw", __builtin_cpu_supports("avx512bw")},
        {"avx512vnni", __builtin_cpu_supports("avx512vnni")},
        {"avx512bf16", __builtin_cpu_supports("avx512bf16")},
#endif
        {"", 0},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].has)
            used += (size_t)snprintf(features + used, sizeof features - used, "%s ", known[i].name);
    read_cpuinfo("model name", model, sizeof model);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    add(facts, "machine", "processor", "%s", model);
    add(facts, "machine", "cores online", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    add(facts, "machine", "features", "%s", used ? features : "none known");
    add(facts, "machine", "memory", "%.1f GiB", (double)pages * (double)page / (1024.0 * 1024 * 1024));
}

static void add_slurm(Facts *facts)
{
    LauncherVariable variables[LAUNCHER_SLURM_MAX];
    int count = launcher_slurm(variables);
    if (count == 0) add(facts, "slurm", "job", "none");
    for (int i = 0; i < count; i++)
        add(facts, "slurm", variables[i].name, "%s", variables[i].value);
}

static void print_table(const Facts *facts)
{
    const char *group = "";
    for (int i = 0; i < facts->count; i++) {
        const Fact *fact = &facts->facts[i];
        printf("%-10s %-22s %s\n", strcmp(group, fact->group) ? fact->group : "", fact->name, fact->value);
        group = fact->group;
    }
}

static void print_json(const Facts *facts, const DoctorChecks *checks)
{
    cJSON *tree = cJSON_CreateObject();
    for (int i = 0; i < facts->count; i++) {
        const Fact *fact = &facts->facts[i];
        cJSON *group = cJSON_GetObjectItem(tree, fact->group);
        if (!group) group = cJSON_AddObjectToObject(tree, fact->group);
        cJSON_AddStringToObject(group, fact->name, fact->value);
    }
    cJSON *group = checks->count ? cJSON_AddObjectToObject(tree, "checks") : NULL;
    for (int i = 0; i < checks->count; i++) {
        cJSON *check = cJSON_AddObjectToObject(group, checks->checks[i].name);
        cJSON_AddStringToObject(check, "verdict", doctor_checks_word(checks->checks[i].verdict));
        cJSON_AddStringToObject(check, "text", checks->checks[i].text);
    }
    char *text = cJSON_PrintUnformatted(tree);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* --- checks --- */

const char *doctor_checks_word(DoctorVerdict verdict)
{
    static const char *const words[] = {[DOCTOR_OK] = "ok",
                                        [DOCTOR_SKIPPED] = "skipped",
                                        [DOCTOR_WARNING] = "warning",
                                        [DOCTOR_FAILED] = "failed"};
    return words[verdict];
}

void doctor_checks_add(DoctorChecks *checks, const char *name, DoctorVerdict verdict, const char *format, ...)
{
    if (!checks->speaks || checks->count == DOCTOR_CHECKS_MAX) return;
    DoctorCheck *check = &checks->checks[checks->count++];
    check->name = name;
    check->verdict = verdict;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(check->text, sizeof check->text, format, arguments);
    va_end(arguments);
    printf("%-10s %-22s %-8s %s\n", checks->count == 1 ? "checks" : "", name, doctor_checks_word(verdict),
           check->text);
    fflush(stdout); /* the next one may end the job */
}

/* The names of those that failed. */
static Status sum_up(const DoctorChecks *checks, Error *error)
{
    char names[256] = "";
    int failed = 0;
    for (int i = 0; i < checks->count; i++) {
        size_t used = strlen(names);
        if (checks->checks[i].verdict != DOCTOR_FAILED) continue;
        snprintf(names + used, sizeof names - used, "%s%s", failed++ ? ", " : "", checks->checks[i].name);
    }
    if (failed == 0) return STATUS_OK;
    return status_fail(error, STATUS_FAILED, "%d of %d checks failed: %s", failed, checks->count, names);
}

/* *value, unless the option says another one. */
static Status parse_number(const Options *options, const char *name, int64_t least, int64_t most,
                           int64_t *value, Error *error)
{
    const char *text = options_get(options, name);
    if (!text) return STATUS_OK;
    *value = data_spec_number(text, strlen(text));
    if (*value >= least && *value <= most) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected a number from %lld to %lld", name, text,
                       (long long)least, (long long)most);
}

static void print_facts(Facts *facts, const Run *run)
{
    add_build(facts);
    add_libraries(facts);
    add_ranks(facts, run);
    add_machine(facts);
    add_devices(facts);
    add_slurm(facts);
    print_table(facts);
    fflush(stdout);
}

Status job_doctor(JobContext *context, Error *error)
{
    const Options *options = context->options;
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN), limit = LIMIT_DEFAULT;
    int64_t starts = cores < STARTS_DEFAULT ? cores : STARTS_DEFAULT;
    TRY(parse_number(options, "starts", 0, STARTS_MAX, &starts, error));
    TRY(parse_number(options, "limit", 1, LIMIT_MAX, &limit, error));
    Facts *facts = memory_alloc(sizeof *facts);
    DoctorChecks *checks = memory_alloc(sizeof *checks);
    checks->speaks = comm_rank(context->comm) == 0;
    checks->limit = (double)limit;
    if (checks->speaks) print_facts(facts, context->run);
    if (!options_get(options, "facts")) {
        doctor_launch_check(checks);
        doctor_starts_check(checks, starts);
        doctor_gpus_check(checks, context->run);
        doctor_folder_check(checks, context->run, options->output_dir);
    }
    if (checks->speaks && context->json) print_json(facts, checks);
    Status status = comm_agree(context->comm, sum_up(checks, error), error);
    memory_free(facts);
    memory_free(checks);
    return status;
}

/* job_doctor.c - what this build and this machine can do, as a table and as JSON.
 *
 * It looks and reports; it changes nothing and measures nothing (that is `bench`).
 */
#include "base/memory.h"
#include "device/device_facts.h"
#include "job.h"
#include "run/libraries.h"
#include "run/version.h"

#include <cjson/cJSON.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FACTS_MAX = 64, FACT_BYTES = 256 };

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

static void print_json(const Facts *facts)
{
    cJSON *tree = cJSON_CreateObject();
    for (int i = 0; i < facts->count; i++) {
        const Fact *fact = &facts->facts[i];
        cJSON *group = cJSON_GetObjectItem(tree, fact->group);
        if (!group) group = cJSON_AddObjectToObject(tree, fact->group);
        cJSON_AddStringToObject(group, fact->name, fact->value);
    }
    char *text = cJSON_PrintUnformatted(tree);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

Status job_doctor(JobContext *context, Error *error)
{
    (void)error;
    if (comm_rank(context->comm) != 0) return STATUS_OK;
    Facts *facts = memory_alloc(sizeof *facts);
    add_build(facts);
    add_libraries(facts);
    add_ranks(facts, context->run);
    add_machine(facts);
    add_devices(facts);
    add_slurm(facts);
    print_table(facts);
    if (context->json) print_json(facts);
    memory_free(facts);
    return STATUS_OK;
}

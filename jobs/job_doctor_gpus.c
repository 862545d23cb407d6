/* job_doctor_gpus.c - the ranks of each node against the GPUs that they see. Opens none. */
#include "base/memory.h"
#include "device/device.h"
#include "job_doctor_checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of one rank. */
typedef struct {
    int64_t gpus;     /* that the program can use */
    char chosen[120]; /* CUDA_VISIBLE_DEVICES; "" without */
    bool hidden;      /* it can use none, but there seem to be some */
} Sight;

static Sight look_around(void)
{
    Sight sight = {.gpus = device_gpu_count()};
    const char *chosen = getenv("CUDA_VISIBLE_DEVICES"), *slurm = getenv("SLURM_GPUS_ON_NODE");
    bool given = chosen && chosen[0] && strcmp(chosen, "-1") != 0 && strcmp(chosen, "NoDevFiles") != 0;
    snprintf(sight.chosen, sizeof sight.chosen, "%s", chosen ? chosen : "");
    sight.hidden = sight.gpus == 0 && (given || (slurm && strtol(slurm, NULL, 10) > 0) ||
                                       (!chosen && access("/dev/nvidia0", F_OK) == 0));
    return sight;
}

static bool see_the_same(const Sight *a, const Sight *b)
{
    return a->gpus == b->gpus && strcmp(a->chosen, b->chosen) == 0;
}

/* Ranks that do not all see the same: each should have its own. */
static DoctorVerdict judge_bound(const Sight *all, const int *ranks, int count, char *text, size_t size)
{
    for (int i = 0; i < count; i++) {
        if (all[ranks[i]].gpus == 0) {
            snprintf(text, size,
                     "rank %d sees no GPU, others do; give all of a node's to all its ranks "
                     "(--gpus-per-node)",
                     ranks[i]);
            return DOCTOR_WARNING;
        }
        for (int j = 0; j < i; j++) {
            if (!see_the_same(&all[ranks[i]], &all[ranks[j]])) continue;
            snprintf(text, size,
                     "ranks %d and %d see the same GPUs, others see others; give each rank its own, "
                     "or all to all (--gpus-per-node)",
                     ranks[j], ranks[i]);
            return DOCTOR_WARNING;
        }
    }
    return DOCTOR_OK;
}

/* ranks[count]: those of one node. `text`: what is odd there, unless DOCTOR_OK. */
static DoctorVerdict judge_node(const Sight *all, const int *ranks, int count, char *text, size_t size)
{
    const Sight *first = &all[ranks[0]];
    for (int i = 0; i < count; i++) {
        if (!all[ranks[i]].hidden) continue;
        snprintf(text, size,
                 "there seem to be GPUs, and rank %d can use none; see the cuda lines above (a build "
                 "with nvcc has CUDA=1)",
                 ranks[i]);
        return DOCTOR_WARNING;
    }
    for (int i = 1; i < count; i++)
        if (!see_the_same(first, &all[ranks[i]])) return judge_bound(all, ranks, count, text, size);
    if (first->gpus == 0 || first->gpus == count) return DOCTOR_OK;
    snprintf(text, size,
             "%d rank%s, %lld GPU%s: %s (rank r of a node is on GPU r modulo %lld); start as many ranks "
             "on a node (--ntasks-per-node)",
             count, count > 1 ? "s" : "", (long long)first->gpus, first->gpus > 1 ? "s" : "",
             first->gpus < count ? "ranks share" : "some are idle", (long long)first->gpus);
    return DOCTOR_WARNING;
}

/* The ranks on the node of rank r, if r is the first of them; else none. */
static int ranks_of_node(const Run *run, int r, int *ranks)
{
    const char *host = run->hosts + (size_t)r * RUN_HOST_BYTES;
    int count = 0;
    for (int other = 0; other < comm_size(run->comm); other++) {
        if (strcmp(host, run->hosts + (size_t)other * RUN_HOST_BYTES) != 0) continue;
        if (other < r) return 0;
        ranks[count++] = other;
    }
    return count;
}

static void judge_all(DoctorChecks *checks, const Run *run, const Sight *all, int *ranks)
{
    static const char name[] = "ranks and GPUs";
    int nodes = 0;
    int64_t gpus = 0;
    char text[320];
    for (int r = 0; r < comm_size(run->comm); r++) {
        int count = ranks_of_node(run, r, ranks);
        if (count == 0) continue;
        nodes++;
        gpus += all[r].gpus;
        DoctorVerdict verdict = judge_node(all, ranks, count, text, sizeof text);
        if (verdict == DOCTOR_OK) continue;
        doctor_checks_add(checks, name, verdict, "%s: %s", run->hosts + (size_t)r * RUN_HOST_BYTES, text);
        return;
    }
    if (gpus == 0)
        doctor_checks_add(checks, name, DOCTOR_OK, "no GPU here; ranks compute on the CPU");
    else
        doctor_checks_add(checks, name, DOCTOR_OK,
                          "each of %d ranks on %d node%s has its own: rank r of a node is on "
                          "GPU r modulo those that it sees",
                          comm_size(run->comm), nodes, nodes > 1 ? "s" : "");
}

void doctor_gpus_check(DoctorChecks *checks, const Run *run)
{
    size_t size = (size_t)comm_size(run->comm);
    Sight mine = look_around(), *all = memory_alloc_array(size, sizeof *all);
    comm_all_gather(run->comm, all, &mine, sizeof mine, DTYPE_U8, NULL);
    if (checks->speaks) {
        int *ranks = memory_alloc_array(size, sizeof *ranks);
        judge_all(checks, run, all, ranks);
        memory_free(ranks);
    }
    memory_free(all);
}

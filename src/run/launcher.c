/* launcher.c - environment variables that Open MPI, PMIx and Slurm set for each rank. */
#include "run/launcher.h"

#include <stdlib.h>

static int number_from(const char *name, int fallback)
{
    const char *text = getenv(name);
    if (!text || !*text) return fallback;
    char *end;
    long value = strtol(text, &end, 10);
    return *end || value < 0 || value > 100000000 ? fallback : (int)value;
}

Launcher launcher_detect(void)
{
    if (getenv("OMPI_COMM_WORLD_RANK"))
        return (Launcher){.name = "mpirun",
                          .rank = number_from("OMPI_COMM_WORLD_RANK", 0),
                          .size = number_from("OMPI_COMM_WORLD_SIZE", 1),
                          .local_rank = number_from("OMPI_COMM_WORLD_LOCAL_RANK", 0)};
    /* SLURM_PROCID alone also stands in the batch script and in interactive shells; a PMI says "I start
     * ranks". */
    if (getenv("SLURM_STEP_ID") && (getenv("PMIX_RANK") || getenv("PMI_RANK")))
        return (Launcher){.name = "srun",
                          .rank = number_from("SLURM_PROCID", 0),
                          .size = number_from("SLURM_NTASKS", 1),
                          .local_rank = number_from("SLURM_LOCALID", 0)};
    return (Launcher){.name = "none", .size = 1};
}

int launcher_slurm(LauncherVariable variables[LAUNCHER_SLURM_MAX])
{
    static const char *const names[] = {"SLURM_JOB_ID",        "SLURM_JOB_NAME",      "SLURM_JOB_PARTITION",
                                        "SLURM_JOB_NODELIST",  "SLURM_JOB_NUM_NODES", "SLURM_NTASKS",
                                        "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE",  "SLURM_STEP_ID",
                                        "SLURM_ARRAY_JOB_ID",  "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
                                        "SLURM_CLUSTER_NAME"};
    int count = 0;
    if (!getenv("SLURM_JOB_ID")) return 0;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        const char *value = getenv(names[i]);
        if (value) variables[count++] = (LauncherVariable){names[i], value};
    }
    return count;
}

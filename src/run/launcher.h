/* launcher.h - what the process can know about its job before MPI starts: from the launcher's environment.
 *
 * Used to keep usage messages to one rank and to describe the job; never for communication.
 */
#ifndef DINOBATCH_RUN_LAUNCHER_H
#define DINOBATCH_RUN_LAUNCHER_H

#include <stdbool.h>

typedef struct {
    const char *name; /* "mpirun", "srun" or "none"; static */
    int rank;         /* 0 when unknown */
    int size;         /* 1 when unknown */
    int local_rank;   /* rank on this node, 0 when unknown */
} Launcher;

Launcher launcher_detect(void);

enum { LAUNCHER_SLURM_MAX = 16 };

/* One set variable of the Slurm job, borrowed from the environment. */
typedef struct {
    const char *name, *value;
} LauncherVariable;

/* The variables that identify the Slurm job (id, name, array, nodes, restart count, ...); returns their
 * number, 0 outside Slurm. */
int launcher_slurm(LauncherVariable variables[LAUNCHER_SLURM_MAX]);

#endif

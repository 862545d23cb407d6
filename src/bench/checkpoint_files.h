/* checkpoint_files.h - inside src/bench only: the files that measurements of checkpoints write and read, each
 * timed from a barrier to the end of the slowest rank.
 */
#ifndef DINOBATCH_BENCH_CHECKPOINT_FILES_H
#define DINOBATCH_BENCH_CHECKPOINT_FILES_H

#include "ckpt/checkpoint.h"
#include "ssl/ssl_meta_arch.h"

/* A state of `memory`: student, teacher, first and second moment, [map->count] each, all borrowed; its
 * meta.config is owned. Centres are left out. */
CheckpointState checkpoint_files_state(const Config *config, const ShardMap *map, float *const memory[4]);

/* Removes FOLDER with what these functions have written there; what is not there is fine. Collective over
 * COMM. */
Status checkpoint_files_remove(const char *folder, Comm *comm, Error *error);

/* Rank 0 writes `bytes` to a new file and flushes it. Collective over COMM. */
Status checkpoint_files_plain(const char *folder, double bytes, Comm *comm, double *seconds, Error *error);

/* The project's way there and, from the disk, back. Collective over COMM. */
Status checkpoint_files_save(const char *folder, const CheckpointState *state, Comm *comm, double *seconds,
                             Error *error);
Status checkpoint_files_load(const char *folder, CheckpointState *state, Comm *comm, double *seconds,
                             Error *error);

#endif

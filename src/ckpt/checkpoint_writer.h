/* checkpoint_writer.h - saving a checkpoint while training goes on.
 *
 * A thread of every rank runs checkpoint_save on a communicator of its own, from memory that nobody changes
 * meanwhile. The outcome is that of checkpoint_save, agreed over all ranks; but ranks learn it at different
 * times, so they agree on when to collect it.
 */
#ifndef DINOBATCH_CKPT_CHECKPOINT_WRITER_H
#define DINOBATCH_CKPT_CHECKPOINT_WRITER_H

#include "ckpt/checkpoint.h"

typedef struct CheckpointWriter CheckpointWriter;

/* Needs a transport that several threads may use (MPI_THREAD_MULTIPLE). Owned by the caller. Collective over
 * COMM. */
CheckpointWriter *checkpoint_writer_create(Comm *comm);

/* Nothing may be under way. NULL is fine. Collective over COMM. */
void checkpoint_writer_destroy(CheckpointWriter *writer);

/* Starts checkpoint_save. Nothing may be under way. The state's memory and texts stay as they are until
 * checkpoint_writer_collect. The same call on all ranks. */
void checkpoint_writer_start(CheckpointWriter *writer, const char *folder, const CheckpointState *state,
                             int keep, int64_t keep_every);

/* Started and not collected. NULL: no. Not collective, but the same on all ranks. */
bool checkpoint_writer_is_busy(const CheckpointWriter *writer);

/* This rank's part is over. Not collective, and not the same on all ranks. */
bool checkpoint_writer_is_done(const CheckpointWriter *writer);

/* Waits for the end, and gives what checkpoint_save gave, the iteration that it was about and its seconds.
 * The same call on all ranks. */
Status checkpoint_writer_collect(CheckpointWriter *writer, int64_t *iteration, double *seconds, Error *error);

#endif

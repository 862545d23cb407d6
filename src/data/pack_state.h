/* pack_state.h - what packing a data set needs to go on after it was stopped or killed: the sizes of the
 * images that were read, in a file that only this program reads. The shards that are complete are known by
 * their names.
 */
#ifndef DINOBATCH_DATA_PACK_STATE_H
#define DINOBATCH_DATA_PACK_STATE_H

#include "base/status.h"
#include "comm/comm.h"

#include <stdbool.h>

/* In the place of a size. */
enum { PACK_STATE_CORRUPT = -1, PACK_STATE_UNREAD = -2 };

typedef struct {
    const char *path;    /* of the file; NULL: nothing is kept, and nobody asks to stop. Borrowed */
    uint64_t digest;     /* of the images and all settings that the shards depend on */
    bool resume;         /* take up what an earlier run left */
    double save_minutes; /* between two times */
} PackState;

/* sizes[count] from the file, if there is one of this digest and `resume` is set (*found); all
 * PACK_STATE_UNREAD else. A damaged file counts as none. Collective over COMM. */
void pack_state_restore(const PackState *state, int64_t *sizes, int64_t count, bool *found, Comm *comm);

/* Writes sizes[count] by rank 0. The outcome is agreed. Collective over COMM. */
Status pack_state_save(const PackState *state, const int64_t *sizes, int64_t count, Comm *comm, Error *error);

/* STATUS_REQUEUE with a line that names the file. Not collective. */
Status pack_state_stopped(const PackState *state, Error *error);

/* The shards are where they belong: the file goes. Rank 0. Not collective. */
void pack_state_remove(const PackState *state, const Comm *comm);

#endif

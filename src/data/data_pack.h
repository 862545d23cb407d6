/* data_pack.h - any data set into HDF5 shards that keep the encoded bytes, or those of smaller pictures.
 *
 * First all images are read and decoded, dealt over ranks and threads: what does not decode is left out.
 * Then the shards, filled in the order of the set, are dealt to the ranks. So the files depend on the data
 * set and the shard size alone.
 */
#ifndef DINOBATCH_DATA_DATA_PACK_H
#define DINOBATCH_DATA_DATA_PACK_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"
#include "data/data_set.h"
#include "data/pack_state.h"
#include "data/shard_writer.h"

#include <stdint.h>

typedef struct {
    const char *source;  /* the set's spec, for the files' attribute */
    const char *folder;  /* where "shard_00000.h5", ... go; exists */
    int64_t shard_bytes; /* of images in a shard, at least one image; >= 1 */
    const char *version; /* of the program */
    /* Larger images get this shorter side, see image_shrink.h; 0: encoded bytes are kept. */
    int64_t shorter_side;
    bool masks;                   /* the set has masks, and they are written, too */
    ShardProvenanceOf provenance; /* NULL: none */
    const void *provenance_context;
    PackState state; /* without `path`: none. Not with masks */
    Log *log;        /* with a state */
    /* What goes on, from its beginning and then from time to time, on the calling thread; `unit` is what is
     * counted, "images" or "shards". May be NULL. */
    void (*progress)(void *context, const char *what, const char *unit, int64_t done, int64_t total);
    void *progress_context;
} DataPackParams;

typedef struct {
    int64_t images, corrupt, shards, bytes; /* over all ranks; images are those written */
    int64_t *corrupt_indices;               /* [corrupt] ascending, owned */
} DataPackResult;

/* STATUS_INPUT: no image decodes, or the folder has shards already; with a state these are taken up, or go if
 * they are another run's. STATUS_REQUEUE: with a state, when asked to stop; the caller removes the state's
 * file when the shards are where they belong. Agreed; released by data_pack_fini, after failure too.
 * Collective over COMM. */
Status data_pack_run(const DataPackParams *params, const DataSet *set, Comm *comm, DataPackResult *result,
                     Error *error);

/* Removes the shards in `folder`, finished or not. Not collective. */
void data_pack_remove_shards(const char *folder);

/* Logs a line for each image that was left out, up to a thousand. Not collective. */
void data_pack_name_corrupt(const DataPackResult *result, const DataSet *set, Log *log);

void data_pack_fini(DataPackResult *result);

#endif

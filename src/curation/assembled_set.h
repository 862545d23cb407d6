/* assembled_set.h - the pictures of a data set that is put together, and where each is from.
 *
 * Filled part by part, the same on all ranks; then the pictures of the pool, known by their rows so far, are
 * found by their keys.
 */
#ifndef DINOBATCH_CURATION_ASSEMBLED_SET_H
#define DINOBATCH_CURATION_ASSEMBLED_SET_H

#include "comm/comm.h"
#include "curation/composition_table.h"
#include "curation/retrieval_file.h"
#include "data/data_set.h"
#include "data/shard_writer.h"

/* How a picture came in. */
typedef struct {
    int64_t query;
    float similarity;
    int32_t neighbour;
    int32_t part;
} AssembledOrigin;

typedef struct {
    DataSet **sets;        /* [set_count] the pool's, then those that go in as they are; owned */
    const char **prefixes; /* [set_count] "pool", or the set's name; owned array */
    int set_count, pool_sets;
    CompositionRow *rows; /* [part_count] owned */
    int part_count;
    DataPlace *places;        /* [count] owned */
    AssembledOrigin *origins; /* [count] owned */
    int64_t count, room;
    char *inputs;      /* features files of the pool, one per line; NULL before the first; owned */
    uint64_t digest;   /* of these */
    int64_t pool_rows; /* of these */
    uint8_t *taken;    /* [pool_rows / 8] bits; owned */
} AssembledSet;

/* Room for that many sets and parts. Released by assembled_set_fini. */
void assembled_set_init(AssembledSet *set, int sets, int parts);

/* Fine on a zeroed struct. */
void assembled_set_fini(AssembledSet *set);

/* Opens a data set of the pool; all of them come before the other sets. */
Status assembled_set_open_pool(AssembledSet *set, const char *spec, Error *error);

/* Adds a part. STATUS_INPUT naming what is wrong. Not collective. */
Status assembled_set_add_retrieved(AssembledSet *set, const char *path, Error *error);
Status assembled_set_add_as_is(AssembledSet *set, const char *name, const char *spec, Error *error);

/* Where the pool's pictures are: `paths` are the features files that the rows are of. The outcome is agreed.
 * Collective over COMM. */
Status assembled_set_find(AssembledSet *set, const char *const *paths, int count, Comm *comm, Error *error);

/* A ShardProvenanceOf, of an AssembledSet. */
ShardProvenance assembled_set_provenance(const void *set, int64_t index);

#endif

/* shard_writer.h - one HDF5 shard of encoded images (hdf5_schemas/dataset.yaml), written in one pass.
 *
 * The sizes must be known before, since /bytes is one contiguous range. The file gets its name when it is
 * complete. Memory: a write buffer, and the keys.
 */
#ifndef DINOBATCH_DATA_SHARD_WRITER_H
#define DINOBATCH_DATA_SHARD_WRITER_H

#include "base/status.h"
#include "data/data_set.h"

#include <stdint.h>

/* How an image came into a set that was put together from others. */
typedef struct {
    const char *source;    /* the set that it is from */
    const char *query_set; /* whose pictures it is like; "": it came as it is */
    const char *mode;      /* "as is", "sample", "cluster" */
    int64_t query;         /* row of the query set's features, -1: none */
    int64_t neighbour;     /* place among that query's neighbours, -1: none */
    float similarity;      /* to the query, or to the cluster's centroid; 1 as it is */
} ShardProvenance;

/* That of image `index` of the set; the strings live as long as the context. */
typedef ShardProvenance (*ShardProvenanceOf)(const void *context, int64_t index);

typedef struct {
    const DataSet *set;
    const int64_t *indices; /* [count] of the images in the set */
    const int64_t *sizes;   /* [count] encoded bytes of each, shrunk */
    int64_t shorter_side;   /* of larger images is made this, see image_shrink.h; 0: they stay as they are */
    const int64_t *mask_sizes;    /* [count] encoded bytes of the set's masks; NULL: they are left out */
    int64_t count;                /* >= 1 */
    ShardProvenanceOf provenance; /* NULL: none */
    const void *provenance_context;
    const char *source;  /* data set spec */
    const char *version; /* of the program */
} ShardWriterParams;

/* Writes the shard at `path`. STATUS_FAILED: the disk, or an image whose size is not what it was. Not
 * collective. */
Status shard_writer_write(const char *path, const ShardWriterParams *params, Error *error);

#endif

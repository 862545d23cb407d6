/* assemble.h - the data set that a curation comes to: pictures of the pool that query sets brought in, and
 * sets that go in as they are.
 *
 * Source: DINOv2 paper, appendix A.4 and Table 15. A picture of the pool that several query sets brought in
 * is stored once, with the provenance of the first part that has it and of its most similar query there; the
 * table counts the others as repeats. Sets that go in as they are are not compared with the pool.
 *
 * Writes FOLDER/dataset/shard_*.h5 (kind `dataset`, encoded bytes kept, with provenance; keys are SET/KEY and
 * there are no classes), or FOLDER/pictures.csv, a list with the same columns; and FOLDER/composition.md and
 * composition.csv, which are there when the data set is complete. Shards are written in
 * FOLDER/dataset.partial, which takes the place of an older dataset in the end. A run that was stopped or
 * killed goes on from FOLDER/assemble.partial (sizes of the pictures that were read) and from the shards that
 * are complete.
 *
 * Memory of a rank, bytes: 40 for each picture, an eighth for each row of the pool, one retrieval file at a
 * time (retrieval_file.h), and for its share of the pictures their keys and 16.
 */
#ifndef DINOBATCH_CURATION_ASSEMBLE_H
#define DINOBATCH_CURATION_ASSEMBLE_H

#include "curation/composition_table.h"
#include "curation/curation_run.h"

/* Either of the two. Borrowed. */
typedef struct {
    const char *retrieved;   /* file of `curate retrieve` */
    const char *name, *data; /* data set spec of a set that goes in as it is, and its name */
} AssemblePart;

/* Borrowed. */
typedef struct {
    const AssemblePart *parts; /* in the order of the table and of the data set */
    int part_count;
    const char *const *pool; /* data set specs of the pool's pictures */
    int pool_count;
    const char *const *features; /* the pool's features files; none: as the retrieval files name them */
    int feature_count;
    bool list;           /* pictures.csv, no shards */
    int64_t shard_bytes; /* of pictures in a shard */
} AssembleRequest;

typedef struct {
    CompositionRow *rows; /* a part each; owned */
    int count;
    int64_t images, bytes, shards; /* of the data set; bytes and shards are 0 for a list */
    char path[CURATION_RUN_PATH];  /* the folder of shards, or the list */
} Assembly;

/* STATUS_INPUT: no part, retrieval files of different pools, a picture that is in no pool set, a key that two
 * of them have, two parts of one name. STATUS_REQUEUE when asked to stop, after saving. Released by
 * assemble_fini, also after failure. The outcome is agreed. Collective over COMM. */
Status assemble_run(Assembly *result, const AssembleRequest *request, const CurationRun *run, Error *error);
void assemble_fini(Assembly *result);

#endif

/* feature_source.h - one or more features files as one set of rows, dealt to the ranks in runs: the pool, the
 * reference sets and the query sets of a curation.
 *
 * The rows of all files, in the order given, are the pool's rows 0 .. pool_rows - 1. The set is all of them,
 * or, with a curation file, those that its /keep left: set row s is the s-th of these. Set rows are what
 * src/index works on (ids), pool rows what files tell. Each rank owns a run of set rows (index_range_first)
 * and reads it from the files in blocks; nothing but a block is ever held.
 *
 *     const char *files[] = {"a.h5", "b.h5"};
 *     TRY(feature_source_open(&pool, files, 2, "dedup.h5", comm, error));
 *     ... &pool.rows ...                                           // IndexRows
 *     int64_t row = feature_source_pool_row(&pool, i);              // of this rank's i-th row
 *     feature_source_close(&pool);
 *
 * Memory of a rank, bytes: a block of 1024 rows where /keep is used; then also 8 for each of its rows.
 */
#ifndef DINOBATCH_CURATION_FEATURE_SOURCE_H
#define DINOBATCH_CURATION_FEATURE_SOURCE_H

#include "base/log.h"
#include "features/features_file.h"
#include "index/index_rows.h"

typedef struct {
    IndexRows rows; /* this rank's run of the set; errors name file and row. Its context is this struct, which
                       must stay where it is */
    FeaturesFile *files; /* [file_count] open; owned */
    int file_count;
    int64_t *file_first; /* [file_count + 1] pool row of each file's first row; owned */
    int64_t pool_rows;   /* = file_first[file_count] */
    int64_t
        pool_first; /* pool rows [pool_first, pool_first + pool_count) are this rank's to tell of: its set */
    int64_t pool_count;  /* rows lie there; the shares of all ranks are the pool */
    int64_t *kept;       /* [rows.count] pool row of each of this rank's rows; NULL: the set is the pool */
    float *span;         /* work space of reading with gaps */
    size_t key_bytes;    /* of the longest key */
    char *name;          /* "a.h5", "a.h5 and 2 more"; owned */
    char *inputs;        /* the files, one per line; owned */
    uint64_t digest;     /* of what the files say of themselves and of rows and keys spread over them */
    uint64_t set_digest; /* the same, and of which rows /keep left */
} FeatureSource;

/* Opens `count` files, and the curation file `keep` (NULL: none), whose /keep must be of these files.
 * STATUS_INPUT, the same on all ranks: a file that cannot be read, files of different columns, model, layer,
 * whitening or input size (naming both), a `keep` of other features, no row left. Closed by
 * feature_source_close, also after failure. The outcome is agreed. Collective over COMM. */
Status feature_source_open(FeatureSource *source, const char *const *paths, int count, const char *keep,
                           Comm *comm, Error *error);

/* Fine on a zeroed struct. Not collective. */
void feature_source_close(FeatureSource *source);

/* STATUS_INPUT where the features of the two cannot be compared: it names two files and what differs. Of
 * models and whitening only the files' names are compared, not the folders that they lay in: where those
 * differ the log says so. Not collective. */
Status feature_source_check_same(const FeatureSource *a, const FeatureSource *b, Log *log, Error *error);

/* The pool row of this rank's i-th row. */
int64_t feature_source_pool_row(const FeatureSource *source, int64_t i);

/* The file of a pool row, and the row in it (*row). */
const FeaturesFile *feature_source_file(const FeatureSource *source, int64_t pool_row, int64_t *row);

/* keys[n * (key_bytes + 1)]: those of this rank's rows [first, first + n), each terminated. Not collective.
 */
Status feature_source_read_keys(const FeatureSource *source, int64_t first, int64_t n, char *keys,
                                Error *error);

/* key[key_bytes + 1] of any pool row. Not collective. */
Status feature_source_read_key(const FeatureSource *source, int64_t pool_row, char *key, Error *error);

#endif

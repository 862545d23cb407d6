/* feature_source.h - one or more features files as one set of rows, dealt to the ranks in runs: the pool, the
 * reference sets and the query sets of a curation.
 *
 * The rows of all files, in the order given, are the pool's rows 0 .. pool_rows - 1. The set is all of them,
 * or, with a curation file, those that its /keep left: set row s is the s-th of these. Set rows are what
 * src/index works on (ids), pool rows what files tell. Each rank owns a run of set rows (index_range_first)
 * and reads it from the files in blocks; nothing but a block is ever held.
 *
 * Of files with views of pictures (features_file.h) a row here is a picture: `rows` are the whole pictures
 * alone, and `view_rows` all views, row r of which is view r % views of set row r / views. Who does not ask
 * for views does not see them.
 *
 *     const char *files[] = {"a.h5", "b.h5"};
 *     TRY(feature_source_open(&pool, files, 2, "dedup.h5", comm, error));
 *     ... &pool.rows ...                                           // IndexRows
 *     int64_t row = feature_source_pool_row(&pool, i);              // of this rank's i-th row
 *     feature_source_close(&pool);
 *
 * Memory of a rank, bytes: a block of 1024 rows where /keep is used or files have views; with /keep also 8
 * for each of its rows.
 */
#ifndef DINOBATCH_CURATION_FEATURE_SOURCE_H
#define DINOBATCH_CURATION_FEATURE_SOURCE_H

#include "base/log.h"
#include "features/features_file.h"
#include "index/index_rows.h"

typedef struct {
    IndexRows rows; /* this rank's run of the set; errors name file and row. Its context is this struct, which
                       must stay where it is */
    IndexRows view_rows; /* all views of these; the same rows where there is one */
    int64_t views;       /* of a picture, in all files */
    bool upside_down;    /* pictures that were turned so, in all files: probes, never a pool */
    FeaturesFile *files; /* [file_count] open; owned */
    int file_count;
    int64_t *file_first; /* [file_count + 1] pool row of each file's first row; owned */
    int64_t pool_rows;   /* = file_first[file_count] */
    int64_t
        pool_first; /* pool rows [pool_first, pool_first + pool_count) are this rank's to tell of: its set */
    int64_t pool_count;  /* rows lie there; the shares of all ranks are the pool */
    int64_t *kept;       /* [rows.count] pool row of each of this rank's rows; NULL: the set is the pool */
    float *span;         /* work space of reading with gaps, or NULL */
    size_t key_bytes;    /* of the longest key */
    char *name;          /* "a.h5", "a.h5 and 2 more"; owned */
    char *inputs;        /* the files, one per line; owned */
    uint64_t key_digest; /* of the keys of all pool rows, in order: which pictures the pool is */
    uint64_t digest;     /* of what the files say of themselves and of rows and keys spread over them */
    uint64_t set_digest; /* the same, and of which rows /keep left */
} FeatureSource;

/* Opens `count` files, and the curation file `keep` (NULL: none), whose /keep must be of the same pictures;
 * they may have been compared by another model's features then. Reads every key of the pool once.
 * STATUS_INPUT, the same on all ranks: a file that cannot be read, files of different columns, model, layer,
 * whitening, views or input size (naming both), a `keep` of other pictures, no row left. Closed by
 * feature_source_close, also after failure. The outcome is agreed. Collective over COMM. */
Status feature_source_open(FeatureSource *source, const char *const *paths, int count, const char *keep,
                           Comm *comm, Error *error);

/* Fine on a zeroed struct. Not collective. */
void feature_source_close(FeatureSource *source);

/* STATUS_INPUT where the features of the two cannot be compared: it names two files and what differs. Of
 * models and whitening only the files' names are compared, not the folders that they lay in: where those
 * differ the log says so. Not collective. */
Status feature_source_check_same(const FeatureSource *a, const FeatureSource *b, Log *log, Error *error);

/* STATUS_INPUT, naming the first file, where its pictures are upside down and should not be, or the other way
 * round. Not collective. */
Status feature_source_check_upright(const FeatureSource *source, bool upright, Error *error);

/* STATUS_INPUT, naming two files and their lists, where the two have not the same views. Not collective. */
Status feature_source_check_views(const FeatureSource *a, const FeatureSource *b, Error *error);

/* The pool row of this rank's i-th row. */
int64_t feature_source_pool_row(const FeatureSource *source, int64_t i);

/* The file of a pool row, and the number of the picture in it (*row): its row, if there are no views. */
const FeaturesFile *feature_source_file(const FeatureSource *source, int64_t pool_row, int64_t *row);

/* keys[n * (key_bytes + 1)]: those of this rank's rows [first, first + n), each terminated. Not collective.
 */
Status feature_source_read_keys(const FeatureSource *source, int64_t first, int64_t n, char *keys,
                                Error *error);

/* The same of any pool rows [first, first + n). Not collective. */
Status feature_source_read_pool_keys(const FeatureSource *source, int64_t first, int64_t n, char *keys,
                                     Error *error);

/* key[key_bytes + 1] of any pool row. Not collective. */
Status feature_source_read_key(const FeatureSource *source, int64_t pool_row, char *key, Error *error);

#endif

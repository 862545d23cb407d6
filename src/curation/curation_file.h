/* curation_file.h - the `curation` kind: what a step decided about the rows of a pool.
 *
 * Written by rank 0, which gets the other ranks' rows in pieces; checked by Fletcher32; under a temporary
 * name until complete. A failure while it is written is kept and told by curation_file_commit, so that ranks
 * stay together in between:
 *
 *     curation_file_create(&file, "out/dedup.h5", rows, &meta, comm);
 *     curation_file_put_double(&file, "threshold", 0.6);
 *     curation_file_put_rows(&file, "/keep", H5_TYPE_U8, keep, count);   // every rank its run
 *     TRY(curation_file_commit(&file, error));
 *
 * Steps also keep their state in files of this kind (curation_state.h).
 */
#ifndef DINOBATCH_CURATION_CURATION_FILE_H
#define DINOBATCH_CURATION_CURATION_FILE_H

#include "comm/comm.h"
#include "h5/h5_dataset.h"

/* Where the decisions come from; borrowed. */
typedef struct {
    const char *step;    /* "dedup", ... */
    const char *inputs;  /* the features files, one per line */
    uint64_t digest;     /* of the features (FeatureSource.digest) */
    uint64_t key_digest; /* of which pictures they are (FeatureSource.key_digest) */
    const char *config;  /* resolved configuration, YAML */
    const char *version; /* of the program */
} CurationMeta;

typedef struct {
    Comm *comm; /* borrowed */
    H5File file;
    bool writes;   /* this rank has the file */
    int64_t n;     /* rows */
    Status status; /* of the writing so far, on the rank that writes */
    Error error;
} CurationFile;

/* Starts a file about n rows, and makes the folder that it lies in. Only rank 0's arguments count. Ended by
 * curation_file_commit. Not collective. */
void curation_file_create(CurationFile *file, const char *path, int64_t n, const CurationMeta *meta,
                          Comm *comm);

/* Attributes of the root, by rank 0. Not collective. */
void curation_file_put_int(CurationFile *file, const char *name, int64_t value);
void curation_file_put_double(CurationFile *file, const char *name, double value);
void curation_file_put_text(CurationFile *file, const char *name, const char *text);

/* A data set [n] of numbers: mine[count] are this rank's, which come after those of the lower ranks; n of all
 * ranks. Types: U8, I32, I64, F32. Collective over COMM. */
void curation_file_put_rows(CurationFile *file, const char *object, H5Type type, const void *mine,
                            int64_t count);

/* A data set [rows, columns] float32 that rank 0 has. Not collective. */
void curation_file_put_table(CurationFile *file, const char *object, const float *values, int64_t rows,
                             int64_t columns);

/* A data set [count] of numbers that rank 0 has. Not collective. */
void curation_file_put_array(CurationFile *file, const char *object, H5Type type, const void *values,
                             int64_t count);

/* Completes the file under its name; after a failure drops it. The outcome is agreed. Collective over COMM.
 */
Status curation_file_commit(CurationFile *file, Error *error);

/* A file that is read. */
typedef struct {
    H5File file;
    int64_t n;           /* rows */
    uint64_t digest;     /* of the features */
    uint64_t key_digest; /* of which pictures they are */
} CurationInput;

/* Opens a file and checks its structure; `object` must be in it. Closed by curation_file_close. Not
 * collective. */
Status curation_file_open(CurationInput *input, const char *path, const char *object, Error *error);
void curation_file_close(CurationInput *input);

/* Rows [first, first + rows) of a data set [n] of that type. Not collective. */
Status curation_file_read(const CurationInput *input, const char *object, H5Type type, int64_t first,
                          int64_t rows, void *out, Error *error);

/* As curation_file_read of int64, where each number is from `low` up to below `end`, or it is STATUS_INPUT.
 * Not collective. */
Status curation_file_read_indices(const CurationInput *input, const char *object, int64_t first, int64_t rows,
                                  int64_t low, int64_t end, int64_t *out, Error *error);

/* STATUS_INPUT: one of values[count], which come from `object`, is not finite. Not collective. */
Status curation_file_check_finite(const CurationInput *input, const char *object, H5Type type,
                                  const void *values, int64_t count, Error *error);

/* One attribute of the root; a double is finite. Not collective. */
Status curation_file_read_int(const CurationInput *input, const char *name, int64_t *value, Error *error);
Status curation_file_read_double(const CurationInput *input, const char *name, double *value, Error *error);
bool curation_file_has(const CurationInput *input, const char *name);

/* (*values)[*rows, *columns] of a data set such as /centroids, finite; memory_free. Not collective. */
Status curation_file_read_table(const CurationInput *input, const char *object, float **values, int64_t *rows,
                                int64_t *columns, Error *error);

#endif

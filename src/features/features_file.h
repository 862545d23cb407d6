/* features_file.h - the `features` kind: one row of numbers per sample, with label and key; or V of them, one
 * for each view of it (data/image_views.h): then row r is view r % V of picture r / V, view 0 being the whole
 * picture, and every row has its picture's label and key. Beside a row, or in its place, there may be the
 * patch tokens of what the row is of.
 *
 * Written by one rank, which gets the other ranks' rows by collectives of the caller; checked by Fletcher32;
 * under a temporary name until complete. Rows may come in any order and any pieces, each exactly once; patch
 * tokens in order. Of fewer rows than announced the file holds the first ones.
 */
#ifndef DINOBATCH_FEATURES_FEATURES_FILE_H
#define DINOBATCH_FEATURES_FEATURES_FILE_H

#include "h5/h5_file.h"

typedef enum {
    FEATURES_NO_PATCHES,
    FEATURES_PATCH_GRID, /* /patch_features [n, height, width, columns] */
    FEATURES_PATCH_ROWS, /* /patch_rows [sum of patches, columns], /patch_offsets [n + 1], /grid [n, 2] */
} FeaturesPatchKind;

typedef struct {
    FeaturesPatchKind kind;
    int64_t height, width; /* patches; of FEATURES_PATCH_GRID */
    int64_t most;          /* patches of a row at most; of FEATURES_PATCH_ROWS */
    int64_t columns;       /* of a token */
} FeaturesPatches;

/* Where the features come from; strings are borrowed when writing, owned by the FeaturesFile when read. */
typedef struct {
    const char *model;     /* file of the weights */
    const char *arch;      /* "vit_small", "sscd_resnet50", ... */
    const char *layer;     /* what a row is: "class_token", "embedding", "embedding_whitened", ... */
    const char *data;      /* data set spec */
    const char *config;    /* resolved configuration, YAML */
    const char *version;   /* of the program */
    const char *whitening; /* features file that centring or whitening was learned from; NULL: none */
    int64_t input_size; /* pixels a side of what the model saw; of pictures of any shape, of the shorter one;
                           0: each picture's own */
    const char *size;   /* what extract --size was given, "224x308" or "native:4096"; NULL: nothing */
    int64_t views;      /* rows of a picture; only written with view_list */
    const char *view_list;   /* ImageViews.text; NULL: one row of the whole picture */
    bool upside_down;        /* the pictures were turned so */
    bool half;               /* numbers are float16; written, not read: readers get fp32 */
    FeaturesPatches patches; /* written, not read */
} FeaturesMeta;

typedef struct {
    H5File file;
    int64_t n;                   /* rows; a multiple of meta.views, which is 1 or more when read */
    int64_t d;                   /* columns */
    int64_t classes;             /* of the labels; 0: unlabelled */
    size_t key_bytes;            /* of one key in the file */
    int64_t written, patch_rows; /* while writing: rows, patch tokens of FEATURES_PATCH_ROWS */
    FeaturesMeta meta;
} FeaturesFile;

/* Starts a file of n rows; `key_bytes` is the length of the longest key (at least 1). d = 0: patch tokens
 * alone. */
Status features_file_create(FeaturesFile *features, const char *path, int64_t n, int64_t d, int64_t classes,
                            size_t key_bytes, const FeaturesMeta *meta, Error *error);

/* Rows [first, first + rows): values [rows, d] float32, labels [rows] (-1: none), keys [rows] strings.
 * STATUS_INPUT: a number beyond float16 where that is what is written. */
Status features_file_write(FeaturesFile *features, int64_t first, int64_t rows, const float *values,
                           const int64_t *labels, const char *const *keys, Error *error);

/* Patch tokens of the rows behind those of the call before: tokens [sum of patches, columns] float32, grids
 * [rows, 2] patches down and across. Errors as above. */
Status features_file_write_patches(FeaturesFile *features, int64_t first, int64_t rows, const int64_t *grids,
                                   const float *tokens, Error *error);

/* Completes the file under its name, or drops it. */
Status features_file_commit(FeaturesFile *features, Error *error);
void features_file_abandon(FeaturesFile *features);

/* Opens for reading and checks the structure. A file of patch tokens alone is STATUS_INPUT. Close by
 * features_file_close. */
Status features_file_open(FeaturesFile *features, const char *path, Error *error);

/* Rows [first, first + rows) into values [rows, d] and labels [rows]; either may be NULL. float16 files are
 * widened. */
Status features_file_read(const FeaturesFile *features, int64_t first, int64_t rows, float *values,
                          int64_t *labels, Error *error);

/* The keys of rows [first, first + rows) into keys[rows * (key_bytes + 1)], each terminated. */
Status features_file_read_keys(const FeaturesFile *features, int64_t first, int64_t rows, char *keys,
                               Error *error);

void features_file_close(FeaturesFile *features);

#endif

/* h5_dataset.h - data sets of an HDF5 file: creating, describing, reading and writing.
 *
 * The whole set of element types, layouts and filters that our formats use, and nothing else: little-endian
 * standard numbers and fixed-length UTF-8 text, so that h5ls, h5dump and h5py read them as they are. No
 * conversion between types takes place.
 */
#ifndef DINOBATCH_H5_H5_DATASET_H
#define DINOBATCH_H5_H5_DATASET_H

#include "h5/h5_file.h"

typedef enum {
    H5_TYPE_OTHER = 0, /* anything that we do not write; cannot be read */
    H5_TYPE_F16,
    H5_TYPE_F32,
    H5_TYPE_F64,
    H5_TYPE_I32,
    H5_TYPE_I64,
    H5_TYPE_U8,
    H5_TYPE_U32,
    H5_TYPE_U64,
    H5_TYPE_TEXT, /* fixed length, padded with zero bytes */
    H5_TYPE_COUNT
} H5Type;

typedef enum {
    H5_LAYOUT_CONTIGUOUS, /* one byte range, allocated at once, not filled: for pread and pwrite */
    H5_LAYOUT_CHECKED,    /* chunks of about 1 MiB with Fletcher32: for files that one rank writes */
} H5Layout;

enum { H5_MAX_DIMS = 4 };

/* What a data set is; also the request when one is made (offset and bytes are then results). */
typedef struct {
    H5Type type;
    size_t item_bytes; /* of one element; given by the caller for text only */
    int ndim;          /* 1..H5_MAX_DIMS */
    int64_t shape[H5_MAX_DIMS];
    H5Layout layout;
    int64_t count;  /* elements */
    int64_t offset; /* of the first byte in the file: contiguous and not empty; else -1 */
} H5Info;

/* "float32", "uint64", "text", ... as the schemas write them; "other" for H5_TYPE_OTHER. */
const char *h5_type_name(H5Type type);

/* The type of that name, or H5_TYPE_OTHER. */
H5Type h5_type_parse(const char *name);

/* Makes a data set from info's type, item_bytes (text), ndim, shape and layout, and the groups above it;
 * fills in the rest of `info`. An empty data set is always contiguous. */
Status h5_dataset_create(const H5File *file, const char *object, H5Info *info, Error *error);

/* Keeps the first `rows` of the leading dimension of a checked data set that is being written, for data sets
 * whose length is known at the end alone: made as long as they may get, of which nothing lies in the file
 * before it is written. */
Status h5_dataset_shorten(const H5File *file, const char *object, int64_t rows, Error *error);

/* Describes a data set. STATUS_INPUT for what the header above does not allow, for sizes that overflow, and
 * for storage that does not lie wholly inside the file; H5_TYPE_OTHER is described, not refused. */
Status h5_dataset_info(const H5File *file, const char *object, H5Info *info, Error *error);

/* Whether all chunks of a checked data set are there, each of its size: what h5_dataset_info, which is quick,
 * does not ask. STATUS_INPUT: no. */
Status h5_dataset_check_chunks(const H5File *file, const char *object, Error *error);

/* Writes rows [first, first + rows) of the leading dimension from `data`. */
Status h5_dataset_write_rows(const H5File *file, const char *object, int64_t first, int64_t rows,
                             const void *data, Error *error);

/* Reads rows [first, first + rows) of the leading dimension into `out`, whose size the caller took from
 * h5_dataset_info. `type` must be the data set's, or it is STATUS_INPUT; a wrong checksum is too. */
Status h5_dataset_read_rows(const H5File *file, const char *object, H5Type type, int64_t first, int64_t rows,
                            void *out, Error *error);

/* Makes and writes a whole checked data set in one call. */
Status h5_dataset_put(const H5File *file, const char *object, H5Type type, int ndim, const int64_t *shape,
                      const void *data, Error *error);

/* As h5_dataset_put, for text [count]: the strings are copied into fixed-length elements as long as the
 * longest. */
Status h5_dataset_put_text(const H5File *file, const char *object, int64_t count, const char *const *texts,
                           Error *error);

/* Reads a whole data set of that type and rank into memory of its own (*out, memory_free), and describes it
 * in *info. */
Status h5_dataset_get(const H5File *file, const char *object, H5Type type, int ndim, H5Info *info, void **out,
                      Error *error);

#endif

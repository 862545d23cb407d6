/* safetensors.h - the file format in which the Python world passes weights on.
 *
 * Source: the format's description in huggingface/safetensors: 8 bytes of little-endian header length, a JSON
 * object NAME -> {dtype, shape, data_offsets [begin, end)} with an optional `__metadata__` of texts, then the
 * tensors, row-major, with neither gap nor overlap, up to the end of the file.
 *
 * A file may be hostile: all of the header is checked against itself and the file's size before anything is
 * allocated by it, and tensors are read one at a time by pread. What the format leaves open is refused here:
 * offsets that are no multiple of the element, other members of an entry, NaN and infinity in what is read.
 */
#ifndef DINOBATCH_CKPT_SAFETENSORS_H
#define DINOBATCH_CKPT_SAFETENSORS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    SAFETENSORS_F32,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_F64,
    SAFETENSORS_OTHER, /* integers, bool, 8-bit floats: no weights */
} SafetensorsType;

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct {
    char *name; /* owned */
    SafetensorsType type;
    size_t item; /* bytes of an element */
    int ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    int64_t count;        /* elements */
    int64_t begin, bytes; /* from the end of the header */
    int part;             /* of SafetensorsFile.parts, where there are any */
} SafetensorsTensor;

typedef struct SafetensorsFile {
    char *path; /* owned */
    int fd;
    int64_t data;               /* where the tensors begin in the file */
    SafetensorsTensor *tensors; /* [count], by name; owned */
    int64_t count;
    struct SafetensorsFile *parts; /* of an index: the files that hold the tensors; NULL: this one does */
    int part_count;
} SafetensorsFile;

/* A path that ends with ".index.json" is an index of several files (safetensors_index.h), of whose tensors
 * the file then is. STATUS_INPUT with one line that names the file, and the tensor where it is about one. Not
 * collective. */
Status safetensors_open(SafetensorsFile *file, const char *path, Error *error);
void safetensors_close(SafetensorsFile *file);

/* Inside src/ckpt only: by name; STATUS_INPUT: one is there twice. And whether there is a NUL in a JSON text,
 * which would cut it short in C, so that two names could become one. */
Status safetensors_sort(SafetensorsFile *file, Error *error);
bool safetensors_has_nul(const char *text, size_t length);

/* NULL: there is none of that name. */
const SafetensorsTensor *safetensors_find(const SafetensorsFile *file, const char *name);

/* Elements [start, start + count) as fp32. STATUS_INPUT: no floating-point type, NaN or infinity (also a
 * double beyond fp32), an unreadable file. */
Status safetensors_read(const SafetensorsFile *file, const SafetensorsTensor *tensor, int64_t start,
                        int64_t count, float *values, Error *error);

/* "[1024, 3, 14, 14]" into text[size]. */
void safetensors_shape_text(char *text, size_t size, int ndim, const int64_t *shape);

/* What is written, row-major. All borrowed. */
typedef struct {
    const char *name;
    int ndim;
    const int64_t *shape; /* [ndim] */
    const float *values;
    SafetensorsType type; /* that they become: F32, F16 or BF16, rounded to nearest even */
} SafetensorsSource;

/* Replaces `path` by a file of these tensors in this order, making its folder; `__metadata__` says that they
 * are PyTorch's, which some readers ask for. STATUS_FAILED: the disk does not take it. STATUS_INPUT: a number
 * beyond its type. Not collective. */
Status safetensors_write(const char *path, const SafetensorsSource *tensors, int64_t count, Error *error);

#endif

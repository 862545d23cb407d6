/* data_kind.h - what every kind of data set provides to data_set.c, and what they share.
 *
 * Private to data/: users include data_set.h.
 */
#ifndef DINOBATCH_DATA_DATA_KIND_H
#define DINOBATCH_DATA_DATA_KIND_H

#include "base/status.h"
#include "data/data_buffer.h"
#include "data/image/image.h"
#include "data/text_table.h"

#include <stdbool.h>

enum { DATA_KIND_MAX_BYTES = 1 << 29 }; /* encoded size of one image; more is refused before allocation */

/* An opened kind. All functions but destroy are thread-safe; items are 0 .. count - 1. */
typedef struct {
    void *self; /* owned: released by destroy */
    int64_t count;
    TextTable classes; /* owned by the DataSet */
    int64_t (*label)(const void *self, int64_t item);
    void (*key)(const void *self, int64_t item, char *text, size_t size);
    void (*location)(const void *self, int64_t item, char *text, size_t size);
    /* Messages of the three do not name the item: data_set.c puts its location in front. */
    Status (*read)(const void *self, int64_t item, DataBuffer *buffer, Error *error);
    Status (*load)(const void *self, int64_t item, Image *image); /* NULL: read and decode */
    /* Encoded mask (PNG) of an item; NULL: the kind has none. Messages as of read. */
    Status (*read_mask)(const void *self, int64_t item, DataBuffer *buffer, Error *error);
    void (*destroy)(void *self);
} DataKind;

/* Lines about what was passed over while opening. Zero-initialised it is empty. */
typedef struct {
    int64_t count;   /* of all that was passed over */
    TextTable lines; /* of the first DATA_SET_NOTES */
} DataNotes;

/* Adds "PATH: reason; skipped" for the first ones, and counts all. */
void data_notes_add(DataNotes *notes, const char *path, const char *reason);

/* Whether a file name ends like an image: .jpg, .jpeg, .jpe or .png in upper or lower case. */
bool data_kind_is_image_name(const char *name);

/* The status of a failed system call on one image: STATUS_FAILED when the process itself is short of
 * something (descriptors, memory), else STATUS_INPUT; the message is strerror's. */
Status data_kind_io_error(Error *error, int error_number);

#endif

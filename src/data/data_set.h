/* data_set.h - an opened data set: a numbered list of encoded images with labels and keys.
 *
 * Specs (design.md section 2, the ImageNet forms are those of dinov2/data/loaders.py):
 *   folder:DIR                 class = sub-folder of DIR, at any depth below it; files right in DIR: no label
 *   pairs:DIR                  pictures with masks: DIR/images/NAME.jpg has DIR/labels/NAME.png (or masks,
 * depth) tar:FILE_OR_GLOB           uncompressed; class = folder of the member inside the archive
 *   hdf5:FILE_OR_GLOB          shards that `pack` or `synth` wrote
 *   synthetic:classes=10,...   drawn on the fly, see synthetic_set.h
 *   ImageNet:split=S:root=R    the folder R/train, R/val or R/test
 *   ImageNet22k:root=R         the archives R/CLASS.tar, or the folder R when it has none
 * followed by any of `;offset=K` (all but the first K images), `;stride=K` (every K-th), `;limit=N` (the
 * first N), `;per_class=N` (the first N of each class), `;spread=N` (N images evenly spread over all, from
 * the first on), applied from left to right: `;stride=2` and `;offset=1;stride=2` are two halves.
 *
 * The order is a function of the content alone (names sorted bytewise; members in archive order), so the
 * index of an image is the same on every rank. An opened set is immutable but for the list of what was
 * found corrupt: all queries and reads are thread-safe. It caches no images.
 */
#ifndef DINOBATCH_DATA_DATA_SET_H
#define DINOBATCH_DATA_DATA_SET_H

#include "base/status.h"
#include "data/corrupt_list.h"
#include "data/data_buffer.h"
#include "data/image/gray_image.h"
#include "data/image/image_decode.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DATA_SET_KEY_MAX = 4096, /* bytes that any key or location needs, with its end */
};

typedef struct DataSet DataSet;

/* Opens what `spec` names into *out, owned by the caller. STATUS_INPUT with one line that names the path:
 * malformed spec, nothing there, no image in it or left of it, a damaged archive. STATUS_FAILED: the disk
 * failed. On failure *out is NULL. */
Status data_set_create(DataSet **out, const char *spec, Error *error);

/* A picture of one of several sets: sets[set], its number there. */
typedef struct {
    int64_t set, index;
} DataPlace;

/* The pictures at places[count], count >= 1, of those sets, in that order, as a set without classes. The key
 * of one of sets[s] is PREFIX/KEY with prefixes[s]. Sets, prefixes and places are borrowed. Owned by the
 * caller. */
DataSet *data_set_create_chosen(const DataSet *const *sets, const char *const *prefixes,
                                const DataPlace *places, int64_t count);

void data_set_destroy(DataSet *set);

/* Number of images, >= 1. */
int64_t data_set_count(const DataSet *set);

/* Number of classes, 0 for an unlabelled set, and their names; valid as long as the set. */
int64_t data_set_class_count(const DataSet *set);
const char *data_set_class_name(const DataSet *set, int64_t label);

/* Class of an image, 0 .. class count - 1, or -1. */
int64_t data_set_label(const DataSet *set, int64_t index);

/* The image's name inside the set (path relative to the folder, path in the archive), any bytes but NUL, as a
 * string in text[size]; cut if it does not fit. */
void data_set_key(const DataSet *set, int64_t index, char *text, size_t size);

/* Where the image is, for messages: "DIR/cat/1.jpg", "FILE.tar:cat/1.jpg". */
void data_set_location(const DataSet *set, int64_t index, char *text, size_t size);

/* Encoded bytes of an image into `buffer` (synthetic images: encoded as PNG). STATUS_INPUT: this image cannot
 * be had (missing, unreadable, checksum); the message names it. STATUS_FAILED: no image could. */
Status data_set_read(const DataSet *set, int64_t index, DataBuffer *buffer, Error *error);

/* The decoded image; `buffer` is scratch. Errors as data_set_read, and STATUS_INPUT when it does not decode.
 * The message begins with the location. */
Status data_set_load_image(const DataSet *set, int64_t index, Image *image, DataBuffer *buffer, Error *error);

/* As data_set_load_image, but only what `choose` asks for; see image_decode_part. */
Status data_set_load_part(const DataSet *set, int64_t index, Image *image, ImagePart *part,
                          ImageChoosePart *choose, void *context, DataBuffer *buffer, Error *error);

/* Whether every image has a mask: those of pairs, of shards that were written with masks, and drawn ones. */
bool data_set_has_masks(const DataSet *set);

/* The encoded mask of an image of a set that has masks (PNG). Errors as data_set_read. */
Status data_set_read_mask(const DataSet *set, int64_t index, DataBuffer *buffer, Error *error);

/* The decoded mask: grey levels or palette indices as they are. Errors as data_set_load_image. */
Status data_set_load_mask(const DataSet *set, int64_t index, GrayImage *mask, DataBuffer *buffer,
                          Error *error);

/* The images that loaders found corrupt. The set's own; filled by them alone. */
CorruptList *data_set_corrupt(const DataSet *set);

/* What was passed over while opening (dangling links, special files): how many, and lines for the first
 * DATA_SET_NOTES of them, one each, that the caller should log once. */
enum { DATA_SET_NOTES = 20 };
int64_t data_set_skipped(const DataSet *set);
const char *data_set_note(const DataSet *set, int64_t i); /* NULL beyond the last */

#endif

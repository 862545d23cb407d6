/* h5_checksum.h - inside src/h5 only: reading every byte of a data set to prove it right. */
#ifndef DINOBATCH_H5_H5_CHECKSUM_H
#define DINOBATCH_H5_H5_CHECKSUM_H

#include "h5/h5_schema.h"

/* Each: STATUS_INPUT names the object. `info` is that of `path`, checked. */

/* Through libhdf5, which compares Fletcher32 of every chunk. */
Status h5_checksum_by_reading(const H5File *file, const char *path, const H5Info *info, Error *error);

/* zlib's crc32 of the bytes against the `crc32` attribute. */
Status h5_checksum_by_attribute(const H5File *file, const char *path, const H5Info *info, Error *error);

/* crc32 of each item against the schema's crc data set; offsets must rise from 0 to the end. */
Status h5_checksum_by_items(const H5File *file, const H5SchemaObject *object, const H5Info *info,
                            Error *error);

#endif

/* hdf5_set.h - data set kind `hdf5:FILE_OR_GLOB`: shards of our `dataset` format (hdf5_schemas/dataset.yaml).
 *
 * Shards come sorted by name; all have the same classes. Opening checks the structure and reads everything
 * but the images and their masks (about 20 bytes and the key for each); these are then read by pread in the
 * file's contiguous /bytes and compared with their crc32. No HDF5 call is made after opening.
 */
#ifndef DINOBATCH_DATA_HDF5_SET_H
#define DINOBATCH_DATA_HDF5_SET_H

#include "data/data_kind.h"

/* STATUS_INPUT: none, not of this format, shards that do not belong together, no image. */
Status hdf5_set_open(DataKind *kind, const char *pattern, Error *error);

#endif

/* tar_set.h - data set kind `tar:FILE_OR_GLOB`: images in uncompressed tar archives, read in place by pread.
 *
 * The class of a member is the name of the folder that it lies in inside the archive; members without folder
 * have none, or the archive's own name (without .tar) where `class_by_archive`, as in ImageNet-22k's
 * CLASS.tar. Classes are numbered in bytewise order of their names. Archives come sorted by name, members in
 * their order in the archive.
 * DEVIATION: ImageNet22k of the reference gunzips 26 members that were stored compressed; here these are
 * reported as corrupt and replaced like any other.
 */
#ifndef DINOBATCH_DATA_TAR_SET_H
#define DINOBATCH_DATA_TAR_SET_H

#include "data/data_kind.h"

/* Indexes the archives. STATUS_INPUT: none, damaged, compressed, no image in them. */
Status tar_set_open(DataKind *kind, const char *pattern, bool class_by_archive, DataNotes *notes,
                    Error *error);

#endif

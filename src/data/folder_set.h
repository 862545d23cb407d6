/* folder_set.h - data set kind `folder:DIR`: image files under a folder.
 *
 * The sub-folders of DIR, sorted bytewise, are the classes, whether or not they hold images; files below one
 * at any depth have its class, files right in DIR none. In each folder come its files, sorted, then its
 * sub-folders, sorted. Links to files and folders are followed, a link to a folder that contains it is passed
 * over. Only names are read: what is in a file is seen when the image is loaded.
 */
#ifndef DINOBATCH_DATA_FOLDER_SET_H
#define DINOBATCH_DATA_FOLDER_SET_H

#include "data/data_kind.h"

/* Scans `root` into *kind. STATUS_INPUT: missing, not a folder, a sub-folder that cannot be read. */
Status folder_set_open(DataKind *kind, const char *root, DataNotes *notes, Error *error);

/* The same of ROOT/images, with masks: images/A/NAME.jpg has A/NAME.png in ROOT/labels, ROOT/masks or
 * ROOT/depth, the first of them that is a folder. */
Status folder_set_open_pairs(DataKind *kind, const char *root, DataNotes *notes, Error *error);

#endif

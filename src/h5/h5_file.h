/* h5_file.h - HDF5 files, opened safely and written atomically.
 *
 * A thin layer over libhdf5 for what our file kinds need (design: "Contract: files"). Every call takes one
 * process-wide lock, since Debian's libhdf5 is not thread-safe; every failure is one line that names the file
 * and the object. Files are written under PATH.tmp and get their name by h5_file_commit(), so a reader sees a
 * whole file or none. Nothing here is collective: one rank writes a file through this layer; what many ranks
 * write together (checkpoints) they write by pwrite at offsets from h5_dataset_info().
 *
 * What is read may be hostile: only hard links, plain types, contiguous or chunked storage inside the file
 * and no filter but Fletcher32 are accepted, and a size is compared with the file's before anything is
 * allocated. libhdf5 itself may still crash on a damaged file: h5_check.h runs it in a child process.
 *
 *     H5File file;
 *     TRY(h5_file_create(&file, "features.h5", error));
 *     Status status = fill(&file, error);
 *     if (status != STATUS_OK) return h5_file_abandon(&file), status;
 *     return h5_file_commit(&file, error);
 */
#ifndef DINOBATCH_H5_H5_FILE_H
#define DINOBATCH_H5_H5_FILE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t id;      /* libhdf5's handle; below 0: closed */
    char *path;      /* owned: the name it has or shall get, for messages */
    char *temporary; /* owned: the name it is written under; NULL: opened, not created */
    int64_t bytes;   /* size of an opened file */
    bool writing;    /* created, or opened for changes */
} H5File;

/* What a path inside a file leads to. */
typedef enum { H5_KIND_ABSENT = 0, H5_KIND_GROUP, H5_KIND_DATASET, H5_KIND_OTHER } H5Kind;

/* Names in a group, sorted bytewise. */
typedef struct {
    char **names; /* owned, each too */
    int64_t count;
} H5Names;

enum { H5_MAX_NAMES = 1 << 20 }; /* objects of one group; more is refused */

/* Starts PATH.tmp, replacing an older one. STATUS_FAILED when the disk or folder does not take it. */
Status h5_file_create(H5File *file, const char *path, Error *error);

/* Opens for reading. STATUS_INPUT: missing, not HDF5, truncated. */
Status h5_file_open(H5File *file, const char *path, Error *error);

/* Opens an existing file for changes in place (attribute values). */
Status h5_file_open_writable(H5File *file, const char *path, Error *error);

/* Closes an opened file. Safe on a closed one. */
Status h5_file_close(H5File *file, Error *error);

/* Ends h5_file_create: closes, flushes to the disk, renames to PATH, flushes the folder. On failure nothing
 * is left but what stood at PATH before. */
Status h5_file_commit(H5File *file, Error *error);

/* Ends h5_file_create without a result: closes and removes PATH.tmp. Safe on a closed one. */
void h5_file_abandon(H5File *file);

/* Ends h5_file_create without the rename: closes, PATH.tmp stays for the caller to fill and rename. */
Status h5_file_close_temporary(H5File *file, Error *error);

/* What `object` ("/a/b") is. A link that is not a hard link, anywhere on the path, is STATUS_INPUT. */
Status h5_file_kind(const H5File *file, const char *object, H5Kind *kind, Error *error);

/* The names in a group; free by h5_names_fini, also after failure. */
Status h5_file_list(const H5File *file, const char *group, H5Names *names, Error *error);

void h5_names_fini(H5Names *names);

/* Makes a group, and those above it. */
Status h5_file_create_group(const H5File *file, const char *group, Error *error);

#endif

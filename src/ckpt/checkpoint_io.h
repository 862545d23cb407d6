/* checkpoint_io.h - inside src/ckpt only: bytes of pieces to and from the file, and the root's attributes. */
#ifndef DINOBATCH_CKPT_CHECKPOINT_IO_H
#define DINOBATCH_CKPT_CHECKPOINT_IO_H

#include "ckpt/checkpoint_layout.h"
#include "h5/h5_file.h"

/* Writes this rank's pieces at their places, computes their checksums and flushes them to the disk. */
Status checkpoint_io_write(const char *path, const CheckpointLayout *layout, CheckpointPieces *pieces,
                           Error *error);

/* Reads what this rank holds of every tensor. */
Status checkpoint_io_read(const char *path, const CheckpointLayout *layout, Error *error);

/* Fills the layout's tensors from a file of that schema, whose tensors below `roots` (NULL at the end) are
 * exactly those, and proves them; *damaged as in CheckpointState. The errors of checkpoint_load. Collective
 * over COMM. */
Status checkpoint_io_read_tensors(const char *path, const char *kind, CheckpointLayout *layout,
                                  const char *const *roots, bool *damaged, Comm *comm, Error *error);

/* Writes the root attributes of a file's kind. */
typedef Status (*CheckpointMetaWriter)(const H5File *file, const void *meta, Error *error);

/* One file of the layout's tensors, whole or not at all. Collective over COMM. */
Status checkpoint_io_write_tensors(const char *path, CheckpointLayout *layout,
                                   CheckpointMetaWriter write_meta, const void *meta, Comm *comm,
                                   Error *error);

/* Computes the checksums of pieces in memory. */
void checkpoint_io_checksum(CheckpointPieces *pieces);

/* The root attributes of a checkpoint (a CheckpointMeta), `format` and `format_version` included. */
Status checkpoint_io_write_meta(const H5File *file, const void *meta, Error *error);
Status checkpoint_io_read_meta(const H5File *file, CheckpointMeta *meta, Error *error);

#endif

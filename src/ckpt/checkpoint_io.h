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

/* Computes the checksums of pieces in memory. */
void checkpoint_io_checksum(CheckpointPieces *pieces);

/* The root attributes of the schema, `format` and `format_version` included. */
Status checkpoint_io_write_meta(const H5File *file, const CheckpointMeta *meta, Error *error);
Status checkpoint_io_read_meta(const H5File *file, CheckpointMeta *meta, Error *error);

#endif

/* durable.h - files that are either whole under their name or not there: flush, rename, flush the folder. */
#ifndef DINOBATCH_H5_DURABLE_H
#define DINOBATCH_H5_DURABLE_H

#include "base/status.h"

#include <stdint.h>

/* Makes a folder and those above it; one that exists is fine. */
Status durable_make_folder(const char *folder, Error *error);

/* Makes the folder that PATH lies in. */
Status durable_make_parent(const char *path, Error *error);

/* Flushes a file's contents to the disk. */
Status durable_flush(const char *path, Error *error);

/* Gives a flushed file its name, replacing what was there, and flushes the folder. */
Status durable_rename(const char *from, const char *to, Error *error);

/* Replaces PATH by a file that holds `text`, atomically. */
Status durable_write_text(const char *path, const char *text, Error *error);

/* STATUS_FAILED if the disk has no room for `bytes` more in a new file at PATH, which is removed again: a
 * cheap early answer, not a reservation. File systems that cannot tell say yes. */
Status durable_probe_space(const char *path, int64_t bytes, Error *error);

#endif

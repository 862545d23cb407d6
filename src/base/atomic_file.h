/* atomic_file.h - files that are either whole under their name or not there.
 *
 * Written to NAME.tmp in the same folder, fsync, rename, fsync of the folder: a reader or a crash sees the
 * old file or the new one, never a part. Not collective: one rank calls it.
 */
#ifndef DINOBATCH_BASE_ATOMIC_FILE_H
#define DINOBATCH_BASE_ATOMIC_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Replaces `path` by `size` bytes. STATUS_FAILED naming the file; the old one then stands and no .tmp stays.
 */
Status atomic_file_write(const char *path, const void *data, size_t size, Error *error);

/* The same for a text. */
Status atomic_file_write_text(const char *path, const char *text, Error *error);

/* The last steps alone, for a file that someone else wrote and closed: fsync of `temporary`, rename to
 * `path`, fsync of the folder. */
Status atomic_file_commit(const char *temporary, const char *path, Error *error);

/* STATUS_FAILED if the disk has no room for `bytes` more in a new file at `path`, which is removed again: a
 * cheap early answer, not a reservation. File systems that cannot tell say yes. */
Status atomic_file_probe_space(const char *path, int64_t bytes, Error *error);

/* Makes a folder and those above it; one that exists is fine. STATUS_INPUT naming the part that cannot be,
 * STATUS_FAILED where the disk is full or broken. */
Status atomic_file_make_folder(const char *folder, Error *error);

/* Makes the folder that `path` lies in. */
Status atomic_file_make_parent(const char *path, Error *error);

#endif

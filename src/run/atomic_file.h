/* atomic_file.h - replace a file so that a reader or a crash sees the old one or the new one, never a part.
 *
 * Written to NAME.tmp in the same folder, fsync, rename, fsync of the folder. Not collective: one rank calls
 * it.
 */
#ifndef DINOBATCH_RUN_ATOMIC_FILE_H
#define DINOBATCH_RUN_ATOMIC_FILE_H

#include "base/status.h"

#include <stddef.h>

/* Replaces `path` by `size` bytes. STATUS_FAILED naming the file; the old one then stands and no .tmp stays.
 */
Status atomic_file_write(const char *path, const void *data, size_t size, Error *error);

/* The last two steps alone, for files that someone else wrote and closed: fsync of `temporary`, rename to
 * `path`, fsync of the folder. */
Status atomic_file_commit(const char *temporary, const char *path, Error *error);

#endif

/* text_file.h - a whole text file in memory, of a bounded size, whatever the path leads to. */
#ifndef DINOBATCH_BASE_TEXT_FILE_H
#define DINOBATCH_BASE_TEXT_FILE_H

#include "base/status.h"

#include <stddef.h>

enum { TEXT_FILE_MOST = 1 << 30 }; /* for what may be large */

/* *text = the file's *size bytes, at most `most` of them, and a NUL behind them; owned by the caller
 * (memory_free). STATUS_INPUT, with *text NULL: missing, unreadable, larger, or a NUL in it, so that the end
 * of the string is the end of the file. */
Status text_file_read(const char *path, size_t most, char **text, size_t *size, Error *error);

#endif

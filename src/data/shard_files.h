/* shard_files.h - the files of a set that is spread over several, and reading from any of them by thread.
 *
 * Descriptors of the first SHARD_FILES_OPEN files stay open; beyond that each read opens its file.
 */
#ifndef DINOBATCH_DATA_SHARD_FILES_H
#define DINOBATCH_DATA_SHARD_FILES_H

#include "base/status.h"
#include "data/text_table.h"

#include <stddef.h>
#include <stdint.h>

enum { SHARD_FILES_OPEN = 256 };

typedef struct {
    TextTable paths;  /* sorted bytewise */
    int *descriptors; /* [paths.count], -1: opened at each read */
} ShardFiles;

/* The file `pattern`, or the files that it matches as a glob. STATUS_INPUT: none, or one that cannot be
 * opened. Released by shard_files_fini, also after failure. */
Status shard_files_init(ShardFiles *files, const char *pattern, Error *error);

void shard_files_fini(ShardFiles *files);

const char *shard_files_path(const ShardFiles *files, int64_t file);

/* bytes[size] from `offset` of a file. Thread-safe. Fewer bytes are STATUS_INPUT; the message does not name
 * the file. */
Status shard_files_read(const ShardFiles *files, int64_t file, int64_t offset, void *bytes, size_t size,
                        Error *error);

#endif

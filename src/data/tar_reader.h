/* tar_reader.h - the members of an uncompressed tar archive, one after the other, by their offsets.
 *
 * Reads v7, ustar, GNU (long names) and pax headers (path, size); POSIX.1-2017, pax, "ustar Interchange
 * Format". The input may be hostile: every length is compared with the file's size before it is used, nothing
 * is allocated beyond TAR_READER_MAX_HEADER, and it always moves forward. It extracts nothing; sparse members
 * and links are told as such, their contents are not resolved.
 */
#ifndef DINOBATCH_DATA_TAR_READER_H
#define DINOBATCH_DATA_TAR_READER_H

#include "base/status.h"
#include "data/data_buffer.h"

#include <stdbool.h>
#include <stdint.h>

enum { TAR_READER_MAX_HEADER = 1 << 16 }; /* bytes of a long name or a pax header */

typedef enum { TAR_FILE, TAR_LINK, TAR_OTHER } TarMemberKind;

typedef struct {
    const char *name; /* valid until the next call */
    TarMemberKind kind;
    int64_t offset, size; /* of the contents; they lie inside the archive */
} TarMember;

typedef struct {
    int descriptor;       /* borrowed */
    const char *path;     /* of the archive, for messages; borrowed */
    int64_t bytes;        /* of the archive */
    int64_t next;         /* offset of the next header */
    int64_t pax_size;     /* for the next member; -1: none */
    bool long_name_known; /* long_name is for the next member */
    bool sparse;          /* the next member is GNU sparse in pax form */
    DataBuffer long_name, records;
    char short_name[260];
} TarReader;

/* Starts at the beginning. STATUS_INPUT: not a regular file, or compressed. Released by tar_reader_fini, also
 * after failure. */
Status tar_reader_init(TarReader *reader, int descriptor, const char *path, Error *error);

void tar_reader_fini(TarReader *reader);

/* The next member into *member; *found = false at the end of the archive. STATUS_INPUT: damaged, names the
 * archive and the byte. */
Status tar_reader_next(TarReader *reader, TarMember *member, bool *found, Error *error);

#endif

/* text_file.c - read in pieces that double, since what is no regular file does not say its size. */
#include "base/text_file.h"

#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_BYTES = 1 << 16 };

static Status read_open(FILE *file, const char *path, size_t most, char **text, size_t *size, Error *error)
{
    size_t room = FIRST_BYTES;
    *text = memory_alloc(room);
    errno = 0;
    while (!feof(file) && !ferror(file) && *size <= most) {
        if (*size + 1 >= room) {
            *text = memory_grow(*text, room, 2 * room);
            room *= 2;
        }
        *size += fread(*text + *size, 1, room - 1 - *size, file);
    }
    if (ferror(file))
        return status_fail(error, STATUS_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (*size > most) return status_fail(error, STATUS_INPUT, "%s: larger than %zu bytes", path, most);
    if (memchr(*text, '\0', *size)) return status_fail(error, STATUS_INPUT, "%s: not a text", path);
    (*text)[*size] = '\0';
    return STATUS_OK;
}

Status text_file_read(const char *path, size_t most, char **text, size_t *size, Error *error)
{
    *text = NULL;
    *size = 0;
    FILE *file = fopen(path, "rbe");
    if (!file) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    Status status = read_open(file, path, most, text, size, error);
    fclose(file);
    if (status != STATUS_OK) {
        memory_free(*text);
        *text = NULL;
    }
    return status;
}

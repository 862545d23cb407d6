/* data_kind.c - names, notes and errors that the kinds share. */
#include "data/data_kind.h"

#include "base/memory.h"
#include "data/data_set.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void data_notes_add(DataNotes *notes, const char *path, const char *reason)
{
    if (notes->count++ >= DATA_SET_NOTES) return;
    Error line = {0};
    status_fail(&line, STATUS_INPUT, "%s: %s; skipped", path, reason);
    text_table_append(&notes->lines, line.text, strlen(line.text));
}

bool data_kind_is_image_name(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".png"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcasecmp(name + length - ending, endings[i]) == 0) return true;
    }
    return false;
}

Status data_kind_io_error(Error *error, int error_number)
{
    bool ours = error_number == EMFILE || error_number == ENFILE || error_number == ENOMEM;
    return status_fail(error, ours ? STATUS_FAILED : STATUS_INPUT, "%s", strerror(error_number));
}

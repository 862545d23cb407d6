/* status.c - formatting of one-line errors. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* File names may hold newlines and control bytes; a log line must not. */
static void keep_one_line(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f) *c = '?';
}

Status status_fail(Error *error, Status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        keep_one_line(error->text);
    }
    return status;
}

Status status_prefix(Error *error, Status status, const char *format, ...)
{
    if (error) {
        Error old = *error;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        size_t used = strlen(error->text);
        snprintf(error->text + used, sizeof error->text - used, ": %s", old.text);
        keep_one_line(error->text);
    }
    return status;
}

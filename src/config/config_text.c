/* config_text.c - appending to a string that grows. */
#include "config/config_text.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>

void config_text_append(ConfigText *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int more = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    CHECK(more >= 0);
    size_t needed = text->length + (size_t)more + 1;
    if (needed > text->capacity) {
        size_t capacity = 2 * needed + 256;
        text->data = memory_grow(text->data, text->capacity, capacity);
        text->capacity = capacity;
    }
    vsnprintf(text->data + text->length, text->capacity - text->length, format, again);
    va_end(again);
    text->length += (size_t)more;
}

/* config_text.h - a string that grows. Internal to src/config. */
#ifndef DINOBATCH_CONFIG_CONFIG_TEXT_H
#define DINOBATCH_CONFIG_CONFIG_TEXT_H

#include <stddef.h>

/* Zero-initialise; `data` is NUL-terminated after the first append, and the owner's to memory_free. */
typedef struct {
    char *data;
    size_t length, capacity;
} ConfigText;

void config_text_append(ConfigText *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

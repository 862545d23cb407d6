/* config_dump.c - the resolved configuration as YAML, every key in the order of the table. */
#include "base/memory.h"
#include "config/config_text.h"
#include "config/config_value.h"

#include <string.h>

/* Opens the sections in which `name` lies and `previous` does not; returns the depth of the key and its last
 * part. */
static int open_sections(ConfigText *text, const char *name, const char *previous, const char **last)
{
    int depth = 0;
    bool shared = true;
    const char *part = name;
    for (const char *dot; (dot = strchr(part, '.')); part = dot + 1, depth++) {
        size_t end = (size_t)(dot - name) + 1;
        shared = shared && strncmp(name, previous, end) == 0;
        if (!shared) config_text_append(text, "%*s%.*s:\n", 2 * depth, "", (int)(dot - part), part);
    }
    *last = part;
    return depth;
}

char *config_dump(const Config *config)
{
    ConfigText text = {0};
    const char *previous = "";
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        const char *last;
        int depth = open_sections(&text, key->name, previous, &last);
        char *value = config_value_format(config, key);
        config_text_append(&text, "%*s%s: %s\n", 2 * depth, "", last, value);
        memory_free(value);
        previous = key->name;
    }
    return text.data;
}

/* config_help.c - every key explained: for --help, and for the documentation made from it. */
#include "config/config_text.h"
#include "config/config_value.h"

#include <string.h>

char *config_help(void)
{
    ConfigText text = {0};
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        char expected[256];
        config_value_expected(key, expected, sizeof expected);
        config_text_append(&text, "%s = %s\n    %s%s\n    %s\n", key->name,
                           *key->initial ? key->initial : "''", key->help,
                           key->ours ? " (not a key of the reference)" : "", expected);
        if (key->inert) config_text_append(&text, "    no effect: %s\n", key->inert);
    }
    return text.data;
}

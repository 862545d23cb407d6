/* config.c - life and end of a Config. */
#include "config/config.h"

#include "base/memory.h"
#include "config/config_value.h"

#include <string.h>

void config_init(Config *config)
{
    memset(config, 0, sizeof *config);
    config->origins = memory_alloc_array((size_t)config_keys_count(), sizeof *config->origins);
    for (int i = 0; i < config_keys_count(); i++)
        config_value_set_default(config, config_keys_at(i));
}

void config_fini(Config *config)
{
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        if (key->type == CONFIG_TYPE_STRING) memory_free(*(char **)((char *)config + key->offset));
        if (config->origins) memory_free(config->origins[i].source);
    }
    memory_free(config->origins);
    memset(config, 0, sizeof *config);
}

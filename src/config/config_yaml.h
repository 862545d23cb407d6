/* config_yaml.h - walks YAML events and sets the keys that they name.
 *
 * Internal to src/config. libyaml's event interface: nothing is built in memory but the value at hand.
 */
#ifndef DINOBATCH_CONFIG_CONFIG_YAML_H
#define DINOBATCH_CONFIG_CONFIG_YAML_H

#include "config/config_keys.h"

/* Where YAML text comes from. */
typedef struct {
    const char *source; /* file name or "command line", for messages and origins */
    bool has_lines;     /* messages say source:line */
    const char *prefix; /* the key whose value the text is; "" when the text is a whole configuration */
} ConfigYamlPlace;

/* Sets in `config` what the text names. STATUS_INPUT with one line; what came before the fault stays set. */
Status config_yaml_read(Config *config, const ConfigYamlPlace *place, const char *text, size_t size,
                        Error *error);

#endif

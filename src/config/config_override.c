/* config_override.c - single keys: `key=value` of the command line, and texts that are no YAML. */
#include "base/check.h"
#include "base/memory.h"
#include "config/config_value.h"
#include "config/config_yaml.h"

#include <stdint.h>
#include <string.h>

static const char SOURCE[] = "command line";

Status config_override(Config *config, const char *assignment, Error *error)
{
    char shown[96], nearest[128] = "";
    const char *equals = strchr(assignment, '=');
    config_value_clip(assignment, shown, sizeof shown);
    if (!equals || equals == assignment)
        return status_fail(error, STATUS_INPUT, "%s: expected key=value, got '%s'", SOURCE, shown);

    char *key = memory_strndup(assignment, (size_t)(equals - assignment));
    Status status = STATUS_OK;
    if (config_keys_find(key) < 0 && config_keys_section(key) < 0) {
        config_keys_nearest(key, nearest, sizeof nearest);
        config_value_clip(key, shown, sizeof shown);
        status = status_fail(error, STATUS_INPUT, "%s: %s: unknown key; did you mean '%s'?", SOURCE, shown,
                             nearest);
    } else {
        /* An empty document has no value at all; an explicit null says the same to every type. */
        const char *value = equals + 1 + strspn(equals + 1, " \t");
        if (*value == '\0') value = "null";
        ConfigYamlPlace place = {.source = SOURCE, .has_lines = false, .prefix = key};
        status = config_yaml_read(config, &place, value, strlen(value), error);
    }
    memory_free(key);
    return status;
}

/* Length of the UTF-8 character at `text` (Unicode 15, table 3-7), or 0. */
static int utf8_length(const unsigned char *text)
{
    if (text[0] < 0x80) return 1;
    int length = text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;
    if (length == 0) return 0;
    unsigned char low = text[0] == 0xe0 ? 0xa0 : text[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = text[0] == 0xed ? 0x9f : text[0] == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high) return 0;
    for (int i = 2; i < length; i++)
        if ((text[i] & 0xc0u) != 0x80u) return 0;
    return length;
}

Status config_override_text(Config *config, const char *key, const char *text, const char *source,
                            Error *error)
{
    int index = config_keys_find(key);
    CHECK(index >= 0);
    int length;
    for (const unsigned char *at = (const unsigned char *)text; *at; at += length) {
        length = utf8_length(at);
        if (length == 0)
            return status_fail(error, STATUS_INPUT, "%s: %s: expected UTF-8 text, got other bytes", source,
                               key);
    }
    config_value_set_string(config, config_keys_at(index), text);
    ConfigOrigin *origin = &config->origins[index];
    memory_free(origin->source);
    *origin = (ConfigOrigin){.source = memory_strdup(source)};
    return STATUS_OK;
}

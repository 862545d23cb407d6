/* config_value.h - one key's value: from YAML scalars into its member, and back into text.
 *
 * Internal to src/config. The syntax of numbers is YAML's usual one, narrowed: decimal integers, decimal or
 * scientific numbers, no inf, no nan, no hexadecimal, no octal, no underscores.
 */
#ifndef DINOBATCH_CONFIG_CONFIG_VALUE_H
#define DINOBATCH_CONFIG_CONFIG_VALUE_H

#include "config/config_keys.h"

/* A YAML scalar. */
typedef struct {
    char *text; /* NUL-terminated, without NUL bytes inside */
    bool plain; /* not quoted, so that it may be a number, a boolean or null */
} ConfigScalar;

typedef enum { CONFIG_NODE_SCALAR, CONFIG_NODE_LIST, CONFIG_NODE_NESTED } ConfigNodeKind;

/* What stands where a value is expected. */
typedef struct {
    ConfigNodeKind kind; /* NESTED: a mapping, or a list of anything but scalars */
    int64_t count;       /* elements; 1 for SCALAR; a LIST's may exceed the storage */
    ConfigScalar items[CONFIG_LIST_MAX];
} ConfigNode;

/* Sets the key's member. False when the node is no valid value: then the member is unchanged and `complaint`
 * holds "expected ..., got ...". */
bool config_value_set(Config *config, const ConfigKey *key, const ConfigNode *node, char *complaint,
                      size_t size);

/* Sets the key's member to its default, from storage that holds no valid value. */
void config_value_set_default(Config *config, const ConfigKey *key);

/* Replaces a STRING key's member by a copy of `text`. */
void config_value_set_string(Config *config, const ConfigKey *key, const char *text);

/* What the key accepts, such as "an integer from 1 to 16". */
void config_value_expected(const ConfigKey *key, char *text, size_t size);

/* The value as YAML that reads back to the same bits. Owned by the caller: memory_free. */
char *config_value_format(const Config *config, const ConfigKey *key);

bool config_value_equal(const Config *a, const Config *b, const ConfigKey *key);

/* The index of a CHOICE key's value among its choices. */
unsigned config_value_choice(const Config *config, const ConfigKey *key);

/* Copies at most `size` - 1 bytes of user text for a message, cut at a character, with "..." when cut. */
void config_value_clip(const char *text, char *clipped, size_t size);

#endif

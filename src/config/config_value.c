/* config_value.c - parsing of values: what each type accepts, and how a refusal is worded. */
#include "config/config_value.h"

#include "base/check.h"
#include "base/memory.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static_assert(sizeof(ConfigArch) == sizeof(unsigned) && sizeof(Dtype) == sizeof(unsigned),
              "every enumerated member is written as an unsigned");

static void *member(Config *config, const ConfigKey *key)
{
    return (char *)config + key->offset;
}

void config_value_clip(const char *text, char *clipped, size_t size)
{
    size_t length = strlen(text);
    if (length < size) {
        memcpy(clipped, text, length + 1);
        return;
    }
    CHECK(size > 4);
    size_t cut = size - 4;
    while (cut > 0 && ((unsigned char)text[cut] & 0xc0u) == 0x80u)
        cut--;
    memcpy(clipped, text, cut);
    memcpy(clipped + cut, "...", 4);
}

/* --- scalars
 * ---------------------------------------------------------------------------------------------------- */

static bool is_null(const ConfigScalar *scalar)
{
    const char *text = scalar->text;
    return scalar->plain && (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
                             strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0);
}

static bool parse_bool(const ConfigScalar *scalar, bool *value)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; scalar->plain && i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(scalar->text, words[i]) != 0) continue;
        *value = i % 2 == 1;
        return true;
    }
    return false;
}

/* The syntax of numbers: [+-] digits [. digits] [e [+-] digits], at least one digit before the exponent. */
static bool is_number(const char *text, bool integer)
{
    if (*text == '+' || *text == '-') text++;
    int digits = 0;
    for (; isdigit((unsigned char)*text); text++)
        digits++;
    if (integer) return digits > 0 && *text == '\0';
    if (*text == '.')
        for (text++; isdigit((unsigned char)*text); text++)
            digits++;
    if (digits == 0) return false;
    if (*text == 'e' || *text == 'E') {
        text++;
        if (*text == '+' || *text == '-') text++;
        if (!isdigit((unsigned char)*text)) return false;
        while (isdigit((unsigned char)*text))
            text++;
    }
    return *text == '\0';
}

static bool parse_integer(const ConfigScalar *scalar, const ConfigKey *key, int64_t *value)
{
    if (!scalar->plain || !is_number(scalar->text, true)) return false;
    errno = 0;
    long long parsed = strtoll(scalar->text, NULL, 10);
    if (errno != 0 || (double)parsed < key->low || (double)parsed > key->high) return false;
    *value = parsed;
    return true;
}

static bool parse_number(const ConfigScalar *scalar, const ConfigKey *key, double *value)
{
    if (!scalar->plain || !is_number(scalar->text, false)) return false;
    double parsed = strtod(scalar->text, NULL);
    if (!(parsed >= key->low && parsed <= key->high)) return false;
    *value = parsed + 0.0; /* -0 becomes 0 */
    return true;
}

/* One word of "a|b=other name of b|c": its length, and the separator that follows it. */
static size_t choice_length(const char *choices)
{
    return strcspn(choices, "|=");
}

static bool parse_choice(const char *text, const char *choices, unsigned *value)
{
    unsigned index = 0;
    for (const char *word = choices;;) {
        size_t length = choice_length(word);
        if (strlen(text) == length && strncmp(text, word, length) == 0) {
            *value = index;
            return true;
        }
        if (word[length] == '\0') return false;
        if (word[length] == '|') index++;
        word += length + 1;
    }
}

/* --- describing
 * ------------------------------------------------------------------------------------------------- */

/* "one of a, b, c"; other names of the same value are listed like the rest. */
static void expected_choice(const ConfigKey *key, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s", strchr(key->choices, '|') ? "one of " : "");
    for (const char *c = key->choices; *c && used + 3 < size; c++) {
        if (*c == '|' || *c == '=') {
            text[used++] = ',';
            text[used++] = ' ';
        } else {
            text[used++] = *c;
        }
    }
    text[used] = '\0';
}

void config_value_expected(const ConfigKey *key, char *text, size_t size)
{
    switch (key->type) {
    case CONFIG_TYPE_BOOL:
        snprintf(text, size, "true or false");
        break;
    case CONFIG_TYPE_INTEGER:
        snprintf(text, size, "an integer from %.0f to %.0f", key->low, key->high);
        break;
    case CONFIG_TYPE_NUMBER:
        snprintf(text, size, "a number from %.10g to %.10g", key->low, key->high);
        break;
    case CONFIG_TYPE_STRING:
        snprintf(text, size, "a string");
        break;
    case CONFIG_TYPE_CHOICE:
        expected_choice(key, text, size);
        break;
    case CONFIG_TYPE_PAIR:
        snprintf(text, size, "a list of 2 numbers from %.10g to %.10g", key->low, key->high);
        break;
    case CONFIG_TYPE_LIST:
        snprintf(text, size, "a list of 1 to %d integers from %.0f to %.0f", (int)CONFIG_LIST_MAX, key->low,
                 key->high);
        break;
    }
}

static void describe_scalar(const ConfigScalar *scalar, char *text, size_t size)
{
    char clipped[64];
    config_value_clip(scalar->text, clipped, sizeof clipped);
    if (is_null(scalar))
        snprintf(text, size, "nothing");
    else if (scalar->plain)
        snprintf(text, size, "%s", clipped);
    else
        snprintf(text, size, "the string '%s'", clipped);
}

/* A list shows its elements as far as they are stored and fit. */
static void describe(const ConfigNode *node, char *text, size_t size)
{
    if (node->kind == CONFIG_NODE_SCALAR) {
        describe_scalar(&node->items[0], text, size);
        return;
    }
    if (node->kind == CONFIG_NODE_NESTED) {
        snprintf(text, size, "a mapping or nested list");
        return;
    }
    char joined[256] = "";
    size_t used = 0;
    for (int i = 0; i < node->count && i < CONFIG_LIST_MAX; i++) {
        char item[96];
        describe_scalar(&node->items[i], item, sizeof item);
        if (used + strlen(item) + 8 > sizeof joined) break;
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? ", " : "", item);
    }
    snprintf(text, size, "a list of %lld: [%s]", (long long)node->count, joined);
}

/* --- setting
 * ---------------------------------------------------------------------------------------------------- */

static bool set_list(ConfigList *list, const ConfigKey *key, const ConfigNode *node)
{
    if (node->kind != CONFIG_NODE_LIST || node->count < 1 || node->count > CONFIG_LIST_MAX) return false;
    ConfigList parsed = {.count = (int)node->count};
    for (int i = 0; i < parsed.count; i++)
        if (!parse_integer(&node->items[i], key, &parsed.values[i])) return false;
    *list = parsed;
    return true;
}

static bool set_pair(double *pair, const ConfigKey *key, const ConfigNode *node)
{
    double parsed[2];
    if (node->kind != CONFIG_NODE_LIST || node->count != 2) return false;
    for (int i = 0; i < 2; i++)
        if (!parse_number(&node->items[i], key, &parsed[i])) return false;
    memcpy(pair, parsed, sizeof parsed);
    return true;
}

void config_value_set_string(Config *config, const ConfigKey *key, const char *text)
{
    CHECK(key->type == CONFIG_TYPE_STRING);
    char **string = member(config, key);
    char *copy = memory_strdup(text);
    memory_free(*string);
    *string = copy;
}

static bool set_scalar(Config *config, const ConfigKey *key, const ConfigScalar *scalar)
{
    void *at = member(config, key);
    if (key->type == CONFIG_TYPE_STRING) {
        config_value_set_string(config, key, is_null(scalar) ? "" : scalar->text);
        return true;
    }
    if (key->type == CONFIG_TYPE_CHOICE) {
        unsigned value;
        if (!parse_choice(scalar->text, key->choices, &value)) return false;
        memcpy(at, &value, sizeof value);
        return true;
    }
    if (key->type == CONFIG_TYPE_BOOL) return parse_bool(scalar, at);
    if (key->type == CONFIG_TYPE_INTEGER) return parse_integer(scalar, key, at);
    return parse_number(scalar, key, at);
}

static bool set_node(Config *config, const ConfigKey *key, const ConfigNode *node)
{
    if (key->type == CONFIG_TYPE_PAIR) return set_pair(member(config, key), key, node);
    if (key->type == CONFIG_TYPE_LIST) return set_list(member(config, key), key, node);
    return node->kind == CONFIG_NODE_SCALAR && set_scalar(config, key, &node->items[0]);
}

bool config_value_set(Config *config, const ConfigKey *key, const ConfigNode *node, char *complaint,
                      size_t size)
{
    if (set_node(config, key, node)) return true;
    char expected[256], got[320];
    config_value_expected(key, expected, sizeof expected);
    describe(node, got, sizeof got);
    snprintf(complaint, size, "expected %s, got %s", expected, got);
    return false;
}

/* Defaults are flat ("[a, b]" at most), so they need no YAML parser. */
void config_value_set_default(Config *config, const ConfigKey *key)
{
    char *copy = memory_strdup(key->initial);
    ConfigNode node = {.kind = CONFIG_NODE_SCALAR, .count = 1, .items = {{.text = copy, .plain = true}}};
    if (key->type == CONFIG_TYPE_PAIR || key->type == CONFIG_TYPE_LIST) {
        node.kind = CONFIG_NODE_LIST;
        node.count = 0;
        char *rest = NULL;
        for (char *word = strtok_r(copy, "[, ]", &rest); word; word = strtok_r(NULL, "[, ]", &rest)) {
            CHECK(node.count < CONFIG_LIST_MAX);
            node.items[node.count++] = (ConfigScalar){.text = word, .plain = true};
        }
    }
    if (key->type == CONFIG_TYPE_STRING) *(char **)member(config, key) = NULL;
    CHECK(set_node(config, key, &node));
    memory_free(copy);
}

unsigned config_value_choice(const Config *config, const ConfigKey *key)
{
    unsigned value;
    CHECK(key->type == CONFIG_TYPE_CHOICE);
    memcpy(&value, (const char *)config + key->offset, sizeof value);
    return value;
}

/* Texts are exact, so they also compare what memcmp would not (strings, unused elements of lists). */
bool config_value_equal(const Config *a, const Config *b, const ConfigKey *key)
{
    char *left = config_value_format(a, key), *right = config_value_format(b, key);
    bool equal = strcmp(left, right) == 0;
    memory_free(left);
    memory_free(right);
    return equal;
}

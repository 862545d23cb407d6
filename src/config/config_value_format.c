/* config_value_format.c - values as YAML.
 *
 * The text is also read by other YAML libraries: numbers always hold a point (YAML 1.1 takes "1e-05" for a
 * string), strings are always quoted.
 */
#include "config/config_value.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_SIZE = 40 };

static const void *member(const Config *config, const ConfigKey *key)
{
    return (const char *)config + key->offset;
}

/* The shortest of 15 to 17 digits that reads back to the same double. */
static void format_number(double value, char text[NUMBER_SIZE])
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, NUMBER_SIZE, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    size_t mantissa = strcspn(text, "e");
    if (memchr(text, '.', mantissa)) return;
    memmove(text + mantissa + 2, text + mantissa, strlen(text + mantissa) + 1);
    memcpy(text + mantissa, ".0", 2);
}

static void format_choice(unsigned value, const char *choices, char *text, size_t size)
{
    for (; value > 0; value--) {
        choices = strchr(choices, '|');
        CHECK(choices);
        choices++;
    }
    snprintf(text, size, "%.*s", (int)strcspn(choices, "|="), choices);
}

/* The code point at `text`, valid UTF-8, and its length in bytes. */
static uint32_t code_point(const unsigned char *text, int *length)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    *length = *text < 0x80 ? 1 : *text < 0xe0 ? 2 : *text < 0xf0 ? 3 : 4;
    uint32_t code = *text & masks[*length];
    for (int i = 1; i < *length; i++)
        code = code << 6 | (text[i] & 0x3fu);
    return code;
}

/* Characters that YAML does not let through in quotes as they are: not printable, line breaks, byte order
 * mark. */
static bool needs_escape(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0xa0) || code == 0x2028 || code == 0x2029 ||
           code == 0xfeff || (code & 0xfffe) == 0xfffe;
}

static bool needs_escapes(const char *text)
{
    int length;
    for (const unsigned char *at = (const unsigned char *)text; *at; at += length)
        if (needs_escape(code_point(at, &length))) return true;
    return false;
}

/* 'single quoted', or "double quoted" where something must be escaped. */
static char *format_string(const char *text)
{
    bool escapes = needs_escapes(text);
    char *quoted = memory_alloc(10 * strlen(text) + 3);
    char *out = quoted;
    int length;
    *out++ = escapes ? '"' : '\'';
    for (const unsigned char *at = (const unsigned char *)text; *at; at += length) {
        uint32_t code = code_point(at, &length);
        if (escapes && needs_escape(code)) {
            out += snprintf(out, 11, "\\U%08X", (unsigned)code);
            continue;
        }
        if (escapes && (code == '"' || code == '\\')) *out++ = '\\';
        if (!escapes && code == '\'') *out++ = '\'';
        memcpy(out, at, (size_t)length);
        out += length;
    }
    *out++ = escapes ? '"' : '\'';
    *out = '\0';
    return quoted;
}

static char *format_list(const ConfigList *list)
{
    char text[32 * CONFIG_LIST_MAX] = "[";
    size_t used = 1;
    for (int i = 0; i < list->count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld", i ? ", " : "",
                                 (long long)list->values[i]);
    CHECK(used + 2 <= sizeof text);
    memcpy(text + used, "]", 2);
    return memory_strdup(text);
}

char *config_value_format(const Config *config, const ConfigKey *key)
{
    const void *at = member(config, key);
    char text[3 * NUMBER_SIZE], first[NUMBER_SIZE], second[NUMBER_SIZE];
    switch (key->type) {
    case CONFIG_TYPE_BOOL:
        return memory_strdup(*(const bool *)at ? "true" : "false");
    case CONFIG_TYPE_INTEGER:
        snprintf(text, sizeof text, "%lld", (long long)*(const int64_t *)at);
        break;
    case CONFIG_TYPE_NUMBER:
        format_number(*(const double *)at, text);
        break;
    case CONFIG_TYPE_STRING:
        return format_string(*(char *const *)at);
    case CONFIG_TYPE_CHOICE:
        format_choice(config_value_choice(config, key), key->choices, text, sizeof text);
        break;
    case CONFIG_TYPE_PAIR:
        format_number(((const double *)at)[0], first);
        format_number(((const double *)at)[1], second);
        snprintf(text, sizeof text, "[%s, %s]", first, second);
        break;
    case CONFIG_TYPE_LIST:
        return format_list(at);
    }
    return memory_strdup(text);
}

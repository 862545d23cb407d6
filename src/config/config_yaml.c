/* config_yaml.c - the walk over libyaml's events.
 *
 * Refused on purpose: anchors and aliases (the classic bombs), tags, several documents in one file. Nesting
 * needs no limit of its own: a mapping is only entered for a section of the table, a list only for a key that
 * takes one.
 */
#include "config/config_yaml.h"

#include "base/check.h"
#include "base/memory.h"
#include "config/config_value.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum {
    PATH_SIZE = 256, /* longer keys are unknown ones */
    SEEN_KEY = 0x80, /* this key itself; bit d: the section of d components that starts at this key */
};

typedef struct {
    Config *config;
    const ConfigYamlPlace *place;
    const char *text;
    size_t size;
    yaml_parser_t parser;
    yaml_event_t event;  /* the current one; owned */
    unsigned char *seen; /* [keys] what this text has named so far */
    Error *error;
} Reader;

/* --- failing
 * ---------------------------------------------------------------------------------------------------- */

/* "SOURCE:LINE: key: message"; without a key where the text as a whole is meant. */
static Status fail_at(Reader *reader, size_t line, const char *path, const char *message)
{
    char where[32] = "", key[128] = "";
    if (reader->place->has_lines) snprintf(where, sizeof where, ":%zu", line);
    config_value_clip(path, key, sizeof key);
    return status_fail(reader->error, STATUS_INPUT, "%s%s: %s%s%s", reader->place->source, where, key,
                       *key ? ": " : "", message);
}

static size_t event_line(const Reader *reader)
{
    return reader->event.start_mark.line + 1;
}

static Status fail_here(Reader *reader, const char *path, const char *message)
{
    return fail_at(reader, event_line(reader), path, message);
}

static Status fail_unknown(Reader *reader, const char *path)
{
    char nearest[128] = "", message[192];
    config_keys_nearest(path, nearest, sizeof nearest);
    snprintf(message, sizeof message, "unknown key; did you mean '%s'?", nearest);
    return fail_here(reader, path, message);
}

/* libyaml gives faults of the encoding by their offset, all others by line. */
static size_t problem_line(const Reader *reader)
{
    if (reader->parser.error != YAML_READER_ERROR) return reader->parser.problem_mark.line + 1;
    size_t line = 1;
    for (size_t i = 0; i < reader->parser.problem_offset && i < reader->size; i++)
        line += reader->text[i] == '\n';
    return line;
}

static Status fail_syntax(Reader *reader)
{
    char message[256];
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return status_fail(reader->error, STATUS_FAILED, "%s: out of memory", reader->place->source);
    snprintf(message, sizeof message, "expected YAML, got an error: %s%s%s",
             parser->problem ? parser->problem : "not readable", parser->context ? " " : "",
             parser->context ? parser->context : "");
    return fail_at(reader, problem_line(reader), reader->place->prefix, message);
}

/* --- events
 * ----------------------------------------------------------------------------------------------------- */

static const char *anchor_of(const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    if (event->type == YAML_SCALAR_EVENT) anchor = event->data.scalar.anchor;
    if (event->type == YAML_SEQUENCE_START_EVENT) anchor = event->data.sequence_start.anchor;
    if (event->type == YAML_MAPPING_START_EVENT) anchor = event->data.mapping_start.anchor;
    return (const char *)anchor;
}

static const char *tag_of(const yaml_event_t *event)
{
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) tag = event->data.scalar.tag;
    if (event->type == YAML_SEQUENCE_START_EVENT) tag = event->data.sequence_start.tag;
    if (event->type == YAML_MAPPING_START_EVENT) tag = event->data.mapping_start.tag;
    return (const char *)tag;
}

/* Advances to the next event and refuses what no configuration needs. `path` is for the message. */
static Status next_event(Reader *reader, const char *path)
{
    yaml_event_delete(&reader->event);
    if (!yaml_parser_parse(&reader->parser, &reader->event)) return fail_syntax(reader);
    const yaml_event_t *event = &reader->event;
    if (event->type == YAML_ALIAS_EVENT || anchor_of(event))
        return fail_here(reader, path,
                         "expected a plain value, got an anchor or alias (* or &), which are not accepted");
    if (tag_of(event))
        return fail_here(reader, path, "expected a plain value, got a tag (!), which are not accepted");
    if (event->type == YAML_SCALAR_EVENT &&
        strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
        return fail_here(reader, path, "expected text, got a NUL byte in it");
    return STATUS_OK;
}

static bool at_null(const Reader *reader)
{
    if (reader->event.type != YAML_SCALAR_EVENT || reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)reader->event.data.scalar.value;
    return *text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

/* --- values
 * ----------------------------------------------------------------------------------------------------- */

static ConfigScalar copy_scalar(const yaml_event_t *event)
{
    return (ConfigScalar){.text = memory_strdup((const char *)event->data.scalar.value),
                          .plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE};
}

/* The value at the current event into `node` (texts owned); stops early at nesting, which no key takes. */
static Status read_value(Reader *reader, const char *path, ConfigNode *node)
{
    *node = (ConfigNode){.kind = CONFIG_NODE_NESTED};
    if (reader->event.type == YAML_SCALAR_EVENT) {
        *node = (ConfigNode){.kind = CONFIG_NODE_SCALAR, .count = 1, .items = {copy_scalar(&reader->event)}};
        return STATUS_OK;
    }
    if (reader->event.type != YAML_SEQUENCE_START_EVENT) return STATUS_OK;
    node->kind = CONFIG_NODE_LIST;
    for (;;) {
        TRY(next_event(reader, path));
        if (reader->event.type == YAML_SEQUENCE_END_EVENT) return STATUS_OK;
        if (reader->event.type != YAML_SCALAR_EVENT) {
            node->kind = CONFIG_NODE_NESTED;
            return STATUS_OK;
        }
        if (node->count < CONFIG_LIST_MAX) node->items[node->count] = copy_scalar(&reader->event);
        node->count++;
    }
}

static void set_origin(Reader *reader, int index, size_t line)
{
    ConfigOrigin *origin = &reader->config->origins[index];
    memory_free(origin->source);
    origin->source = memory_strdup(reader->place->source);
    origin->line = reader->place->has_lines ? (int64_t)line : 0;
}

static Status read_key_value(Reader *reader, const char *path, int index)
{
    ConfigNode node;
    char complaint[640];
    size_t line = event_line(reader);
    Status status = read_value(reader, path, &node);
    if (status == STATUS_OK) {
        if (config_value_set(reader->config, config_keys_at(index), &node, complaint, sizeof complaint))
            set_origin(reader, index, line);
        else
            status = fail_at(reader, line, path, complaint);
    }
    for (int i = 0; i < CONFIG_LIST_MAX; i++)
        memory_free(node.items[i].text);
    return status;
}

/* --- mappings
 * --------------------------------------------------------------------------------------------------- */

/* Marks a key or section as named; false if it was before. */
static bool mark_seen(Reader *reader, const char *path, int key, int section)
{
    unsigned components = 1;
    for (const char *c = path; *c; c++)
        components += *c == '.';
    unsigned bit = key >= 0 ? (unsigned)SEEN_KEY : 1u << components;
    CHECK(bit <= SEEN_KEY);
    unsigned char *seen = &reader->seen[key >= 0 ? key : section];
    if (*seen & bit) return false;
    *seen = (unsigned char)(*seen | bit);
    return true;
}

/* The current event is a key inside `path`: writes the full name to `child`. */
static Status join_path(Reader *reader, const char *path, char child[PATH_SIZE])
{
    if (reader->event.type != YAML_SCALAR_EVENT)
        return fail_here(reader, path, "expected the name of a key, got a mapping or list");
    const char *name = (const char *)reader->event.data.scalar.value;
    int length = snprintf(child, PATH_SIZE, "%s%s%s", path, *path ? "." : "", name);
    /* A dot inside a name would be a second spelling of a nested key. */
    if (length >= PATH_SIZE || strchr(name, '.') || *name == '\0') return fail_unknown(reader, child);
    return STATUS_OK;
}

static Status read_node(Reader *reader, const char *path);

/* The current event starts the mapping of section `path`; ends on its end. */
static Status read_mapping(Reader *reader, const char *path)
{
    for (;;) {
        char child[PATH_SIZE] = "";
        TRY(next_event(reader, path));
        if (reader->event.type == YAML_MAPPING_END_EVENT) return STATUS_OK;
        TRY(join_path(reader, path, child));
        int key = config_keys_find(child), section = config_keys_section(child);
        if (key < 0 && section < 0) return fail_unknown(reader, child);
        if (!mark_seen(reader, child, key, section))
            return fail_here(reader, child, "expected each key once, got it a second time");
        TRY(next_event(reader, child));
        TRY(read_node(reader, child));
    }
}

/* The current event starts the value of `path`, a known key or section or the whole configuration. */
static Status read_node(Reader *reader, const char *path)
{
    int key = config_keys_find(path);
    if (key >= 0) return read_key_value(reader, path, key);
    if (reader->event.type == YAML_MAPPING_START_EVENT) return read_mapping(reader, path);
    if (at_null(reader)) return STATUS_OK; /* a section without keys */
    char message[256], got[64] = "a list";
    if (reader->event.type == YAML_SCALAR_EVENT) {
        char clipped[48];
        config_value_clip((const char *)reader->event.data.scalar.value, clipped, sizeof clipped);
        snprintf(got, sizeof got, "'%s'", clipped);
    }
    int section = config_keys_section(path);
    snprintf(message, sizeof message, "expected a mapping of keys such as %s, got %s",
             config_keys_at(section < 0 ? 0 : section)->name, got);
    return fail_here(reader, path, message);
}

static Status read_stream(Reader *reader)
{
    const char *prefix = reader->place->prefix;
    TRY(next_event(reader, prefix)); /* start of the stream */
    TRY(next_event(reader, prefix));
    if (reader->event.type == YAML_STREAM_END_EVENT && *prefix)
        return fail_here(reader, prefix, "expected a value, got nothing");
    if (reader->event.type == YAML_STREAM_END_EVENT) return STATUS_OK; /* an empty file changes nothing */
    TRY(next_event(reader, prefix));                                   /* past the start of the document */
    TRY(read_node(reader, prefix));
    TRY(next_event(reader, prefix)); /* its end */
    TRY(next_event(reader, prefix));
    if (reader->event.type != YAML_STREAM_END_EVENT)
        return fail_here(reader, prefix, "expected one YAML document, got a second one");
    return STATUS_OK;
}

Status config_yaml_read(Config *config, const ConfigYamlPlace *place, const char *text, size_t size,
                        Error *error)
{
    Reader reader = {.config = config, .place = place, .text = text, .size = size, .error = error};
    if (!yaml_parser_initialize(&reader.parser)) return status_fail(error, STATUS_FAILED, "out of memory");
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, size);
    reader.seen = memory_alloc_array((size_t)config_keys_count(), 1);
    Status status = read_stream(&reader);
    memory_free(reader.seen);
    yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    return status;
}

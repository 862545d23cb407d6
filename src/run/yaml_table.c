/* yaml_table.c - tables of keys over libyaml's document. */
#include "run/yaml_table.h"

#include "base/memory.h"
#include "run/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct YamlTable {
    yaml_document_t document;
    const char *path;
    char folder[4096];
    void *context;
    size_t line; /* of what is being read, from 1 */
    Error *error;
};

enum { KEYS_MAX = 24 };

static Status wrong(YamlTable *table, const yaml_node_t *node, const char *key, const char *expected)
{
    table->line = node->start_mark.line + 1;
    return yaml_table_wrong(table, key, expected, table->error);
}

Status yaml_table_wrong(const YamlTable *table, const char *key, const char *expected, Error *error)
{
    return status_fail(error, STATUS_INPUT, "%s:%zu: %s: expected %s", table->path, table->line, key,
                       expected);
}

void *yaml_table_context(const YamlTable *table)
{
    return table->context;
}

const char *yaml_table_folder(const YamlTable *table)
{
    return table->folder;
}

char *yaml_table_path(const char *folder, char *text, size_t skip)
{
    bool moves = text[skip] != '/' && text[skip] != '\0';
    size_t size = strlen(text) + strlen(folder) + 1;
    char *path = memory_alloc(size);
    snprintf(path, size, "%.*s%s%s", (int)skip, text, moves ? folder : "", text + skip);
    memory_free(text);
    return path;
}

/* --- values --- */

void yaml_texts_add(YamlTexts *texts, char *owned)
{
    size_t size = (size_t)texts->count * sizeof *texts->texts;
    texts->texts = memory_grow(texts->texts, size, size + sizeof *texts->texts);
    texts->texts[texts->count++] = owned;
}

static Status read_text(YamlTable *table, const yaml_node_t *node, const char *key, char **out)
{
    if (node->type != YAML_SCALAR_NODE) return wrong(table, node, key, "a plain value");
    *out = memory_strdup((const char *)node->data.scalar.value);
    return STATUS_OK;
}

static Status read_short_text(YamlTable *table, const yaml_node_t *node, const YamlKey *key, char *out)
{
    if (node->type != YAML_SCALAR_NODE) return wrong(table, node, key->name, "a plain value");
    if (node->data.scalar.length >= key->size) return wrong(table, node, key->name, "a shorter text");
    snprintf(out, key->size, "%s", (const char *)node->data.scalar.value);
    return STATUS_OK;
}

static Status read_texts(YamlTable *table, const yaml_node_t *node, const char *key, YamlTexts *out)
{
    if (node->type != YAML_SEQUENCE_NODE) return wrong(table, node, key, "a list [a, b]");
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        char *text = NULL;
        TRY(read_text(table, yaml_document_get_node(&table->document, *item), key, &text));
        yaml_texts_add(out, text);
    }
    return STATUS_OK;
}

static Status read_text_or_list(YamlTable *table, const yaml_node_t *node, const char *key, YamlTexts *out)
{
    if (node->type != YAML_SCALAR_NODE) {
        TRY(read_texts(table, node, key, out));
        return out->count > 0 ? STATUS_OK : wrong(table, node, key, "a value, or a list of at least one");
    }
    char *text = NULL;
    TRY(read_text(table, node, key, &text));
    yaml_texts_add(out, text);
    return STATUS_OK;
}

static const char *scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "";
}

static Status read_bool(YamlTable *table, const yaml_node_t *node, const char *key, bool *out)
{
    *out = strcmp(scalar(node), "true") == 0;
    return *out || strcmp(scalar(node), "false") == 0 ? STATUS_OK : wrong(table, node, key, "true or false");
}

static bool is_bounded(const YamlKey *key)
{
    return key->low < key->high;
}

static Status wrong_number(YamlTable *table, const yaml_node_t *node, const YamlKey *key, const char *what)
{
    char expected[96];
    snprintf(expected, sizeof expected, "%s from %g to %g", what, key->low, key->high);
    return wrong(table, node, key->name, is_bounded(key) ? expected : what);
}

static Status read_count(YamlTable *table, const yaml_node_t *node, const YamlKey *key, int64_t *out)
{
    const char *text = scalar(node);
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    bool whole = end != text && !*end && !errno && *out >= 0;
    if (!whole || (is_bounded(key) && !((double)*out >= key->low && (double)*out <= key->high)))
        return wrong_number(table, node, key,
                            is_bounded(key) ? "a whole number" : "a whole number, 0 or more");
    return STATUS_OK;
}

static Status read_number(YamlTable *table, const yaml_node_t *node, const YamlKey *key, double *out)
{
    const char *text = scalar(node);
    char *end;
    *out = strtod(text, &end);
    bool number = end != text && !*end && isfinite(*out);
    if (!number || (is_bounded(key) && !(*out >= key->low && *out <= key->high)))
        return wrong_number(table, node, key, "a number");
    return STATUS_OK;
}

/* --- a configuration --- */

/* "[a, b]" of plain values. */
static Status list_text(YamlTable *table, const yaml_node_t *node, const char *key, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *value = yaml_document_get_node(&table->document, *item);
        if (value->type != YAML_SCALAR_NODE) return wrong(table, value, key, "a list of plain values");
        const char *separator = item > node->data.sequence.items.start ? ", " : "";
        used += (size_t)snprintf(text + used, size - used, "%s%s", separator, scalar(value));
        if (used + 2 > size) return wrong(table, value, key, "a shorter list");
    }
    snprintf(text + used, size - used, "]");
    return STATUS_OK;
}

/* A mapping as key=value, `prefix` before each key; the keys are checked by who runs them. */
static Status read_settings(YamlTable *table, const yaml_node_t *node, const char *prefix, YamlTexts *out)
{
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&table->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&table->document, pair->value);
        if (name->type != YAML_SCALAR_NODE) return wrong(table, name, "configuration", "names of keys");
        char key[256], text[1024];
        int length = snprintf(key, sizeof key, "%s%s", prefix, scalar(name));
        if (length >= (int)sizeof key - 1)
            return wrong(table, name, "configuration", "shorter names of keys");
        if (value->type == YAML_MAPPING_NODE) {
            snprintf(key + length, sizeof key - (size_t)length, ".");
            TRY(read_settings(table, value, key, out));
            continue;
        }
        if (value->type == YAML_SEQUENCE_NODE)
            TRY(list_text(table, value, key, text, sizeof text));
        else if (snprintf(text, sizeof text, "%s", scalar(value)) >= (int)sizeof text)
            return wrong(table, value, key, "a shorter value");
        size_t size = strlen(key) + strlen(text) + 2;
        char *setting = memory_alloc(size);
        snprintf(setting, size, "%s=%s", key, text);
        yaml_texts_add(out, setting);
    }
    return STATUS_OK;
}

static Status read_configuration(YamlTable *table, const yaml_node_t *node, const char *key,
                                 YamlConfiguration *out)
{
    out->given = true;
    if (node->type == YAML_MAPPING_NODE) return read_settings(table, node, "", &out->keys);
    if (node->type != YAML_SEQUENCE_NODE)
        return wrong(table, node, key, "a list of configuration files, or keys and values");
    TRY(read_texts(table, node, key, &out->files));
    for (int i = 0; i < out->files.count; i++)
        out->files.texts[i] = yaml_table_path(table->folder, out->files.texts[i], 0);
    return STATUS_OK;
}

/* --- mappings --- */

static Status read_mapping(YamlTable *table, const yaml_node_t *node, const YamlKey *keys, void *out);

static Status checked(YamlTable *table, const yaml_node_t *node, const YamlKey *key, void *value)
{
    table->line = node->start_mark.line + 1;
    return key->check ? key->check(table, value, table->error) : STATUS_OK;
}

static Status read_items(YamlTable *table, const yaml_node_t *node, const YamlKey *key, char **out,
                         int *count)
{
    if (node->type != YAML_SEQUENCE_NODE) return wrong(table, node, key->name, "a list of {key: value, ...}");
    const yaml_node_item_t *items = node->data.sequence.items.start;
    int total = (int)(node->data.sequence.items.top - items);
    *out = memory_alloc_array((size_t)total + 1, key->size);
    for (int i = 0; i < total; i++) {
        const yaml_node_t *item = yaml_document_get_node(&table->document, items[i]);
        char *place = *out + (size_t)(*count)++ * key->size;
        TRY(read_mapping(table, item, key->keys, place));
        TRY(checked(table, item, key, place));
    }
    return STATUS_OK;
}

static Status read_member(YamlTable *table, const yaml_node_t *node, const YamlKey *key, char *out)
{
    void *member = out + key->offset;
    Status status = STATUS_OK;
    switch (key->type) {
    case YAML_TEXT:
        status = read_text(table, node, key->name, member);
        break;
    case YAML_SHORT_TEXT:
        status = read_short_text(table, node, key, member);
        break;
    case YAML_BOOL:
        status = read_bool(table, node, key->name, member);
        break;
    case YAML_COUNT:
        status = read_count(table, node, key, member);
        break;
    case YAML_NUMBER:
        status = read_number(table, node, key, member);
        break;
    case YAML_TEXTS:
        status = read_texts(table, node, key->name, member);
        break;
    case YAML_TEXT_OR_LIST:
        status = read_text_or_list(table, node, key->name, member);
        break;
    case YAML_CONFIGURATION:
        status = read_configuration(table, node, key->name, member);
        break;
    case YAML_MAPPING:
        status = read_mapping(table, node, key->keys, member);
        break;
    case YAML_ITEMS:
        return read_items(table, node, key, member, (int *)(void *)(out + key->counter));
    }
    return status == STATUS_OK ? checked(table, node, key, member) : status;
}

static Status unknown_key(YamlTable *table, const yaml_node_t *node, const char *name, const YamlKey *keys)
{
    const char *names[KEYS_MAX];
    int count = 0;
    for (; keys[count].name && count < KEYS_MAX; count++)
        names[count] = keys[count].name;
    const char *near = options_nearest(name, names, count);
    return status_fail(table->error, STATUS_INPUT, "%s:%zu: unknown key %.60s%s%s", table->path,
                       node->start_mark.line + 1, name, near ? "; did you mean " : "", near ? near : "");
}

static Status read_mapping(YamlTable *table, const yaml_node_t *node, const YamlKey *keys, void *out)
{
    if (!node || node->type != YAML_MAPPING_NODE)
        return status_fail(table->error, STATUS_INPUT, "%s:%zu: expected keys and values", table->path,
                           node ? node->start_mark.line + 1 : 1);
    bool given[KEYS_MAX] = {false};
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    int64_t count = node->data.mapping.pairs.top - pairs;
    for (int64_t i = 0; i < count; i++) {
        const yaml_node_t *name = yaml_document_get_node(&table->document, pairs[i].key);
        const yaml_node_t *value = yaml_document_get_node(&table->document, pairs[i].value);
        int k = 0;
        while (keys[k].name && strcmp(keys[k].name, scalar(name)) != 0)
            k++;
        if (!keys[k].name) return unknown_key(table, name, scalar(name), keys);
        if (given[k])
            return status_fail(table->error, STATUS_INPUT, "%s:%zu: %s is given twice", table->path,
                               name->start_mark.line + 1, scalar(name));
        given[k] = true;
        TRY(read_member(table, value, &keys[k], out));
    }
    for (int k = 0; keys[k].name; k++)
        if (keys[k].required && !given[k])
            return status_fail(table->error, STATUS_INPUT, "%s:%zu: %s is not given", table->path,
                               node->start_mark.line + 1, keys[k].name);
    return STATUS_OK;
}

static Status take_folder(YamlTable *table)
{
    const char *slash = strrchr(table->path, '/');
    size_t length = slash ? (size_t)(slash - table->path) + 1 : 0;
    if (length >= sizeof table->folder)
        return status_fail(table->error, STATUS_INPUT, "%.100s...: the path is too long", table->path);
    memcpy(table->folder, table->path, length);
    return STATUS_OK;
}

Status yaml_table_load(const char *path, const YamlKey *keys, void *out, void *context, Error *error)
{
    YamlTable table = {.path = path, .context = context, .error = error};
    TRY(take_folder(&table));
    FILE *file = fopen(path, "re");
    if (!file) return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
    yaml_parser_t parser;
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, file);
    Status status = STATUS_OK;
    if (!yaml_parser_load(&parser, &table.document)) {
        status = status_fail(error, STATUS_INPUT, "%s:%zu: not YAML: %s", path, parser.problem_mark.line + 1,
                             parser.problem ? parser.problem : "no reason given");
    } else {
        status = read_mapping(&table, yaml_document_get_root_node(&table.document), keys, out);
        yaml_document_delete(&table.document);
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}

/* --- end --- */

void yaml_texts_fini(YamlTexts *texts)
{
    for (int i = 0; i < texts->count; i++)
        memory_free(texts->texts[i]);
    memory_free(texts->texts);
    *texts = (YamlTexts){0};
}

void yaml_configuration_fini(YamlConfiguration *configuration)
{
    yaml_texts_fini(&configuration->files);
    yaml_texts_fini(&configuration->keys);
}
